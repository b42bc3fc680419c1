"""The motion between points in correspondence is found; points that leave it open are refused."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mrl.geometry.camera import transform_points
from mrl.geometry.registration import apply_similarity, register


def similarity(rng, degrees, mm, scale=1.0, centre=np.zeros(3)):
    "A similarity around a centre: rotation by an angle and shift by a length, in random directions."
    w, d = rng.normal(size=(2, 3))
    T = np.eye(4)
    T[:3, :3] = scale * Rotation.from_rotvec(np.deg2rad(degrees) * w / np.linalg.norm(w)).as_matrix()
    T[:3, 3] = centre - T[:3, :3] @ centre + mm * d / np.linalg.norm(d)
    return T


@pytest.mark.parametrize("scale", [True, False])
def test_landmarks_give_the_motion_back(scale):
    rng = np.random.default_rng(0)
    for n in (3, 4, 9):
        x = rng.normal(0, 40, (n, 3))
        T = similarity(rng, rng.uniform(0, 180), 300, rng.uniform(0.5, 2) if scale else 1.0)
        assert np.allclose(register(x, apply_similarity(T, x), scale=scale), T, atol=1e-9)


def test_weights_count_points():
    "An integer weight is as good as that many copies of a point."
    rng = np.random.default_rng(1)
    x, y, counts = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)), np.array([1, 2, 1, 3, 1, 5])
    for scale in (True, False):
        copies = register(np.repeat(x, counts, 0), np.repeat(y, counts, 0), scale=scale)
        assert np.allclose(register(x, y, counts, scale), copies, atol=1e-12)


def test_landmarks_that_say_nothing_are_refused():
    x = np.eye(3)
    for bad in (x[:2], np.zeros((4, 3)), np.outer(np.arange(5), [1, 1, 0])):
        with pytest.raises(ValueError, match="three or more points that are not on a line"):
            register(bad, bad)
    with pytest.raises(ValueError, match="moving, fixed: expected points in correspondence, got 3 and 4"):
        register(x, np.ones((4, 3)))
    with pytest.raises(ValueError, match="moving: expected finite"):
        register(x * np.nan, x)
    with pytest.raises(ValueError, match="batch shapes do not broadcast"):
        register(torch.ones(2, 3, 3), torch.ones(5, 3, 3))


def test_autocast_and_single_precision():
    rng = torch.Generator().manual_seed(0)
    x = 60 * torch.randn(5, 40, 3, generator=rng)
    y = 60 * torch.randn(5, 40, 3, generator=rng)
    expected = register(x.double(), y.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = register(x, y)
        moved = transform_points(found, x)
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 1e-4
    assert (moved - transform_points(expected, x.double())).abs().max() < 1e-3
