"""Seconds and memory of an evaluation: one prediction against one scan, and a whole look-alike under every protocol.

    python benchmarks/micc.py                                      # two look-alikes, scans of some 100,000 vertices
    python benchmarks/micc.py --subjects 8 --spacing 1.2 --jobs 2
    python benchmarks/micc.py --out results/micc_speed/speed.json  # and keep what was measured

The prediction is the mean face, its mesh cut finer to have some 8,000 vertices. Times are CPU seconds of one process
where jobs is 1, else wall-clock; the last line scales them to 52 subjects.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import trimesh

from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population
from mrl.io.files import write_json
from mrl.io.meshes import Mesh
from mrl.scans.evaluation import evaluate
from mrl.scans.lookalike import build_lookalike
from mrl.scans.methods import Method, MiccCase, mean_face, model_fit
from mrl.scans.micc import read_micc
from mrl.scans.protocols import PROTOCOLS, compare, named_face
from mrl.training.run import commit

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--subjects", type=int, default=2)
parser.add_argument("--spacing", type=float, default=0.8, help="mm between the vertices of a scan")
parser.add_argument("--jobs", type=int, default=1)
parser.add_argument("--out", default="", help="JSON file for the numbers")
a = parser.parse_args()

folder = Path(tempfile.mkdtemp())
build_lookalike(folder, a.subjects, frames=3, spacing=a.spacing)
subjects, _ = read_micc(folder / "micc", folder / "annotations", folder / "ganfit")
morphable = morphable_model_of(load_population(), np.arange(2000), 64)
face = mean_face(morphable).predict(None, None, None)
fine = trimesh.Trimesh(face.surface.vertices, face.surface.triangles, process=False).subdivide()
prediction = named_face(
    Mesh(np.asarray(fine.vertices), np.asarray(fine.faces, np.int64), Path("prediction")), face.landmarks
)

start = time.process_time()
case = MiccCase(subjects[0])
scan = case.scan(PROTOCOLS["tran2017"], "frontal1")
print(
    f"scan of {len(scan.surface.vertices):,} vertices, prediction of {len(prediction.surface.vertices):,}; "
    f"reading {time.process_time() - start:.2f} s"
)
scan.surface.closest(scan.surface.vertices[:1])
one = {}
for name, protocol in PROTOCOLS.items():
    start = time.process_time()
    compare(protocol, prediction, case.scan(protocol, "frontal1"), case.name)
    one[name] = round(time.process_time() - start, 3)
    print(f"{name}: {one[name]:.2f} s")

clock = time.process_time if a.jobs == 1 else time.perf_counter
start = clock()
rows = evaluate(
    [MiccCase(s) for s in subjects],
    list(PROTOCOLS.values()),
    {
        "prediction": Method(lambda case, protocol, scan: prediction),
        "model fit": model_fit(morphable),
        "mean face": mean_face(morphable),
    },
    a.jobs,
)
seconds = clock() - start
print(
    f"{len(subjects)} subjects, {len(PROTOCOLS)} protocols, prediction and both controls: {seconds:.0f} s; "
    f"52 subjects: {seconds / len(subjects) * 52 / 60:.1f} min; "
    f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
)
if a.out:
    write_json(
        a.out,
        {
            "subjects": a.subjects,
            "spacing": a.spacing,
            "jobs": a.jobs,
            "scan_vertices": len(scan.surface.vertices),
            "prediction_vertices": len(prediction.surface.vertices),
            "comparison_cpu_s": one,
            "all_s": round(seconds, 1),
            "52_subjects_min": round(seconds / len(subjects) * 52 / 60, 2),
            "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "device": f"{platform.machine()}, {os.cpu_count()} cores",
            "commit": commit(),
        },
    )
