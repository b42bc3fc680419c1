"""Train small networks with the same losses on a rigid cup, an articulated hand and a camera in a room.

    python benchmarks/beyond_faces.py [--steps 800] [--seeds 0 1 2] [--things cup hand room]

The images are rendered from primitives when they are first needed, and kept in datasets/. Each run is written to
results/beyond_faces/ at once, with configuration, seed, hash of the data and commit. Finished runs stay. Several
processes share the runs.
"""

import argparse
import fcntl
import hashlib
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import nn

from mrl.geometry.camera import (
    crop_to_pose,
    intrinsics,
    invert_pose,
    look_at,
    pose_matrix,
    pose_to_crop,
    transform_points,
)
from mrl.geometry.rotation import (
    axis_angle_to_quaternion,
    normalize_quaternion,
    quaternion_multiply,
    quaternion_to_matrix,
)
from mrl.io.files import HOME, ROOT, load_tensors, read_json, save_tensors, write_json
from mrl.losses import criterion_of
from mrl.render.background import background
from mrl.render.scene import Scene, pixel_centres, pixel_rays
from mrl.training.configuration import TrainConfig
from mrl.training.loop import StepSampler, loss_vertices, make_optimiser
from mrl.training.metrics import image_metrics, summarize
from mrl.training.network import VGG16, register_buffers, zero_linear
from mrl.training.run import commit

KIND = "mrl.beyond_faces"  # of the files in datasets/
SIZE, WIDTH = 64, 0.125  # side of the images, px; share of VGG16's channels
SPLITS = {"train": 5000, "val": 300, "test": 700}  # images
BATCH = 32
LOSSES = ("mrl", "log_mrl", "log_terms", "geometric_alignment", "multi_term", "homography", "multi_term_tuned")
ALPHAS = {"cup": (10.0, 100.0, 1000.0), "hand": (10.0, 100.0, 1000.0), "room": (0.3, 3.0, 30.0)}  # weights tried
SHORT = 200  # steps of the runs that select one of them
SHOWN_IMAGES = 4  # test images whose predictions are kept


# the hand: palm and five fingers (thumb first); y points to the fingertips, z out of the palm, mm
KNUCKLES = torch.tensor([[-34.0, -16, 6], [-27, 42, 0], [-9, 46, 0], [9, 43, 0], [27, 36, 0]])
LENGTHS = torch.tensor([[34.0, 27, 22], [42, 26, 20], [46, 30, 21], [42, 28, 20], [34, 20, 18]])
RADII = torch.tensor([[12.0, 10.5, 9.5], [9.5, 8.5, 7.5], [9.5, 8.5, 7.5], [9, 8, 7], [8, 7, 6.5]])
FAN = torch.tensor([0.9, 0.1, 0.0, -0.1, -0.2])  # directions of the fingers, radians
SPREAD = torch.tensor([0.6, 1.0, 0.2, -0.5, -1.0])  # share of the spread
BEND = (1.0, 1.9, 2.5)  # the curl of a finger at its three joints
THETA_HIGH = torch.tensor([0.7, 0.9, 0.9, 0.9, 0.9, 0.35])  # largest curls and spread, radians; the smallest are 0
SHAPE_SD = 0.12  # of the logarithms of length, width and thickness


@cache
def hand_template():
    "Return unit spheres of a bone (M, 3), which of their points are at its far end (M,), the palm (P, 3), triangles."
    bone, palm = trimesh.creation.capsule(1.0, 1.0, count=[8, 8]), trimesh.creation.icosphere(2)
    centred = bone.vertices - bone.bounds.mean(0)
    far = centred[:, 2] > 0
    sphere = (centred - np.outer(far - 0.5, [0, 0, 1]))[:, [0, 2, 1]] * [1, 1, -1]
    rounded = np.sign(palm.vertices) * np.abs(palm.vertices) ** 0.6 * [40, 48, 13]
    starts = len(rounded) + len(sphere) * np.arange(15)
    triangles = np.concatenate([palm.faces, *(bone.faces + s for s in starts)])
    tensors = [torch.tensor(v, dtype=torch.float32) for v in (sphere, far, rounded)]
    return *tensors, triangles


def finger_rotation(turn, curl):
    "Return the rotations (B, 5, 3, 3) of fingers that are turned about z and then curled out of the palm, (B, 5)."
    c, s, k, m = turn.cos(), turn.sin(), curl.cos(), curl.sin()
    entries = [c, -s * k, s * m, s, c * k, -c * m, torch.zeros_like(c), m, k]
    return torch.stack(torch.broadcast_tensors(*entries), -1).unflatten(-1, (3, 3))


def hand_vertices(
    theta,  # (B, 6) curls of the five fingers, and their spread; radians
    s,  # (B, 3) logarithms of factors on the length of fingers, the width of the palm and the thickness
):  # (B, V, 3) mm
    "Return the vertices of hands, by forward kinematics."
    sphere, far, palm, _ = hand_template()
    length, width, thick = s.exp().unsqueeze(-1).unbind(1)
    across = torch.stack([width, torch.ones_like(width), thick], -1)
    joint, points = KNUCKLES * across, [palm * across]
    turn = FAN + theta[:, 5:] * SPREAD
    for j, bend in enumerate(BEND):
        R = finger_rotation(turn, theta[:, :5] * bend)
        bone = LENGTHS[:, j] * length
        along = nn.functional.pad((bone[..., None] * far).unsqueeze(-1), (1, 1))
        local = (RADII[:, j] * thick)[..., None, None] * sphere + along
        points.append((joint.unsqueeze(2) + local @ R.mT).flatten(1, 2))
        joint = joint + R[..., 1] * bone.unsqueeze(-1)
    return torch.cat(points, 1)


@dataclass(frozen=True)
class Mesh:
    "Vertices (V, 3), triangles (F, 3) and the colours (F, 3) of triangles, linear light."

    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray


def joined(parts):
    "Return meshes [(trimesh, colour (3,) or (F, 3))] as one."
    mesh = trimesh.util.concatenate([m for m, _ in parts])
    colours = [np.broadcast_to(colour, (len(m.faces), 3)) for m, colour in parts]
    return Mesh(mesh.vertices, mesh.faces, np.concatenate(colours))


@cache
def cup():
    "Return a cup with two handles and a mark on one side, mm; without the mark, a half turn about y changes nothing."
    profile = [(0, -45), (30, -45), (33, -15), (36, 15), (38, 45), (34, 45), (27, -40), (0, -40)]
    body = trimesh.creation.revolve(profile, sections=36)
    body.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    x, y, z = body.triangles_center.T
    mark = (np.abs(y) < 16) & (np.hypot(x, z) > 31) & (np.abs(np.arctan2(x, z)) < 0.5)
    colours = np.where(mark[:, None], (0.7, 0.08, 0.06), (0.55, 0.6, 0.65))
    handles = [trimesh.creation.torus(20, 5, major_sections=20, minor_sections=8) for _ in range(2)]
    for handle, side in zip(handles, (-1, 1)):
        handle.apply_translation([36 * side, 2, 0])
    return joined([(body, colours), *((h, (0.1, 0.2, 0.5)) for h in handles)])


def half_turn(x):
    "Return points (..., 3) after a half turn about y."
    return x * torch.tensor([-1.0, 1.0, -1.0])


@cache
def cup_points(n=200):
    "Return points (n, 3) of the cup; a half turn permutes them."
    mesh = cup()
    sampled = trimesh.sample.sample_surface(trimesh.Trimesh(mesh.vertices, mesh.triangles), n // 2, seed=0)[0]
    half = torch.tensor(np.asarray(sampled), dtype=torch.float32)
    return torch.cat([half, half_turn(half)])


@cache
def room():
    "Return a room with furniture, metres; y points up, the origin is on the floor."
    rng = np.random.default_rng(1)
    walls = trimesh.creation.box([6, 2.8, 7])
    walls.apply_translation([0, 1.4, 1])
    shades = np.repeat(rng.uniform(0.25, 0.7, (6, 3)), 2, 0)
    parts = [(walls, shades)]
    for _ in range(14):  # furniture on the floor
        size = rng.uniform([0.25, 0.2, 0.25], [0.9, 1.3, 0.8])
        box = trimesh.creation.box(size)
        box.apply_translation([rng.uniform(-2.2, 2.2), size[1] / 2, rng.uniform(-2.0, 0.6)])
        parts.append((box, rng.uniform(0.05, 0.8, 3)))
    for _ in range(10):  # pictures on the wall
        picture = trimesh.creation.box([*rng.uniform(0.3, 0.8, 2), 0.04])
        picture.apply_translation([rng.uniform(-2.5, 2.5), rng.uniform(1.2, 2.3), -2.48])
        parts.append((picture, rng.uniform(0.05, 0.8, 3)))
    return joined(parts)


def uniform(generator, n, low, high):
    "Return random numbers (n, k) between low (k,) and high (k,)."
    low, high = torch.as_tensor(low) * 1.0, torch.as_tensor(high) * 1.0
    return low + (high - low) * torch.rand(n, len(low), generator=generator)


def turns(angles):
    "Return the rotation (B, 4) by angles (B, 3) about x, y and z, degrees: first yaw (y), then pitch (x), then roll."
    pitch, yaw, roll = (axis_angle_to_quaternion(torch.deg2rad(v)) for v in torch.diag_embed(angles).unbind(1))
    return quaternion_multiply(roll, quaternion_multiply(pitch, yaw))


def crop_poses(generator, n, low, high, diameter):
    "Return q, t, K of crops around an object of a diameter, its angles (degrees) between low and high."
    q_crop = quaternion_multiply(torch.tensor([0.0, 1.0, 0.0, 0.0]), turns(uniform(generator, n, low, high)))
    depth = uniform(generator, n, [400.0], [800.0])[:, 0]
    fill, away = uniform(generator, n, [0.65], [0.85])[:, 0], uniform(generator, n, [-0.25] * 2, [0.25] * 2)
    uv = SIZE / 2 + uniform(generator, n, [-4.0] * 2, [4.0] * 2)
    focal = fill * SIZE * depth / diameter
    K = intrinsics(focal, SIZE)
    K[:, :2, 2] = uv - focal[:, None] * away
    t_crop = torch.cat([uv / SIZE, (depth * SIZE / focal).log()[:, None]], 1)
    return *crop_to_pose(q_crop, t_crop, K, SIZE), K


def room_poses(generator, n):
    "Return q, t, K of cameras in the room that look at the furniture."
    t = uniform(generator, n, [-1.2, 1.0, 2.2], [1.2, 1.8, 3.8])
    target = uniform(generator, n, [-0.8, 0.4, -1.0], [0.8, 1.1, 0.0])
    roll = turns(uniform(generator, n, [0.0, 0.0, -8.0], [0.0, 0.0, 8.0]))
    return quaternion_multiply(look_at(t, target), roll), t, intrinsics(torch.full((n,), 52.0), SIZE)


@dataclass(frozen=True)
class Thing:
    "What a network finds in an image."

    n_parameters: int  # numbers of its geometry that are predicted
    translation: str  # frame in which losses of terms compare translations
    metres: bool = False
    in_crop: bool = True  # the network predicts the pose in the frame of the crop


THINGS = {"cup": Thing(0, "camera"), "hand": Thing(9, "camera"), "room": Thing(0, "world", True, False)}


@cache
def hand_rows():
    "Return the vertices of the hand that losses see, spread evenly."
    return loss_vertices(hand_vertices(torch.zeros(1, 6), torch.zeros(1, 3))[0], 200)


def hand_points(parameters):
    "Return the points (B, 200, 3) of hands with parameters (B, 9): theta and s."
    return hand_vertices(parameters[:, :6], parameters[:, 6:])[:, hand_rows()]


def labels_of(name, n, seed):
    "Return q, t, K and parameters (n, P) of the images of a thing."
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.zeros(n, 0)
    if name == "room":
        return *room_poses(generator, n), parameters
    if name == "cup":
        return *crop_poses(generator, n, [5.0, -60.0, -20.0], [50.0, 60.0, 20.0], 150.0), parameters
    theta = uniform(generator, n, torch.zeros(6), THETA_HIGH)
    s = SHAPE_SD * torch.randn(n, 3, generator=generator)
    poses = crop_poses(generator, n, [-40.0, -40.0, -40.0], [40.0, 40.0, 40.0], 230.0)
    return *poses, torch.cat([theta, s], 1)


def mesh_of(name, parameters, rng):
    "Return the mesh of an image."
    if name != "hand":
        return {"cup": cup, "room": room}[name]()
    tone = np.array([0.5, 0.3, 0.22]) * rng.uniform(0.5, 1.4)
    vertices = hand_vertices(parameters[None, :6], parameters[None, 6:])[0].numpy()
    triangles = hand_template()[-1]
    return Mesh(vertices, triangles, np.broadcast_to(tone, (len(triangles), 3)))


def shade(mesh, hit, rays, rng, backdrop):
    "Return the picture (size, size, 3) uint8 of the triangles that rays hit: Lambert's law, one lamp, noise."
    a, b, c = (mesh.vertices[mesh.triangles[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)[hit]
    facing = -np.sign((normal * rays).sum(1))[:, None] * normal / np.linalg.norm(normal, axis=1, keepdims=True)
    lamp = -rays[len(rays) // 2] / np.linalg.norm(rays[len(rays) // 2]) + 0.8 * rng.normal(size=3)
    lambert = (facing @ (lamp / np.linalg.norm(lamp))).clip(0)
    lit = mesh.colours[hit] * (0.25 + rng.uniform(0.5, 1.0) * lambert)[:, None]
    size = len(backdrop)
    light = np.where((hit >= 0)[:, None], lit, backdrop.reshape(-1, 3)).reshape(size, size, 3)
    noisy = light.clip(0, 1) ** (1 / 2.2) + rng.normal(0, 0.03, light.shape)
    return (255 * noisy.clip(0, 1)).astype(np.uint8)


def render(name, q, t, K, parameters, seed, size=SIZE):
    "Return the picture (size, size, 3) uint8 of a thing, and the points (100, 3) that a grid of its pixels sees."
    rng = np.random.default_rng(seed)
    mesh = mesh_of(name, parameters, rng)
    scene = Scene(mesh.vertices, mesh.triangles) if name == "hand" else fixed_scene(name)
    rays = pixel_rays(pixel_centres(size), K.numpy(), quaternion_to_matrix(q).numpy())
    hit, _, distance = scene.cast(t.numpy(), rays)
    image = shade(mesh, hit, rays, rng, background(int(rng.integers(2**31)), size))
    seen = (t.numpy() + distance[:, None] * rays).reshape(size, size, 3)
    grid = np.linspace(2, size - 3, 10).astype(int)
    return image, seen[grid][:, grid].reshape(-1, 3)


@cache
def fixed_scene(name):
    "Return the scene of a thing that does not change."
    mesh = {"cup": cup, "room": room}[name]()
    return Scene(mesh.vertices, mesh.triangles)


def make_data(name, n, seed=0):
    "Return n images of a thing with their truth: dict of tensors."
    q, t, K, parameters = labels_of(name, n, seed)
    pictures = [render(name, q[i], t[i], K[i], parameters[i], [seed, i]) for i in range(n)]
    image = torch.from_numpy(np.stack([p[0] for p in pictures])).permute(0, 3, 1, 2).contiguous()
    data = {"image": image, "q": q, "t": t, "K": K, "parameters": parameters}
    if name == "room":
        data["x"] = torch.from_numpy(np.stack([p[1] for p in pictures])).float()
    return data


def load_data(name, counts):
    "Return a thing's images in three splits, rendered if they are not in datasets/, and the hash of all of them."
    path = HOME / "datasets" / f"beyond-{name}-{'-'.join(map(str, counts))}.safetensors"
    with lock(path.with_suffix(".lock"), wait=True):
        if not path.exists():
            save_tensors(path, make_data(name, sum(counts)), KIND)
        data = load_tensors(path, KIND)[0]
    content = hashlib.sha256(b"".join(data[k].numpy().tobytes() for k in sorted(data))).hexdigest()
    parts = {k: v.split(list(counts)) for k, v in data.items()}
    return {split: {k: v[i] for k, v in parts.items()} for i, split in enumerate(SPLITS)}, content


@contextmanager
def lock(path, wait=False):
    "Hold a lock between processes; yield whether it was free. It ends with the process."
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield True
        except BlockingIOError:
            yield False


class Finder(nn.Module):
    "A network from images and intrinsics to points (None if they are known), rotation and position of the camera."

    def __init__(self, name, data):
        super().__init__()
        self.thing = THINGS[name]
        self.encoder = VGG16(SIZE, WIDTH)
        self.heads = zero_linear(self.encoder.n_features, self.thing.n_parameters + 7)
        q, t = self.in_frame(data["q"], data["t"], data["K"])
        q_mean = torch.linalg.eigh(q.T @ q).eigenvectors[:, -1]  # Markley et al. 2007
        register_buffers(self, q_mean=q_mean, t_mean=t.mean(0), t_sd=t.std(0))
        mean = data["parameters"].mean(0)
        register_buffers(self, mean=mean, sd=(data["parameters"] - mean).square().mean(0).sqrt())
        pixel_mean, pixel_sd = torch.tensor(self.encoder.pixels)[..., None, None]
        register_buffers(self, pixel_mean=pixel_mean.clone(), pixel_sd=pixel_sd.clone())

    def in_frame(self, q, t, K):
        "Return a pose as the network predicts it: in the crop, or in the world."
        return pose_to_crop(q, t, K, SIZE) if self.thing.in_crop else (q, t)

    def forward(self, images, K):
        "Return x_hat (B, N, 3) or None, q_hat (B, 4), t_hat (B, 3) and parameters (B, P)."
        return self.decode(self.outputs(images), K)

    def outputs(self, images):
        "Return the outputs (B, P + 7) of the linear layer; the encoder works in bfloat16."
        images = images.to(memory_format=torch.channels_last).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            features = self.encoder((images - self.pixel_mean) / self.pixel_sd)
        return self.heads(features.float())

    def decode(self, out, K):
        "Return what `forward` returns, of the outputs of the linear layer."
        parameters, q, t = out.split([self.thing.n_parameters, 4, 3], -1)
        q, t = normalize_quaternion(q + self.q_mean), self.t_mean + self.t_sd * t
        parameters = self.mean + self.sd * parameters
        x_hat = hand_points(parameters) if self.thing.n_parameters else None
        return x_hat, *(crop_to_pose(q, t, K, SIZE) if self.thing.in_crop else (q, t)), parameters


def true_points(name, data):
    "Return the true points (B, N, 3) of images."
    if name == "cup":
        return cup_points().expand(len(data["q"]), -1, -1)
    return hand_points(data["parameters"]) if name == "hand" else data["x"]


def closest_distance(y_hat, y):
    "Return the mean distance (B,) of points y (B, N, 3) from the closest of y_hat: ADD-S (Hinterstoisser et al. 2012)."
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}
    return torch.cat([torch.cdist(b, a, **exact).amin(-1).mean(-1) for a, b in zip(y_hat.split(64), y.split(64))])


def errors_of(name, prediction, data):
    "Return the errors (B,) of predictions: px of an image of 224 px, mm, degrees."
    x, (x_hat, q_hat, t_hat) = true_points(name, data), prediction[:3]
    x_hat = x if x_hat is None else x_hat
    scale = 1000.0 if THINGS[name].metres else 1.0
    found = image_metrics(x_hat, q_hat, t_hat, x, data["q"], data["t"], data["K"], SIZE)
    y_hat = transform_points(invert_pose(pose_matrix(q_hat, t_hat)), x_hat)
    y = transform_points(invert_pose(pose_matrix(data["q"], data["t"])), x)
    found |= {"add": (y_hat - y).norm(dim=-1).mean(-1)}
    if name == "cup":
        found |= {"add_s": closest_distance(y_hat, y)}
    pixels_and_degrees = "reprojection", "camera_rotation"
    return {k: v if k in pixels_and_degrees else scale * v for k, v in found.items()}


@torch.no_grad()
def predict(network, data):
    "Return the predictions of all images."
    network.eval()
    outputs = torch.cat([network.outputs(images) for images in data["image"].split(100)])
    return network.decode(outputs, data["K"])


def settings_of(name, loss, alpha=1.0):
    "Return the parameters of a loss for TrainConfig."
    translation = {"translation": THINGS[name].translation}
    if loss in ("multi_term", "multi_term_tuned"):
        return {"loss": "multi_term", "alpha": alpha, "beta": 1.0, **translation}
    return {"loss": loss} | (translation if loss == "log_terms" else {})


def train(name, config, data):
    "Return a network that is trained with a configuration."
    torch.manual_seed(config.seed)
    network = Finder(name, data).to(memory_format=torch.channels_last)
    generator = torch.Generator()
    criterion = criterion_of(vars(config), generator)
    optimiser, schedule = make_optimiser(network, criterion, config)
    rows = StepSampler(len(data["K"]), config.batch_size, config.steps, config.seed)
    for step, batch_rows in enumerate(rows, 1):
        batch = {k: v[batch_rows] for k, v in data.items()}
        generator.manual_seed(config.seed * 1_000_003 + step)
        prediction = network(batch["image"], batch["K"])[:3]
        loss = criterion(*prediction, true_points(name, batch), batch["q"], batch["t"], K=batch["K"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network


def measure(name, network, data):
    "Return means, standard deviations, medians and 90th percentiles of the errors over a split."
    return summarize(errors_of(name, predict(network, data), data))


def mean_pose(name, network, data):
    "Return the errors of the mean pose and the mean parameters of the training images."
    out = torch.zeros(len(data["K"]), network.heads.out_features)
    return summarize(errors_of(name, network.decode(out, data["K"]), data))


def examples(network, data, n=SHOWN_IMAGES):
    "Return the predictions of the first images: lists of q, t and parameters."
    some = {k: v[:n] for k, v in data.items()}
    return dict(zip(("q", "t", "parameters"), (v.tolist() for v in predict(network, some)[1:])))


def config_of(name, loss, seed, steps, images, alpha=1.0):
    "Return the configuration of a run."
    keys = dict(run=f"{name}-{loss}-{seed}", seed=seed, steps=steps, n_images=images, image_size=SIZE, width=WIDTH)
    return TrainConfig(**settings_of(name, loss, alpha), **keys, batch_size=BATCH, device="cpu", precision="bf16")


def about(data_hash, splits):
    "Return what a file says of its origin."
    images = {k: len(v["K"]) for k, v in splits.items()}
    return {"commit": commit(), "data": data_hash, "torch": torch.__version__, "images": images}


def tuned_alpha(name, splits, data_hash, out, short):
    "Return the weight of rotation whose short run has the smallest product of errors on the validation images."
    path = out / f"tuned-{name}.json"
    if not path.exists():
        tried = []
        for alpha in ALPHAS[name]:
            config = config_of(name, "multi_term", 0, short, sum(len(v["K"]) for v in splits.values()), alpha)
            network = train(name, config, splits["train"])
            found = {k: v["mean"] for k, v in measure(name, network, splits["val"]).items()}
            judged = ["reprojection", "camera_rotation", "translation" if THINGS[name].in_crop else "camera_position"]
            judged += ["shape"] if THINGS[name].n_parameters else []
            tried.append({"alpha": alpha, "product": float(np.prod([found[k] for k in judged])), "val": found})
        best = min(tried, key=lambda r: r["product"])["alpha"]
        write_json(path, {"alpha": best, "steps": short, "tried": tried, **about(data_hash, splits)})
    return read_json(path, ["alpha"])["alpha"]


def run(name, loss, seed, args):
    "Train and measure one network, and write its file."
    splits, data_hash = load_data(name, args.images)
    short = min(SHORT, args.steps)
    alpha = tuned_alpha(name, splits, data_hash, args.out, short) if loss == "multi_term_tuned" else 1.0
    config = config_of(name, loss, seed, args.steps, sum(len(v["K"]) for v in splits.values()), alpha)
    began = time.process_time()
    network = train(name, config, splits["train"])
    seconds = time.process_time() - began
    found = {split: measure(name, network, splits[split]) for split in ("val", "test")}
    found |= {"mean_pose": mean_pose(name, network, splits["test"]), "examples": examples(network, splits["test"])}
    record = {"thing": name, "loss": loss, "config": asdict(config), **about(data_hash, splits), "cpu_s": seconds}
    write_json(args.out / f"{name}-{loss}-{seed}.json", record | found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--things", nargs="+", default=list(THINGS), choices=THINGS)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "beyond_faces")
    parser.add_argument("--images", type=int, nargs=3, default=list(SPLITS.values()), metavar=("TRAIN", "VAL", "TEST"))
    args = parser.parse_args()
    jobs = [(name, loss, seed) for seed in args.seeds for loss in args.losses for name in args.things]
    for name, loss, seed in jobs:
        path = args.out / f"{name}-{loss}-{seed}.json"
        if (name, loss) == ("hand", "homography"):  # it has no gradient for shape
            continue
        with lock(HOME / "datasets" / f"beyond-{path.stem}.lock") as free:
            if free and not path.exists():
                run(name, loss, seed, args)
                print(path, flush=True)


if __name__ == "__main__":
    main()
