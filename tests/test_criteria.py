"""Test mrl.losses.criteria: one set of tests over the registry. A criterion is tested once it is registered."""

import math
from typing import Annotated

import pytest
import torch

import mrl.losses
from mrl.geometry.camera import intrinsics
from mrl.geometry.rotation import quaternion_multiply, random_quaternion, rotate
from mrl.losses import (
    CRITERIA,
    Criterion,
    Disentangled,
    MultiviewReprojectionLoss,
    Parameter,
    criterion_of,
    example_batch,
    flat_parameters,
    loss_parameters,
)
from mrl.training.configuration import TrainConfig
from mrl.training.criterion import in_units, make_criterion

K = intrinsics(640.0, 224).double()
every = pytest.mark.parametrize("name", CRITERIA)


def make(name, **flat):
    "Return the criterion with a name, with those flat parameters that it has; its virtual cameras are seeded."
    cls = CRITERIA[name]
    own = {k: v for k, v in flat.items() if k in flat_parameters(cls)}
    if "cameras" in flat_parameters(cls):
        own["generator"] = torch.Generator().manual_seed(0)
    return getattr(cls, "from_flat", cls)(**own)


def value(name, batch, **flat):
    return make(name, **flat)(*batch, torch.zeros(*batch[1].shape[:-1], 2, dtype=torch.float64), K=K)


# Two equal images: a point 600 mm ahead of a camera with a focal length of 600 px, so that a millimetre is a pixel. The
# shape is 3 mm too wide, the camera is rolled by 180 degrees and is 2 mm too low. In the camera frame the point should
# be at (60, 0, 600) and is at (-63, 2, 600).
BY_HAND = {
    "mrl": (123 + 2) / 2,  # every camera is the true one
    "reprojection": (123 + 2) / 2,
    "geometric_alignment": (123 + 2) / 3,
    "pixel_alignment": (123 + 2) / 3,
    "multi_term": 3 / 3 + 2 / 4 + 2 / 3,  # q = (1, 0, 0, 0), q_hat = (0, 0, 0, 1)
    "homoscedastic": 3 / 3 + 2 / 4 + 2 / 3,
    "log_terms": math.log(3 / 3) + math.log(2 / 4) + math.log(2 / 3),
    "homography": 8 + 2**2 / 600**2,  # R = diag(-1, -1, 1), its third column is that of I; one depth
    "log_mrl": math.log(3 / 2) + math.log(120 / 2) + math.log(2 / 2),  # wider, rolled about the axis, lower
    "mean_log_mrl": math.log(3 / 2) + math.log(120 / 2) + math.log(2 / 2),  # the same: the two images are equal
}


@every
def test_by_hand(name):
    assert name in BY_HAND, "add a value computed by hand"
    x, q, t = [[60.0, 0, 0]], [1.0, 0, 0, 0], [0.0, 0, -600]
    x_hat, q_hat, t_hat = [[63.0, 0, 0]], [0.0, 0, 0, 1], [0.0, 2, -600]
    batch = [torch.tensor([v, v], dtype=torch.float64) for v in (x_hat, q_hat, t_hat, x, q, t)]
    got = make(name)(*batch, K=torch.diag(torch.tensor([600.0, 600, 1])))
    assert got.item() == pytest.approx(BY_HAND[name], rel=1e-6)


@every
def test_its_class_is_public(name):
    cls = CRITERIA[name]
    assert getattr(mrl.losses, cls.__name__) is cls and "Args:" in cls.__doc__


@every
def test_at_the_truth(name):
    truth = example_batch()[3:]
    got = value(name, (*truth, *truth)).item()
    if CRITERIA[name].at_truth == -math.inf:
        assert got < -60  # the logarithms of three rounding errors
    else:
        assert got == pytest.approx(CRITERIA[name].at_truth, abs=1e-6)


@every
def test_a_larger_error_in_any_part_is_seen(name):
    small, large = example_batch(error=0.1), example_batch(error=5.0)  # of one truth
    for i, part in enumerate(("x_hat", "q_hat", "t_hat")):
        changed = [large[j] if j == i else v for j, v in enumerate(small)]
        seen = value(name, changed).item() > value(name, small).item() + 1e-6
        assert seen == (part in CRITERIA[name].uses), part


@every
def test_gauge_and_double_cover(name):
    "A rigid motion of the predicted world with its camera, and the sign of a quaternion."
    x_hat, q_hat, t_hat, *truth = example_batch(error=3.0)
    g = torch.Generator().manual_seed(0)
    G = random_quaternion((4,), generator=g, dtype=torch.float64)
    shift = 300 * torch.randn(4, 3, generator=g, dtype=torch.float64)
    moved = (rotate(G[:, None], x_hat) + shift[:, None], quaternion_multiply(G, q_hat), rotate(G, t_hat) + shift)
    expected = value(name, (x_hat, q_hat, t_hat, *truth)).item()
    same = value(name, (*moved, *truth)).item() == pytest.approx(expected, rel=1e-6)
    assert same == CRITERIA[name].gauge_invariant
    assert value(name, (x_hat, -q_hat, t_hat, *truth)).item() == pytest.approx(expected, rel=1e-9)


@every
@pytest.mark.parametrize("cameras", ["true+batch", "uniform"])
def test_gradcheck(name, cameras):
    batch = example_batch(B=3, N=4, seed=1)  # of seed 0 one residual is at a kink of the L1 norm
    leaves = [v.clone().requires_grad_() for v in batch[:3]]
    assert torch.autograd.gradcheck(lambda *p: value(name, (*p, *batch[3:]), cameras=cameras), leaves)
    grads = torch.autograd.grad(value(name, (*leaves, *batch[3:])), leaves, allow_unused=True)
    for part, g in zip(("x_hat", "q_hat", "t_hat"), grads):
        assert (g is not None and g.abs().sum() > 0) == (part in CRITERIA[name].uses), part


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_at_the_truth_is_finite(name, dtype):
    truth = [v.to(dtype) for v in example_batch()[3:]]
    leaves = [v.clone().requires_grad_() for v in truth]
    grads = torch.autograd.grad(make(name)(*leaves, *truth, K=K.to(dtype)), leaves, allow_unused=True)
    assert all(g.isfinite().all() for g in grads if g is not None)


@every
def test_any_batch_shape(name):
    batch = example_batch(B=6)
    flat = {"cameras": "true+uniform"}  # other images' cameras need a batch (B, ...)
    expected = value(name, batch, **flat).item()
    assert value(name, [v.unflatten(0, (2, 3)) for v in batch], **flat).item() == pytest.approx(expected, rel=1e-9)
    one = value(name, [v[0] for v in batch], **flat)
    assert one.shape == () and torch.isfinite(one)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predictions_in_low_precision(name, dtype):
    batch = [v.to(dtype) for v in example_batch()[:3]] + [v.float() for v in example_batch()[3:]]
    got = make(name)(*batch, K=K.float())
    assert got.dtype == torch.float32 and torch.isfinite(got)


@every
def test_configuration_makes_it(name):
    "A configuration with the name of a criterion makes this class, and its parameters are fields of the configuration."
    config = TrainConfig(loss=name)
    assert type(make_criterion(config)[0]) is CRITERIA[name]
    for parameter, declared in flat_parameters(CRITERIA[name]).items():
        assert type(getattr(config, parameter)) is declared.kind and declared.meaning


def test_one_class_is_all_that_a_new_loss_needs():
    class WorstPoint(Criterion, name="worst_point"):
        "Largest distance of a point."

        def forward(self, x_hat, q_hat, t_hat, x, q, t, alpha_id_hat=None, *, K=None):
            return (x_hat - x).norm(dim=-1).amax()

    try:
        criterion, _ = make_criterion(TrainConfig(loss="worst_point"))
        x_hat, _, _, x, _, _ = batch = example_batch()
        given, pixels = in_units(batch, K, unit=1000.0)
        assert criterion(*given, K=pixels).item() == pytest.approx((x_hat - x).norm(dim=-1).max().item() / 1000)
        with pytest.raises(ValueError, match="name: expected one that is not registered, got 'worst_point'"):
            type("Other", (Criterion,), {}, name="worst_point")
    finally:
        del CRITERIA["worst_point"]
    with pytest.raises(ValueError, match="loss must be one of mrl, "):
        TrainConfig(loss="worst_point")


def test_a_parameter_has_one_declaration(monkeypatch):
    assert loss_parameters()["norm"].choices == ("l1", "squared", "l2", "huber")
    assert loss_parameters()["max_angle"].unit == "degrees"

    class Loose(Criterion):
        def __init__(self, alpha: Annotated[float, Parameter("a weight", range=(0, 1))] = 0.5):
            super().__init__()

    monkeypatch.setitem(CRITERIA, "loose", Loose)
    with pytest.raises(ValueError, match="Loose: expected alpha as another criterion declares it"):
        loss_parameters()


def test_flags_of_the_study_are_the_named_loss():
    "The runs mrl-disentangled-3-log were made with three flags, and with virtual cameras for each part."
    flags, _ = make_criterion(TrainConfig(disentangled=True, parts=3, logarithms=True))
    named, _ = make_criterion(TrainConfig(loss="log_mrl"))
    for criterion in (flags, named):
        criterion.criterion.cameras = lambda x, q, t, K, *_: (K, q.roll(1, 0)[:, None], t.roll(1, 0)[:, None])
    assert flags(*example_batch(), K=K).item() == pytest.approx(named(*example_batch(), K=K).item(), rel=1e-12)
    drawn = []
    for criterion in (flags, named):
        source = criterion.criterion.cameras
        criterion.criterion.cameras = lambda *a, source=source: drawn.append(1) or source(*a)
        criterion(*example_batch(), K=K)
    assert len(drawn) == 3 + 1


@pytest.mark.parametrize("name", [n for n, cls in CRITERIA.items() if not cls.gauge_invariant])
def test_only_gauge_invariant_criteria_are_disentangled(name):
    with pytest.raises(ValueError, match="disentangled: expected a criterion that compares geometry in the camera"):
        Disentangled(make(name))
    with pytest.raises(ValueError, match="disentangled: expected"):
        criterion_of(vars(TrainConfig(loss=name)) | {"disentangled": True})


def test_parts_sum_to_the_loss():
    batch = example_batch()
    for parts in (2, 3):
        plain = Disentangled(
            MultiviewReprojectionLoss(K, cameras=lambda x, q, t, K, *_: (K, q[:, None], t[:, None])), parts
        )
        values = plain.parts(*batch)
        assert values.shape == (parts,) and plain(*batch).item() == pytest.approx(values.sum().item())
        plain.logarithms = True
        assert plain(*batch).item() == pytest.approx(values.log().sum().item())
