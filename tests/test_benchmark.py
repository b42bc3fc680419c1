"""Protocols measure what they say they measure; what cannot be measured is named."""
import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from mrl.alignment import Surface, move
from mrl.benchmark import (FOUR, PROTOCOLS, PUBLISHED, Face, compare, evaluate, face_axes, find_lips_central, find_nose_tip, folder_predictions, landmark_scale, moved, named_face, paired, read_face, region, report_row, summarise)
from mrl.faces import load_population
from mrl.micc import IBUG_LANDMARKS, Mesh, Subject

POPULATION = load_population()


def face(identity, T=np.eye(4), scale=1.0):
    "A face of the population, as a prediction in a frame of its own."
    x = POPULATION.faces(identity).astype(np.float64)
    marks = {k: x[i] for k, i in POPULATION.landmarks.items()}
    marks["lips_central"] = find_lips_central(x, marks)
    return Face(Surface(move(T, scale * x), POPULATION.face_triangles), {k: move(T, scale * p) for k, p in marks.items()}, f"face {identity}")


def motion(seed):
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(random_state=seed).as_matrix(), rng.normal(0, 200, 3)
    return T


def write(path, face, marks=None):
    trimesh.Trimesh(face.surface.vertices, face.surface.triangles, process=False).export(path)
    if marks is not None:
        path.with_suffix(".landmarks.json").write_text(json.dumps(marks))


def points_of(face):
    return {k: v.tolist() for k, v in face.landmarks.items()}


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


def test_the_number_is_what_its_fields_say():
    "Distances again, by trimesh, from the motion that a comparison reports."
    prediction, scan = face(11), face(12, motion(4))
    for name, side in (("ramon2019", "prediction"), ("tran2017", "scan"), ("now", "scan")):
        found = compare(PROTOCOLS[name], prediction, scan)
        surfaces = {"prediction": (move(found.T, prediction.surface.vertices), prediction.surface.triangles), "scan": (scan.surface.vertices, scan.surface.triangles)}
        other = trimesh.Trimesh(*surfaces["scan" if side == "prediction" else "prediction"], process=False)
        d = trimesh.proximity.closest_point(other, surfaces[side][0][found.rows[side]])[1]
        assert np.allclose(d, found.distances[side], atol=1e-8)
        w = np.bincount(prediction.surface.triangles.ravel(), np.repeat(trimesh.Trimesh(*surfaces["prediction"], process=False).area_faces, 3))[found.rows[side]] if name == "ramon2019" else None
        expected = np.median(d) if name == "now" else np.sqrt(np.average(d**2, weights=w))
        assert found.error == pytest.approx(expected, rel=1e-9)
    both = compare(PROTOCOLS["ganfit2019"], prediction, scan)
    assert both.error == pytest.approx((both.distances["prediction"].mean() + both.distances["scan"].mean()) / 2)


def test_plane_distances_are_no_longer_than_those_to_triangles():
    prediction, scan = face(11), face(12)
    p = PROTOCOLS["deng2019"]
    plane, triangle = (compare(replace(p, distance=d), prediction, scan) for d in ("plane", "triangle"))
    assert (plane.distances["prediction"] <= triangle.distances["prediction"] + 1e-9).all() and plane.error < triangle.error


def test_regions():
    "NoW's disc by hand; 95 mm, and 60 for subject 28; no forehead under Deng; own nose tips under GANFit."
    scan = face(3)
    m, x = scan.landmarks, scan.surface.vertices
    bridge = (m["right_eye_inner"] + m["left_eye_inner"]) / 2
    radius = 0.7 * (np.linalg.norm(m["right_eye_outer"] - m["left_eye_outer"]) + np.linalg.norm(bridge - m["nose_base"]))
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
    return Face(Surface(face.surface.vertices if vertices is None else vertices, face.surface.triangles if triangles is None else triangles), landmarks or face.landmarks, face.path)


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


def test_vertices_without_triangles_are_no_part_of_a_face():
    prediction, scan, rng = face(11), face(12), np.random.default_rng(0)
    stray = np.concatenate([prediction.surface.vertices, prediction.landmarks["nose_tip"] + rng.normal(0, 30, (500, 3))])
    scan_stray = np.concatenate([scan.surface.vertices, scan.landmarks["nose_tip"] + [[0, 0, 20.0]]])
    four = {k: scan.landmarks[k] for k in FOUR}  # the nose tip has to be found
    for p in PROTOCOLS.values():
        if p.annotation == "ganfit":
            four = scan.landmarks
        assert compare(p, changed(prediction, stray), changed(scan, scan_stray, landmarks=four)).error == pytest.approx(compare(p, prediction, changed(scan, landmarks=four)).error, rel=1e-6)


def test_coverage_says_what_was_measured():
    "A mesh of the middle of the face does better, at half the coverage."
    prediction, scan = face(11), face(12)
    near = np.linalg.norm(prediction.surface.vertices - prediction.landmarks["nose_tip"], axis=1) < 50
    small = changed(prediction, triangles=prediction.surface.triangles[near[prediction.surface.triangles].all(1)])
    whole, part = (compare(PROTOCOLS["tran2017"], f, scan) for f in (prediction, small))
    assert whole.coverage > 0.9 and part.coverage < 0.7
    assert compare(PROTOCOLS["now"], prediction, scan).coverage == 1
    with pytest.raises(ValueError, match="ICP changed its scale"):  # under NoW what lies beyond the rim counts, and a small mesh grows to reach it
        compare(PROTOCOLS["now"], small, scan)


def test_how_finely_a_mesh_is_cut_does_not_matter_where_area_counts():
    prediction, scan = face(11), face(12)
    nose = np.linalg.norm(prediction.surface.vertices - prediction.landmarks["nose_tip"], axis=1) < 25
    fine = trimesh.Trimesh(prediction.surface.vertices, prediction.surface.triangles, process=False).subdivide(np.flatnonzero(nose[prediction.surface.triangles].all(1)))
    cut = changed(prediction, np.asarray(fine.vertices), np.asarray(fine.faces))
    assert len(cut.surface.vertices) > 1.2 * len(prediction.surface.vertices)
    area, vertices = (abs(compare(p, cut, scan).error / compare(p, prediction, scan).error - 1) for p in (PROTOCOLS["ramon2019"], replace(PROTOCOLS["ramon2019"], weights="vertices")))
    assert area < 0.02 and area < vertices


def test_landmarks_that_are_no_face_are_refused():
    good = face(7)
    mesh = Mesh(good.surface.vertices, POPULATION.face_triangles, "theirs")
    swapped = {k.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left"): v for k, v in good.landmarks.items()}
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


def test_meshes_are_read_with_their_landmarks(tmp_path):
    prediction = face(7)
    write(tmp_path / "subject_01.obj", prediction, points_of(prediction))
    (tmp_path / "subject_02").mkdir()
    write(tmp_path / "subject_02" / "Indoor-Cooperative.ply", prediction)
    (tmp_path / "landmarks.json").write_text(json.dumps({k: int(v) for k, v in POPULATION.landmarks.items()}))
    method = folder_predictions(tmp_path)
    for number in (1, 2):
        got = method(Subject(number, {}, {}, None, None, {}, {}), None)
        assert np.allclose(got.surface.vertices, prediction.surface.vertices, atol=1e-4)
        assert all(np.allclose(got.landmarks[k], prediction.landmarks[k], atol=1e-4) for k in POPULATION.landmarks)
    with pytest.raises(FileNotFoundError, match="no mesh subject_03.obj"):
        method(Subject(3, {}, {}, None, None, {}, {}), None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        folder_predictions(tmp_path / "nowhere")


@pytest.mark.parametrize("marks, message", [({"right_eye_inner": 99999}, "right_eye_inner is 99999, expected a vertex"), ({"right_eye_inner": [1, 2]}, "or a point"), ({"right_eye_inner": True}, "expected a vertex"),
                                            ({"right_eye_inner": [1, 2, float("nan")]}, "of finite numbers"), ({"nose_base": 3}, "right_eye_inner, left_eye_inner are missing"), ([1], "an object with names")])
def test_bad_landmarks_are_named(tmp_path, marks, message):
    write(tmp_path / "subject_01.obj", face(7), marks)
    with pytest.raises(ValueError, match=message):
        read_face(tmp_path / "subject_01.obj")


@pytest.mark.parametrize("scale, factor", [(0.001, "multiply by 1000"), (1000, "multiply by 0.001"), (0.1, "multiply by 10")])
def test_other_units_are_refused_with_the_factor(scale, factor):
    with pytest.raises(ValueError, match=factor):
        named_face(Mesh(face(7, scale=scale).surface.vertices, POPULATION.face_triangles, "theirs"), face(7, scale=scale).landmarks)


def test_failures_are_rows_and_the_others_go_on(tmp_path):
    "Another method's meshes: one right, one with a landmark missing, one not there, one for which there is no scan."
    scan = face(7, motion(3))
    trimesh.Trimesh(scan.surface.vertices, scan.surface.triangles, process=False).export(tmp_path / "scan.obj")
    rows_of = {k: int(np.linalg.norm(scan.surface.vertices - p, axis=1).argmin()) for k, p in scan.landmarks.items()}
    authors = {"right_eye_lacrimal": rows_of["right_eye_inner"], "left_eye_lacrimal": rows_of["left_eye_inner"], "nose_base": rows_of["nose_base"], "lips_central": rows_of["lips_central"]}
    subjects = [Subject(n, {"frontal1": tmp_path / "scan.obj"} if n < 4 else {}, {}, 1, None, authors, {}) for n in (1, 2, 3, 4)]
    folder = tmp_path / "predictions"
    folder.mkdir()
    good = points_of(face(7))
    write(folder / "subject_01.obj", face(7), good)
    write(folder / "subject_02.obj", face(7), {k: v for k, v in good.items() if k != "nose_base"})
    write(folder / "subject_04.obj", face(7), good)
    rows = evaluate(subjects, [PROTOCOLS["ramon2019"], PROTOCOLS["now"]], {"theirs": folder_predictions(folder)}, jobs=2)
    broken = evaluate(subjects[:1], [PROTOCOLS["ramon2019"]], {"fails": lambda s, scan: 1 / 0, "works": lambda s, scan: face(7)})
    assert broken[0]["problem"] == "ZeroDivisionError: division by zero" and broken[1]["error"] < 0.1
    ramon = {r["subject"]: r for r in rows if r["protocol"] == "ramon2019"}
    assert ramon[1]["error"] < 0.1 and ramon[1]["scan"] == "frontal1"
    assert "subject_02.obj: landmarks nose_base are missing" in ramon[2]["problem"]
    assert "no mesh subject_03.obj" in ramon[3]["problem"] and "fit no frontal scan" in ramon[4]["problem"]
    assert all("no landmarks for frontal1" in r["problem"] for r in rows if r["protocol"] == "now" and r["subject"] != 4)
    lines = summarise(rows)
    assert [(line["protocol"], line["subjects"], line["failed"]) for line in lines] == [("ramon2019", 1, 3), ("now", 0, 4)]
    assert report_row(lines[0])[-1] == "1 (3 failed)" and report_row(lines[1])[-1] == "0 (4 failed)"


def test_a_global_scale_is_shared_by_all_subjects(tmp_path):
    "Predictions all too small by the same factor lose nothing; one that is too small alone does."
    subjects, method = [], {}
    for n, (i, s) in enumerate(((7, 0.9), (8, 0.9), (9, 0.9), (10, 0.7)), 1):
        scan = face(i)
        trimesh.Trimesh(scan.surface.vertices, scan.surface.triangles, process=False).export(tmp_path / f"{n}.obj")
        nearest = {k: int(np.linalg.norm(scan.surface.vertices - scan.landmarks[o], axis=1).argmin()) for k, o in (("right_eye_lacrimal", "right_eye_inner"), ("left_eye_lacrimal", "left_eye_inner"), ("nose_base", "nose_base"), ("lips_central", "lips_central"))}
        subjects.append(Subject(n, {"frontal1": tmp_path / f"{n}.obj"}, {}, 1, None, nearest, {}))
        method[n] = face(i, scale=s)
    p = [PROTOCOLS["genova2018"]]
    same = evaluate(subjects[:3], p, {"m": lambda s, scan: method[s.number]})
    assert all(r["error"] < 0.1 for r in same)
    mixed = evaluate(subjects, p, {"m": lambda s, scan: method[s.number]})
    assert all(r["error"] > 0.3 for r in mixed)


def test_the_better_of_two_scans_counts_and_a_damaged_one_does_not(tmp_path):
    scan = face(7, motion(3))
    trimesh.Trimesh(scan.surface.vertices, scan.surface.triangles, process=False).export(tmp_path / "1.obj")
    (tmp_path / "2.obj").write_text("v 0 0 0")
    points = np.zeros((68, 3))
    for name, i in IBUG_LANDMARKS.items():
        points[i] = scan.landmarks[name]
    points[[i for i in range(68) if i not in IBUG_LANDMARKS.values()]] = scan.landmarks["lips_central"]
    subject = Subject(1, {"frontal1": tmp_path / "1.obj", "frontal2": tmp_path / "2.obj"}, {}, 1, None, {}, {"frontal1": points, "frontal2": points})
    (row,) = evaluate([subject], [PROTOCOLS["ganfit2019"]], {"m": lambda s, scan: face(7)})
    assert row["scan"] == "frontal1" and row["error"] < 0.1 and row["coverage"] == 1 and row["converged"] and "2.obj: has no faces" in row["problem"]


def test_methods_are_compared_on_the_subjects_that_all_have():
    rows = [{"subject": s, "protocol": "now", "method": m, "error": e, "coverage": 1.0, "converged": True} for m, es in (("a", [1, 2, None, None]), ("b", [1, 2, 3, 4])) for s, e in enumerate(es)]
    a, b = summarise(rows)
    assert (a["mean"], b["mean"], a["mean_common"], b["mean_common"], a["common"]) == (1.5, 2.5, 1.5, 1.5, 2)
    assert "low" not in a and b["low"] <= 2.5 <= b["high"] and report_row(a)[2] == ""


def test_paired_differences():
    rows = [{"subject": s, "protocol": "now", "method": m, "error": e, "problem": ""} for m, es in (("a", [1, 2, None]), ("b", [2, 4, 6])) for s, e in enumerate(es)]
    (mean, low, high), n = paired(rows, "now", "b", "a")
    assert (mean, n) == (1.5, 2) and low <= mean <= high
    with pytest.raises(ValueError, match="no subject that both"):
        paired(rows, "deng2019", "b", "a")


def test_every_protocol_says_where_it_is_from_and_what_it_leaves_open():
    for name, p in PROTOCOLS.items():
        assert p.name == name and "arXiv" in p.source and p.open and p.frames
    assert all(any(p in stated for p in PROTOCOLS) for _, _, stated, _ in PUBLISHED)
