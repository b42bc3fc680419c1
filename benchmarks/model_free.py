"""Train the heads of mrl.training.heads on the features of one trained encoder, and measure their faces and cameras.

    python benchmarks/model_free.py [--steps 600] [--seeds 0 1]

The encoder of a run of the study stays as it is. So all heads see the same features, and a run takes minutes on a core.
Each run is written to results/model_free/ at once, with configuration, seed, data and commit. Finished runs stay.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from mrl.data.configuration import DataConfig
from mrl.data.dataset import FaceImages, batches
from mrl.data.rendered import build_dataset, dataset_folder
from mrl.geometry.camera import crop_to_pose
from mrl.geometry.rotation import geodesic_angle, normalize_quaternion
from mrl.geometry.topology import area_vectors
from mrl.io.files import HOME, ROOT, sha256, write_json
from mrl.losses import criterion_of
from mrl.training.configuration import TrainConfig
from mrl.training.gauge import align_to_template
from mrl.training.heads import HEADS, texture_places
from mrl.training.loop import StepSampler, loss_vertices, make_optimiser
from mrl.training.metrics import image_metrics
from mrl.training.network import Prediction, Reconstructor
from mrl.training.run import Run, commit

ENCODER = "study/long/mrl-disentangled-3-log-0"
LOSSES = ("log_mrl", "mrl")


@torch.no_grad()
def features_of(network, dataset):
    "Return features, intrinsics and truth of a split: dict of tensors."
    out = []
    for batch in batches(dataset, 128):
        images = (batch["image"].float() / 255 - network.pixel_mean) / network.pixel_sd
        out.append({"features": network.encoder(images), **{k: batch[k] for k in ("K", "x", "q", "t")}})
    return {k: torch.cat([o[k] for o in out]) for k in out[0]}


def predict(network, features, K):
    "Return the Prediction of a network from the features of its encoder; as `Reconstructor.forward`."
    inputs, q, t_crop = network.heads(features).split([network.geometry.n_inputs, 4, 3], -1)
    offset, alpha_id = network.geometry(inputs, features, network.basis)
    q_crop = normalize_quaternion(q + network.frontal)
    q_hat, t_hat = crop_to_pose(q_crop, network.t_crop_mean + network.t_crop_sd * t_crop, K, network.size)
    return Prediction(network.mean + offset.unflatten(-1, network.mean.shape), q_hat, t_hat, alpha_id)


def train_heads(config, run, places, data):
    "Return a network whose heads are trained on features, and the seconds per step."
    torch.manual_seed(config.seed)
    about = run.network.t_crop_mean, run.network.t_crop_sd, config.image_size, config.width
    network = Reconstructor(run.morphable, *about, geometry=config.geometry, places=places)
    network.encoder.load_state_dict(run.network.encoder.state_dict())
    network.encoder.requires_grad_(False)
    generator = torch.Generator()
    criterion = criterion_of(vars(config), generator)
    optimiser, schedule = make_optimiser(network, criterion, config)
    seen = loss_vertices(run.morphable.mean, config.vertices)
    began = time.process_time()
    for step, rows in enumerate(StepSampler(len(data["K"]), config.batch_size, config.steps, config.seed), 1):
        b = {k: v[rows] for k, v in data.items()}
        generator.manual_seed(config.seed * 1_000_003 + step)
        out = predict(network, b["features"], b["K"])
        truth = b["x"][:, seen], b["q"], b["t"]
        loss = criterion(out.x_hat[:, seen], *out[1:3], *truth, out.alpha_id_hat, K=b["K"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network, (time.process_time() - began) / config.steps


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


def surface_errors(x_hat, x, triangles):
    "Return means over faces: angle of normals (deg), folded triangles, and crossings, also of the truth."
    found = []
    for a, b in zip(x_hat.double().numpy(), x.double().numpy()):
        n, m = area_vectors(a, triangles), area_vectors(b, triangles)
        cosine = (n * m).sum(1) / (np.linalg.norm(n, axis=1) * np.linalg.norm(m, axis=1)).clip(1e-12)
        angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
        found.append((angle.mean(), (cosine < 0).sum(), crossings(a, triangles), crossings(b, triangles)))
    names = "normals", "folded_triangles", "crossings", "crossings_of_truth"
    return dict(zip(names, np.mean(found, 0).tolist()))


@torch.no_grad()
def measure(network, morphable, data, faces=40):
    "Return the mean errors of a network over a split; those of the surface over some of its faces."
    network.eval()
    out = predict(network, data["features"], data["K"])
    truth = data["x"], data["q"], data["t"]
    errors = image_metrics(*out[:3], *truth, data["K"], network.size)
    aligned = align_to_template(*out[:3], morphable.mean)[1]
    beyond = (morphable.project(out.x_hat) - out.x_hat).norm(dim=-1).mean(-1)
    floor = (morphable.project(data["x"]) - data["x"]).norm(dim=-1).mean(-1)
    means = {k: v.mean().item() for k, v in errors.items()}
    means["camera_rotation_aligned"] = torch.rad2deg(geodesic_angle(aligned, data["q"])).mean().item()
    means |= {"outside_of_the_model": beyond.mean().item(), "model_floor": floor.mean().item()}
    rows = torch.linspace(0, len(data["K"]) - 1, faces).long()
    return means | surface_errors(out.x_hat[rows], data["x"][rows], morphable.triangles.numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "model_free")
    args = parser.parse_args()
    run = Run.load(ENCODER)
    data_config = DataConfig(n_images=args.images, size=run.config.image_size)
    folder = build_dataset(dataset_folder(data_config, HOME / "datasets"), data_config)
    splits = {k: FaceImages(folder, k) for k in ("train", "test")}
    places = texture_places(splits["train"].population)
    data = {k: features_of(run.network, v) for k, v in splits.items()}
    for seed in args.seeds:
        for loss in LOSSES:
            for geometry in HEADS:
                path = args.out / f"{loss}-{geometry}-{seed}.json"
                if path.exists():
                    continue
                keys = dict(loss=loss, geometry=geometry, seed=seed, steps=args.steps, n_images=args.images)
                config = TrainConfig(**keys, vertices=500, batch_size=32, device="cpu", precision="fp32")
                network, seconds = train_heads(config, run, places, data["train"])
                about = {"commit": commit(), "encoder": ENCODER, "data_folder": folder.name}
                about |= {"data": sha256(folder / "meta.json"), "torch": torch.__version__}
                about |= {"images": {k: len(v["K"]) for k, v in data.items()}, "cpu_s_per_step": seconds}
                write_json(
                    path, {"config": asdict(config), **about, "test": measure(network, run.morphable, data["test"])}
                )
                print(path, flush=True)


if __name__ == "__main__":
    main()
