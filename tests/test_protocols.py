"""Protocols measure what they say they measure; what cannot be measured is named."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from mrl.faces.population import load_population
from mrl.geometry.registration import apply_similarity
from mrl.geometry.surface import Surface
from mrl.io.meshes import Mesh
from mrl.scans.protocols import (
    FOUR,
    PROTOCOLS,
    Face,
    check_face,
    compare,
    face_axes,
    find_lips_central,
    find_nose_tip,
    landmark_scale,
    moved,
    named_face,
    region,
)
from mrl.scans.report import PUBLISHED, describe

POPULATION = load_population()


def face(identity, T=np.eye(4), scale=1.0):
    "A face of the population, as a prediction in a frame of its own."
    x = POPULATION.faces(identity).astype(np.float64)
    marks = {k: x[i] for k, i in POPULATION.landmarks.items()}
    marks["lips_central"] = find_lips_central(x, marks)
    return Face(
        Surface(apply_similarity(T, scale * x), POPULATION.face_triangles),
        {k: apply_similarity(T, scale * p) for k, p in marks.items()},
        f"face {identity}",
    )


def motion(seed):
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(random_state=seed).as_matrix(), rng.normal(0, 200, 3)
    return T


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_perfect_prediction_in_any_frame_has_no_error(name):
    found = compare(PROTOCOLS[name], face(7, motion(1)), face(7, motion(2)))
    assert found.error < 0.05
    assert np.allclose(found.T, motion(2) @ np.linalg.inv(motion(1)), atol=0.1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scale_counts_where_the_protocol_fits_none(name):
    p = PROTOCOLS[name]
    small, scan = face(7, scale=0.9), face(7)
    scale = landmark_scale(p, small, scan)
    assert scale == pytest.approx(1 / 0.9, rel=1e-6)
    error = compare(p, small, scan, scale=scale if p.scale == "global" else 1.0).error
    assert error < 0.1 if p.scale != "none" else error > 0.5


def distances_by_trimesh(points, vertices, triangles, near=60):
    "Return distances (n,) of points to a mesh: the least of those to the triangles with the nearest centres."
    corners, many = vertices[triangles], np.repeat(points, near, 0)
    candidates = cKDTree(corners.mean(1)).query(points, near)[1].ravel()
    feet = trimesh.triangles.closest_point(corners[candidates], many)
    return np.linalg.norm(feet - many, axis=1).reshape(-1, near).min(1)


@pytest.mark.slow
def test_the_number_is_what_its_fields_say():
    "Distances again, by trimesh, from the motion that a comparison reports."
    prediction, scan = face(11), face(12, motion(4))
    for name, side in (("ramon2019", "prediction"), ("tran2017", "scan"), ("now", "scan")):
        found = compare(PROTOCOLS[name], prediction, scan)
        surfaces = {
            "prediction": (apply_similarity(found.T, prediction.surface.vertices), prediction.surface.triangles),
            "scan": (scan.surface.vertices, scan.surface.triangles),
        }
        other = surfaces["scan" if side == "prediction" else "prediction"]
        d = distances_by_trimesh(surfaces[side][0][found.rows[side]], *other)
        assert np.allclose(d, found.distances[side], atol=1e-8)
        w = (
            np.bincount(
                prediction.surface.triangles.ravel(),
                np.repeat(trimesh.Trimesh(*surfaces["prediction"], process=False).area_faces, 3),
            )[found.rows[side]]
            if name == "ramon2019"
            else None
        )
        expected = np.median(d) if name == "now" else np.sqrt(np.average(d**2, weights=w))
        assert found.error == pytest.approx(expected, rel=1e-9)
    both = compare(PROTOCOLS["ganfit2019"], prediction, scan)
    assert both.error == pytest.approx((both.distances["prediction"].mean() + both.distances["scan"].mean()) / 2)


def test_plane_distances_are_no_longer_than_those_to_triangles():
    prediction, scan = face(11), face(12)
    p = PROTOCOLS["deng2019"]
    plane, triangle = (compare(replace(p, distance=d), prediction, scan) for d in ("plane", "triangle"))
    assert (
        plane.distances["prediction"] <= triangle.distances["prediction"] + 1e-9
    ).all() and plane.error < triangle.error


def test_regions():
    "NoW's disc by hand; 95 mm, and 60 for subject 28; no forehead under Deng; own nose tips under GANFit."
    scan = face(3)
    m, x = scan.landmarks, scan.surface.vertices
    bridge = (m["right_eye_inner"] + m["left_eye_inner"]) / 2
    radius = 0.7 * (
        np.linalg.norm(m["right_eye_outer"] - m["left_eye_outer"]) + np.linalg.norm(bridge - m["nose_base"])
    )
    inside = np.linalg.norm(x - (0.7 * m["nose_base"] + 0.3 * bridge), axis=1) <= radius
    assert (region(PROTOCOLS["now"], 1, scan)["scan"](x) == inside).all() and 0.2 < inside.mean() < 0.95
    beside = moved(scan, np.array([[1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    for subject, radius in ((1, 95), (28, 60)):
        far = m["nose_tip"] + np.array([[0, 0, radius - 1], [0, 0, radius + 1]])
        tests = region(PROTOCOLS["ganfit2019"], subject, scan, beside)
        assert tests["scan"](far).tolist() == tests["prediction"](far + [7, 0, 0]).tolist() == [True, False]
    brow = bridge + face_axes(m)[1] * np.array([[29.0], [31.0]])
    assert region(PROTOCOLS["deng2019"], 1, scan)["prediction"](brow).tolist() == [True, False]
    assert region(PROTOCOLS["tran2017"], 1, scan)["scan"](brow).all()


def changed(face, vertices=None, triangles=None, landmarks=None):
    return Face(
        Surface(
            face.surface.vertices if vertices is None else vertices,
            face.surface.triangles if triangles is None else triangles,
        ),
        landmarks or face.landmarks,
        face.path,
    )


@pytest.mark.slow
def test_noise_does_not_shrink_to_nothing():
    "With a free scale and moving points alone, a noisy mesh shrinks to a point at no distance."
    scan, rng = face(12), np.random.default_rng(0)
    noisy = changed(face(11), face(11).surface.vertices + rng.normal(0, 8, face(11).surface.vertices.shape))
    for p in PROTOCOLS.values():
        if p.direction == "scan":
            continue  # seen from the scan, a surface that is rough all over is near everything
        try:
            assert compare(p, noisy, scan).error > compare(p, face(11), scan).error
        except ValueError as e:
            assert "ICP changed its scale" in str(e)


@pytest.mark.slow
def test_vertices_without_triangles_are_no_part_of_a_face():
    prediction, scan, rng = face(11), face(12), np.random.default_rng(0)
    stray = np.concatenate(
        [prediction.surface.vertices, prediction.landmarks["nose_tip"] + rng.normal(0, 30, (500, 3))]
    )
    scan_stray = np.concatenate([scan.surface.vertices, scan.landmarks["nose_tip"] + [[0, 0, 20.0]]])
    four = {k: scan.landmarks[k] for k in FOUR}  # the nose tip has to be found
    for p in PROTOCOLS.values():
        if p.annotation == "ganfit":
            four = scan.landmarks
        assert compare(p, changed(prediction, stray), changed(scan, scan_stray, landmarks=four)).error == pytest.approx(
            compare(p, prediction, changed(scan, landmarks=four)).error, rel=1e-6
        )


def part(face, radius):
    "A face, cut around the nose tip."
    near = np.linalg.norm(face.surface.vertices - face.landmarks["nose_tip"], axis=1) < radius
    return changed(face, triangles=face.surface.triangles[near[face.surface.triangles].all(1)])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_coverage_says_what_was_left_out(name):
    "A mesh of the middle of the face is not the same face, whatever its error is."
    prediction, scan = face(11), face(12)
    assert compare(PROTOCOLS[name], prediction, scan).coverage > 0.9
    try:
        assert compare(PROTOCOLS[name], part(prediction, 65), scan).coverage < 0.75
    except ValueError as e:  # where what lies beyond the rim counts, a small mesh grows to reach it
        assert "ICP changed its scale" in str(e) and not PROTOCOLS[name].overlap


def finer(face, near=np.inf):
    "A face, its triangles cut finer within `near` mm of the nose tip."
    nose = np.linalg.norm(face.surface.vertices - face.landmarks["nose_tip"], axis=1) < near
    fine = trimesh.Trimesh(face.surface.vertices, face.surface.triangles, process=False).subdivide(
        np.flatnonzero(nose[face.surface.triangles].all(1))
    )
    return changed(face, np.asarray(fine.vertices), np.asarray(fine.faces))


@pytest.mark.slow
def test_how_finely_a_mesh_is_cut_does_not_matter_where_area_counts():
    prediction, scan, p = face(11), face(12), PROTOCOLS["ramon2019"]
    cut = finer(prediction, 25)
    assert len(cut.surface.vertices) > 1.2 * len(prediction.surface.vertices)
    area, vertices = (
        abs(compare(q, cut, scan).error / compare(q, prediction, scan).error - 1)
        for q in (p, replace(p, weights="vertices"))
    )
    assert area < 0.02 and area < vertices
    assert compare(p, finer(prediction), finer(scan)).error == pytest.approx(
        compare(p, prediction, scan).error, rel=0.01
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_frames_and_the_order_of_vertices_do_not_matter(name):
    prediction, scan, rng = face(11), finer(face(12)), np.random.default_rng(0)
    order = rng.permutation(len(scan.surface.vertices))
    shuffled = changed(
        scan,
        scan.surface.vertices[order],
        np.argsort(order)[scan.surface.triangles][rng.permutation(len(scan.surface.triangles))],
    )
    assert compare(PROTOCOLS[name], moved(prediction, motion(8)), moved(shuffled, motion(9))).error == pytest.approx(
        compare(PROTOCOLS[name], prediction, scan).error, rel=2e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ramon2019", "deng2019", "tran2017", "now"])
def test_loose_double_and_flat_triangles_do_not_matter(name):
    "Loose triangles are all rim, two-sided ones have none, and one without area has no plane."
    prediction, scan = face(11), face(12)
    v, t = scan.surface.vertices, scan.surface.triangles
    expected = compare(PROTOCOLS[name], prediction, scan).error
    for vertices, triangles in (
        (v[t].reshape(-1, 3), np.arange(t.size).reshape(-1, 3)),
        (v, np.concatenate([t, t[:, ::-1]])),
        (v, np.concatenate([t, t[:, [0, 0, 1]]])),
    ):
        for one, other in (
            (prediction, Face(Surface.welded(vertices, triangles), scan.landmarks, "scan")),
            (Face(Surface.welded(vertices, triangles), scan.landmarks, "prediction"), prediction),
        ):
            assert compare(PROTOCOLS[name], one, other).error == pytest.approx(
                expected if one is prediction else compare(PROTOCOLS[name], scan, prediction).error, rel=1e-6
            )


def test_a_mirrored_scan_or_exchanged_landmarks_are_refused():
    "Four points fit as well after half a turn about the vertical."
    good = face(7)
    mirror = changed(
        good, good.surface.vertices * [-1, 1, 1], landmarks={k: p * [-1, 1, 1] for k, p in good.landmarks.items()}
    )
    swapped = changed(
        good,
        landmarks={
            k: good.landmarks[k.replace("right", "?").replace("left", "right").replace("?", "left")] for k in FOUR
        },
    )
    check_face(good)
    for bad in (mirror, swapped):
        with pytest.raises(ValueError, match="are they exchanged, or is the mesh mirrored"):
            check_face(bad)


def test_what_is_far_away_is_not_measured():
    "A head with its back, measured from its own vertices."
    scan, x = face(12), face(11)
    back = changed(
        x,
        np.concatenate([x.surface.vertices, x.surface.vertices * [1, 1, -1] - [0, 0, 60]]),
        np.concatenate([x.surface.triangles] + [x.surface.triangles + len(x.surface.vertices)] * 1),
    )
    with pytest.raises(ValueError, match="a quarter of what is measured is .* mm or more away from face 12"):
        compare(
            replace(PROTOCOLS["ramon2019"], overlap=False, radius=300, weights="vertices"),
            changed(
                back,
                triangles=np.concatenate([back.surface.triangles, back.surface.triangles[len(x.surface.triangles) :]]),
            ),
            scan,
        )


def test_distances_to_vertices():
    "The closest vertex, as H3DS counts it, by brute force."
    prediction, scan = face(11), face(12)
    found = compare(replace(PROTOCOLS["now"], distance="vertex"), prediction, scan)
    x, v = scan.surface.vertices[found.rows["scan"]], apply_similarity(found.T, prediction.surface.vertices)
    assert np.allclose(found.distances["scan"], np.linalg.norm(x[:, None] - v, axis=-1).min(1))


def test_landmarks_that_are_no_face_are_refused():
    good = face(7)
    mesh = Mesh(good.surface.vertices, POPULATION.face_triangles, "theirs")
    swapped = {
        k.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left"): v
        for k, v in good.landmarks.items()
    }
    with pytest.raises(ValueError, match="theirs: its landmarks: .*exchanged"):
        named_face(mesh, swapped)
    with pytest.raises(ValueError, match="landmark chin is .* mm away from the mesh"):
        named_face(mesh, good.landmarks | {"chin": good.landmarks["chin"] + [0, 0, 40]})
    with pytest.raises(ValueError, match="theirs: its landmarks: the lips"):
        named_face(mesh, good.landmarks | {"lips_central": good.landmarks["right_eye_outer"]})
    odd = dict(zip(good.landmarks, np.roll(list(good.landmarks.values()), 3, 0)))
    with pytest.raises(ValueError, match="its landmarks are .* mm off those of face 7"):
        compare(PROTOCOLS["now"], changed(good, landmarks=odd), good)


def test_the_nose_tip_is_found_in_any_frame():
    for i in range(0, 6000, 150):
        turned = face(i, motion(i))
        found = find_nose_tip(turned.surface.vertices, {k: turned.landmarks[k] for k in FOUR})
        assert np.linalg.norm(found - turned.landmarks["nose_tip"]) < 8


@pytest.mark.parametrize(
    "scale, factor", [(0.001, "multiply by 1000"), (1000, "multiply by 0.001"), (0.1, "multiply by 10")]
)
def test_other_units_are_refused_with_the_factor(scale, factor):
    with pytest.raises(ValueError, match=factor):
        named_face(
            Mesh(face(7, scale=scale).surface.vertices, POPULATION.face_triangles, "theirs"),
            face(7, scale=scale).landmarks,
        )


@pytest.mark.parametrize(
    "field, value",
    [
        ("annotation", "ours"),
        ("scale", "ICP"),
        ("icp", "planes"),
        ("pairs", "moving"),
        ("centre", "nose"),
        ("direction", "scans"),
        ("distance", "triangles"),
        ("weights", "areas"),
        ("statistic", "rms"),
    ],
)
def test_a_protocol_with_another_value_is_refused(field, value):
    with pytest.raises(ValueError, match=f"protocol ramon2019: {field}: expected one of .*, got '{value}'"):
        replace(PROTOCOLS["ramon2019"], **{field: value})
    with pytest.raises(ValueError, match="a median has no weights by area"):
        replace(PROTOCOLS["ramon2019"], statistic="median")


def test_a_stray_vertex_is_no_landmark():
    "lips_central is looked for among the vertices of triangles."
    good = face(7)
    marks = {k: p for k, p in good.landmarks.items() if k != "lips_central"}
    stray = np.concatenate([good.surface.vertices, (marks["mouth_right"] + marks["mouth_left"])[None] / 2 + [0, 0, 9]])
    assert np.allclose(
        named_face(Mesh(stray, good.surface.triangles, "theirs"), marks).landmarks["lips_central"],
        good.landmarks["lips_central"],
    )


def test_every_protocol_says_where_it_is_from_and_what_it_leaves_open():
    for name, p in PROTOCOLS.items():
        assert p.name == name and "arXiv" in p.source and p.open and p.videos
    assert all(any(p in stated for p in PROTOCOLS) for _, _, stated, _ in PUBLISHED)
    assert len({tuple(describe(p)) for p in PROTOCOLS.values()}) == len(PROTOCOLS)
