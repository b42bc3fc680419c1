"""Train and measure heads without a face model.

    python benchmarks/model_free.py {runs,surfaces,family,expressions,heads,speed} ...

`runs` trains results/model_free/LOSS-HEAD-SEED as nbs/train.ipynb does, with fewer images of validation and test.
`surfaces` and `family` measure these runs. `family` needs ICT-FaceKit in the folder that MRL_DATA names.
`expressions` and `heads` train the heads alone, on the features of an encoder of the study, which stays as it is.
Each part writes one JSON file with its commit.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from mrl.data.configuration import DataConfig
from mrl.data.dataset import FaceImages, batches
from mrl.data.rendered import build_dataset, dataset_folder
from mrl.faces.carrier import shared_vertices
from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population
from mrl.geometry.camera import crop_to_pose, intrinsics
from mrl.geometry.rotation import geodesic_angle, normalize_quaternion
from mrl.geometry.topology import adjacency, area_vectors, edges
from mrl.io.files import HOME, ROOT, save_tensors, write_json
from mrl.losses import criterion_of
from mrl.training import preparation
from mrl.training.configuration import TrainConfig
from mrl.training.gauge import align_to_template
from mrl.training.heads import HEADS, texture_places
from mrl.training.loop import Objective, StepSampler, loss_vertices, make_optimiser, train, train_step
from mrl.training.metrics import image_metrics
from mrl.training.network import Prediction, Reconstructor
from mrl.training.preparation import dataset_of
from mrl.training.run import Run, commit

ENCODER = "study/long/mrl-disentangled-3-log-0"  # of `expressions` and `heads`
SHOWN = 4  # test faces whose meshes are kept


def means_of(values):
    "Return the means of a dict of tensors as floats."
    return {k: v.double().mean().item() for k, v in values.items()}


def crossings(x, triangles):
    "Return how many pairs of triangles without a common vertex cross: an edge of one passes through the other."
    corners = x[triangles]
    centre, radius = corners.mean(1), np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=-1).max(1)
    pairs = cKDTree(centre).query_pairs(2 * np.quantile(radius, 0.99), output_type="ndarray")
    pairs = pairs[np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1) < radius[pairs].sum(1)]
    apart = ~(triangles[pairs[:, 0]][:, :, None] == triangles[pairs[:, 1]][:, None]).any((1, 2))
    pairs = pairs[apart]
    crossed = np.zeros(len(pairs), bool)
    for a, b in (pairs.T, pairs.T[::-1]):
        for i in range(3):
            crossed |= pierces(corners[a][:, i], corners[a][:, (i + 1) % 3], corners[b])
    return int(crossed.sum())


def pierces(start, end, triangle):
    "Return (n,) whether segments pass through triangles (n, 3, 3); Moeller and Trumbore 1997."
    e1, e2, d = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0], end - start
    h = np.cross(d, e2)
    det = (e1 * h).sum(1)
    det = np.where(np.abs(det) < 1e-12, np.nan, det)
    s = start - triangle[:, 0]
    u = (s * h).sum(1) / det
    p = np.cross(s, e1)
    v, along = (d * p).sum(1) / det, (e2 * p).sum(1) / det
    return (u > 0) & (v > 0) & (u + v < 1) & (along > 0) & (along < 1)


class Regularity:
    "Differences of a predicted surface from the true one that distances of vertices do not show."

    def __init__(self, triangles):  # (T, 3) array
        n = triangles.max() + 1
        A = adjacency(triangles, n).tocoo()
        degree = np.bincount(A.row, minlength=n).clip(1)
        self.pairs = torch.from_numpy(edges(triangles))
        self.triangles = torch.from_numpy(triangles).long()
        self.row, self.column = (torch.from_numpy(v).long() for v in (A.row, A.col))
        self.degree = torch.from_numpy(degree)[:, None]

    def edges(self, x_hat, x):  # (B, N, 3) -> mm
        "Return the mean difference of the lengths of edges."
        length = lambda v: (v[:, self.pairs[:, 0]] - v[:, self.pairs[:, 1]]).norm(dim=-1)
        return (length(x_hat) - length(x)).abs().mean()

    def normals(self, x_hat, x):  # (B, N, 3) -> no unit
        "Return the mean distance of the normals of triangles."
        return (self._normal(x_hat) - self._normal(x)).square().sum(-1).add(1e-8).sqrt().mean()

    def _normal(self, x):
        a, b, c = x[:, self.triangles].unbind(2)
        return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)

    def laplacian(self, x_hat, x):  # (B, N, 3) -> mm
        "Return the mean distance of the error of a vertex to the mean error of its neighbours."
        error = x_hat - x
        around = torch.zeros_like(error).index_add(1, self.row, error[:, self.column]) / self.degree
        return (error - around).norm(dim=-1).mean()


def surface_errors(x_hat, x, triangles):
    "Return means over faces: angle of normals, folded triangles, crossings, also of the truth, edges and Laplacian."
    found = []
    for a, b in zip(x_hat.double().numpy(), x.double().numpy()):
        n, m = area_vectors(a, triangles), area_vectors(b, triangles)
        cosine = (n * m).sum(1) / (np.linalg.norm(n, axis=1) * np.linalg.norm(m, axis=1)).clip(1e-12)
        angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
        found.append((angle.mean(), (cosine < 0).sum(), crossings(a, triangles), crossings(b, triangles)))
    names = "normals", "folded_triangles", "crossings", "crossings_of_truth"
    regularity = Regularity(triangles)
    of_mesh = {k: getattr(regularity, k)(x_hat, x).item() for k in ("edges", "laplacian")}
    return dict(zip(names, np.mean(found, 0).tolist())) | of_mesh


def errors_of(out, truth, K, size, morphable, faces=20):
    "Return the mean errors of predictions; those of the surface over some of the faces."
    means = means_of(image_metrics(*out[:3], *truth, K, size))
    aligned = align_to_template(*out[:3], morphable.mean)[1]
    means["camera_rotation_aligned"] = torch.rad2deg(geodesic_angle(aligned, truth[1])).mean().item()
    outside = lambda x: (morphable.project(x) - x).norm(dim=-1).mean().item()
    means |= {"outside_of_the_model": outside(out.x_hat), "model_floor": outside(truth[0])}
    rows = torch.linspace(0, len(K) - 1, faces).long()
    return means | surface_errors(out.x_hat[rows], truth[0][rows], morphable.triangles.numpy())


@torch.no_grad()
def predictions(network, dataset, n):
    "Return the Prediction of the first n images of a split, and their truth and intrinsics."
    found, read = [], []
    for batch in batches(dataset, 128):
        found.append(network(batch["image"], batch["K"])[:4])
        read.append([batch[k] for k in ("x", "q", "t", "K")])
        if 128 * len(found) >= n:
            break
    out, truth = (list(map(torch.cat, zip(*v))) for v in (found, read))
    return Prediction(*(v[:n] for v in out)), [v[:n] for v in truth[:3]], truth[3][:n]


def trained_runs(out):
    "Return the runs `LOSS-HEAD-SEED` that are kept or that lie in HOME, by name."
    names = {p.parent.name for home in (HOME, ROOT) for p in (home / "results" / "model_free").glob("*/metrics.json")}
    return {name: Run.load(f"model_free/{name}") for name in sorted(names)}


def runs(args):
    "Train networks end to end as nbs/train.ipynb does; only the first images of validation and test are measured."
    open_splits = preparation.open_splits

    def open_some(config, folder):
        splits = open_splits(config, folder)
        for split in (splits["val"], splits["test"]):
            split.index, split.person = split.index[: args.images], split.person[: args.images]
        return splits

    preparation.open_splits = open_some
    for name in args.names:
        loss, geometry, seed = name.split("-")
        config = TrainConfig(
            run=f"model_free/{name}",
            loss=loss,
            geometry=geometry,
            seed=int(seed),
            n_images=args.n_images,
            steps=args.steps,
            eval_every=min(args.steps, 250),
        )
        train(config, progress=False)


def surfaces(args):
    "Measure the surfaces of runs on test images, and keep the meshes of a few."
    found, meshes = {}, {}
    for name, run in trained_runs(args.out).items():
        test = FaceImages(dataset_of(run.config), "test")
        out, truth, K = predictions(run.network, test, args.images)
        found[name] = {"images": len(K), **errors_of(out, truth, K, test.config.size, run.morphable)}
        if not meshes:  # test faces from a small error of the first run to a large one, shown for every run
            order = (out.x_hat - truth[0]).norm(dim=-1).mean(-1)[:100].argsort()
            rows = order[torch.linspace(10, 90, SHOWN).long()]
        meshes |= {"truth": truth[0][rows], "triangles": run.morphable.triangles, name: out.x_hat[rows]}
    save_tensors(args.out / "meshes.safetensors", {k: v.contiguous() for k, v in meshes.items()}, "mrl.meshes", {})
    return found


def family(args):
    "Measure runs trained on the repository's faces with pictures of ICT-FaceKit's."
    data_config = DataConfig(n_images=args.images, size=64, face_model="ict")
    test = FaceImages(build_dataset(dataset_folder(data_config, HOME / "datasets"), data_config), "all")
    people = load_population()
    rows, weights = shared_vertices(people, morphable_model_of(test.population, np.arange(100), 2))
    rows, weights = torch.from_numpy(rows), torch.from_numpy(weights.toarray()).float()
    found = {"vertices": len(rows), "runs": {}}
    for name, run in trained_runs(args.out).items():
        out, (x, q, t), K = predictions(run.network, test, args.images)
        x = weights @ x
        basis, mean = run.morphable.basis[:, rows].flatten(1), run.morphable.mean[rows]
        alpha = torch.linalg.lstsq(basis.T.double(), (x - mean).flatten(1).T.double()).solution
        nearest = (alpha.T.float() @ basis).unflatten(-1, mean.shape) + mean
        cut = out._replace(x_hat=out.x_hat[:, rows])
        found["runs"][name] = means_of(image_metrics(*cut[:3], x, q, t, K, 64))
        found["model_floor"] = means_of(image_metrics(nearest, q, t, x, q, t, K, 64))
        found["mean_face"] = means_of(image_metrics(mean.expand_as(x), q, t, x, q, t, K, 64))
    return found | {"images": len(K)}


@torch.no_grad()
def features_of(network, dataset, n):
    "Return features, intrinsics and truth of the first n images of a split: dict of tensors."
    out = []
    for batch in batches(dataset, 128):
        images = (batch["image"].float() / 255 - network.pixel_mean) / network.pixel_sd
        out.append({"features": network.encoder(images), **{k: batch[k] for k in ("K", "x", "q", "t")}})
        if 128 * len(out) >= n:
            break
    return {k: torch.cat([o[k] for o in out])[:n] for k in out[0]}


def predict(network, features, K):
    "Return the Prediction of a network from the features of its encoder; as `Reconstructor.forward`."
    inputs, q, t_crop = network.heads(features).split([network.geometry.n_inputs, 4, 3], -1)
    offset, alpha_id = network.geometry(inputs, features, network.basis)
    q_crop = normalize_quaternion(q + network.frontal)
    q_hat, t_hat = crop_to_pose(q_crop, network.t_crop_mean + network.t_crop_sd * t_crop, K, network.size)
    return Prediction(network.mean + offset.unflatten(-1, network.mean.shape), q_hat, t_hat, alpha_id)


def train_heads(config, run, places, data, more=()):
    "Return a network whose heads are trained on features; `more` are parts whose logarithms the loss adds."
    torch.manual_seed(config.seed)
    about = run.network.t_crop_mean, run.network.t_crop_sd, config.image_size, config.width
    network = Reconstructor(run.morphable, *about, geometry=config.geometry, places=places)
    network.encoder.load_state_dict(run.network.encoder.state_dict())
    network.encoder.requires_grad_(False)
    generator = torch.Generator()
    criterion = criterion_of(vars(config), generator)
    optimiser, schedule = make_optimiser(network, criterion, config)
    seen = loss_vertices(run.morphable.mean, config.vertices)
    for step, rows in enumerate(StepSampler(len(data["K"]), config.batch_size, config.steps, config.seed), 1):
        b = {k: v[rows] for k, v in data.items()}
        generator.manual_seed(config.seed * 1_000_003 + step)
        out = predict(network, b["features"], b["K"])
        truth = b["x"][:, seen], b["q"], b["t"]
        loss = criterion(out.x_hat[:, seen], *out[1:3], *truth, out.alpha_id_hat, K=b["K"])
        loss = loss + sum(part(out.x_hat, b["x"]).log() for part in more)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def heads_of(args, data_config, cases):
    "Train and measure heads on the features of one encoder. A case is (loss, geometry, parts more in the loss)."
    run = Run.load(ENCODER)
    folder = build_dataset(dataset_folder(data_config, HOME / "datasets"), data_config)
    splits = {k: FaceImages(folder, k) for k in ("train", "test")}
    places = texture_places(splits["train"].population)
    count = {"train": 4 * args.images, "test": args.images}
    data = {k: features_of(run.network, v, count[k]) for k, v in splits.items()}
    regularity, found = Regularity(run.morphable.triangles.numpy()), {}
    for loss, geometry, parts in cases:
        keys = {"n_images": data_config.n_images, "batch_size": 32}
        config = TrainConfig(loss=loss, geometry=geometry, steps=args.steps, **keys)
        network = train_heads(config, run, places, data["train"], [getattr(regularity, k) for k in parts])
        with torch.no_grad():
            out = predict(network, data["test"]["features"], data["test"]["K"])
        truth, K = [data["test"][k] for k in ("x", "q", "t")], data["test"]["K"]
        name = "+".join([loss, geometry, *parts])
        found[name] = errors_of(out, truth, K, config.image_size, run.morphable)
        print(name, found[name], flush=True)
    about = {"encoder": ENCODER, "steps": args.steps, "batch_size": config.batch_size, "seed": config.seed}
    return about | {"images": {k: len(v["K"]) for k, v in data.items()}, "data": folder.name, "errors": found}


def expressions(args):
    "Train the heads on faces with expression; the face model has none."
    return heads_of(
        args, DataConfig(n_images=args.n_images, size=64, setting="photo"), [("log_mrl", k, ()) for k in HEADS]
    )


def heads(args):
    "Train heads with MRL, which leaves the gauge free, with log-MRL, and with three more parts in the logarithm."
    cases = [("mrl", k, ()) for k in HEADS]
    cases += [("log_mrl", "uv", parts) for parts in ((), ("edges", "normals", "laplacian"))]
    return heads_of(args, DataConfig(n_images=args.n_images, size=64), cases)


def more_vertices(morphable, places, n):
    "Return a face model and places with n vertices: those given, repeated in order."
    rows = torch.arange(n) % len(morphable.mean)
    none = morphable.triangles[:0]
    return replace(
        morphable, mean=morphable.mean[rows], basis=morphable.basis[:, rows], triangles=none, landmarks={}
    ), places[rows]


def seconds(functions, rounds):
    "Return the median times on the CPU of functions that are called in turn; the first round does not count."
    times = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, f in functions.items():
            began = time.process_time()
            f()
            times[name].append(time.process_time() - began)
    return {name: float(np.median(v[1:])) for name, v in times.items()}


def work_of(run, places, geometry, side, bf16):
    "Return two functions: a training step with 64 images, and the prediction of 10,000 vertices from one image."
    config = TrainConfig(geometry=geometry, loss="log_mrl", map_size=side)
    about = run.network.t_crop_mean, run.network.t_crop_sd, 64, config.width
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8, generator=g)
    K = intrinsics(torch.full((64,), 300.0), 64)
    make = lambda m, p: Reconstructor(m, *about, bf16=bf16, geometry=geometry, places=p, map_size=side)
    network, large = make(run.morphable, places), make(*more_vertices(run.morphable, places, 10_000)).eval()
    with torch.no_grad():
        out = network.eval()(images, K)
    batch = {"image": images, "K": K, "x": out.x_hat + run.morphable.basis.sum(0), "q": out.q_hat, "t": out.t_hat + 9}
    objective = Objective(network.train(), criterion_of(vars(config), g), loss_vertices(run.morphable.mean, 2500))
    optimiser, _ = make_optimiser(network, objective.criterion, config)
    predict = torch.no_grad()(lambda: large(images[:1], K[:1]))
    return lambda: train_step(objective, optimiser, batch, 0.0), predict


def speed(args):
    "Time every head at both precisions, on one thread: seconds on the CPU."
    torch.set_num_threads(1)
    run, places, found = Run.load(ENCODER), texture_places(load_population()), {}
    cases = {"model": ("model", 64), "vertices": ("vertices", 64), "uv-64": ("uv", 64), "uv-128": ("uv", 128)}
    for precision in ("fp32", "bf16"):
        work = {name: work_of(run, places, *case, precision == "bf16") for name, case in cases.items()}
        step = seconds({name: v[0] for name, v in work.items()}, args.repeats)
        prediction = seconds({name: v[1] for name, v in work.items()}, 4 * args.repeats)
        found[precision] = {"step_s": step, "prediction_of_10000_vertices_s": prediction}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {f.__name__: f for f in (runs, surfaces, family, expressions, heads, speed)}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--names", nargs="+", default=[f"log_mrl-{k}-0" for k in HEADS], help="of runs")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--n-images", type=int, default=4000, help="of the data set")
    parser.add_argument("--images", type=int, default=1000, help="of test, at most; four times as many of training")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "model_free")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = parts[args.part](args)
    if found:
        write_json(args.out / f"{args.part}.json", {"commit": commit(), **found})


if __name__ == "__main__":
    main()
