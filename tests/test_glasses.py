"""Frames and lenses on a face of a few points."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import ConvexHull

from mrl.render.appearance import sample_appearance
from mrl.render.glasses import RIM, SIDES, glasses_triangles, glasses_vertices, lens_planes, rim_points


def wearer(i=0):
    a = sample_appearance(np.random.default_rng(i), dict(gender=1.0, age=30.0))
    eyes = np.array([[31.0, 0, 60], [-31, 0, 60]])
    front = np.array(
        [[0, 4, 86], [9, -12, 84], [-9, -12, 84], [30, 20, 85], [-30, 20, 85], [34, -22, 75], [-34, -22, 75]], float
    )
    temples = np.array([[s * x, 4, z] for s in (1, -1) for x, z in ((60, 50), (70, 20), (76, -10))], float)
    return a.glasses, eyes, np.concatenate([front, temples])


@pytest.mark.parametrize("seed", range(8))
def test_glasses_are_closed_tubes_that_face_outwards(seed):
    glasses, eyes, pins = wearer(seed)
    vertices, triangles = glasses_vertices(eyes, pins, glasses), glasses_triangles(0)
    assert triangles.max() == len(vertices) - 1 and triangles.min() == 0
    rim = trimesh.Trimesh(
        vertices[: RIM * SIDES], triangles[: 2 * (RIM - 1) * (SIDES - 1)], process=True, merge_tex=True
    )
    sides, tube = SIDES - 1, glasses.tube
    area = sides / 2 * np.sin(2 * np.pi / sides) * tube**2  # of the tube's section
    line = rim_points(glasses, np.linspace(0, 2 * np.pi, 2000))
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    assert rim.volume == pytest.approx(area * length, rel=0.12)  # Pappus; a negative volume would be inside out
    mirror = vertices[: RIM * SIDES].reshape(RIM, SIDES, 3).mean(1) * [-1, 1, 1]
    other = vertices[RIM * SIDES : 2 * RIM * SIDES].reshape(RIM, SIDES, 3).mean(1)
    assert np.abs(np.sort(mirror[:-1], 0) - np.sort(other[:-1], 0)).max() < tube  # left and right are mirror images


def test_lenses_lie_in_front_of_the_eyes_and_follow_them():
    glasses, eyes, pins = wearer()
    centres, axes = lens_planes(eyes, pins[:7], glasses)
    assert np.abs(axes @ axes.swapaxes(1, 2) - np.eye(3)).max() < 1e-5 and np.linalg.det(axes) == pytest.approx(
        1, abs=1e-5
    )
    assert (centres[:, 2] > eyes[:, 2] + 20).all() and centres[0, 0] > 0 > centres[1, 0] and axes[:, 2, 2].min() > 0.9
    # about the vertical axis
    turn = np.array([[np.cos(0.4), 0, np.sin(0.4)], [0, 1, 0], [-np.sin(0.4), 0, np.cos(0.4)]])
    moved, turned = lens_planes(eyes @ turn.T + [5, -7, 9], pins[:7] @ turn.T + [5, -7, 9], glasses)
    assert np.abs(moved - (centres @ turn.T + [5, -7, 9])).max() < 1e-3 and np.abs(turned - axes @ turn.T).max() < 1e-5


@pytest.mark.parametrize("power, area", [(2, np.pi), (1, 2), (60, 4)])
def test_rims_are_superellipses(power, area):
    glasses = wearer()[0].changed(half_width=25, half_height=20, power=power, taper=0)
    hull = ConvexHull(rim_points(glasses, np.linspace(0, 2 * np.pi, 4000)))
    assert hull.volume == pytest.approx(area * 25 * 20, rel=0.02)  # volume is area in the plane
