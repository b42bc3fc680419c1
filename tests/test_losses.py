"Test mrl.losses.functional: independent oracles, invariances, points behind cameras, wrong input."

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mrl.geometry.camera import intrinsics, look_at, project
from mrl.geometry.rotation import quaternion_multiply, random_quaternion, random_quaternion_within, rotate
from mrl.losses import (
    GeometricAlignmentLoss,
    MultiviewReprojectionLoss,
    batch_cameras,
    geometric_alignment,
    multi_term,
    multiview_reprojection,
    orbit_cameras,
    reprojection,
    with_true_camera,
)
from mrl.losses.functional import make_views, project_rows

K = intrinsics(640.0, 224).double()


def sample(B=3, N=25, V=2, seed=0, error=1.0):
    "Truth, prediction with errors in all parts, and virtual cameras that look at the face."
    g = torch.Generator().manual_seed(seed)
    r = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)
    x = r(B, N, 3) * torch.tensor([35.0, 45, 25])
    origin = torch.zeros(3, dtype=torch.float64)
    t, t_v = (v / v.norm(dim=-1, keepdim=True) * (700 + 60 * r(*v.shape[:-1], 1)) for v in (r(B, 3), r(B, V, 3)))
    q, q_v = look_at(t, origin), look_at(t_v, origin)
    q_hat = (
        quaternion_multiply(random_quaternion_within(min(0.15 * error, 3.0), (B,), generator=g, dtype=torch.float64), q)
        if error
        else q
    )
    return (x + 3 * error * r(B, N, 3), q_hat, t + 20 * error * r(B, 3), x, q, t), (K, q_v, t_v)


def to_scipy(q):
    return Rotation.from_quat(q.numpy(), scalar_first=True)


def pixels(P, x):
    u = np.c_[x, np.ones(len(x))] @ P.T
    return u[:, :2] / u[:, 2:]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("norm", ["l1", "squared"])
def test_against_projection_matrices(seed, norm):
    "P_I and P_D as 3x4 matrices built with scipy and numpy's general inverse."
    batch, (K, q_v, t_v) = sample(seed=seed)
    x_hat, q_hat, t_hat, x, q, t = batch

    def C(q, t):
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = to_scipy(q).as_matrix(), t
        return out

    residual = []
    for b in range(len(x)):
        D = C(q[b], t[b]) @ np.linalg.inv(C(q_hat[b], t_hat[b]))
        for v in range(q_v.shape[1]):
            P = K.numpy() @ np.linalg.inv(C(q_v[b, v], t_v[b, v]))[:3]
            residual.append(pixels(P, x[b].numpy()) - pixels(P @ D, x_hat[b].numpy()))
    expected = np.mean(np.abs(residual)) if norm == "l1" else np.mean(np.square(residual))
    assert multiview_reprojection(*batch, K, q_v, t_v, norm).item() == pytest.approx(expected, rel=1e-10)


def test_squared_norm_is_the_released_codes():
    "Their form: P = K C^-1 per view, squared residuals, means over coordinates, points, views and images."
    batch, (K, q_v, t_v) = sample(B=4, V=3)
    x_hat, q_hat, t_hat, x, q, t = (v.numpy() for v in batch)
    pose = lambda q, t: np.block(
        [[Rotation.from_quat(q, scalar_first=True).as_matrix(), t[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]
    )
    images = []
    for b in range(4):
        views = []
        for v in range(3):
            P = K.numpy() @ np.linalg.inv(pose(q_v[b, v].numpy(), t_v[b, v].numpy()))[:3]
            P_hat = P @ pose(q[b], t[b]) @ np.linalg.inv(pose(q_hat[b], t_hat[b]))
            views.append(((pixels(P, x[b]) - pixels(P_hat, x_hat[b])) ** 2).mean(1).mean())
        images.append(np.mean(views))
    assert multiview_reprojection(*batch, K, q_v, t_v, "squared").item() == pytest.approx(np.mean(images), rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_gauge_and_double_cover(seed):
    batch, cameras = sample(seed=seed)
    x_hat, q_hat, t_hat, *truth = batch
    g = torch.Generator().manual_seed(seed)
    G = random_quaternion((3,), generator=g, dtype=torch.float64)
    shift = 300 * torch.randn(3, 3, generator=g, dtype=torch.float64)
    moved = (rotate(G[:, None], x_hat) + shift[:, None], -quaternion_multiply(G, q_hat), rotate(G, t_hat) + shift)
    for loss in (lambda *b: multiview_reprojection(*b, *cameras), lambda *b: reprojection(*b, K), geometric_alignment):
        assert loss(*moved, *truth).item() == pytest.approx(loss(*batch).item(), rel=1e-8)
    # no gauge: it has weights instead
    assert multi_term(*moved, *truth).item() != pytest.approx(multi_term(*batch).item(), rel=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_zero_when_camera_frame_geometry_agrees(seed):
    (x_hat, q_hat, t_hat, x, q, t), cameras = sample(seed=seed)
    in_camera = rotate((q * torch.tensor([1.0, -1, -1, -1]))[:, None], x - t[:, None])
    # wrong shape and wrong pose, same geometry in the camera
    other_world = rotate(q_hat[:, None], in_camera) + t_hat[:, None]
    assert (other_world - x).abs().max() > 1
    assert multiview_reprojection(other_world, q_hat, t_hat, x, q, t, *cameras) < 1e-8
    assert multiview_reprojection(x, q_hat, t_hat, x, q, t, *cameras) > 1  # right shape, wrong camera


def test_the_true_camera_alone_is_reprojection_and_ignores_depth():
    (x_hat, q_hat, t_hat, x, q, t), _ = sample(error=0.0)
    ray = x - t[:, None]
    deeper = t[:, None] + 1.1 * ray  # every vertex moved along its own line of sight
    assert reprojection(deeper, q, t, x, q, t, K) < 1e-9
    assert multiview_reprojection(deeper, q, t, x, q, t, K, q[:, None], t[:, None]) < 1e-9
    other = torch.roll(q, 1, 0)[:, None], torch.roll(t, 1, 0)[:, None]
    assert multiview_reprojection(deeper, q, t, x, q, t, K, *other) > 5


@pytest.mark.parametrize("back", [0.0, 300.0, 640.0, 700.0, 760.0, 1500.0, 1e5])
def test_points_behind_a_virtual_camera_are_pulled_back(back):
    "Slide the prediction along the view's axis, through the focal plane: finite, and descent goes forward."
    (_, _, _, x, q, t), _ = sample(error=0.0)
    axis = rotate(q, torch.tensor([0.0, 0, 1], dtype=torch.float64))
    shift = torch.tensor(back, dtype=torch.float64, requires_grad=True)
    x_hat = x - shift * axis[:, None]
    loss = multiview_reprojection(x_hat, q, t, x, q, t, K, q[:, None], t[:, None])
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(shift.grad)
    if back:
        assert shift.grad > 0  # a smaller shift is better, everywhere


def test_focal_plane_needs_no_luck():
    "A point exactly in the focal plane of a virtual camera, in single precision."
    x = torch.tensor([[[10.0, 20.0, 0.0], [0.0, 0.0, 5.0], [-5.0, 3.0, 1.0]]])
    q, t = torch.tensor([[0.0, 1, 0, 0]]), torch.tensor([[0.0, 0, 600]])
    x_hat = (x + torch.tensor([0, 0, 600.0])).requires_grad_()
    loss = multiview_reprojection(x_hat, q, t, x, q, t, K.float(), q[:, None], t[:, None])
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x_hat.grad).all()


def test_guard_leaves_ordinary_points_alone():
    batch, (K, q_v, t_v) = sample(seed=3)
    x = batch[3]
    views = make_views(x, q_v, t_v, K)
    xy, z = project_rows(views.P, x)
    assert (z > views.near[..., None, None]).all()
    assert torch.allclose((xy / z).mT + K[:2, 2], project(x[:, None], K, q_v, t_v), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_are_widened(dtype):
    "What a user with an autocast head passes: the loss is float32, and that of the rounded prediction."
    batch, (K, q_v, t_v) = sample()
    x_hat, q_hat, t_hat = (v.to(dtype) for v in batch[:3])
    truth = [v.float() for v in batch[3:]]
    loss = multiview_reprojection(x_hat, q_hat, t_hat, *truth, K, q_v, t_v)  # K and cameras in double, as well
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        multiview_reprojection(
            x_hat.float(), q_hat.float(), t_hat.float(), *truth, K.float(), q_v.float(), t_v.float()
        ).item(),
        rel=1e-5,
    )
    everything = [v.to(dtype) for v in batch]
    assert torch.isfinite(MultiviewReprojectionLoss(K)(*everything))


@pytest.mark.parametrize("enabled", [False, True])
def test_autocast_changes_nothing(enabled):
    batch, cameras = sample()
    batch = [v.float() for v in batch]
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        losses = [multiview_reprojection(*batch, *cameras), reprojection(*batch, K), geometric_alignment(*batch)]
    assert losses[0].item() == pytest.approx(multiview_reprojection(*batch, *cameras).item(), rel=1e-5)
    assert losses[1].item() == pytest.approx(reprojection(*batch, K).item(), rel=1e-5)
    assert losses[2].item() == pytest.approx(geometric_alignment(*batch).item(), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units_cancel_even_behind_a_camera(scale):
    "mm to m and back changes no pixel, guard included; a multi-term loss moves."
    batch, (K, q_v, t_v) = sample(error=30.0)
    scaled = [v * scale if v.shape[-1] == 3 else v for v in batch]
    expected = multiview_reprojection(*batch, K, q_v, t_v).item()
    assert multiview_reprojection(*scaled, K, q_v, scale * t_v).item() == pytest.approx(expected, rel=1e-9)
    weighted = [multi_term(*b, alpha=1e3).item() for b in (scaled, batch)]
    assert weighted[0] != pytest.approx(scale * weighted[1], rel=0.01)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_any_batch_shape(shape):
    batch, (K, q_v, t_v) = sample(B=6)
    n = int(np.prod(shape))
    cut = [v[:n].reshape(*shape, *v.shape[1:]) for v in (*batch, q_v, t_v)]
    flat = multiview_reprojection(*(v[:n] for v in batch), K, q_v[:n], t_v[:n])
    assert multiview_reprojection(*cut[:6], K, *cut[6:]).item() == pytest.approx(flat.item())
    assert geometric_alignment(*cut[:6]).item() == pytest.approx(geometric_alignment(*(v[:n] for v in batch)).item())
    assert reprojection(*cut[:6], K).item() == pytest.approx(reprojection(*(v[:n] for v in batch), K).item())


def test_uniform_cameras_are_haar():
    "Rotations relative to the true camera: angle density (1 - cos) / pi, axes without preference."
    (_, _, _, x, q, t), _ = sample(B=2)
    K_v, q_v, t_v = orbit_cameras()(x, q, t, K, 20_000, torch.Generator().manual_seed(0))
    relative = to_scipy(q_v[0]) * to_scipy(q[0]).inv()
    angle = np.sort(relative.magnitude())
    cdf = (angle - np.sin(angle)) / np.pi
    assert np.abs(cdf - (np.arange(len(cdf)) + 0.5) / len(cdf)).max() < 0.015
    axis = relative.as_rotvec() / relative.magnitude()[:, None]
    assert np.abs(axis.mean(0)).max() < 0.02


def test_batch_cameras_are_never_ones_own_and_keep_their_intrinsics():
    (_, _, _, x, q, t), _ = sample(B=7)
    K_i = torch.stack([intrinsics(300.0 + i, 224).double() for i in range(7)])
    for seed in range(20):
        K_v, q_v, t_v = batch_cameras(x, q, t, K_i, 3, torch.Generator().manual_seed(seed))
        source = (K_v[..., 0, 0] - 300).round().long()
        assert torch.equal(q_v, q[source]) and torch.equal(t_v, t[source])
        assert (source != torch.arange(7)[:, None]).all()
        assert all(len(set(row)) == 3 for row in source.tolist())
    K_v, q_v, t_v = with_true_camera(batch_cameras)(x, q, t, K_i, 4)
    assert torch.equal(q_v[:, 0], q) and q_v.shape == (7, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: lambda v: v[:, :-1]}, "x_hat: expected shape"),
        ({1: lambda v: v[:, :3]}, "q_hat: expected shape"),
        ({2: lambda v: v[:1]}, "t_hat: expected shape"),
        ({3: lambda v: v[..., :2]}, "x: expected shape"),
        ({4: lambda v: v * 0}, "zero|norm"),
        ({1: lambda v: v * 0}, "zero|norm"),
        ({0: lambda v: v * torch.inf}, "x_hat: expected finite values"),
        ({5: lambda v: v * torch.nan}, "t: expected finite values"),
    ],
)
def test_bad_input_is_named(change, message):
    batch, cameras = sample()
    batch = [change.get(i, lambda v: v)(v) for i, v in enumerate(batch)]
    with pytest.raises(ValueError, match=message):
        multiview_reprojection(*batch, *cameras)


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (None, "K: expected a tensor"),
        ([[600.0]], "K: expected a tensor"),
        (torch.eye(4), "K: expected a tensor"),
        (torch.eye(3).expand(5, 3, 3), "K: "),
        (K * torch.nan, "positive focal|K: expected finite"),
        (K * 0, "positive focal"),
        (
            K.clone().index_put_((torch.tensor(0), torch.tensor(2)), torch.tensor(torch.inf, dtype=torch.float64)),
            "K: expected finite",
        ),
    ],
)
def test_bad_intrinsics_are_named(K, message):
    batch, (_, q_v, t_v) = sample()
    with pytest.raises(ValueError, match=message):
        multiview_reprojection(*batch, K, q_v, t_v)


def test_bad_cameras_are_named():
    batch, (K, q_v, t_v) = sample()
    for q_wrong, t_wrong, message in (
        (q_v[:2], t_v[:2], "q_v: expected shape"),
        (q_v, t_v[:, :1], "t_v: expected shape"),
        (q_v[:, 0], t_v[:, 0], "q_v: expected shape"),
        (q_v, t_v * torch.nan, "t_v: expected finite"),
        (q_v, batch[3].mean(1)[:, None].expand_as(t_v), "away from the centroid"),
    ):
        with pytest.raises(ValueError, match=message):
            multiview_reprojection(*batch, K, q_wrong, t_wrong)
    with pytest.raises(ValueError, match="B > 3"):
        MultiviewReprojectionLoss(K, views=4)(*(v for v in batch))
    with pytest.raises(ValueError, match="norm: expected one of"):
        MultiviewReprojectionLoss(K, norm="l3")(*batch)
    with pytest.raises(ValueError, match="at least one image and one point"):
        GeometricAlignmentLoss()(*(v[:0] for v in batch))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu():
    batch, cameras = sample()
    gpu = [v.cuda() for v in (*batch, *cameras)]
    assert multiview_reprojection(*gpu).item() == pytest.approx(
        multiview_reprojection(*batch, *cameras).item(), rel=1e-9
    )
    assert torch.isfinite(MultiviewReprojectionLoss(K.cuda())(*gpu[:6]))
