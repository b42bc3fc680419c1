"The relative pose against a naive implementation, and what it is invariant to."

import numpy as np
import torch
from hypothesis import given
from scipy.spatial.transform import Rotation
from strategies import agree, generators, poses, randn

from mrl.geometry.camera import intrinsics, invert_pose, pose_matrix, project, transform_points
from mrl.geometry.relative_pose import relative_pose
from mrl.geometry.rotation import quaternion_multiply, random_quaternion

K = intrinsics(900.0, 224).double()


def naive_pose(q, t):
    "Return the 4x4 matrix of one pose, by SciPy."
    C = np.eye(4)
    C[:3, :3] = Rotation.from_quat(q, scalar_first=True).as_matrix()
    C[:3, 3] = t
    return C


def moved(pose, by):
    "Return a pose after the world has moved rigidly."
    (q, t), (q_g, t_g) = pose, by
    return quaternion_multiply(q_g, q), transform_points(pose_matrix(q_g, t_g), t[..., None, :])[..., 0, :]


def test_agrees_with_naive_code():
    rng = torch.Generator().manual_seed(0)
    q, q_hat = (random_quaternion((6,), rng, dtype=torch.float64) for _ in range(2))
    t, t_hat = (600 * randn((6,), 3, rng) for _ in range(2))
    D = relative_pose(q, t, -7 * q_hat, t_hat)
    for b in range(6):
        expected = naive_pose(q[b], t[b]) @ np.linalg.inv(naive_pose(q_hat[b], t_hat[b]))
        np.testing.assert_allclose(D[b].numpy(), expected, rtol=0, atol=1e-11)
    assert relative_pose(q[:, None], t[:, None], q_hat, t_hat).shape == (6, 6, 4, 4)


@given(poses(3))
def test_poses_compose(abc):
    a, b, c = abc
    one = torch.eye(4, dtype=torch.float64).expand(*a[0].shape[:-1], 4, 4)
    D = relative_pose(*a, *b)
    agree(relative_pose(*a, *a), one, scale=1000)  # positions of 600 mm cancel
    agree(D @ pose_matrix(*b), pose_matrix(*a), scale=1000)
    agree(relative_pose(*b, *a), invert_pose(D), scale=1000)
    agree(D @ relative_pose(*b, *c), relative_pose(*a, *c), scale=1000)


@given(poses(2))
def test_both_quaternions_of_a_rotation_give_one_relative_pose(ab):
    (q, t), (q_hat, t_hat) = ab
    assert torch.equal(relative_pose(q, t, q_hat, t_hat), relative_pose(-q, t, -q_hat, t_hat))


@given(poses(3), generators)
def test_the_predicted_world_is_a_gauge(abg, rng):
    "A rigid motion of predicted camera and points changes D, and not where D takes the points."
    true, predicted, gauge = abg
    x_hat = 80 * randn((*true[0].shape[:-1], 5), 3, rng)
    carried = transform_points(relative_pose(*true, *predicted), x_hat)
    G = pose_matrix(*gauge)
    D = relative_pose(*true, *moved(predicted, gauge))
    agree(transform_points(D, transform_points(G, x_hat)), carried, scale=1000)
    agree(D @ G, relative_pose(*true, *predicted), scale=1000)


@given(poses(3))
def test_the_true_world_moves_the_result(abg):
    true, predicted, gauge = abg
    agree(
        relative_pose(*moved(true, gauge), *predicted),
        pose_matrix(*gauge) @ relative_pose(*true, *predicted),
        scale=1000,
    )


@given(poses(2), generators)
def test_an_error_in_the_camera_frame_keeps_its_length(ab, rng):
    "Zero exactly when the camera frames agree; in the true camera it is what the predicted camera sees."
    true, predicted = ab
    in_camera, error = (80 * randn((*true[0].shape[:-1], 5), 3, rng) for _ in range(2))
    x = transform_points(pose_matrix(*true), in_camera)
    D = relative_pose(*true, *predicted)
    agree(transform_points(D, transform_points(pose_matrix(*predicted), in_camera)), x, scale=1000)
    carried = transform_points(D, transform_points(pose_matrix(*predicted), in_camera + error))
    agree((carried - x).norm(dim=-1), error.norm(dim=-1), scale=1000)
    front = transform_points(pose_matrix(*predicted), in_camera + in_camera.new_tensor([0, 0, 600]))
    agree(project(transform_points(D, front), K, *true), project(front, K, *predicted), scale=1000)
