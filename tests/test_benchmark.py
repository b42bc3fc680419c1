"""Cases, methods, controls: what goes wrong is a row with a reason, and the others go on."""

import json

import numpy as np
import pytest
import trimesh
from test_protocols import face, motion

from mrl.faces.landmarks import IBUG
from mrl.faces.population import load_population
from mrl.geometry.registration import apply_similarity
from mrl.geometry.surface import Surface
from mrl.scans.evaluation import evaluate
from mrl.scans.methods import (
    Method,
    MiccCase,
    folder_predictions,
    methods_of,
    model_fit,
    network_predictions,
    read_face,
)
from mrl.scans.micc import Subject
from mrl.scans.protocols import PROTOCOLS, Face, find_lips_central
from mrl.scans.report import failures, report_row, summarise

POPULATION = load_population()


def write(path, face, marks=None):
    trimesh.Trimesh(face.surface.vertices, face.surface.triangles, process=False).export(path)
    if marks is not None:
        path.with_suffix(".landmarks.json").write_text(json.dumps(marks))


def points_of(face):
    return {k: v.tolist() for k, v in face.landmarks.items()}


def test_meshes_are_read_with_their_landmarks(tmp_path):
    prediction = face(7)
    write(tmp_path / "subject_01.obj", prediction, points_of(prediction))
    (tmp_path / "subject_02").mkdir()
    write(tmp_path / "subject_02" / "Indoor-Cooperative.ply", prediction)
    (tmp_path / "landmarks.json").write_text(json.dumps({k: int(v) for k, v in POPULATION.landmarks.items()}))
    method = folder_predictions(tmp_path)
    for number in (1, 2):
        got = method.predict(MiccCase(Subject(number, {}, {}, None, None, {}, {})), None, None)
        assert np.allclose(got.surface.vertices, prediction.surface.vertices, atol=1e-4)
        assert all(np.allclose(got.landmarks[k], prediction.landmarks[k], atol=1e-4) for k in POPULATION.landmarks)
    with pytest.raises(
        FileNotFoundError,
        match="no mesh subject_03/Indoor-Cooperative or subject_3/Indoor-Cooperative or subject_03 or subject_3 ",
    ):
        method.predict(MiccCase(Subject(3, {}, {}, None, None, {}, {})), None, None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        folder_predictions(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "marks, message",
    [
        ({"right_eye_inner": 99999}, "right_eye_inner is 99999, expected a vertex"),
        ({"right_eye_inner": [1, 2]}, "or a point"),
        ({"right_eye_inner": True}, "expected a vertex"),
        ({"right_eye_inner": [1, 2, float("nan")]}, "of finite numbers"),
        ({"nose_base": 3}, "right_eye_inner, left_eye_inner are missing"),
        ([1], "an object with names"),
    ],
)
def test_bad_landmarks_are_named(tmp_path, marks, message):
    write(tmp_path / "subject_01.obj", face(7), marks)
    with pytest.raises(ValueError, match=message):
        read_face(tmp_path / "subject_01.obj")


def test_failures_are_rows_and_the_others_go_on(tmp_path):
    "Another method's meshes: one right, one with a landmark missing, one not there, one for which there is no scan."
    scan = face(7, motion(3))
    trimesh.Trimesh(scan.surface.vertices, scan.surface.triangles, process=False).export(tmp_path / "scan.obj")
    rows_of = {k: int(np.linalg.norm(scan.surface.vertices - p, axis=1).argmin()) for k, p in scan.landmarks.items()}
    authors = {
        "right_eye_lacrimal": rows_of["right_eye_inner"],
        "left_eye_lacrimal": rows_of["left_eye_inner"],
        "nose_base": rows_of["nose_base"],
        "lips_central": rows_of["lips_central"],
    }
    subjects = [
        Subject(n, {"frontal1": tmp_path / "scan.obj"} if n < 4 else {}, {}, 1, None, authors, {}) for n in (1, 2, 3, 4)
    ]
    folder = tmp_path / "predictions"
    folder.mkdir()
    good = points_of(face(7))
    write(folder / "subject_01.obj", face(7), good)
    write(folder / "subject_02.obj", face(7), {k: v for k, v in good.items() if k != "nose_base"})
    write(folder / "subject_04.obj", face(7), good)
    rows = evaluate(
        list(map(MiccCase, subjects)),
        [PROTOCOLS["ramon2019"], PROTOCOLS["now"]],
        {"theirs": folder_predictions(folder)},
    )
    broken = evaluate(
        [MiccCase(subjects[0])],
        [PROTOCOLS["ramon2019"]],
        {"fails": Method(lambda case, protocol, scan: 1 / 0), "works": Method(lambda case, protocol, scan: face(7))},
    )
    assert broken[0]["problem"] == "ZeroDivisionError: division by zero" and broken[1]["error"] < 0.1
    ramon = {r["subject"]: r for r in rows if r["protocol"] == "ramon2019"}
    assert ramon[1]["error"] < 0.1 and ramon[1]["scan"] == "frontal1"
    assert "subject_02.obj: landmarks nose_base are missing" in ramon[2]["problem"]
    assert "no mesh subject_03" in ramon[3]["problem"] and "fit no frontal scan" in ramon[4]["problem"]
    assert all(
        "no landmarks for frontal1" in r["problem"] for r in rows if r["protocol"] == "now" and r["subject"] != 4
    )
    lines = summarise(rows)
    assert [(line["protocol"], line["subjects"], line["failed"]) for line in lines] == [
        ("ramon2019", 1, 3),
        ("now", 0, 4),
    ]
    assert [f[0] for f in failures(rows)] == [1, 2, 2, 3, 3, 4, 4] and "ramon2019: theirs" in failures(rows)[1][2]
    assert report_row(lines[0])[-1] == "1 (3 failed)" and report_row(lines[1])[-1] == "0 (4 failed)"


def test_a_global_scale_is_shared_by_all_subjects(tmp_path):
    "Predictions all too small by the same factor lose nothing; one that is too small alone does."
    subjects, method = [], {}
    for n, (i, s) in enumerate(((7, 0.9), (8, 0.9), (9, 0.9), (10, 0.7)), 1):
        scan = face(i)
        trimesh.Trimesh(scan.surface.vertices, scan.surface.triangles, process=False).export(tmp_path / f"{n}.obj")
        nearest = {
            k: int(np.linalg.norm(scan.surface.vertices - scan.landmarks[o], axis=1).argmin())
            for k, o in (
                ("right_eye_lacrimal", "right_eye_inner"),
                ("left_eye_lacrimal", "left_eye_inner"),
                ("nose_base", "nose_base"),
                ("lips_central", "lips_central"),
            )
        }
        subjects.append(Subject(n, {"frontal1": tmp_path / f"{n}.obj"}, {}, 1, None, nearest, {}))
        method[n] = face(i, scale=s)
    p, one = [PROTOCOLS["genova2018"]], Method(lambda case, protocol, scan: method[case.name])
    same = evaluate(list(map(MiccCase, subjects[:3])), p, {"m": one})
    assert all(r["error"] < 0.1 for r in same)
    mixed = evaluate(list(map(MiccCase, subjects)), p, {"m": one}, jobs=2)
    assert [r["error"] > 0.3 for r in mixed] == [False, False, False, True]  # the median is that of the others


def test_the_better_of_two_scans_counts_and_a_damaged_one_does_not(tmp_path):
    scan = face(7, motion(3))
    trimesh.Trimesh(scan.surface.vertices, scan.surface.triangles, process=False).export(tmp_path / "1.obj")
    (tmp_path / "2.obj").write_text("v 0 0 0")
    points = np.zeros((68, 3))
    for name, i in IBUG.items():
        points[i] = scan.landmarks[name]
    points[[i for i in range(68) if i not in IBUG.values()]] = scan.landmarks["lips_central"]
    subject = Subject(
        1,
        {"frontal1": tmp_path / "1.obj", "frontal2": tmp_path / "2.obj"},
        {},
        1,
        None,
        {},
        {"frontal1": points, "frontal2": points},
    )
    (row,) = evaluate(
        [MiccCase(subject)], [PROTOCOLS["ganfit2019"]], {"m": Method(lambda case, protocol, scan: face(7))}
    )
    assert (
        row["scan"] == "frontal1"
        and row["error"] < 0.1
        and row["coverage"] == pytest.approx(1)
        and row["converged"]
        and "2.obj: has no faces" in row["problem"]
    )


def test_a_network_is_asked_for_the_frames_of_a_protocol(monkeypatch):
    "Shapes are averaged over the pictures in which a face is found; a protocol of other videos does not ask."
    import torch

    import mrl.photo.reconstruction

    x = torch.as_tensor(POPULATION.faces(np.arange(3)))

    def reconstruct(run, image, focal):
        if image == 9:
            raise ValueError("no face found in the picture")
        assert focal == 500.0
        return type(
            "Found",
            (),
            dict(x=x[image], triangles=torch.as_tensor(POPULATION.face_triangles), landmarks=POPULATION.landmarks),
        )

    class Case:
        name, asked = "anybody", []

        def pictures(self, protocol, video):
            self.asked.append((protocol.frames, video))
            return [(i, 500.0) for i in ([0, 9, 1, 2] if protocol.frames else [0])]

        def scans(self, protocol):
            return ["scan"]

        def scan(self, protocol, name):
            return face(0)

        def forget(self):
            pass

    monkeypatch.setattr(mrl.photo.reconstruction, "reconstruct", reconstruct)
    protocols = [PROTOCOLS[k] for k in ("ramon2019", "ganfit2019", "deng2019")]
    rows = evaluate(
        [Case()], protocols, {v: network_predictions(None, v) for v in ("Indoor-Cooperative", "PTZ-Outdoor")}
    )
    assert [(r["protocol"], r["video"], r["note"]) for r in rows] == [("ramon2019", "Indoor-Cooperative", "")] + [
        (p, v, "3 of 4 pictures") for p in ("ganfit2019", "deng2019") for v in ("Indoor-Cooperative", "PTZ-Outdoor")
    ]
    assert rows[0]["error"] < 0.05 < rows[1]["error"] and len(Case.asked) == 5
    mean = network_predictions(None).predict(Case(), PROTOCOLS["deng2019"], None)
    assert np.allclose(mean.surface.vertices, x.double().mean(0), atol=1e-9)
    with pytest.raises(
        ValueError, match="anybody, Indoor-Cooperative: no face found in the picture; none in 2 pictures"
    ):
        network_predictions(None).predict(
            type("", (Case,), dict(pictures=lambda *_: [(9, None)] * 2))(), PROTOCOLS["deng2019"], None
        )


def test_folders_of_one_name_are_two_methods(tmp_path):
    folders = [tmp_path / a / "meshes" for a in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    assert list(methods_of("", folders)) == [f"meshes in {f}" for f in folders] + [
        "model fit (anny heads)",
        "mean face (anny heads)",
    ]
    assert list(methods_of("", folders[:1], ("PTZ-Indoor", "PTZ-Outdoor")))[:2] == [
        "meshes in meshes, PTZ-Indoor",
        "meshes in meshes, PTZ-Outdoor",
    ]


def test_the_model_fit_finds_what_the_model_can_say():
    "A face that the model made, noisy and somewhere else, comes back."
    from mrl.faces.morphable import morphable_model_of

    morphable, rng = morphable_model_of(POPULATION, np.arange(500), 16), np.random.default_rng(0)
    x = (morphable.mean + torch_tensordot(rng.normal(0, 1, 16), morphable.basis)).double().numpy()
    T, marks = motion(5), {k: x[i] for k, i in morphable.landmarks.items()}
    marks["lips_central"] = find_lips_central(x, marks)
    fine = trimesh.Trimesh(x, morphable.triangles.numpy(), process=False).subdivide()
    scan = Face(
        Surface(
            apply_similarity(T, np.asarray(fine.vertices) + rng.normal(0, 0.1, fine.vertices.shape)),
            np.asarray(fine.faces),
        ),
        {k: apply_similarity(T, p) for k, p in marks.items()},
        "scan",
    )
    found = model_fit(morphable).predict(type("Case", (), {"name": 1}), None, scan)
    assert (
        np.linalg.norm(found.surface.vertices - x, axis=1).mean()
        < 0.3
        < np.linalg.norm(morphable.mean.numpy() - x, axis=1).mean()
    )


def torch_tensordot(a, basis):
    import torch

    return torch.tensordot(torch.as_tensor(a, dtype=basis.dtype), basis, 1)
