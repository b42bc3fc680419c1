"Edges, boundaries, normals and welding against naive code on random meshes, closed ones and ones that are no surface."

from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from mrl.geometry.topology import adjacency, area_vectors, boundary_vertices, edges, vertex_normals, weld

triangle = st.lists(st.integers(0, 9), min_size=3, max_size=3, unique=True)
meshes = st.lists(triangle, min_size=1, max_size=20, unique_by=frozenset).map(np.array)  # any three of ten vertices
seeds = st.integers(0, 2**32 - 1)


def sphere(seed, n=20):
    "Return vertices (n, 3) and triangles of a closed convex mesh, counter-clockwise from outside."
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    triangles = ConvexHull(x).simplices
    inwards = np.einsum("ti,ti->t", area_vectors(x, triangles), x[triangles].mean(1)) < 0
    triangles[inwards] = triangles[inwards][:, ::-1]
    return x, triangles


def count_edges(triangles):
    "Return how many triangles each edge belongs to."
    return Counter(tuple(sorted(edge)) for t in triangles.tolist() for edge in combinations(t, 2))


@given(meshes)
def test_edges_and_boundary_are_counted(triangles):
    counts = count_edges(triangles)
    assert edges(triangles).tolist() == [list(edge) for edge in sorted(counts)]
    ends = {vertex for edge, count in counts.items() if count == 1 for vertex in edge}
    assert boundary_vertices(triangles).tolist() == sorted(ends)


@given(meshes)
def test_neighbours_share_an_edge(triangles):
    A = adjacency(triangles, 12).toarray()
    assert {(i, j) for i, j in np.argwhere(A) if i < j} == set(count_edges(triangles))
    assert np.array_equal(A, A.T) and set(np.unique(A)) <= {0, 1} and not A.diagonal().any()


@given(meshes, st.randoms(use_true_random=False))
def test_order_and_direction_of_triangles_do_not_matter(triangles, random):
    shuffled = [random.sample(t, 3) for t in random.sample(triangles.tolist(), len(triangles))]
    assert np.array_equal(edges(np.array(shuffled)), edges(triangles))
    assert np.array_equal(boundary_vertices(np.array(shuffled)), boundary_vertices(triangles))


@given(seeds)
def test_a_sphere_is_closed_and_has_eulers_characteristic(seed):
    x, triangles = sphere(seed)
    assert len(x) - len(edges(triangles)) + len(triangles) == 2
    assert not len(boundary_vertices(triangles))
    np.testing.assert_allclose(area_vectors(x, triangles).sum(0), 0, atol=1e-12)
    hole = set(triangles[0])  # without one triangle, its corners are the boundary
    assert set(boundary_vertices(triangles[1:])) == hole


@given(seeds)
def test_normals_are_the_mean_by_area(seed):
    x, triangles = sphere(seed)
    total = np.zeros_like(x)
    for t, normal in zip(triangles, area_vectors(x, triangles), strict=True):
        total[t] += normal
    normals = vertex_normals(x, triangles)
    np.testing.assert_allclose(normals, total / np.linalg.norm(total, axis=1, keepdims=True), atol=1e-12)
    R = Rotation.random(random_state=seed).as_matrix()
    np.testing.assert_allclose(vertex_normals(7 * x @ R.T + 3, triangles), normals @ R.T, atol=1e-11)
    np.testing.assert_allclose(vertex_normals(x, triangles[:, ::-1]), -normals, atol=1e-12)


@given(seeds)
def test_welding_joins_loose_triangles(seed):
    x, triangles = sphere(seed)
    loose, own = x[triangles].reshape(-1, 3), np.arange(triangles.size).reshape(-1, 3)
    welded = weld(loose, np.concatenate([own, own[::2], own[:, [0, 0, 1]]]))  # some twice, some without area
    assert np.array_equal(loose[welded], x[triangles])
    assert len(edges(welded)) == len(edges(triangles)) and not len(boundary_vertices(welded))
    assert np.array_equal(weld(loose, welded), welded)
