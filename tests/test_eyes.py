"""A sphere from a part of its surface."""

import numpy as np
import pytest
import trimesh

from mrl.render.eyes import fit_sphere


def test_a_cap_is_enough_for_a_sphere():
    ball = trimesh.creation.icosphere(3, radius=12)
    cap = ball.vertices[ball.vertices[:, 2] > 4] + [3, 4, 5]
    centre, radius = fit_sphere(cap.astype(np.float32))
    assert np.abs(centre - [3, 4, 5]).max() < 1e-3 and radius == pytest.approx(12, abs=1e-3)
