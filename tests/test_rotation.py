"""Rotations against SciPy and RoMa, at the singular angles, with gradients, in every batch shape."""

import math

import mpmath
import numpy as np
import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.transform import Rotation
from strategies import agree, angles, batches, directions, dtypes, generators, rotations
from strategies import randn as normal

from mrl.geometry.rotation import (
    axis_angle_to_quaternion,
    broadcast_batch,
    check_rotation_matrix,
    check_shape,
    geodesic_angle,
    haar_angle,
    matrix_to_quaternion,
    normalize_quaternion,
    quaternion_inverse,
    quaternion_multiply,
    quaternion_to_matrix,
    random_quaternion,
    random_quaternion_within,
    rotate,
    slerp,
)

BATCHES = [(), (0,), (1,), (5,), (2, 0, 3), (2, 1, 3)]
IDENTITY = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
close = torch.testing.assert_close


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def randn(*shape, rng):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def to_scipy(q):
    return Rotation.from_quat(q.reshape(-1, 4).numpy(), scalar_first=True)


def grid_axes():
    "The 26 directions to the neighbours of a cube: every sign, and every tie between entries."
    axes = torch.cartesian_prod(*[torch.tensor([-1.0, 0, 1], dtype=torch.float64)] * 3)
    axes = axes[axes.norm(dim=-1) > 0]
    return axes / axes.norm(dim=-1, keepdim=True)


def same_rotation(p, q, tolerance):
    "|p - q| up to sign."
    assert torch.minimum((p - q).norm(dim=-1), (p + q).norm(dim=-1)).max() < tolerance


@pytest.mark.parametrize("batch", BATCHES)
def test_agrees_with_scipy_and_roma(batch, rng):
    p, q, x = randn(*batch, 4, rng=rng), randn(*batch, 4, rng=rng), randn(*batch, 3, rng=rng)
    R = quaternion_to_matrix(q)
    assert R.shape == (*batch, 3, 3)
    product = normalize_quaternion(quaternion_multiply(p, q))
    rotated = rotate(q, x)
    angle = geodesic_angle(p, q)
    back = matrix_to_quaternion(R)
    assert (product.shape, rotated.shape, angle.shape, back.shape) == ((*batch, 4), (*batch, 3), batch, (*batch, 4))
    if q.numel() == 0:
        return
    P, Q = to_scipy(p), to_scipy(q)
    close(R.reshape(-1, 3, 3), torch.from_numpy(Q.as_matrix()))
    close(R, roma.unitquat_to_rotmat(normalize_quaternion(q).roll(-1, -1)))
    same_rotation(product.reshape(-1, 4), torch.from_numpy((P * Q).as_quat(scalar_first=True)), 1e-14)
    close(rotated.reshape(-1, 3), torch.from_numpy(Q.apply(x.reshape(-1, 3).numpy())))
    close(angle.reshape(-1), torch.from_numpy((P.inv() * Q).magnitude()))
    same_rotation(back, normalize_quaternion(q), 1e-14)
    same_rotation(back, roma.rotmat_to_unitquat(R).roll(1, -1), 1e-14)


def test_batches_broadcast(rng):
    p, q, x = randn(4, 1, 4, rng=rng), randn(3, 4, rng=rng), randn(2, 1, 1, 3, rng=rng)
    close(quaternion_multiply(p, q), quaternion_multiply(p.expand(4, 3, 4), q.expand(4, 3, 4)))
    close(rotate(q, x), rotate(q.expand(2, 1, 3, 4), x.expand(2, 1, 3, 3)))
    close(geodesic_angle(p, q), geodesic_angle(p.expand(4, 3, 4), q.expand(4, 3, 4)))
    s = torch.rand(4, 3, generator=rng, dtype=torch.float64)
    close(slerp(p, q, s), slerp(p.expand(4, 3, 4), q.expand(4, 3, 4), s))
    assert slerp(p[0, 0], q[0], s).shape == (4, 3, 4)


@pytest.mark.parametrize("scale", [-1, 1e-3, -1e4, 1e-200, 1e200])
def test_sign_and_norm_do_not_matter(scale, rng):
    q = randn(20, 4, rng=rng)
    close(quaternion_to_matrix(scale * q), quaternion_to_matrix(q))
    close(geodesic_angle(scale * q, q), torch.zeros(20, dtype=torch.float64), rtol=0, atol=1e-14)
    close(rotate(scale * q, q[:, :3]), rotate(q, q[:, :3]))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 4e-7), (torch.float64, 8e-16)])
@pytest.mark.parametrize("gap", [0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-2, 0.5, math.pi - 1e-6, math.pi])
def test_matrix_to_quaternion_at_every_angle(gap, dtype, tolerance, rng):
    axes = torch.cat([grid_axes(), torch.nn.functional.normalize(randn(200, 3, rng=rng), dim=-1)])
    half = (math.pi - gap) / 2
    q = torch.cat([torch.full((len(axes), 1), math.cos(half), dtype=torch.float64), math.sin(half) * axes], -1)
    R = torch.from_numpy(to_scipy(q).as_matrix()).to(dtype)
    ours = matrix_to_quaternion(R)
    assert ours.dtype == dtype and (ours[:, 0] >= 0).all()
    same_rotation(ours.double(), q, 4 * tolerance)
    close(quaternion_to_matrix(ours), R, rtol=0, atol=8 * tolerance)


def test_matrix_to_quaternion_takes_drifted_rotations(rng):
    R = quaternion_to_matrix(randn(50, 4, rng=rng))
    drifted = R + 3e-4 * torch.rand(50, 3, 3, generator=rng, dtype=torch.float64)
    q = matrix_to_quaternion(drifted)
    close(q.norm(dim=-1), torch.ones(50, dtype=torch.float64))
    close(quaternion_to_matrix(q), R, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "matrix",
    [
        torch.diag(torch.tensor([1.0, 1, -1])),
        -torch.eye(3),
        torch.zeros(3, 3),
        1.01 * torch.eye(3),
        torch.tensor([[1.0, 0.1, 0], [0, 1, 0], [0, 0, 1]]),
        torch.full((3, 3), math.nan),
        torch.full((3, 3), math.inf),
    ],
)
def test_what_is_no_rotation_is_refused(matrix):
    with pytest.raises(ValueError, match=r"R: expected rotation matrices .* got 1 of 2 .* at \[1\]"):
        matrix_to_quaternion(torch.stack([torch.eye(3), matrix]))
    with pytest.raises(ValueError, match="Q: expected rotation"):
        check_rotation_matrix(matrix, "Q")


def test_gradients(rng):
    check = torch.autograd.gradcheck
    p, q = (randn(2, 3, 4, rng=rng).requires_grad_() for _ in range(2))
    x, s = (randn(2, 3, n, rng=rng).requires_grad_() for n in (3, 1))
    assert check(normalize_quaternion, q)
    assert check(quaternion_multiply, (p, q))
    assert check(quaternion_inverse, q)
    assert check(rotate, (q, x))
    assert check(quaternion_to_matrix, q)
    assert check(geodesic_angle, (p, q))
    assert check(lambda p, q, s: slerp(p, q, s[..., 0]), (p, q, s))
    assert check(lambda q: matrix_to_quaternion(quaternion_to_matrix(q)), q)
    assert check(axis_angle_to_quaternion, x)


def test_gradients_at_singular_points(rng):
    q = randn(8, 4, rng=rng)
    for other in q, -q, 3 * q, quaternion_multiply(q, IDENTITY.roll(1)):  # angle 0 three times, and pi
        for f in (
            geodesic_angle,
            lambda a, b: slerp(a, b, 0.25),
            lambda a, b: slerp(a, b, 0.0),
            lambda a, b: slerp(a, b, 1.0),
        ):
            ends = q.clone().requires_grad_(), other.clone().requires_grad_()
            f(*ends).sum().backward()
            for end in ends:
                assert end.grad.isfinite().all() and end.grad.abs().max() < 100
    for near in 1e-3, 1e-6, 1e-9, 1e-15:  # as the ends approach each other
        ends = q.clone().requires_grad_(), (q + near * randn(8, 4, rng=rng)).requires_grad_()
        assert torch.autograd.gradcheck(lambda a, b: slerp(a, b, 0.3), ends)
    v = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(axis_angle_to_quaternion, v)
    R = torch.from_numpy(Rotation.from_rotvec(math.pi * grid_axes().numpy()).as_matrix()).requires_grad_()
    matrix_to_quaternion(R).sum().backward()
    assert R.grad.isfinite().all() and R.grad.abs().max() < 2


@pytest.mark.parametrize("dtype, accuracy", [(torch.float32, 5e-7), (torch.float64, 1e-15)])
def test_geodesic_angle_near_zero_and_pi(dtype, accuracy, rng):
    axes = torch.nn.functional.normalize(randn(100, 3, rng=rng), dim=-1)
    one = IDENTITY.to(dtype)
    for small in 1e-16, 1e-12, 1e-7, 1e-4, 1e-2:
        q = torch.cat(
            [torch.full((100, 1), math.cos(small / 2), dtype=torch.float64), math.sin(small / 2) * axes], -1
        ).to(dtype)
        found = geodesic_angle(one, q).double()
        assert ((found - small) / small).abs().max() < accuracy  # relative: every digit
    for gap in 0, 1e-12, 1e-7, 1e-4, 1e-2:
        half = (math.pi - gap) / 2
        q = torch.cat([torch.full((100, 1), math.cos(half), dtype=torch.float64), math.sin(half) * axes], -1).to(dtype)
        found = geodesic_angle(one, q)
        assert (found.double() - (math.pi - gap)).abs().max() < accuracy and (
            found <= torch.tensor(math.pi, dtype=dtype)
        ).all()


def test_slerp(rng):
    p, q = randn(2, 40, 4, rng=rng)
    s = torch.rand(40, generator=rng, dtype=torch.float64)
    middle = slerp(p, q, s)
    close(middle.norm(dim=-1), torch.ones(40, dtype=torch.float64))
    close(geodesic_angle(p, middle), s * geodesic_angle(p, q))
    close(geodesic_angle(middle, q), (1 - s) * geodesic_angle(p, q))
    same_rotation(slerp(q, p, 1 - s), middle, 1e-14)
    same_rotation(slerp(-3 * p, 0.1 * q, s), middle, 1e-14)
    near = normalize_quaternion(p + 1e-9 * q)
    same_rotation(slerp(p, -near, 0.5), normalize_quaternion(normalize_quaternion(p) + near), 1e-15)
    same_rotation(slerp(p, -p, 0.7), normalize_quaternion(p), 1e-15)
    with pytest.raises(ValueError, match=r"batch shapes do not broadcast: q0 \(40,\), q1 \(40,\), s \(3,\)"):
        slerp(p, q, torch.rand(3))


def test_axis_angle_is_the_exponential(rng):
    for size in 0, 1e-300, 1e-20, 1e-8, 0.05, 0.0632, 0.0633, 1, 3.14159, 6, 50:
        v = size * torch.nn.functional.normalize(randn(20, 3, rng=rng), dim=-1)
        ours = axis_angle_to_quaternion(v)
        close(
            ours,
            torch.cat(
                [
                    torch.full((20, 1), math.cos(size / 2), dtype=torch.float64),
                    math.sin(size / 2) * v / max(size, 1e-300),
                ],
                -1,
            ),
            rtol=1e-14,
            atol=1e-14,
        )
        close(ours.norm(dim=-1), torch.ones(20, dtype=torch.float64))


def test_uniform_rotations(rng):
    q = random_quaternion((100, 100), rng, dtype=torch.float64).reshape(-1, 4)
    angle = geodesic_angle(IDENTITY, q).numpy()
    assert stats.kstest(angle, lambda a: (a - np.sin(a)) / math.pi).pvalue > 0.01
    assert stats.ks_2samp(angle, Rotation.random(10000, random_state=1).magnitude()).pvalue > 0.01
    for column in q.T:  # a coordinate of a uniform point of the 3-sphere: density (2 / pi) sqrt(1 - c^2)
        assert (
            stats.kstest(column.numpy(), lambda c: (c * np.sqrt(1 - c * c) + np.arcsin(c)) / math.pi + 0.5).pvalue
            > 0.01
        )
    R = quaternion_to_matrix(q).flatten(1)
    assert R.mean(0).abs().max() < 0.03  # Schur: E[R] = 0
    assert (
        R.T @ R / len(R) - torch.eye(9, dtype=torch.float64) / 3
    ).abs().max() < 0.03  # and E[R_ij R_kl] = 1/3 on the diagonal


@pytest.mark.parametrize("angle", [1e-6, 0.1, math.radians(45), 2.5, math.pi])
def test_uniform_within_an_angle(angle, rng):
    q = random_quaternion_within(angle, (5000,), rng, dtype=torch.float64)
    found = geodesic_angle(IDENTITY, q)
    assert found.max() <= angle * (1 + 1e-12)
    cdf = (lambda a: (a / angle) ** 3) if angle < 1e-3 else (lambda a: (a - np.sin(a)) / (angle - math.sin(angle)))
    assert stats.kstest(found.numpy(), cdf).pvalue > 0.01
    axis = q[:, 1:] / q[:, 1:].norm(dim=-1, keepdim=True)
    for column in axis.T:  # Archimedes: uniform in [-1, 1]
        assert stats.kstest(column.numpy(), lambda c: (c + 1) / 2).pvalue > 0.01
    correlation = np.corrcoef(np.column_stack([found.numpy(), axis.numpy(), (axis**2).numpy()[:, :2]]).T)[0, 1:]
    assert np.abs(correlation).max() < 0.06  # axis and angle independent


@pytest.mark.parametrize("angle", [1e-8, 0.05, 0.2, 1.0, 2.5, math.pi])
def test_inverse_cdf_against_fifty_digits(angle):
    share = [1e-8, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1]
    with mpmath.workdps(50):
        g = lambda theta: theta - mpmath.sin(theta)
        u = [float(g(mpmath.mpf(angle) * s) / g(mpmath.mpf(angle))) for s in share]
    found = haar_angle(torch.tensor(u, dtype=torch.float64), angle)
    close(found, angle * torch.tensor(share, dtype=torch.float64), rtol=1e-12, atol=0)
    assert haar_angle(torch.zeros(1, dtype=torch.float64), angle) == 0


def test_within_pi_is_uniform(rng):
    a = geodesic_angle(IDENTITY, random_quaternion_within(math.pi, (5000,), rng, dtype=torch.float64))
    b = geodesic_angle(IDENTITY, random_quaternion((5000,), rng, dtype=torch.float64))
    assert stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 0.01


@pytest.mark.parametrize("draw", [random_quaternion, lambda *a, **k: random_quaternion_within(0.7, *a, **k)])
def test_sampling_is_deterministic(draw):
    for batch in BATCHES:
        assert draw(batch).shape == (*batch, 4)
    first, second = (draw((3, 2), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == torch.get_default_dtype()
    state = torch.get_rng_state()
    draw((3,), torch.Generator().manual_seed(1))
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone
    torch.manual_seed(3)
    third = draw((3,))
    torch.manual_seed(3)
    assert torch.equal(third, draw((3,)))
    assert draw((2,), dtype=torch.float64).dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("draw", [random_quaternion, lambda *a, **k: random_quaternion_within(0.7, *a, **k)])
def test_a_seed_means_the_same_on_a_gpu(draw):
    here, there = (draw((50,), torch.Generator().manual_seed(7), device=device) for device in ("cpu", "cuda"))
    assert there.is_cuda
    close(here, there.cpu())
    own = draw((50,), torch.Generator("cuda").manual_seed(7), device="cuda")
    close(matrix_to_quaternion(quaternion_to_matrix(own)).cpu(), matrix_to_quaternion(quaternion_to_matrix(own.cpu())))


@pytest.mark.parametrize("angle", [-0.1, 3.2, 45, math.nan, math.inf])
def test_angle_out_of_range(angle):
    with pytest.raises(ValueError, match="angle: expected radians between 0 and pi"):
        random_quaternion_within(angle, (2,))


@pytest.mark.parametrize("bad", [[0.0, 0, 0, 0], [math.nan, 0, 0, 1], [1, math.inf, 0, 0], [1, 0, 0, -math.inf]])
@pytest.mark.parametrize(
    "f, name",
    [
        (normalize_quaternion, "q"),
        (quaternion_inverse, "q"),
        (quaternion_to_matrix, "q"),
        (lambda q: rotate(q, q[..., :3]), "q"),
        (lambda q: geodesic_angle(q, torch.ones(4)), "q0"),
        (lambda q: geodesic_angle(torch.ones(4), q), "q1"),
        (lambda q: slerp(q, torch.ones(4), 0.5), "q0"),
        (lambda q: slerp(torch.ones(4), q, 0.5), "q1"),
    ],
)
def test_zero_and_non_finite_quaternions(bad, f, name):
    q = torch.ones(2, 3, 4)
    q[1, 2] = torch.tensor(bad)
    with pytest.raises(ValueError, match=rf"{name}: expected finite, non-zero quaternions, got 1 of 6 .* at \[1, 2\]"):
        f(q)
    with pytest.raises(ValueError, match=rf"{name}: expected finite, non-zero"):
        f(q[1, 2])


@pytest.mark.parametrize(
    "f, name, bad",
    [
        (normalize_quaternion, "q", torch.ones(3)),
        (normalize_quaternion, "q", torch.tensor(1.0)),
        (quaternion_to_matrix, "q", torch.ones(4, dtype=torch.int64)),
        (quaternion_to_matrix, "q", np.ones(4)),
        (matrix_to_quaternion, "R", torch.eye(4)),
        (matrix_to_quaternion, "R", torch.ones(3)),
        (axis_angle_to_quaternion, "axis_angle", torch.ones(4)),
        (lambda x: rotate(IDENTITY, x), "x", torch.ones(5, 4)),
        (lambda p: quaternion_multiply(p, IDENTITY), "p", torch.ones(3)),
        (lambda q: quaternion_multiply(IDENTITY, q), "q", None),
    ],
)
def test_wrong_shapes(f, name, bad):
    with pytest.raises(ValueError, match=rf"^{name}: expected a floating-point tensor of shape \(\.\.\., "):
        f(bad)


def test_helpers():
    check_shape("x", torch.ones(0, 3), "N", 3)
    with pytest.raises(ValueError, match="batch shapes do not broadcast"):
        quaternion_multiply(torch.ones(2, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"q \(2,\), x \(3,\)"):
        rotate(torch.ones(2, 4), torch.ones(3, 3))
    assert broadcast_batch(a=(2, 1), b=()) == (2, 1)


# --- properties, at any angle, in any batch shape and both precisions ------------------------------------------------


@given(rotations(3))
def test_group_axioms(pqr):
    p, q, r = pqr
    one = torch.tensor([1.0, 0, 0, 0], dtype=q.dtype).expand(q.shape)
    agree(quaternion_multiply(quaternion_multiply(p, q), r), quaternion_multiply(p, quaternion_multiply(q, r)))
    agree(quaternion_multiply(q, one), q)
    agree(quaternion_multiply(one, q), q)
    agree(quaternion_multiply(q, quaternion_inverse(q)), one)
    agree(quaternion_multiply(quaternion_inverse(q), q), one)
    agree(
        quaternion_inverse(quaternion_multiply(p, q)), quaternion_multiply(quaternion_inverse(q), quaternion_inverse(p))
    )
    agree(quaternion_multiply(p, q).norm(dim=-1), torch.ones(q.shape[:-1], dtype=q.dtype))


@given(rotations(2))
def test_matrices_represent_the_group(pq):
    p, q = pq
    P, Q = quaternion_to_matrix(p), quaternion_to_matrix(q)
    agree(quaternion_to_matrix(quaternion_multiply(p, q)), P @ Q)
    agree(quaternion_to_matrix(quaternion_inverse(q)), Q.mT)
    agree(torch.linalg.det(Q), torch.ones(q.shape[:-1], dtype=q.dtype))


@given(rotations(2))
def test_both_quaternions_of_a_rotation_are_one(pq):
    "The double cover: q and -q rotate alike, are no angle apart, and give one matrix."
    p, q = pq
    assert torch.equal(quaternion_to_matrix(-q), quaternion_to_matrix(q))
    assert torch.equal(rotate(-q, p[..., :3]), rotate(q, p[..., :3]))
    agree(geodesic_angle(q, -q), torch.zeros(q.shape[:-1], dtype=q.dtype))
    agree(geodesic_angle(p, -q), geodesic_angle(p, q))


@given(rotations(1))
def test_the_matrix_gives_its_quaternion_back(q):
    (q,) = q
    back = matrix_to_quaternion(quaternion_to_matrix(q))
    assert (back[..., 0] >= 0).all()
    agree(back * (back * q).sum(-1, keepdim=True).sign(), q)
    agree(quaternion_to_matrix(back), quaternion_to_matrix(q))


@given(batches, dtypes, angles, generators)
def test_the_angle_of_an_exponential_is_its_length(batch, dtype, angle, rng):
    v = (angle * directions(batch, rng)).to(dtype)
    one = torch.tensor([1.0, 0, 0, 0], dtype=dtype)
    agree(geodesic_angle(one, axis_angle_to_quaternion(v)), v.norm(dim=-1).clamp(max=math.pi))
    agree(axis_angle_to_quaternion(-v), quaternion_inverse(axis_angle_to_quaternion(v)))


@given(rotations(3))
def test_the_angle_is_a_metric_that_rotations_leave_alone(pqr):
    p, q, r = pqr
    between = geodesic_angle(p, q)
    agree(geodesic_angle(q, p), between)
    assert (between <= geodesic_angle(p, r) + geodesic_angle(r, q) + 100 * torch.finfo(q.dtype).eps).all()
    agree(geodesic_angle(quaternion_multiply(r, p), quaternion_multiply(r, q)), between)
    agree(geodesic_angle(quaternion_multiply(p, r), quaternion_multiply(q, r)), between)


@given(rotations(1), generators)
def test_rotating_keeps_lengths_and_handedness(q, rng):
    (q,) = q
    x, y = (normal(q.shape[:-1], 3, rng).to(q.dtype) for _ in range(2))
    agree(rotate(q, x).norm(dim=-1), x.norm(dim=-1))
    agree(torch.linalg.cross(rotate(q, x), rotate(q, y)), rotate(q, torch.linalg.cross(x, y)))
    agree(rotate(quaternion_inverse(q), rotate(q, x)), x)
    agree(rotate(q, x), (quaternion_to_matrix(q) @ x[..., None])[..., 0])


@given(rotations(2), st.floats(0, 1))
def test_slerp_divides_the_angle(pq, s):
    p, q = pq
    middle, whole = slerp(p, q, s), geodesic_angle(p, q)
    agree(geodesic_angle(p, middle), s * whole)
    agree(geodesic_angle(middle, q), (1 - s) * whole)
