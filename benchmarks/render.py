"""Images per second of the renderer, its stages, and the cost of the same pictures through trimesh's ray wrapper.

    python benchmarks/render.py                        # 64, 128 and 224 px; one process and two
    python benchmarks/render.py --sizes 128 --images 400
    python benchmarks/render.py --write                # also results/throughput/render.json, for nbs/throughput.ipynb

Cameras and crops are those of a data set. Processes begin at the same moment; their rates add up.
The stages are measured in one process by wrapping the functions of `mrl.render.renderer`, each without the stages
inside it. Embree finishes a scene at its first ray, so one ray is counted with the building.

Three comparisons with trimesh's `RayMeshIntersector` (Embree, too), picture by picture, ours and theirs in turn:
calls     the scenes and rays of our pictures: building, first hits with barycentric coordinates, shadow rays
rays      the same rays; its mesh is the whole one, as a user has it, ours is without the triangles that face away
pictures  whole pictures, made as one would with that wrapper: the whole mesh, four rays for every pixel and a shadow
          ray for every hit; shading and film are ours. "uniform" is that with our rays.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import json
import platform
import subprocess
import time
from collections import defaultdict
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context

import numpy as np
import torch
import trimesh

from mrl.data.cameras import detector_crop, sample_cameras
from mrl.data.configuration import DataConfig
from mrl.faces.population import load_population
from mrl.io.files import HOME, ROOT, write_json
from mrl.render import renderer as render
from mrl.render.appearance import sample_appearance
from mrl.render.scene import TORSO

STAGES = {
    "_prepare": "geometry",
    "_shade": "surfaces",
    "skin_at": "painting skin",
    "reflected_light": "light",
    "visibility": "shadow rays",
    "_trace": "",
    "tint_through_lenses": "lenses",
    "background": "background",
    "develop": "film",
    "_radiance": "pixels and edges",
}


def prepare(size, n, seed):
    "A renderer and the arguments of `Renderer.image` for n pictures."
    torch.set_num_threads(1)
    population, rng, config = load_population(), np.random.default_rng(seed), DataConfig(size=size)
    identity = rng.integers(len(population), size=n)
    q, t = sample_cameras(rng, n, config)
    K = detector_crop(rng, torch.as_tensor(population.faces(identity)).double(), q, t, config)
    heads = population.heads(identity)
    labels = [{k: v[i] for k, v in population.labels.items()} for i in identity]
    return render.Renderer(population), [
        (heads[i], K[i].numpy(), q[i].numpy(), t[i].numpy(), sample_appearance(rng, labels[i]), size, rng)
        for i in range(n)
    ]


def work(barrier, queue, size, n, seed):
    "Render n pictures as soon as every process is ready; put the seconds."
    renderer, jobs = prepare(size, n, seed)
    for job in jobs[:5]:
        renderer.image(*job)
    barrier.wait(timeout=300)
    start = time.perf_counter()
    for job in jobs:
        renderer.image(*job)
    queue.put(time.perf_counter() - start)


def rate(size, n, processes):
    "Images per second of several processes together."
    context = get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(barrier, queue, size, n, seed)) for seed in range(processes)]
    for w in workers:
        w.start()
    seconds = [queue.get(timeout=1800) for _ in workers]
    for w in workers:
        w.join()
    return sum(n / s for s in seconds)


@contextmanager
def patched(**names):
    "Other functions in `mrl.render.renderer` for a while."
    kept = {k: getattr(render, k) for k in names}
    try:
        for k, v in names.items():
            setattr(render, k, v)
        yield
    finally:
        for k, v in kept.items():
            setattr(render, k, v)


def stages(renderer, jobs):
    "Milliseconds per image of each stage, without the stages inside it."
    spent, inside, traces = defaultdict(float), [], [0]

    def timed(f, name):
        def wrapper(*args):
            stage = name()
            inside.append(0.0)
            start = time.perf_counter()
            result = f(*args)
            whole = time.perf_counter() - start
            spent[stage] += whole - inside.pop()
            if inside:
                inside[-1] += whole
            return result

        return wrapper

    def ray_kind():
        traces[0] += 1
        return "primary rays" if traces[0] % 2 else "rays at edges"

    def build(vertices, triangles):
        scene = Scene(vertices, triangles)
        scene.cast(np.zeros((1, 3)), np.ones((1, 3)))
        return scene

    Scene = render.Scene
    with patched(
        Scene=timed(build, lambda: "BVH"),
        **{
            k: timed(getattr(render, k), ray_kind if k == "_trace" else lambda stage=stage: stage)
            for k, stage in STAGES.items()
        },
    ):
        for job in jobs:
            renderer.image(*job)
    return {stage: 1e3 * seconds / len(jobs) for stage, seconds in sorted(spent.items(), key=lambda x: -x[1])}


class TrimeshScene:
    "`mrl.render.scene.Scene` out of the calls that trimesh offers."

    def __init__(self, vertices, triangles):
        self.mesh = trimesh.Trimesh(vertices, triangles, process=False)
        self.rays = trimesh.ray.ray_pyembree.RayMeshIntersector(self.mesh)

    def cast(self, origin, direction):
        hit, weights, depth = (
            np.full(len(direction), -1),
            np.zeros((len(direction), 3), np.float32),
            np.full(len(direction), np.inf, np.float32),
        )
        if len(direction):
            origins = np.broadcast_to(origin, direction.shape)
            place, ray, triangle = self.rays.intersects_location(origins, direction, multiple_hits=False)
            hit[ray], weights[ray] = (
                triangle,
                trimesh.triangles.points_to_barycentric(self.mesh.triangles[triangle], place),
            )
            depth[ray] = np.linalg.norm(place - origins[ray], axis=1) / np.linalg.norm(direction[ray], axis=1)
        return hit, weights, depth

    def occluded(self, origin, direction):
        return self.rays.intersects_any(np.broadcast_to(origin, direction.shape), direction)


def scenes_and_rays(renderer, jobs):
    "What is asked of Embree for each picture: vertices, triangles, and [(method, origin, direction)]."
    asked = []

    class Recorder(render.Scene):
        def __init__(self, vertices, triangles):
            super().__init__(vertices, triangles)
            asked.append((vertices, triangles, []))

        def cast(self, origin, direction):
            asked[-1][2].append(("cast", origin, direction))
            return super().cast(origin, direction)

        def occluded(self, origin, direction):
            asked[-1][2].append(("occluded", origin, direction))
            return super().occluded(origin, direction)

    with patched(Scene=Recorder):
        for job in jobs:
            renderer.image(*job)
    return asked


def seconds(f, *args):
    start = time.perf_counter()
    result = f(*args)
    return time.perf_counter() - start, result


def whole(r, area, towards):
    "Every triangle, whichever way it faces."
    return np.ones(len(area), bool)


def ask(kind, vertices, triangles, queries):
    "Build a scene and put the queries to it."
    scene = kind(vertices, triangles)
    return [getattr(scene, method)(origin, direction) for method, origin, direction in queries]


def compare_rays(renderer, jobs):
    "Milliseconds per picture for its scenes and rays: ours, and through trimesh; and with the whole mesh."
    ours = scenes_and_rays(renderer, jobs)
    with patched(_facing=whole):
        full = scenes_and_rays(renderer, jobs)
    total, same = defaultdict(float), []
    for small, large in zip(ours, full):
        spent, answers = {}, {}
        for name, kind, asked in (
            ("ours", render.Scene, small),
            ("calls", TrimeshScene, small),
            ("rays", TrimeshScene, large),
        ):
            spent[name], answers[name] = seconds(ask, kind, *asked)
            total[name] += 1e3 * spent[name] / len(jobs)
        hits = ([x[0] if isinstance(x, tuple) else x for x in answers[k]] for k in ("ours", "calls"))
        same.append(np.mean(np.concatenate([a == b for a, b in zip(*hits)])))
    assert np.mean(same) > 0.99, f"the two disagree about {1 - np.mean(same):.1%} of the rays"
    count = np.mean([sum(len(direction) for *_, direction in queries) for _, _, queries in ours])
    return {
        "rays": count,
        "ours_ms": total["ours"],
        "calls_ms": total["calls"],
        "whole_ms": total["rays"],
        "calls_ratio": total["calls"] / total["ours"],
        "ratio": total["rays"] / total["ours"],
    }


def shadow_per_hit(scene, points, n, part, pixel, primary, light, size, spread):
    "Visibility of the light with one shadow ray for every hit that faces it."
    seen = np.zeros(len(points), np.float32)
    lit = np.flatnonzero(n @ light > -0.3)
    start = points[lit] + np.where(part[lit] == TORSO, 5, 1.5)[:, None].astype(np.float32) * n[lit]
    seen[lit] = ~scene.occluded(
        start, light + spread * np.random.default_rng(0).standard_normal((len(lit), 3), dtype=np.float32)
    )
    return seen


def compare_pictures(renderer, jobs):
    "Milliseconds per picture: ours, with four rays everywhere, and that through trimesh."
    uniform = dict(_edges=lambda f, hit, depth: np.arange(f.size**2), visibility=shadow_per_hit, _facing=whole)
    ways = {"ours": {}, "uniform": uniform, "trimesh": uniform | {"Scene": TrimeshScene}}
    total = defaultdict(float)
    for job in jobs:
        for name, changes in ways.items():
            with patched(**changes):
                total[name] += 1e3 * seconds(renderer.image, *job)[0] / len(jobs)
    return {f"{name}_ms": ms for name, ms in total.items()} | {"ratio": total["trimesh"] / total["ours"]}


def machine():
    "What the numbers belong to."
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), cpu)
    git = (
        subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        if (ROOT / ".git").exists()
        else ""
    )
    names = ("numpy", "torch", "embreex", "trimesh", "pillow", "scipy")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "commit": git,
        "versions": {"python": platform.python_version()} | {k: version(k) for k in names},
    }


def measure(sizes, images, processes):
    "Everything above as one dict that JSON can hold."
    result = machine() | {"images": images, "sizes": {}}
    for size in sizes:
        rates = {str(p): rate(size, images, p) for p in processes}
        renderer, jobs = prepare(size, min(images, 60), 0)
        for job in jobs[:5]:
            renderer.image(*job)
        result["sizes"][str(size)] = {
            "images_per_second": rates,
            "stages_ms": stages(renderer, jobs),
            "rays": compare_rays(renderer, jobs[:20]),
            "pictures": compare_pictures(renderer, jobs[:20]),
        }
        report(size, result["sizes"][str(size)])
    return json.loads(json.dumps(result), parse_float=lambda x: float(f"{float(x):.4g}"))


def report(size, r):
    print(
        f"{size} px: " + ", ".join(f"{v:.0f} images/s with {p} process(es)" for p, v in r["images_per_second"].items())
    )
    print("   ms per image: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in r["stages_ms"].items()))
    rays, pictures = r["rays"], r["pictures"]
    print(
        f"   its {rays['rays']:.0f} rays and their scenes: {rays['ours_ms']:.1f} ms; "
        f"through trimesh {rays['calls_ms']:.1f} ms ({rays['calls_ratio']:.1f} times), "
        f"with the whole mesh {rays['whole_ms']:.1f} ms ({rays['ratio']:.1f} times)"
    )
    print(
        f"   a whole picture: {pictures['ours_ms']:.1f} ms; four rays per pixel {pictures['uniform_ms']:.1f} ms, "
        f"through trimesh {pictures['trimesh_ms']:.1f} ms ({pictures['ratio']:.1f} times)",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224])
    parser.add_argument("--images", type=int, default=200, help="per process")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--write", action="store_true", help="leave the numbers in results/throughput/render.json")
    a = parser.parse_args()
    result = measure(a.sizes, a.images, a.processes)
    if a.write:
        write_json(HOME / "results" / "throughput" / "render.json", result)


if __name__ == "__main__":
    main()
