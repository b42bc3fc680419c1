"""Surfaces are aligned, and come back from where they were moved."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from mrl.faces.population import load_population
from mrl.geometry.icp import icp, voxel_downsample
from mrl.geometry.registration import apply_similarity
from mrl.geometry.surface import Surface


def similarity(rng, degrees, mm, scale=1.0, centre=np.zeros(3)):
    "A similarity around a centre: rotation by an angle and shift by a length, in random directions."
    w, d = rng.normal(size=(2, 3))
    T = np.eye(4)
    T[:3, :3] = scale * Rotation.from_rotvec(np.deg2rad(degrees) * w / np.linalg.norm(w)).as_matrix()
    T[:3, 3] = centre - T[:3, :3] @ centre + mm * d / np.linalg.norm(d)
    return T


def as_scan(rng, v, t, holes, noise=0.2, cut=None):
    "Finer triangles, noise, holes, and perhaps one side missing."
    mesh = trimesh.Trimesh(v, t, process=False).subdivide()
    c, v = mesh.triangles_center, mesh.vertices + rng.normal(0, noise, mesh.vertices.shape)
    kept = np.ones(len(c), bool) if cut is None else cut(c)
    for hole in c[rng.integers(0, len(c), holes)]:
        kept &= np.linalg.norm(c - hole, axis=1) > rng.uniform(4, 12)
    return Surface(np.asarray(v), np.asarray(mesh.faces)[kept])


def ict_faces():
    "Two faces of ICT-FaceKit."
    try:
        from mrl.faces.sources import read_face_model

        model = read_face_model("ict")
    except FileNotFoundError:
        pytest.skip("ICT-FaceKit is not here: MRL_DATA names its folder (README, Any face model)")
    rng = np.random.default_rng(1)
    alpha_id = rng.normal(size=(2, len(model.basis)))
    return [model.mean.numpy() + np.tensordot(a, model.basis.numpy(), 1) for a in alpha_id], model.triangles.numpy()


def own_faces():
    population = load_population()
    return list(population.faces(np.array([5, 77]))), population.face_triangles


@pytest.mark.parametrize("faces", [own_faces, ict_faces])
@pytest.mark.parametrize("pairs", ["moving", "fixed", "both"])
def test_a_face_goes_back_to_its_scan(faces, pairs):
    "From 20 degrees and 30 mm off, on scans with holes, whole or without one side."
    xs, t = faces()
    for i, x in enumerate(xs):
        x = x.astype(np.float64)
        rng = np.random.default_rng(i)
        middle = x.mean(0)
        for cut in (None, lambda c: c[:, 0] < middle[0] + 25):
            scan, face = as_scan(rng, x, t, 8, cut=cut), Surface(x, t)
            T = icp(face, scan, similarity(rng, 20, 30, centre=middle), pairs=pairs).T
            assert np.linalg.norm(apply_similarity(T, x) - x, axis=1).mean() < 0.3


def test_scale_is_found():
    xs, t = own_faces()
    x, rng = xs[0].astype(np.float64), np.random.default_rng(0)
    scan = as_scan(rng, x, t, 5)
    for distance, pairs in (("plane", "moving"), ("plane", "both"), ("point", "fixed")):
        start = similarity(rng, 5, 5, centre=x.mean(0))
        found = icp(
            Surface(x / 1.1, t),
            scan,
            start @ np.diag([1.08, 1.08, 1.08, 1]),
            scale=True,
            pairs=pairs,
            distance=distance,
            iterations=300,
        )
        assert abs(np.cbrt(np.linalg.det(found.T[:3, :3])) / 1.1 - 1) < 0.01, (distance, pairs)


def test_the_same_files_give_the_same_numbers():
    xs, t = own_faces()
    rng = np.random.default_rng(0)
    scan = as_scan(rng, xs[0], t, 5)
    a, b = (icp(Surface(xs[1].astype(np.float64), t), Surface(scan.vertices, scan.triangles)) for _ in range(2))
    assert (a.T == b.T).all() and a.distance == b.distance and a.converged


def test_surfaces_that_do_not_meet_are_refused():
    xs, t = own_faces()
    far = Surface(xs[0] + np.float32([0, 0, 5000]), t)
    with pytest.raises(ValueError, match="do not overlap"):
        icp(
            Surface(xs[0], t),
            far,
            iterations=1,
            inside=(lambda p: np.arange(len(p)) < 10, lambda p: np.arange(len(p)) < 10),
        )
    with pytest.raises(ValueError, match="pairs: expected one of moving, fixed, both, got 'all'"):
        icp(far, far, pairs="all")


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(iterations=0), "iterations: expected at least 1, got 0"),
        (dict(spacings=()), "spacings: expected at least one spacing"),
        (dict(distance="line"), "distance: expected one of plane, point, got 'line'"),
        (dict(weights="equal"), "weights: expected one of area, vertices, got 'equal'"),
    ],
)
def test_arguments_without_a_meaning_are_named(wrong, message):
    xs, t = own_faces()
    with pytest.raises(ValueError, match=message):
        icp(Surface(xs[0], t), Surface(xs[1], t), **wrong)


def test_downsampling_leaves_one_point_per_cube():
    x = np.random.default_rng(0).uniform(0, 20, (1000, 3))
    rows, cube = voxel_downsample(x, 5.0)
    cells = np.floor((x - x.min(0)) / 5)
    assert (
        len(np.unique(cells[rows], axis=0)) == len(rows) == len(np.unique(cells, axis=0))
        and (cells[rows][cube] == cells).all()
    )
    order = np.random.default_rng(1).permutation(len(x))
    # whatever their order
    assert set(map(tuple, x[order][voxel_downsample(x[order], 5.0)[0]])) == set(map(tuple, x[rows]))
