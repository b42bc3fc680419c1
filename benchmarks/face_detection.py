"""Measure on rendered faces which vertices the points of Face Mesh are, and whether faces are found.

These are the measurements behind notebook nbs/08_photo/01_detection.ipynb.

    python benchmarks/face_detection.py --scenes 300

renders photographs of validation identities with room around the face and writes
    results/face_detection/scenes.csv   one row per picture: who, pose, true box (px), errors of the box that is found
    results/face_detection/points.csv   one row per point: its vertex, how far it scatters on the mean face (mm)
    results/face_detection/config.json  configuration, commit, versions
    data/detector/face.json             the points that scatter least, as vertices of the face, and its outline
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
from mrl.geometry.rotation import quaternion_to_matrix
from mrl.io.files import ROOT, write_json
from mrl.io.tables import write_csv
from mrl.photo.detection import detect_faces
from mrl.render.scene import Scene, pixel_rays
from mrl.training.run import commit

LOWEST, HIGHEST = 0.3, 0.5  # share of the picture that the face's larger side takes
ROOM = 8  # pixels between face and picture's edge
FOUND = ("across", "down", "side_error", "yaw_found")  # columns of a face that was found
TURNED = 35.0  # yaw (deg) up to which pictures say which vertex a point is
SCATTER, SEEN = 8.0, 0.7  # a point is kept if it scatters by at most so many mm, and is on so many of those pictures


def scenes(config, n, population):
    "Yield labels, faces and true boxes (centre, larger side) of n pictures; the optical axis goes through the middle."
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
            label = {"identity": identity, "K": K, "q": q[0], "t": t[0]}
            yield label, x[0].numpy(), np.array([*((low + high) / 2), (high - low).max()])


def turn(label, size):
    "Return yaw, pitch, roll (degrees) against the line of sight, as in `mrl.data.distribution.distribution`."
    from scipy.spatial.transform import Rotation

    q, _ = pose_to_crop(label["q"], label["t"], label["K"], size)
    upright = Rotation.from_euler("x", 180, degrees=True) * Rotation.from_quat(q.numpy()[[1, 2, 3, 0]])
    roll, pitch, yaw = upright.as_euler("ZXY", degrees=True)
    return {"yaw": round(yaw, 2), "pitch": round(pitch, 2), "roll": round(roll, 2)}


def points_on_mean(points, label, x, population):
    "Return where the rays through points (468, 2) meet the face, at the same place of the mean face; NaN if nowhere."
    triangles = np.asarray(population.face_triangles)
    rays = pixel_rays(points.astype(np.float32), label["K"], quaternion_to_matrix(label["q"]).numpy())
    triangle, weights, _ = Scene(x, triangles).cast(label["t"].numpy(), rays)
    mean = population.mean[population.face_vertices][triangles[triangle]]
    return np.where(triangle[:, None] < 0, np.nan, (weights[..., None] * mean).sum(1))


def write_points(path, places, population):
    "Write points.csv, and `data/detector/face.json`, from the places (S, 468, 3) of points on the mean face."
    from scipy.spatial import ConvexHull

    middle, mean = np.nanmedian(places, 0), population.mean[population.face_vertices].astype(np.float64)
    nearest = np.linalg.norm(middle[:, None] - mean[None], axis=-1).argmin(1)
    scatter = 1.4826 * np.nanmedian(np.linalg.norm(places - middle, axis=-1), 0)
    seen = np.isfinite(places[..., 0]).mean(0)
    columns = {"vertex": nearest, "scatter_mm": scatter, "seen": seen}
    write_csv(path, [{"point": i} | {k: round(float(v[i]), 3) for k, v in columns.items()} for i in range(len(seen))])
    kept = np.flatnonzero((scatter < SCATTER) & (seen > SEEN)).tolist()
    face = {"face_model": population.name, "population": population.sha256, "vertices": len(mean)}
    face["points"] = {i: int(nearest[i]) for i in kept}
    face["places"] = middle[kept].round(2).tolist()
    face["scatter"] = scatter[kept].round(2).tolist()
    face["outline"] = mean[ConvexHull(mean).vertices].round(1).tolist()
    write_json(ROOT / "data/detector/face.json", face)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--size", type=int, default=320, help="side of the pictures, px")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "face_detection")
    args = parser.parse_args()
    config, population = DataConfig(size=args.size, seed=args.seed, yaw=75.0), load_population()
    table, places = [], []
    for i, (label, x, truth) in enumerate(scenes(config, args.scenes, population)):
        found = detect_faces(render_image(config, i, label))
        row = {"scene": i, "identity": label["identity"], **turn(label, args.size), "found": len(found)}
        row |= dict(zip(("centre_u", "centre_v", "side"), truth.round(2).tolist()))
        if found:
            left, top, right, bottom = found[0].box
            centre, side = np.array([left + right, top + bottom]) / 2, right - left
            off = (centre - truth[:2]) / (CropConfig.margin * truth[2])
            row |= dict(zip(("across", "down", "side_error"), [*off.round(4), round(np.log(side / truth[2]), 4)]))
            row |= {"yaw_found": round(found[0].yaw, 2)}
            if abs(row["yaw"]) < TURNED and np.abs(off).max() < 0.4:
                places.append(points_on_mean(found[0].points[:, :2], label, x, population))
        table.append({k: row.get(k, "") for k in (*row, *FOUND)} if not found else row)
    write_csv(args.out / "scenes.csv", table)
    write_points(args.out / "points.csv", np.stack(places), population)
    used = asdict(config) | {"scenes": args.scenes, "face_share": [LOWEST, HIGHEST], "turned": TURNED}
    record = {"config": used, "commit": commit(), "mrl": mrl.__version__, "python": platform.python_version()}
    record |= {"torch": torch.__version__, "opencv": cv2.__version__, "population": population.sha256}
    write_json(args.out / "config.json", record)


if __name__ == "__main__":
    main()
