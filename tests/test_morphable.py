"The morphable model: principal components by either of two matrices, from memory and from a file; fewer vertices."

import numpy as np
import pytest
import torch
import trimesh

from mrl.faces.morphable import MorphableModel, decimate, fit_morphable_model, principal_components
from mrl.geometry.surface import Surface


def components_by_svd(X, n):
    "Mean, basis per standard deviation, shares of variance and coefficients by a full SVD, the largest entry positive."
    mean = X.mean(0)
    U, s, Vt = np.linalg.svd(X - mean, full_matrices=False)
    basis = s[:n, None] * Vt[:n] / (len(X) - 1) ** 0.5
    sign = np.sign(basis[np.arange(n), np.abs(basis).argmax(1)])
    return mean, basis * sign[:, None], s[:n] ** 2 / (s**2).sum(), U[:, :n] * (len(X) - 1) ** 0.5 * sign


@pytest.mark.parametrize(("S", "D"), [(60, 2500), (60, 60), (300, 90), (61, 60)])
def test_principal_components_are_those_of_a_full_svd(tmp_path, S, D):
    "More columns than rows, as many, fewer; more columns than a block; columns in a file are the same"
    rng = np.random.default_rng(0)
    X = rng.normal(size=(S, 40)) * 30 * 0.8 ** np.arange(40) @ rng.normal(size=(40, D)) + rng.normal(size=D) * 100
    for got, expected in zip(principal_components(X, 12), components_by_svd(X, 12), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-8 * np.abs(expected).max())
    file = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    file[:] = X
    for got, expected in zip(principal_components(file, 12), principal_components(np.array(file), 12), strict=True):
        assert np.array_equal(got, expected)


def test_principal_components_of_low_rank():
    "Components that are not there have no length, and nothing is infinite."
    X = np.random.default_rng(0).normal(size=(20, 3)) @ np.random.default_rng(1).normal(size=(3, 50))
    for rows in (X, X[:, :10]):
        _, basis, ratio, coefficients = principal_components(rows, 6)
        assert np.linalg.norm(basis[3:], axis=1).max() < 1e-6 and ratio[:3].sum() == pytest.approx(1)
        assert np.isfinite(basis).all() and np.isfinite(coefficients[:, :3]).all()
    with pytest.raises(ValueError, match="n_components: expected 1 to 19 for 20 scans, got 20"):
        principal_components(X, 20)


def test_fitted_models_have_the_type_of_the_scans():
    scans = torch.randn(12, 30, 3, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(0, 3, dtype=torch.long)
    single, double = fit_morphable_model(scans, 4, none), fit_morphable_model(scans.double(), 4, none)
    assert single.basis.dtype == single.mean.dtype == single.variance_ratio.dtype == torch.float32
    assert double.basis.dtype == torch.float64
    torch.testing.assert_close(single.basis, double.basis.float())


# ---- fewer vertices ----------------------------------------------------------------------------------------------
def surface(rows=14, columns=12, depth=0.004):
    "A curved sheet of 170 x 200 mm that looks along z, with the nine landmarks at its first nine vertices' places"
    u, v = np.meshgrid(np.linspace(-85, 85, columns), np.linspace(-100, 100, rows))
    x = np.stack([u, v, 30 - depth * (u**2 + v**2)], -1).reshape(-1, 3)
    q = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = q[:-1, :-1].ravel(), q[:-1, 1:].ravel(), q[1:, 1:].ravel(), q[1:, :-1].ravel()
    return x, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def rims(mesh):
    "Number of closed curves that bound a surface"
    edges, uses = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    return len(trimesh.graph.connected_components(edges[uses == 1]))


def ball(n=4, radius=80):
    mesh = trimesh.creation.icosphere(subdivisions=n, radius=radius)
    N = len(mesh.vertices)
    marks = {f"m{i}": int(v) for i, v in enumerate(np.random.default_rng(0).choice(N, 40, replace=False))} | {
        "a": 100,
        "b": int(mesh.vertex_neighbors[100][0]),
    }
    basis = torch.randn(2, N, 3, generator=torch.Generator().manual_seed(0))
    return MorphableModel(
        torch.tensor(mesh.vertices, dtype=torch.float32),
        basis,
        torch.tensor(mesh.faces),
        torch.tensor([0.6, 0.4]),
        marks,
        "ball",
        "CC0",
    ), mesh


@pytest.mark.parametrize("n", [1500, 600, 250])
def test_decimate(n):
    model, mesh = ball()
    small = decimate(model, n)
    M = len(small.mean)
    assert (
        0.8 * n < M <= n
        and small.name == f"ball, thinned from {len(model.mean)} to {M} vertices"
        and small.licence == "CC0"
    )
    at = {tuple(x): i for i, x in enumerate(model.mean.tolist())}
    old = [at[tuple(x)] for x in small.mean.tolist()]  # existing vertices only, in the old order
    assert (np.diff(old) > 0).all() and torch.equal(small.basis, model.basis[:, old])
    assert {k: old[v] for k, v in small.landmarks.items()} == model.landmarks
    t = small.triangles.numpy()
    assert (t != t[:, [1, 2, 0]]).all() and set(np.unique(t)) | set(small.landmarks.values()) == set(range(M))
    reduced = trimesh.Trimesh(small.mean.numpy(), t, process=False)
    cell = (4 * np.pi * 80**2 / n) ** 0.5
    assert Surface(reduced.vertices, t).closest(mesh.vertices)[0].max() < cell  # nothing is left uncovered
    outward = (reduced.face_normals * reduced.triangles_center).sum(1)
    assert reduced.area_faces[outward < 0].sum() < 0.01 * reduced.area and 0.9 < reduced.area / mesh.area < 1.01
    assert abs(reduced.volume) / mesh.volume > 0.9 and rims(reduced) == 0  # still closed


def test_decimate_keeps_apart_what_only_touches():
    "Two sheets 0.1 mm apart, as lips are: no triangle of the result joins them"
    x, t = surface(20, 20)
    both = torch.tensor(np.concatenate([x, x + [0, 0, 0.1]]), dtype=torch.float32)
    model = MorphableModel(both, torch.zeros(1, 800, 3), torch.tensor(np.concatenate([t, t + 400])), torch.ones(1))
    small = decimate(model, 200)
    z = small.mean[:, 2] - (30 - 0.004 * (small.mean[:, 0] ** 2 + small.mean[:, 1] ** 2))
    assert len(small.mean) <= 200 and ((z[small.triangles] > 0.05).float().mean(1) % 1 == 0).all()
    assert 50 < (z > 0.05).sum() < 150


def test_decimate_limits():
    model, _ = ball(2)
    assert decimate(model, len(model.mean)) is model
    with pytest.raises(ValueError, match="n_vertices: expected 4[0-9] or more"):
        decimate(model, 10)
