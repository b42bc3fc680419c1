"""Test the losses in training code that is not ours: types, masks, shapes, conventions, compilers, host reads."""

import copy
import io
import json
import os
import pickle
import sys
import warnings
from subprocess import Popen, run

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mrl.geometry.camera import intrinsics
from mrl.geometry.conventions import camera_pose, euler_to_matrix, rotation_6d_to_matrix, weak_perspective
from mrl.geometry.rotation import (
    axis_angle_to_quaternion,
    quaternion_inverse,
    quaternion_multiply,
    quaternion_to_matrix,
)
from mrl.io.files import ROOT, read_json
from mrl.losses import (
    CRITERIA,
    Disentangled,
    GeometricAlignmentLoss,
    LogMultiviewReprojectionLoss,
    MultiviewReprojectionLoss,
    example_batch,
    multiview_reprojection,
)

K = intrinsics(640.0, 224).double()
MAKERS = {name: lambda cls=cls, **kw: cls(**kw) for name, cls in CRITERIA.items()} | {
    "disentangled": lambda **kw: Disentangled(MultiviewReprojectionLoss(), **kw),
    "disentangled log": lambda **kw: Disentangled(MultiviewReprojectionLoss(), logarithms=True, **kw),
    "disentangled alignment": lambda **kw: Disentangled(GeometricAlignmentLoss(), parts=2, logarithms=True, **kw),
}
every = pytest.mark.parametrize("name", MAKERS)


def batch(B=4, N=12, dtype=torch.float64, **kw):
    return [v.to(dtype) for v in example_batch(B=B, N=N, **kw)]


def gradients(criterion, inputs, **kw):
    leaves = [v.detach().clone().requires_grad_() for v in inputs[:3]]
    loss = criterion(*leaves, *inputs[3:], **kw)
    loss.sum().backward()
    return loss.detach(), [torch.zeros_like(v) if v.grad is None else v.grad for v in leaves]


@every
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_predictions_and_double_truth(name, half):
    "The value is that of the rounded prediction, whatever the type of the truth, autocast included."
    inputs = batch(dtype=torch.float32)
    low = [v.to(half) for v in inputs[:3]]
    expected = MAKERS[name]()(*(v.float() for v in low), *inputs[3:], K=K.float()).item()
    for truth in (torch.float32, torch.float64):
        got = MAKERS[name]()(*low, *(v.to(truth) for v in inputs[3:]), K=K)
        assert got.dtype == truth and got.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert MAKERS[name]()(*low, *inputs[3:], K=K).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@every
def test_what_has_no_weight_may_be_anything(name):
    "Images and points without weight: their values do not matter, and their gradients are zero."
    inputs = batch(B=5)
    bad = [v.clone() for v in inputs]
    for v in bad:
        v[[1, 4]] = torch.nan
    weight = torch.tensor([1.0, 0, 1, 1, 0])
    kept = [v[[0, 2, 3]] for v in inputs]
    source = {"cameras": lambda x, q, t, K, *_: (K, q[:, None], t[:, None])}  # independent of other images
    for criterion in (MAKERS[name](),):
        inner = getattr(criterion, "criterion", criterion)
        if hasattr(inner, "cameras"):
            inner.cameras = source["cameras"]
        loss, grads = gradients(criterion, bad, K=K, weight=weight)
        expected, wanted = gradients(criterion, kept, K=K)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        for g, w in zip(grads, wanted):
            assert torch.allclose(g[[0, 2, 3]], w, rtol=1e-7, atol=1e-12) and not g[[1, 4]].any()
        points = torch.ones(5, 12)
        points[0, 3:] = 0
        bad[0][0, 3:], bad[3][0, 3:] = torch.nan, torch.inf
        loss, grads = gradients(criterion, bad, K=K, weight=points * weight[:, None])
        assert loss.isfinite() and all(g.isfinite().all() for g in grads) and not grads[0][0, 3:].any()
        nothing, grads = gradients(criterion, bad, K=K, weight=torch.zeros(5))
        assert nothing.item() == 0 and not any(g.any() for g in grads)


def test_one_valid_image_in_a_batch_trains():
    inputs = batch(B=6)
    inputs[0][1:] = torch.nan
    inputs[5][1:] = torch.nan
    for cls in (MultiviewReprojectionLoss, LogMultiviewReprojectionLoss):
        loss, grads = gradients(cls(K), inputs, weight=torch.tensor([True] + [False] * 5))
        assert loss.isfinite() and all(g.isfinite().all() and g[0].any() and not g[1:].any() for g in grads)


@every
def test_reductions_agree(name):
    inputs = batch()
    logarithms = "log" in name or name == "disentangled alignment"
    value = {r: MAKERS[name](reduction=r)(*inputs, K=K) for r in ("mean", "sum", "none")}
    assert value["none"].shape == (4,)
    assert value["sum"].item() == pytest.approx(value["none"].sum().item())
    if not logarithms:  # those are of means of the batch
        assert value["mean"].item() == pytest.approx(value["none"].mean().item())
    clips = [v.unflatten(0, (2, 2)) for v in inputs]
    assert torch.allclose(MAKERS[name](reduction="none")(*clips, K=K).flatten(), value["none"])


@every
def test_matrices_clips_and_shared_points(name):
    inputs = batch()
    expected = MAKERS[name]()(*inputs, K=K).item()
    matrices = [quaternion_to_matrix(v) if v.shape[-1] == 4 else v for v in inputs]
    assert MAKERS[name]()(*matrices, K=K).item() == pytest.approx(expected, rel=1e-9)
    clips = [v.unflatten(0, (2, 2)) for v in inputs]
    assert MAKERS[name]()(*clips, K=K.expand(2, 2, 3, 3)).item() == pytest.approx(expected, rel=1e-9)
    shared = [*inputs[:3], inputs[3][0], *inputs[4:]]
    copied = [*inputs[:3], inputs[3][:1].expand(4, 12, 3), *inputs[4:]]
    assert MAKERS[name]()(*shared, K=K).item() == pytest.approx(MAKERS[name]()(*copied, K=K).item(), rel=1e-12)


@every
def test_numpy_and_lists_are_refused_by_name(name):
    inputs = batch()
    with pytest.raises(ValueError, match=r"x: expected a tensor, got numpy.ndarray; torch.from_numpy\(x\) makes one"):
        MAKERS[name]()(*inputs[:3], inputs[3].numpy(), *inputs[4:], K=K)
    with pytest.raises(ValueError, match="t_hat: expected a tensor, got builtins.list"):
        MAKERS[name]()(*inputs[:2], [[0.0] * 3] * 4, *inputs[3:], K=K)


class Reads(TorchDispatchMode):
    "Counts what makes the host wait for a device."

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        self.count += any(n in name for n in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    "A list that grows by one with every value that Python reads from a tensor."
    found = []
    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy"):
        original = getattr(torch.Tensor, method)
        monkeypatch.setattr(torch.Tensor, method, lambda self, *a, f=original, m=method: found.append(m) or f(self, *a))
    return found


@every
def test_one_read_or_none(name, reads):
    inputs = [v.requires_grad_() if i < 3 else v for i, v in enumerate(batch())]
    for validate, expected in ((True, 1), ("async", 0), (False, 0)):
        criterion = MAKERS[name](validate=validate)
        for _ in range(2):
            reads.clear()
            with Reads() as device:
                criterion(*inputs, K=K).backward()
            assert (len(reads), device.count) == (expected, 0), reads


@every
def test_on_tensors_without_values(name):
    inputs = [v.to("meta") for v in batch()]
    criterion = MAKERS[name]().to("meta")
    assert criterion(*inputs, K=K.to("meta")).shape == ()
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [mode.from_tensor(v) for v in batch()]
        assert MAKERS[name]()(*fake, K=mode.from_tensor(K)).shape == ()


@every
def test_compiles_whole(name):
    "Values and gradients of the compiled criterion are those of the eager one; weights do not break the graph."
    torch._dynamo.reset()
    inputs = batch(dtype=torch.float32)
    for kw in ({}, {"weight": torch.tensor([1.0, 0.5, 0, 1])}):
        eager, compiled = MAKERS[name](), MAKERS[name]()
        whole = torch.compile(compiled, fullgraph=True, backend="eager")
        for _ in range(2):  # the same cameras, call by call
            (a, ga), (b, gb) = gradients(eager, inputs, K=K.float(), **kw), gradients(whole, inputs, K=K.float(), **kw)
            assert b.item() == pytest.approx(a.item(), rel=1e-4)
            assert all(torch.allclose(x, y, rtol=1e-3, atol=1e-5) for x, y in zip(ga, gb))


@every
def test_exports(name):
    inputs = batch(dtype=torch.float32)
    kwargs = {"K": K.float()}
    program = torch.export.export(MAKERS[name](), tuple(inputs), kwargs)
    expected = MAKERS[name]()(*inputs, **kwargs).item()
    assert program.module()(*inputs, **kwargs).item() == pytest.approx(expected, rel=1e-4)


@every
def test_maps(name):
    "A batch in every sample: one value for each, as in a loop; gradients by torch.func."
    inputs = [v.unflatten(0, (2, 3)) for v in batch(B=6)]
    mapped = torch.vmap(lambda *v: MAKERS[name]()(*v, K=K))(*inputs)
    loop = torch.stack([MAKERS[name]()(*(v[i] for v in inputs), K=K) for i in range(2)])
    assert torch.allclose(mapped, loop, rtol=1e-7)
    first = [v[0] for v in inputs]
    gradient = torch.func.grad(lambda q: MAKERS[name]()(first[0], q, *first[2:], K=K))(first[1])
    assert torch.allclose(gradient, gradients(MAKERS[name](), first, K=K)[1][1], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mrl", "log_mrl"])
def test_compiles_with_inductor(name):
    torch._dynamo.reset()
    inputs = batch(dtype=torch.float32)
    whole = torch.compile(MAKERS[name](), fullgraph=True)
    (a, ga), (b, gb) = (gradients(c, inputs, K=K.float()) for c in (MAKERS[name](), whole))
    assert b.item() == pytest.approx(a.item(), rel=1e-4)
    assert all(torch.allclose(x, y, rtol=1e-3, atol=1e-4) for x, y in zip(ga, gb))


@every
def test_the_global_generator_and_eval_are_left_alone(name):
    inputs, state = batch(), torch.get_rng_state()
    a, b = MAKERS[name](), MAKERS[name]().eval()
    assert a(*inputs, K=K).item() == b(*inputs, K=K).item()
    assert torch.equal(state, torch.get_rng_state())
    copy.deepcopy(a)
    torch.save(a.state_dict(), io.BytesIO())


def test_float16_overflow_is_left_to_the_scaler():
    inputs = batch(dtype=torch.float32)
    low = [v.half() for v in inputs[:3]]
    low[0][0, 0] = torch.inf
    for name in ("mrl", "log_mrl", "geometric_alignment", "multi_term"):
        loss, grads = gradients(MAKERS[name](), [*low, *inputs[3:]], K=K.float())
        assert not loss.isfinite()
        if "mrl" in name:
            assert not all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", ["log_mrl", "log_terms", "disentangled log", "disentangled alignment"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logarithms_are_finite_at_the_truth(name, dtype):
    truth = batch(dtype=dtype)[3:]
    loss, grads = gradients(MAKERS[name](), [*(v.clone() for v in truth), *truth], K=K.to(dtype))
    assert loss.isfinite() and all(g.isfinite().all() for g in grads)


def slip(name, q, t):
    R = quaternion_to_matrix(q)
    turned = quaternion_multiply(q, torch.tensor([0.0, 1, 0, 0], dtype=q.dtype))
    return {
        "world-to-camera": (quaternion_inverse(q), -(R.mT @ t[..., None])[..., 0]),
        "x first": (q.roll(-1, -1), t),
        "OpenGL's axes": (turned, t),
        "transposed": (quaternion_inverse(q), t),
        "t is in metres": (q, t / 1000),
        "t is in millimetres": (q, t * 1000),
    }[name]


@pytest.mark.parametrize(
    "name", ["world-to-camera", "x first", "OpenGL's axes", "transposed", "t is in metres", "t is in millimetres"]
)
@pytest.mark.parametrize("cls", [MultiviewReprojectionLoss, LogMultiviewReprojectionLoss])
def test_slips_of_convention_are_named_at_the_first_call(name, cls):
    x_hat, q_hat, t_hat, x, q, t = batch(B=16, N=40)
    q_slip, t_slip = slip(name, q, t)
    with pytest.raises(ValueError, match=f"the likeliest mistake: .*{name}"):
        cls(K)(x_hat, q_slip, t_slip, x, q_slip, t_slip)
    right = cls(K)
    right(x_hat, q_hat, t_hat, x, q, t)
    assert (right.criterion if hasattr(right, "criterion") else right).looked


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (K / torch.tensor([[224.0], [224], [1]]), "K counts in shares of the picture"),
        (torch.diag(torch.tensor([5.7, 5.7, 1])), "K is in normalised device coordinates"),
        (torch.tensor([[35.0, 0, 112], [0, 35, 112], [0, 0, 1]]), "the focal length is in millimetres"),
    ],
)
@pytest.mark.parametrize("cls", [MultiviewReprojectionLoss, LogMultiviewReprojectionLoss])
def test_slips_of_intrinsics_are_named_at_the_first_call(cls, wrong, cause):
    inputs = batch(B=8, N=40)
    with pytest.raises(ValueError, match=f"K: expected intrinsics in pixels, got .*; the likeliest mistake: {cause}"):
        cls(wrong)(*inputs)
    cls(wrong, validate="async")(*inputs)
    far = [*inputs[:3], inputs[3], inputs[4], inputs[5] * 1e4]
    with pytest.raises(ValueError, match="the likeliest mistake: .* another unit|t is in millimetres"):
        cls(K)(*far)


def test_a_batch_without_weight_is_not_the_first_look():
    inputs = batch(B=4)
    criterion = MultiviewReprojectionLoss(K)
    assert criterion(*inputs, weight=torch.zeros(4)).item() == 0 and not criterion.looked
    slipped = slip("world-to-camera", *inputs[4:])
    with pytest.raises(ValueError, match="poses are world-to-camera"):
        criterion(inputs[0], *slipped, inputs[3], *slipped)


@every
def test_a_criterion_can_be_pickled(name):
    "As torch.save of a module that holds it, and the start of processes, do."
    inputs = batch()
    criterion = MAKERS[name]()
    again = pickle.loads(pickle.dumps(criterion))
    assert again(*inputs, K=K).item() == criterion(*inputs, K=K).item()


@pytest.mark.parametrize("cls", [MultiviewReprojectionLoss, LogMultiviewReprojectionLoss])
def test_an_uneven_last_batch(cls):
    "A smaller batch after larger ones has as many views as images; at the first call it is refused."
    inputs, criterion = batch(B=5), cls(K, views=4)
    for B in (5, 5, 2, 1):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            loss, grads = gradients(criterion, [v[:B] for v in inputs])
        assert loss.isfinite() and all(g.isfinite().all() for g in grads)
        assert [f"a batch of {B} after larger ones has {B} views, not 4" in str(w.message) for w in said] == [True] * (
            B < 4
        )
    with pytest.raises(
        ValueError, match=r"batch: expected a batch \(B, ...\) with B > 3 for 3 cameras of other images"
    ):
        cls(K, views=4)(*(v[:2] for v in inputs))


PROCESSES = """
import os, sys, warnings
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from mrl.geometry import intrinsics
from mrl.losses import LogMultiviewReprojectionLoss, example_batch

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
warnings.simplefilter("ignore")


def mean(v):
    dist.all_reduce(v)
    return v / 2


class Net(torch.nn.Module):
    "A pose net that holds its criterion, as many training codes do."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(10, 7)
        self.criterion = LogMultiviewReprojectionLoss(intrinsics(640.0, 224), reduce_mean=mean)

    def forward(self, features, x, q, t, weight):
        with torch.autocast("cpu", torch.bfloat16):
            out = self.head(features)
        return self.criterion(None, q + 0.1 * out[:, :4], t + 10 * out[:, 4:], x, q, t, weight=weight)


net = DistributedDataParallel(Net())
optimiser, scaler = torch.optim.SGD(net.parameters(), 1e-3), torch.amp.GradScaler("cpu")
x, q, t = (v.float() for v in example_batch(B=12)[3:])
features = torch.randn(12, 10, generator=torch.Generator().manual_seed(1))
for step, (a, b) in enumerate([(0, 4), (4, 8), (8, 12), (0, 3 - 2 * rank)]):  # the last one is uneven
    rows = slice(a, b)
    weight = torch.ones(b - a) * (step != 2 or rank == 0)  # one process has a batch without any label
    loss = net(features[rows], x[rows], q[rows], t[rows], weight)
    optimiser.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
assert loss.isfinite()
torch.save(net.module.head.state_dict(), sys.argv[3])
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_stay_together(tmp_path):
    "DistributedDataParallel, autocast and GradScaler around a module with its criterion; batches that differ in size."
    ranks = [
        [sys.executable, "-c", PROCESSES, str(r), str(tmp_path / "store"), str(tmp_path / f"{r}.pt")] for r in (0, 1)
    ]
    with Popen(ranks[0], env=os.environ) as other:
        done = run(ranks[1], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
        assert other.wait() == 0
    a, b = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert all(torch.equal(a[k], b[k]) and a[k].isfinite().all() for k in a)


def test_times_in_the_notebook_are_the_measured_ones():
    "The stored table of plugging_in.ipynb is that of results/losses/losses.json."
    notebook = json.loads((ROOT / "nbs/plugging_in.ipynb").read_text())
    data = [o.get("data", {}) for c in notebook["cells"] for o in c.get("outputs", [])]
    stored = "".join("".join(d.get("text/markdown", "")) for d in data)
    measured = read_json(ROOT / "results/losses/losses.json")
    assert set(measured["criteria"]) <= set(CRITERIA)  # benchmarks/losses.py measures those of today
    for name, row in measured["criteria"].items():
        both = row["forward_backward"]
        assert f"| `{name}` | {both['now']:.2f} | " in stored
        assert "ratio" not in both or f" | {both['version_0.1']:.2f} | {both['ratio']:.2f} | " in stored
    for name, step in measured["training_step"].items():
        assert f"{100 * step['share']:.1f} % of a step with `{name}`" in stored


def test_poses_of_heads_under_autocast():
    "What a head returns in half precision, beside constants in float32, becomes a pose in float32."
    g = torch.Generator().manual_seed(0)
    t, uv = torch.tensor([0.0, 0, 600]).expand(4, 3), torch.full((4, 2), 112.0)
    for half in (torch.float16, torch.bfloat16):
        d6, angles, v = (torch.randn(4, n, generator=g).to(half) for n in (6, 3, 3))
        for R in (rotation_6d_to_matrix(d6), euler_to_matrix(angles, "zyx"), axis_angle_to_quaternion(v), d6[:, :4]):
            poses = (
                camera_pose(R, t, direction="world-to-camera"),
                camera_pose(R, t.to(half), direction="world-to-camera"),
            )
            assert all(v.dtype == torch.float32 for pose in poses for v in pose)
            assert all(v.dtype == torch.float32 for v in weak_perspective(uv[:, 0].to(half), R, uv.to(half), 224))
            exact = camera_pose(R.double(), t.double(), direction="world-to-camera")
            assert all(torch.allclose(a.double(), e, rtol=1e-5, atol=1e-3) for a, e in zip(poses[0], exact))


def test_truth_that_a_camera_cannot_see_has_no_weight():
    "A scene in which cameras look elsewhere: the loss stays that of what is seen, and the criterion says so once."
    inputs = batch(B=8, N=30, error=0.2)
    quiet = MultiviewReprojectionLoss(K)(*inputs).item()
    turn = axis_angle_to_quaternion(torch.tensor([0.0, torch.pi, 0.0], dtype=torch.float64))
    away = [v.clone() for v in inputs]
    for i in (1, 4):
        away[i][2] = quaternion_multiply(inputs[i][2], turn)
    criterion = MultiviewReprojectionLoss(K)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        values = [criterion(*away).item() for _ in range(4)]
    assert max(values) < 3 * quiet and criterion.redrawn > 0
    assert sum("virtual cameras see less than" in str(w.message) for w in said) == 1


@pytest.mark.parametrize("cls", [MultiviewReprojectionLoss, LogMultiviewReprojectionLoss])
def test_weak_perspective_does_not_depend_on_the_focal_length(cls):
    "With the similarity; without it the loss grows with the focal length."
    g = torch.Generator().manual_seed(0)
    x = 30 * torch.randn(6, 40, 3, generator=g, dtype=torch.float64)
    q = axis_angle_to_quaternion(0.5 * torch.randn(6, 3, generator=g, dtype=torch.float64))
    s, uv = 1 + 0.1 * torch.rand(6, generator=g).double(), 112 + 5 * torch.randn(6, 2, generator=g).double()
    q_hat = quaternion_multiply(q, axis_angle_to_quaternion(0.05 * torch.randn(6, 3, generator=g).double()))
    values = {}
    for similarity in (True, False):
        for focal in (1e5, 1e6, 1e7):
            R, t, K = weak_perspective(s, q, uv, 224, focal=focal)
            R_hat, t_hat, _ = weak_perspective(1.1 * s, q_hat, uv + 2, 224, focal=focal)
            source = cls(K, similarity=similarity, cameras="true+uniform")
            values[similarity, focal] = source(x + 1, R_hat, t_hat, x, R, t).item()
    assert values[True, 1e5] == pytest.approx(values[True, 1e7], rel=2e-3)
    assert values[True, 1e6] == pytest.approx(values[True, 1e7], rel=2e-4)
    assert values[False, 1e7] > values[False, 1e5] + 1


def test_second_derivatives():
    x_hat, q_hat, t_hat, *truth = batch(B=2, N=3)
    views = truth[1].roll(1, 0)[:, None], truth[2].roll(1, 0)[:, None]
    loss = lambda *p: multiview_reprojection(*p, *truth, K, *views, "squared")
    leaves = [v.requires_grad_() for v in (x_hat, q_hat, t_hat)]
    assert torch.autograd.gradgradcheck(loss, leaves)


def test_memory_does_not_grow_with_views(monkeypatch):
    "Chunks give what the whole gives; what is kept for the backward pass is as large as the inputs."
    inputs = batch(B=7, N=20)
    whole = gradients(MultiviewReprojectionLoss(K, views=5), inputs)
    monkeypatch.setattr("mrl.losses.functional.CHUNK", 5 * 3 * 20 * 2)  # two images at a time
    chunks = gradients(MultiviewReprojectionLoss(K, views=5), inputs)
    assert chunks[0].item() == pytest.approx(whole[0].item(), rel=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(chunks[1], whole[1]))
    leaves = [v.requires_grad_() for v in inputs[:3]]
    found = torch.autograd.grad(MultiviewReprojectionLoss(K)(*inputs), leaves)
    assert all(g.is_contiguous() for g in found)  # or a leaf would keep a copy beside it


def test_the_graph_can_be_used_again():
    "A gradient that is taken twice is the same twice; the gradients themselves are not half precision under autocast."
    inputs = batch(dtype=torch.float32)
    leaves = [v.requires_grad_() for v in inputs[:3]]
    loss = LogMultiviewReprojectionLoss(K)(*inputs)
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    copies = [g.clone() for g in first]
    second = torch.autograd.grad(2 * loss, leaves)
    assert all(torch.equal(2 * a, b) and torch.equal(a, c) for a, b, c in zip(copies, second, first))
    with torch.autocast("cpu", torch.bfloat16):
        loss = LogMultiviewReprojectionLoss(K)(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(copies, torch.autograd.grad(loss, leaves)))
