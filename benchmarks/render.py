"""Images per second of the renderer, where the time goes, and what casting the same rays through trimesh costs.

    python benchmarks/render.py                        # 128 px, one process
    python benchmarks/render.py --processes 2          # as a data set is built
    python benchmarks/render.py --size 64 --images 400

Cameras and crops are those of a data set. The stages are measured by wrapping the functions of `mrl.render` in one process, each without
the stages inside it; Embree finishes a scene at its first ray, so one ray is counted with the building.
"""
import argparse
import statistics
import time
from collections import defaultdict
from multiprocessing import get_context

import numpy as np
import torch
import trimesh

from mrl import render
from mrl.data import DataConfig, detector_crop, sample_cameras
from mrl.faces import load_population
from mrl.rotation import quaternion_to_matrix

STAGES = {"_prepare": "geometry, normals", "_paint": "painting the skin", "_shade": "surfaces and light", "_key_visibility": "shadow rays",
          "_background": "background", "_develop": "film", "_radiance": "pixels and edges"}


def prepare(size, n, seed):
    "A renderer and the arguments of `Renderer.image` for n pictures."
    torch.set_num_threads(1)
    population, rng, config = load_population(), np.random.default_rng(seed), DataConfig(size=size)
    identity = rng.integers(len(population), size=n)
    q, t = sample_cameras(rng, n, config)
    K = detector_crop(rng, torch.as_tensor(population.faces(identity)).double(), q, t, config)
    heads = population.heads(identity)
    labels = [{k: v[i] for k, v in population.labels.items()} for i in identity]
    return render.Renderer(population), [(heads[i], K[i].numpy(), q[i].numpy(), t[i].numpy(), render.sample_appearance(rng, labels[i]), size, rng)
                                         for i in range(n)]


def rate(arguments):
    "Images per second of one process, median over ten rounds."
    renderer, work = prepare(*arguments)
    rounds = np.array_split(np.arange(len(work)), 10)
    times = []
    for numbers in (rounds[0], *rounds):
        start = time.perf_counter()
        for i in numbers:
            renderer.image(*work[i])
        times.append((time.perf_counter() - start) / len(numbers))
    return 1 / statistics.median(times[1:])


def measure_stages(renderer, work):
    "Milliseconds per image of each stage, without the stages inside it."
    spent, open_stages, traces = defaultdict(float), [], [0]

    def timed(f, name):
        def wrapper(*args):
            stage = name()
            open_stages.append(0.0)
            start = time.perf_counter()
            result = f(*args)
            whole = time.perf_counter() - start
            spent[stage] += whole - open_stages.pop()
            if open_stages:
                open_stages[-1] += whole
            return result
        return wrapper

    def ray_kind():
        traces[0] += 1
        return "primary rays" if traces[0] % 2 else "rays at edges"

    def build(self, vertices, triangles):
        init(self, vertices, triangles)
        self.cast(np.zeros((1, 3)), np.ones((1, 3)))

    init, originals = render.Scene.__init__, {name: getattr(render, name) for name in (*STAGES, "_trace")}
    render.Scene.__init__ = timed(build, lambda: "BVH")
    for name, f in originals.items():
        setattr(render, name, timed(f, ray_kind if name == "_trace" else lambda stage=STAGES.get(name): stage))
    for job in work:
        renderer.image(*job)
    render.Scene.__init__ = init
    for name, f in originals.items():
        setattr(render, name, f)
    return {stage: 1e3 * seconds / len(work) for stage, seconds in spent.items()}


def trimesh_ratio(renderer, work):
    "Time of first hits with their positions through trimesh's wrapper / time of `Scene.cast`, same rays, same head; building excluded."
    ratios = []
    for vertices, K, q, t, _, size, _ in work:
        R = quaternion_to_matrix(torch.as_tensor(q)).numpy()
        rays = render.pixel_rays(render.pixel_centres(size), K, R)
        scene, origins = render.Scene(vertices, renderer.head), np.broadcast_to(t, rays.shape)
        engine = trimesh.ray.ray_pyembree.RayMeshIntersector(trimesh.Trimesh(vertices, renderer.head, process=False))
        times = []
        for cast in (lambda: scene.cast(t, rays), lambda: engine.intersects_id(origins, rays, multiple_hits=False, return_locations=True)):
            cast()
            start = time.perf_counter()
            cast()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=200, help="per process")
    parser.add_argument("--processes", type=int, default=1)
    a = parser.parse_args()
    with get_context("spawn").Pool(a.processes) as pool:
        rates = pool.map(rate, [(a.size, a.images, seed) for seed in range(a.processes)])
    print(f"{a.size} px, {a.processes} process(es): {sum(rates):.0f} images/s ({1e3 / statistics.mean(rates):.1f} ms per image and process)")
    renderer, work = prepare(a.size, min(a.images, 60), 0)
    renderer.image(*work[0])
    for stage, ms in sorted(measure_stages(renderer, work).items(), key=lambda x: -x[1]):
        print(f"{ms:7.2f} ms  {stage}")
    print(f"first hits of the same rays through trimesh's wrapper take {trimesh_ratio(renderer, work[:20]):.1f} times as long")


if __name__ == "__main__":
    main()
