"""CPU time from a picture to a mesh, with the network that ships, on one thread and a rendered picture.

python benchmarks/photo.py            # prints medians
python benchmarks/photo.py --write    # also results/photo_speed/photo.json, from a clean commit
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import json
import statistics
import time

import cv2
import torch

from mrl.data.configuration import DataConfig
from mrl.data.rendered import render_image
from mrl.geometry.camera import intrinsics, look_at
from mrl.io.files import ROOT, write_json
from mrl.photo.detection import detect_faces
from mrl.photo.reconstruction import reconstruct
from mrl.photo.texture import project_texture
from mrl.training.run import Run, commit

SIDE, CROPS, ROUNDS = 960, 64, 7


def cpu_ms(work):
    "Return the median CPU time of a function after a first call, ms."
    work()
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(1000 * (time.process_time() - began))
    return round(statistics.median(times), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/photo_speed/photo.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    run, t = Run.load("photo"), torch.tensor([150.0, 30.0, 750.0], dtype=torch.float64)
    K, q = intrinsics(900.0, SIDE).double(), look_at(t, torch.zeros_like(t))
    picture = render_image(DataConfig(size=SIDE, seed=1), 0, {"identity": 3, "K": K, "q": q, "t": t})
    images = torch.zeros(CROPS, 3, run.network.size, run.network.size, dtype=torch.uint8)
    K_crop = intrinsics(300.0, run.network.size).expand(CROPS, 3, 3)
    face = reconstruct(run, picture, refine=True)
    with torch.no_grad():
        record = {
            "commit": commit(),
            "picture": f"rendered, {SIDE} x {SIDE} px, one face",
            "clock": "CPU time of the process, ms, one thread, medians",
            "detection": cpu_ms(lambda: detect_faces(picture)),
            "network": cpu_ms(lambda: run.network(images[:1], K_crop[:1])),
            "network, of 64 crops": round(cpu_ms(lambda: run.network(images, K_crop)) / CROPS, 1),
            "reconstruction": cpu_ms(lambda: reconstruct(run, picture)),
            "reconstruction, refined": cpu_ms(lambda: reconstruct(run, picture, refine=True)),
            "texture": cpu_ms(lambda: project_texture(face, picture)),
        }
    print(json.dumps(record, indent=1))
    if args.write:
        write_json(ROOT / "results" / "photo_speed" / "photo.json", record)
