"""Measure how the faces that OpenCV's cascades find lie to the faces that training crops.

These are the measurements behind notebook nbs/08_photo/01_reconstruction.ipynb.

    python benchmarks/detector_crop.py --run results/mrl-0

renders photographs of validation identities with room around the face and writes to results/detector_crop/
    scenes.csv   one row per picture: who, pose, the true box of the projected face (centre and larger side, px)
    boxes.csv    one row per window of a cascade (px)
    looks.csv    what a trained network makes of the crops: errors of box and prediction, by crop
    config.json  configuration, commit, versions, the network's configuration
"""

import argparse
import platform
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch

import mrl
from mrl.data.cameras import sample_cameras
from mrl.data.configuration import CropConfig, DataConfig
from mrl.data.rendered import render_image
from mrl.faces.population import load_population, split_identities
from mrl.geometry.camera import intrinsics, pose_to_crop, project
from mrl.io.files import ROOT, read_json, write_json
from mrl.io.tables import write_csv
from mrl.photo.reconstruction import FACE_IN_WINDOW, box_of, crop_of_box, face_of_windows, face_windows, look, overlap
from mrl.training.metrics import image_metrics
from mrl.training.run import Run, commit

LOWEST, HIGHEST, ROOM = (
    0.3,
    0.5,
    8,
)  # share of the picture that the face's larger side takes; px between face and picture's edge


def scenes(config, n, population):
    "Labels and true boxes (centre, larger side) of n pictures; the optical axis goes through the middle."
    rng, val = np.random.default_rng(config.seed), split_identities(len(population))["val"]
    while n:
        identity = int(rng.choice(val))
        q, t = sample_cameras(rng, 1, config)
        x = torch.as_tensor(population.faces(np.array([identity]))).double()
        unit = project(x, torch.eye(3, dtype=torch.float64), q, t)[0]
        focal = rng.uniform(LOWEST, HIGHEST) * config.size / (unit.amax(0) - unit.amin(0)).max()
        K = intrinsics(focal, config.size)
        uv = project(x, K, q, t)[0]
        low, high = uv.amin(0), uv.amax(0)
        if low.min() > ROOM and high.max() < config.size - ROOM:
            n -= 1
            yield (
                {"identity": identity, "K": K, "q": q[0], "t": t[0]},
                x[0],
                np.array([*((low + high) / 2), (high - low).max()]),
            )


def turn(label, size):
    "Yaw, pitch, roll (degrees) against the line of sight, as in `mrl.data.distribution.distribution`."
    from scipy.spatial.transform import Rotation

    q, _ = pose_to_crop(label["q"], label["t"], label["K"], size)
    roll, pitch, yaw = (
        Rotation.from_euler("x", 180, degrees=True) * Rotation.from_quat(q.numpy()[[1, 2, 3, 0]])
    ).as_euler("ZXY", degrees=True)
    return {"yaw": round(yaw, 2), "pitch": round(pitch, 2), "roll": round(roll, 2)}


def as_box(face):
    return tuple(face[i % 2] + s * face[2] / 2 for i, s in enumerate((-1, -1, 1, 1)))


def looked(model, image, label, x, truth, face, rng):
    "Rows of looks.csv of one picture: from training's crop, and from one to three looks at the detector's."
    true = {k: v.float()[None] for k, v in (("x", x), ("q", label["q"]), ("t", label["t"]))}
    j = rng.uniform(-CropConfig.jitter, CropConfig.jitter, 3)
    jittered = np.array([*(truth[:2] + j[:2] * CropConfig.margin * (1 + j[2]) * truth[2]), truth[2] * (1 + j[2])])
    K_true = crop_of_box(as_box(truth), label["K"], model.size).float()  # the same pixels for every row
    for crop, start, n in (("training", jittered, 1), ("detector", face, 3)):
        for i in range(n):
            out = look(model, image, label["K"], as_box(start))[0]
            error = image_metrics(*(v[None] for v in out[:3]), *true.values(), K_true[None], model.size)
            side = CropConfig.margin * truth[2]
            yield {
                "crop": crop if n == 1 else str(i + 1),
                "across": (truth[0] - start[0]) / side,
                "down": (truth[1] - start[1]) / side,
                "side": np.log(truth[2] / start[2]),
                **{k: error[k].item() for k in ("reprojection", "camera_rotation", "translation", "shape")},
            }
            left, top, right, bottom = box_of(out.x_hat, label["K"], out.q_hat, out.t_hat)
            start = np.array([(left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a trained run with its checkpoint")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--size", type=int, default=320, help="side of the pictures, px")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "detector_crop")
    args = parser.parse_args()
    config, population = DataConfig(size=args.size, seed=args.seed), load_population()
    model = Run.load(args.run).network
    table, windows, looks, rng = [], [], [], np.random.default_rng(args.seed)
    for i, (label, x, truth) in enumerate(scenes(config, args.scenes, population)):
        image = render_image(config, i, label)
        found = face_windows(image)
        table.append(
            {
                "scene": i,
                "identity": label["identity"],
                **turn(label, args.size),
                "distance": round(label["t"].norm().item(), 1),
                **{k: round(v, 2) for k, v in zip(("centre_u", "centre_v", "side"), truth.tolist())},
            }
        )
        windows += [dict(zip(("scene", "cascade", "left", "top", "side", "votes"), (i, *w))) for w in found]
        if found and overlap(face := face_of_windows(found), truth) > 0.35:
            looks += [
                {"scene": i, **{k: v if k == "crop" else round(float(v), 4) for k, v in row.items()}}
                for row in looked(model, image, label, x, truth, face, rng)
            ]
    write_csv(args.out / "scenes.csv", table)
    write_csv(args.out / "boxes.csv", windows)
    write_csv(args.out / "looks.csv", looks)
    network = read_json(Path(args.run) / "config.json", ["config", "commit"])
    used = {k: v for k, v in asdict(config).items() if k not in ("n_images", "margin", "jitter")} | {
        "scenes": args.scenes,
        "face_share": [LOWEST, HIGHEST],
        "face_in_window": FACE_IN_WINDOW,
    }
    write_json(
        args.out / "config.json",
        {
            "config": used,
            "commit": commit(),
            "mrl": mrl.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "population": population.sha256,
            "network": {"config": network["config"], "commit": network["commit"]},
        },
    )


if __name__ == "__main__":
    main()
