"""Closest points agree with another implementation; degenerate triangles do no harm."""

import numpy as np
import trimesh

from mrl.geometry.surface import Surface
from mrl.geometry.topology import weld


def test_distances_are_exact():
    "Against trimesh, which tries all pairs, on triangles of all shapes that share no vertex."
    rng = np.random.default_rng(3)
    v, t = (
        (
            rng.normal(0, 10, (200, 1, 3)) + rng.normal(0, rng.choice([0.1, 3, 20], 200)[:, None, None], (200, 3, 3))
        ).reshape(-1, 3),
        np.arange(600).reshape(-1, 3),
    )
    points = rng.normal(0, 20, (300, 3))
    d, foot, triangle = Surface(v, t).closest(points)
    feet = trimesh.triangles.closest_point(np.tile(v[t], (len(points), 1, 1)), np.repeat(points, len(t), 0))
    feet = feet.reshape(len(points), len(t), 3)
    distances = np.linalg.norm(feet - points[:, None], axis=-1)
    nearest = distances.argmin(1)
    assert np.allclose(d, distances.min(1), atol=1e-9)
    assert np.allclose(foot, feet[np.arange(len(points)), nearest], atol=1e-6)
    assert np.allclose(np.linalg.norm(points - foot, axis=1), d)


def test_triangles_without_area_do_no_harm():
    flat = Surface(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5.0]]), np.array([[0, 1, 2], [3, 3, 3]]))
    d, foot, triangle = flat.closest(np.array([[0.2, 0.2, 2.0]]))
    assert d == 2 and (triangle == 0).all() and not flat.on_boundary(foot, triangle).any()
    assert flat.normals(foot, triangle).tolist() == [[0, 0, 1]] and len(weld(flat.vertices, flat.triangles)) == 1
