"""Surfaces are laid on each other and come back from where they were moved; distances agree with another implementation."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from mrl.faces.population import load_population
from mrl.geometry.alignment import Surface, fit_similarity, icp, move, thin, welded


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


@pytest.mark.parametrize("scale", [True, False])
def test_landmarks_give_the_motion_back(scale):
    rng = np.random.default_rng(0)
    for n in (3, 4, 9):
        x, T = (
            rng.normal(0, 40, (n, 3)),
            similarity(rng, rng.uniform(0, 180), 300, rng.uniform(0.5, 2) if scale else 1.0),
        )
        assert np.allclose(fit_similarity(x, move(T, x), scale), T, atol=1e-9)


def test_landmarks_that_say_nothing_are_refused():
    x = np.eye(3)
    for bad in (x[:2], np.zeros((4, 3)), np.outer(np.arange(5), [1, 1, 0])):
        with pytest.raises(ValueError, match="points"):
            fit_similarity(bad, bad)
    with pytest.raises(ValueError, match="in correspondence"):
        fit_similarity(x, np.zeros((4, 3)))


def test_distances_are_exact():
    "Against trimesh, on triangles of all shapes that share no vertex."
    rng = np.random.default_rng(3)
    v, t = (
        (
            rng.normal(0, 10, (200, 1, 3)) + rng.normal(0, rng.choice([0.1, 3, 20], 200)[:, None, None], (200, 3, 3))
        ).reshape(-1, 3),
        np.arange(600).reshape(-1, 3),
    )
    points = rng.normal(0, 20, (300, 3))
    d, foot, triangle = Surface(v, t).closest(points)
    expected = trimesh.proximity.closest_point(trimesh.Trimesh(v, t, process=False), points)
    assert np.allclose(d, expected[1], atol=1e-9) and np.allclose(foot, expected[0], atol=1e-6)
    assert np.allclose(np.linalg.norm(points - foot, axis=1), d)


def test_triangles_without_area_do_no_harm():
    flat = Surface(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5.0]]), np.array([[0, 1, 2], [3, 3, 3]]))
    d, foot, triangle = flat.closest(np.array([[0.2, 0.2, 2.0]]))
    assert d == 2 and (triangle == 0).all() and not flat.on_rim(foot, triangle).any()
    assert (
        flat.normals(foot, triangle).tolist() == [[0, 0, 1]]
        and len(welded(flat.vertices, flat.triangles).triangles) == 1
    )


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
            assert np.linalg.norm(move(T, x) - x, axis=1).mean() < 0.3


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
    with pytest.raises(ValueError, match="pairs must be one of"):
        icp(far, far, pairs="all")


def test_thinning_leaves_one_point_per_cube():
    x = np.random.default_rng(0).uniform(0, 20, (1000, 3))
    rows, cube = thin(x, 5.0)
    cells = np.floor((x - x.min(0)) / 5)
    assert (
        len(np.unique(cells[rows], axis=0)) == len(rows) == len(np.unique(cells, axis=0))
        and (cells[rows][cube] == cells).all()
    )
    order = np.random.default_rng(1).permutation(len(x))
    assert set(map(tuple, x[order][thin(x[order], 5.0)[0]])) == set(map(tuple, x[rows]))  # whatever their order
