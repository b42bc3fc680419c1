"""Cameras against a naive NumPy and SciPy implementation; the image plane; pixels that do not depend on the frame."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from strategies import agree, batches, directions, dtypes, generators, poses
from strategies import randn as normal

from mrl.geometry.camera import (
    crop_intrinsics,
    crop_to_pose,
    intrinsics,
    invert_pose,
    look_at,
    pose_matrix,
    pose_to_crop,
    project,
    project_camera,
    resize_intrinsics,
    transform_points,
)
from mrl.geometry.relative_pose import relative_pose
from mrl.geometry.rotation import quaternion_multiply, quaternion_to_matrix, random_quaternion

BATCHES = [(), (0,), (1,), (4,), (2, 0, 3), (2, 1, 3)]
K = torch.tensor([[910.0, 3, 120], [0, 880, 101], [0, 0, 1]], dtype=torch.float64)
close = torch.testing.assert_close


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def randn(*shape, rng):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def random_pose(batch, rng, distance=600.0):
    return random_quaternion(batch, rng, dtype=torch.float64), distance * torch.nn.functional.normalize(
        randn(*batch, 3, rng=rng), dim=-1
    )


def naive_pose(q, t):
    "4x4 by SciPy, one pose."
    C = np.eye(4)
    C[:3, :3] = Rotation.from_quat(q, scalar_first=True).as_matrix()
    C[:3, 3] = t
    return C


def naive_project(x, K, q, t):
    "Point by point, with a general solver."
    E = np.linalg.inv(naive_pose(q, t))
    pixels = []
    for point in x:
        a, b, c = K @ (E @ np.append(point, 1))[:3]
        pixels.append((a / c, b / c))
    return np.array(pixels)


@pytest.mark.parametrize("batch", BATCHES)
def test_shapes(batch, rng):
    q, t = random_pose(batch, rng)
    x = randn(*batch, 7, 3, rng=rng)
    C = pose_matrix(q, t)
    assert C.shape == invert_pose(C).shape == relative_pose(q, t, q, t).shape == (*batch, 4, 4)
    assert transform_points(C, x).shape == (*batch, 7, 3)
    for near in None, 5.0, torch.full(batch, 5.0):
        assert (
            project(x, K, q, t, near).shape == project_camera(x, K.expand(*batch, 3, 3), near).shape == (*batch, 7, 2)
        )
        assert project(x[..., :0, :], K, q, t, near).shape == (*batch, 0, 2)
    assert look_at(t, torch.zeros(3, dtype=torch.float64)).shape == (*batch, 4)
    size = torch.rand(batch, dtype=torch.float64) + 1
    assert (
        intrinsics(size, 64).shape
        == crop_intrinsics(K, size, 0).shape
        == resize_intrinsics(K, size).shape
        == (*batch, 3, 3)
    )


def test_projection_agrees_with_naive_code(rng):
    q, t = random_pose((5,), rng)
    x = 80 * randn(5, 9, 3, rng=rng)
    ours = project(x, K, q, t)
    for b in range(5):
        np.testing.assert_allclose(
            ours[b].numpy(), naive_project(x[b].numpy(), K.numpy(), q[b].numpy(), t[b].numpy()), rtol=1e-11
        )
    many = project(x[:, None], K, q, t)  # every shape in every camera
    for b in range(5):
        for v in range(5):
            np.testing.assert_allclose(
                many[b, v].numpy(), naive_project(x[b].numpy(), K.numpy(), q[v].numpy(), t[v].numpy()), rtol=1e-10
            )


def test_gradients(rng):
    (q, t), (q_hat, t_hat) = ([a.requires_grad_() for a in random_pose((2,), rng)] for _ in range(2))
    x = (80 * randn(2, 3, 3, rng=rng)).requires_grad_()
    check = torch.autograd.gradcheck
    assert check(relative_pose, (q, t, q_hat, t_hat))
    assert check(lambda x, q, t: project(x, K, q, t), (x, q, t))
    assert check(lambda x, q, t: project(x, K, q, t, near=700.0), (x, q, t))  # before and behind the switch
    assert check(lambda K: project(x.detach(), K, q.detach(), t.detach())[0], K.clone().requires_grad_())
    assert check(lambda t: look_at(t, torch.zeros(3, dtype=torch.float64)), t)


def test_float32_is_accurate_to_a_hundredth_of_a_pixel(rng):
    (q, t), (q_hat, t_hat), (_, t_v) = (random_pose((50,), rng) for _ in range(3))
    q_v = look_at(t_v, torch.zeros(3, dtype=torch.float64))
    x = 60 * randn(50, 20, 3, rng=rng)
    x_hat = transform_points(pose_matrix(q_hat, t_hat) @ invert_pose(pose_matrix(q, t)), x)

    def carried(*tensors):
        q, t, q_hat, t_hat, q_v, t_v, x_hat, K = tensors
        return project(transform_points(relative_pose(q, t, q_hat, t_hat), x_hat), K, q_v, t_v)

    tensors = q, t, q_hat, t_hat, q_v, t_v, x_hat, K
    difference = carried(*tensors) - carried(*(a.float() for a in tensors))
    assert difference.abs().max() < 5e-3 and difference.abs().median() < 5e-4


@pytest.mark.parametrize("near", [None, 60.0])
def test_autocast_leaves_the_geometry_alone(near, rng):
    (q, t), (q_hat, t_hat) = ([a.float() for a in random_pose((5,), rng)] for _ in range(2))
    x = (60 * randn(5, 20, 3, rng=rng)).float()

    def pixels():
        return project(transform_points(relative_pose(q, t, q_hat, t_hat), x), K.float(), q, t, near)

    plain = pixels()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pixels(), plain)


# --- at and behind the image plane -----------------------------------------------------------------------------------


def depth_points(z):
    "Points at fixed x and y and the depths z."
    return torch.stack([torch.full_like(z, 30.0), torch.full_like(z, -20.0), z], -1)


@pytest.mark.parametrize("near", [1e-3, 1.0, 60.0, 1e4])
def test_guard_is_continuous_with_its_slope(near):
    h = 1e-6 * near
    z = torch.tensor([near - h, near, near + h], dtype=torch.float64, requires_grad=True)
    u = project_camera(depth_points(z), K, near)[:, 0]
    (slope,) = torch.autograd.grad(u.sum(), z)
    close(u[0], u[2], rtol=1e-5, atol=0)
    close(slope, (-(910 * 30 - 3 * 20) / near**2 * torch.ones(3)).double(), rtol=1e-5, atol=0)
    close(u[1], (910 * 30 - 3 * 20) / torch.tensor(near, dtype=torch.float64) + 120)


def test_guard_leaves_the_front_alone(rng):
    x = depth_points(torch.linspace(50, 900, 40, dtype=torch.float64))
    assert torch.equal(project_camera(x, K, near=50.0), project_camera(x, K))
    assert not torch.equal(project_camera(x, K, near=51.0), project_camera(x, K))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_everywhere(dtype):
    z = torch.tensor([-1e6, -600, -1, -1e-30, 0.0, 1e-40, 1e-30, 1, 59.999, 60, 1e6], dtype=dtype, requires_grad=True)
    u = project_camera(depth_points(z), K.to(dtype), near=60.0)
    u.abs().sum().backward()
    assert u.isfinite().all() and z.grad.isfinite().all()
    assert (u[:-1, 0] >= u[1:, 0]).all()  # ever closer to the centre: one direction leads to the front
    far = project_camera(depth_points(z.detach()), K.to(dtype))[4]
    assert not far.isfinite().all()  # the plain pinhole at z = 0


def test_gradient_pulls_points_to_the_front(rng):
    near = 60.0
    target = torch.cat(
        [80 * randn(500, 2, rng=rng), 500 + 200 * torch.rand(500, 1, generator=rng, dtype=torch.float64)], -1
    )
    x = torch.cat(
        [80 * randn(500, 2, rng=rng), near - 900 * torch.rand(500, 1, generator=rng, dtype=torch.float64)], -1
    )
    square = torch.tensor([[900.0, 0, 112], [0, 900, 112], [0, 0, 1]], dtype=torch.float64)
    x.requires_grad_()
    u, goal = project_camera(x, square, near), project_camera(target, square)
    further_out = (u - 112).abs() >= (goal - 112).abs()  # the condition of the derivation, for both coordinates
    opposite = (u - 112).sign() != (goal - 112).sign()
    claimed = (further_out | opposite).all(-1)
    (gradient,) = torch.autograd.grad((u - goal).abs().sum(), x)
    assert claimed.float().mean() > 0.6
    assert (gradient[claimed, 2] < 0).all()


def test_plain_pinhole_pushes_points_away():
    "What the guard is for: behind the camera the plain error falls towards minus infinity."
    z = torch.linspace(-900, -1, 50, dtype=torch.float64, requires_grad=True)
    goal = project_camera(depth_points(torch.full((50,), 600.0, dtype=torch.float64)), K)
    for near, forward in (None, False), (60.0, True):
        (gradient,) = torch.autograd.grad((project_camera(depth_points(z), K, near) - goal).abs().sum(), z)
        assert ((gradient < 0) == forward).all()


def test_near_is_a_length(rng):
    x = torch.cat([40 * randn(3, 30, 2, rng=rng), 300 * randn(3, 30, 1, rng=rng)], -1)
    near = torch.tensor([20.0, 60, 100], dtype=torch.float64)
    pixels = project_camera(x, K, near)
    close(project_camera(x / 1000, K, near / 1000), pixels)  # metres
    for b in range(3):
        close(pixels[b], project_camera(x[b], K, near[b].item()))
    views = project_camera(x[:, None], K, near[:, None].expand(3, 2))
    close(views, pixels[:, None].expand(3, 2, 30, 2))


@pytest.mark.parametrize("near", [0, -1.0, math.nan, math.inf, torch.tensor([1.0, -2])])
def test_near_must_be_positive(near):
    with pytest.raises(ValueError, match="near: expected a positive, finite depth"):
        project_camera(torch.ones(2, 5, 3), torch.eye(3), near)


# --- intrinsics ------------------------------------------------------------------------------------------------------


def test_crop_and_resize_commute_with_projection(rng):
    q, t = random_pose((4,), rng)
    q = look_at(t, torch.zeros(3, dtype=torch.float64))
    x = 60 * randn(4, 10, 3, rng=rng)
    pixels = project(x, K, q, t)
    left, top = 20 * randn(2, 4, rng=rng)
    scale = torch.rand(4, generator=rng, dtype=torch.float64) + 0.5
    close(project(x, crop_intrinsics(K, left, top), q, t), pixels - torch.stack([left, top], -1)[:, None])
    close(project(x, resize_intrinsics(K, scale), q, t), pixels * scale[:, None, None])
    close(project(x, resize_intrinsics(K, scale, 2.0), q, t), pixels * torch.stack([scale, 0 * scale + 2], -1)[:, None])
    both = crop_intrinsics(resize_intrinsics(K, scale), left, top)
    close(both, resize_intrinsics(crop_intrinsics(K, left / scale, top / scale), scale))
    close(both[:, 2], torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(4, 3))


@pytest.mark.parametrize("size", [24, 31, 96, 128])
def test_pixel_centres_are_at_one_half(size):
    "An image whose brightness is its own pixel coordinate stays so under bilinear resizing (align_corners=False)."
    old = 48
    u = (torch.arange(old, dtype=torch.float64) + 0.5).expand(1, 1, old, old)
    resized = torch.nn.functional.interpolate(u, (size, size), mode="bilinear", align_corners=False)[0, 0, 0]
    new_centres = torch.arange(size, dtype=torch.float64) + 0.5
    ray = (resized - 24) / 500  # x/z of what is seen there, in a camera of focal length 500
    points = torch.stack([ray, 0 * ray, torch.ones_like(ray)], -1)
    there = project_camera(points, resize_intrinsics(intrinsics(500.0, old).double(), size / old))[:, 0]
    inner = slice(3, -3)  # the border is extrapolated
    close(there[inner], new_centres[inner])


def test_intrinsics():
    close(intrinsics(900, 224), torch.tensor([[900.0, 0, 112], [0, 900, 112], [0, 0, 1]]))
    close(
        intrinsics(torch.tensor([1.0, 2], dtype=torch.float64), (64, 33))[1],
        torch.tensor([[2.0, 0, 32], [0, 2, 16.5], [0, 0, 1]], dtype=torch.float64),
    )


# --- look_at ---------------------------------------------------------------------------------------------------------


def test_look_at(rng):
    eye, target = 500 * randn(2, 50, 3, rng=rng)
    up = randn(50, 3, rng=rng)
    R = quaternion_to_matrix(look_at(eye, target, up))
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    close(R[..., 2], forward)
    close((R[..., 0] * up).sum(-1), torch.zeros(50, dtype=torch.float64))  # up stays in the image's vertical plane
    assert ((R[..., 1] * up).sum(-1) < 0).all()  # y points down
    close(look_at(torch.tensor([0.0, 0, 640]), torch.zeros(3)), torch.tensor([0.0, 1, 0, 0]))
    close(
        quaternion_to_matrix(look_at(torch.tensor([0.0, 0, 640]), torch.zeros(3))),
        torch.diag(torch.tensor([1.0, -1, -1])),
    )


@pytest.mark.parametrize(
    "eye, target, up",
    [
        ([1.0, 2, 3], [1.0, 2, 3], (0.0, 1.0, 0.0)),
        ([0.0, 9, 0], [0.0, 0, 0], (0.0, 1.0, 0.0)),
        ([0.0, 0, 9], [0.0, 0, 0], (0.0, 0.0, 0.0)),
        ([math.nan, 0, 9], [0.0, 0, 0], (0.0, 1.0, 0.0)),
    ],
)
def test_look_at_without_a_direction(eye, target, up):
    with pytest.raises(ValueError, match="eye, target, up: expected"):
        look_at(torch.tensor(eye), torch.tensor(target), up)


# --- properties, in any batch shape ----------------------------------------------------------------------------------


@given(poses(3))
def test_rigid_motions_are_a_group(abc):
    a, b, c = (pose_matrix(*pose) for pose in abc)
    one = torch.eye(4, dtype=torch.float64).expand(a.shape)
    agree(a @ invert_pose(a), one, scale=1000)  # positions of 600 mm cancel
    agree(invert_pose(a) @ a, one, scale=1000)
    agree((a @ b) @ c, a @ (b @ c), scale=1000)
    agree(invert_pose(a @ b), invert_pose(b) @ invert_pose(a), scale=1000)
    assert torch.equal(invert_pose(invert_pose(a))[..., :3, :3], a[..., :3, :3])


@given(poses(2), generators, st.floats(0.01, 100))
def test_pixels_depend_neither_on_the_world_frame_nor_on_its_unit(ab, rng, unit):
    (q, t), (q_g, t_g) = ab
    G = pose_matrix(q_g, t_g)
    in_camera = normal((*q.shape[:-1], 5), 3, rng) * 60 + torch.tensor([0, 0, 700.0])
    x = transform_points(pose_matrix(q, t), in_camera)
    pixels = project(x, K, q, t)
    agree(pixels, project_camera(in_camera, K))
    agree(project(x, K, -q, t), pixels)
    moved = transform_points(G, x), K, quaternion_multiply(q_g, q), transform_points(G, t[..., None, :])[..., 0, :]
    agree(project(*moved), pixels)
    agree(project(unit * x, K, q, unit * t), pixels)
    agree(project(x, K, q, t, near=1.0), pixels)  # the guard is out of the way


@given(batches, dtypes, generators)
def test_a_crop_gives_its_pose_back(batch, dtype, rng):
    "Faces anywhere in front of the camera, turned by any rotation."
    q_camera = random_quaternion(batch, rng, dtype=torch.float64)
    p = 60 * normal(batch, 3, rng) + torch.tensor([0, 0, 700.0])
    t = -(quaternion_to_matrix(q_camera) @ p[..., None])[..., 0]
    q, t, crop = q_camera.to(dtype), t.to(dtype), intrinsics(900.0, 224).to(dtype)
    q_back, t_back = crop_to_pose(*pose_to_crop(q, t, crop, 224), crop, 224)
    agree(quaternion_to_matrix(q_back), quaternion_to_matrix(q))
    agree(t_back, t)


@given(batches, generators, st.floats(1.0, 1e4))
def test_a_camera_that_looks_at_a_point_sees_it_in_the_middle(batch, rng, distance):
    target, up = 100 * normal(batch, 3, rng), normal(batch, 3, rng)
    eye = target + distance * directions(batch, rng)
    seen = transform_points(invert_pose(pose_matrix(look_at(eye, target, up), eye)), target[..., None, :])[..., 0, :]
    agree(seen, torch.tensor([0, 0, distance], dtype=torch.float64).expand(seen.shape), scale=1e4)


# --- errors ----------------------------------------------------------------------------------------------------------

q1, t1, x1, K1 = torch.ones(2, 4), torch.ones(2, 3), torch.ones(2, 5, 3), torch.eye(3)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda: pose_matrix(t1, t1), r"^q: expected .*\(\.\.\., 4\), got \(2, 3\)"),
        (lambda: pose_matrix(q1, q1), r"^t: expected .*\(\.\.\., 3\), got \(2, 4\)"),
        (lambda: pose_matrix(q1, torch.ones(3, 3)), r"broadcast: q \(2,\), t \(3,\)"),
        (lambda: pose_matrix(0 * q1, t1), r"^q: expected finite, non-zero"),
        (lambda: invert_pose(K1), r"^C: expected .*4, 4\)"),
        (lambda: transform_points(K1, x1), r"^T: expected .*4, 4\)"),
        (lambda: transform_points(torch.eye(4), t1[0]), r"^x: expected .*N, 3\)"),
        (lambda: transform_points(torch.eye(4).expand(3, 4, 4), x1), r"broadcast: T \(3,\), x \(2,\)"),
        (lambda: relative_pose(q1, q1, q1, t1), r"^t: expected"),
        (lambda: relative_pose(q1, t1, t1, t1), r"^q_hat: expected"),
        (lambda: relative_pose(q1, t1, q1, q1), r"^t_hat: expected"),
        (lambda: relative_pose(q1, t1, 0 * q1, t1), r"^q_hat: expected finite"),
        (
            lambda: relative_pose(q1, t1, q1.repeat(2, 1), t1),
            r"broadcast: q \(2,\), t \(2,\), q_hat \(4,\), t_hat \(2,\)",
        ),
        (lambda: project(x1[..., :2], K1, q1, t1), r"^x: expected"),
        (lambda: project(x1, torch.eye(4), q1, t1), r"^K: expected"),
        (lambda: project(x1, K1.long(), q1, t1), r"^K: expected a floating-point"),
        (lambda: project_camera(x1[0, 0], K1), r"^x_cam: expected"),
        (lambda: project_camera(x1, K1, near=torch.ones(3)), r"broadcast: x_cam \(2,\), K \(\), near \(3,\)"),
        (lambda: crop_intrinsics(torch.eye(4), 0, 0), r"^K: expected"),
        (lambda: resize_intrinsics([[1.0]], 2), r"^K: expected .* got list"),
        (lambda: look_at(q1, t1), r"^eye: expected"),
        (lambda: look_at(t1, q1), r"^target: expected"),
        (lambda: look_at(t1, t1, (0.0, 1.0)), r"^up: expected"),
    ],
)
def test_errors_name_the_argument(f, message):
    with pytest.raises(ValueError, match=message):
        f()
