"""Time, memory and host reads of the losses, beside the way in which version 0.1 computed them.

    python benchmarks/losses.py                 # batch 64, 2,500 points, 2 views; a table
    python benchmarks/losses.py --write         # also results/losses/losses.json, from a clean commit

The two ways are timed in turn, call by call, in one thread; a ratio is that of the medians. Time is that of the thread
on its processor, so that other processes count little. `version 0.1` is written out below in eager PyTorch: checked
quaternions, 4x4 matrices, one array for each intermediate result, a branch for points behind a camera, a read for every
check. The share of a training step is that of a network of quarter width on images of 64 px, with a data set
rendered for it. Peak memory is that of a process of its own, above its inputs. Host reads are values that Python takes
from a tensor: on a GPU each one waits.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import inspect
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mrl.geometry.camera import intrinsics, invert_pose, pose_matrix, transform_points
from mrl.geometry.relative_pose import relative_pose
from mrl.geometry.rotation import normalize_quaternion, quaternion_inverse, quaternion_multiply, rotate
from mrl.io.files import ROOT, write_json
from mrl.losses import CRITERIA, LogMultiviewReprojectionLoss, MultiviewReprojectionLoss, example_batch
from mrl.losses.virtual_cameras import virtual_cameras

K = intrinsics(640.0, 224)
HUGE = {"batch": 256, "points": 35_000, "views": 4}


def check_finite(*tensors):
    for v in tensors:
        if not torch.isfinite(v.detach().sum()):
            raise ValueError("not finite")


def pixels_01(view, x, K, near):
    "Pixels (B, V, 2, N) relative to the principal point."
    A = torch.cat([K[..., :2, :2] @ view[..., :2, :], view[..., 2:3, :].expand(*view.shape[:-2], 1, 4)], -2)
    rows = A[..., :3].flatten(-3, -2) @ x.mT + A[..., 3].flatten(-2).unsqueeze(-1)
    xy, z = rows.unflatten(-2, (view.shape[-3], 3)).split([2, 1], -2)
    near = near[..., None, None]
    if not (z < near).any():
        return xy * z.reciprocal()
    return xy * (z.clamp(min=near).reciprocal() + (near - z).clamp(min=0) / near**2)


def mrl_01(x_hat, q_hat, t_hat, x, q, t, views=2, cameras="true+batch"):
    K_v, q_v, t_v = virtual_cameras(cameras)(x, q, t, K.expand(len(x), 3, 3), views, torch.Generator())
    near = 0.1 * (x.mean(-2).unsqueeze(-2) - t_v).norm(dim=-1)
    if (torch.minimum(near, K_v[..., 0, 0]) <= 0).any():
        raise ValueError("cameras")
    check_finite(x_hat, q_hat, t_hat, x, q, t, K_v, q_v, t_v)
    view, D = invert_pose(pose_matrix(q_v, t_v)), relative_pose(q, t, q_hat, t_hat)
    return F.l1_loss(pixels_01(view @ D.unsqueeze(-3), x_hat, K_v, near), pixels_01(view, x, K_v, near))


def reprojection_01(*batch):
    return mrl_01(*batch, views=1)


def log_mrl_01(x_hat, q_hat, t_hat, x, q, t, views=2):
    "The logarithms of three losses, each with the truth of the other parts."
    turned = rotate(quaternion_multiply(q_hat, quaternion_inverse(q)), t)
    moved = rotate(quaternion_multiply(q, quaternion_inverse(q_hat)), t_hat)
    mixed = (x_hat, q, t), (x, q_hat, turned), (x, q, moved)
    return torch.stack([mrl_01(*p, x, q, t, views) for p in mixed]).log().sum()


def camera_frames_01(*batch):
    check_finite(*batch)
    x_hat, q_hat, t_hat, x, q, t = batch
    return [transform_points(invert_pose(pose_matrix(*p)), y) for y, p in ((x_hat, (q_hat, t_hat)), (x, (q, t)))]


def geometric_alignment_01(*batch):
    return F.l1_loss(*camera_frames_01(*batch))


def pixel_alignment_01(*batch):
    y_hat, y = camera_frames_01(*batch)
    scale = (K[0, 0] / y[..., 2].mean(-1))[..., None, None] * y.new_tensor([1.0, 1.0, 1.0])
    return F.l1_loss(y_hat * scale, y * scale)


def terms_01(x_hat, q_hat, t_hat, x, q, t):
    check_finite(x_hat, q_hat, t_hat, x, q, t)
    q, q_hat = normalize_quaternion(q), normalize_quaternion(q_hat)
    q = torch.where((q * q_hat).sum(-1, keepdim=True) < 0, -q, q)
    return torch.stack([F.l1_loss(x_hat, x), F.l1_loss(q_hat, q), F.l1_loss(t_hat, t)])


VERSION_01 = {
    "mrl": mrl_01,
    "log_mrl": log_mrl_01,
    "reprojection": reprojection_01,
    "geometric_alignment": geometric_alignment_01,
    "pixel_alignment": pixel_alignment_01,
    "multi_term": lambda *batch: terms_01(*batch).sum(),
    "homoscedastic": lambda *batch: (terms_01(*batch) * torch.zeros(3).neg().exp()).sum(),
    "log_terms": lambda *batch: terms_01(*batch).log().sum(),
}


def inputs(batch, points):
    "A prediction and its truth in float32."
    return [v.float() for v in example_batch(B=batch, N=points)]


def make(cls, **kwargs):
    "A criterion, with intrinsics if it takes them."
    return cls(**({"K": K} if "K" in inspect.signature(cls).parameters else {}), **kwargs)


def forward(loss, batch):
    with torch.no_grad():
        loss(*batch)


def backward(loss, batch):
    loss(*(v.detach().requires_grad_() for v in batch[:3]), *batch[3:]).backward()


def in_turn(ways, rounds):
    "Median seconds of functions without arguments that are called in turn."
    seconds = {name: [] for name in ways}
    for r in range(rounds + 3):
        for name, call in ways.items():
            start = time.thread_time()
            call()
            if r >= 3:
                seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def criteria(a):
    "Milliseconds of every criterion now and as in version 0.1, and their ratios."
    batch, found = inputs(a.batch, a.points), {}
    for name, cls in CRITERIA.items():
        ways = {"now": make(cls)}
        if name in VERSION_01:
            ways["version_0.1"] = VERSION_01[name]
        row = {}
        for kind, run in (("forward", forward), ("forward_backward", backward)):
            s = in_turn({w: lambda f=f: run(f, batch) for w, f in ways.items()}, a.rounds)
            row[kind] = {w: round(1e3 * v, 3) for w, v in s.items()}
            if "version_0.1" in s:
                row[kind]["ratio"] = round(s["version_0.1"] / s["now"], 2)
        found[name] = row
    return found


def compiled(a):
    "Milliseconds of forward and backward in eager and in compiled mode (inductor)."
    batch, found = inputs(a.batch, a.points), {}
    for cls in (MultiviewReprojectionLoss, LogMultiviewReprojectionLoss):
        losses = {"eager": cls(K), "compiled": torch.compile(cls(K), fullgraph=True)}
        s = in_turn({w: lambda f=f: backward(f, batch) for w, f in losses.items()}, a.rounds)
        row = {w: round(1e3 * v, 3) for w, v in s.items()}
        found[cls.__name__] = row | {"ratio": round(s["eager"] / s["compiled"], 2)}
    return found


class Reads(TorchDispatchMode):
    "Count the values that Python reads from tensors."

    def __init__(self):
        super().__init__()
        self.count = 0
        self.methods = {m: getattr(torch.Tensor, m) for m in ("tolist", "cpu", "numpy")}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += any(n in str(function) for n in ("_local_scalar_dense", "nonzero", "masked_select"))
        return function(*args, **(kwargs or {}))

    def __enter__(self):
        for name, method in self.methods.items():
            setattr(torch.Tensor, name, self._counted(method))
        return super().__enter__()

    def __exit__(self, *error):
        for name, method in self.methods.items():
            setattr(torch.Tensor, name, method)
        return super().__exit__(*error)

    def _counted(self, method):
        def counted(tensor, *args, **kwargs):
            self.count += 1
            return method(tensor, *args, **kwargs)

        return counted


def reads_of(call):
    "Host reads of a call, after one that warms up."
    call()
    with Reads() as reads:
        call()
    return reads.count


def host_reads(a):
    "Host reads of forward and backward, per call."
    batch, found = inputs(8, 50), {}
    for name, cls in CRITERIA.items():
        ways = {"validate=True": make(cls), "validate=False": make(cls, validate=False)}
        if name in VERSION_01:
            ways["version_0.1"] = VERSION_01[name]
        found[name] = {way: reads_of(lambda f=f: backward(f, batch)) for way, f in ways.items()}
    return found


def training_step(a):
    "The share of the loss in a training step, and the host reads of the step, for two configurations."
    from mrl.training.configuration import TrainConfig
    from mrl.training.criterion import make_criterion
    from mrl.training.loop import Objective, make_optimiser, train_step
    from mrl.training.preparation import prepare

    found = {}
    for loss in ("mrl", "log_mrl"):
        config = replace(TrainConfig(), loss=loss, batch_size=a.batch, n_images=4 * a.batch, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(config, folder, progress=False)
            batch = prepared.data["train"].__getitems__(list(range(a.batch)))
        model = prepared.network.to(memory_format=torch.channels_last).train()
        criterion, _ = make_criterion(config)
        rows = slice(None, a.points) if a.points < batch["x"].shape[1] else slice(None)
        objective, (optimiser, _) = Objective(model, criterion, rows), make_optimiser(model, criterion, config)
        with torch.no_grad():
            compared = objective.predict(batch)[1]
        ways = {
            "step": lambda: train_step(objective, optimiser, batch, config.clip),
            "loss": lambda: backward(lambda *v: criterion(*v[:6], K=batch["K"]), compared[:6]),
        }
        s = in_turn(ways, max(5, a.rounds // 4))
        found[loss] = {f"{w}_ms": round(1e3 * v, 3) for w, v in s.items()}
        found[loss] |= {"share": round(s["loss"] / s["step"], 4), "host_reads_of_the_step": reads_of(ways["step"])}
    return found


def peak_memory(way, batch, points, views):
    "Megabytes above the inputs at the peak of forward and backward, in this process."
    loss = {"now": MultiviewReprojectionLoss(K, views=views), "version_0.1": lambda *b: mrl_01(*b, views=views)}[way]
    backward(loss, inputs(views + 2, 50))
    small = inputs(batch, 4)
    data = [v if v.ndim < 3 else torch.randn(batch, points, 3).mul_(50) for v in small]
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    backward(loss, data)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6


def memory():
    "Peak memory of MRL on a huge batch, each way in a process of its own."
    found = dict(HUGE)
    for way in ("now", "version_0.1"):
        run = [sys.executable, __file__, "--memory-of", way]
        found[f"{way}_MB"] = round(float(subprocess.run(run, capture_output=True, text=True, check=True).stdout))
    return found


def about(a):
    "What a result was measured with; stops if the working tree is not clean."
    git = lambda *args: subprocess.run(
        ["git", *args], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    if git("status", "--porcelain"):
        raise SystemExit("commit first: results come from a clean commit")
    model = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name"))
    return {
        "commit": git("rev-parse", "HEAD"),
        "configuration": {"batch": a.batch, "points": a.points, "views": 2, "rounds": a.rounds, "seed": 0},
        "data": "example_batch(B=batch, N=points) in float32; the training step: images that prepare() renders",
        "cpu": model,
        "threads": torch.get_num_threads(),
        "clock": "CPU time of the thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--points", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--only", default="", help="criteria, compiled, host_reads, training_step, memory; comma-separated"
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if a.memory_of:
        print(peak_memory(a.memory_of, **HUGE))
        return
    result = about(a) if a.write else {}
    parts = {
        "criteria": lambda: criteria(a),
        "host_reads": lambda: host_reads(a),
        "memory": memory,
        "training_step": lambda: training_step(a),
        "compiled": lambda: compiled(a),
    }
    for name, part in parts.items():
        if not a.only or name in a.only.split(","):
            result[name] = part()
            print(json.dumps({name: result[name]}, indent=1), flush=True)
    if a.write:
        write_json(ROOT / "results" / "losses" / "losses.json", result)


if __name__ == "__main__":
    main()
