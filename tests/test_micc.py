"""Hard tests of mrl.scans.micc and mrl.scans.lookalike.

No vertex shifted, no frame missed, every fault named with its file and subject.
"""

import hashlib
import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from mrl.faces.landmarks import IBUG, check_eye_distance
from mrl.faces.population import load_population, split_identities
from mrl.geometry.surface import Surface
from mrl.io.films import _pictures
from mrl.io.meshes import read_mesh
from mrl.scans.lookalike import ABOUT, _landmarks, build_lookalike
from mrl.scans.micc import (
    AUTHORS_LANDMARKS,
    SCANS,
    VIDEOS,
    annotated_scan,
    read_frame,
    read_frames,
    read_micc,
    scan_landmarks,
)


@pytest.fixture(scope="module")
def population():
    return load_population()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lookalike")
    return folder, build_lookalike(folder, 3, frames=7, spacing=2.0)


@pytest.fixture
def copy(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "copy")
    return tmp_path / "copy"


def read(folder):
    subjects, problems = read_micc(folder / "micc", folder / "annotations", folder / "ganfit")
    return {s.number: s for s in subjects}, problems


def rows(problems, number):
    return {row["what"]: row["problem"] for row in problems if row["subject"] == number}


@pytest.mark.parametrize(
    "factor, expected",
    [
        (1e-3, "metres. multiply by 1000"),
        (0.1, "centimetres. multiply by 10"),
        (1e3, "micrometres. multiply by 0.001"),
        (0, "another unit"),
        (3, "another unit"),
    ],
)
def test_units(factor, expected):
    eyes = {"right_eye_inner": np.array([-15.0, 3, 0]), "left_eye_inner": np.array([15.0, 3, 0])}
    check_eye_distance("a.obj", eyes)
    with pytest.raises(ValueError, match=f"a.obj.* apart, expected 20 to 50 mm: {expected}"):
        check_eye_distance("a.obj", {k: v * factor for k, v in eyes.items()})
    with pytest.raises(ValueError, match="a.obj: landmarks left_eye_inner are missing"):
        check_eye_distance("a.obj", {"right_eye_inner": np.zeros(3)})


# ---- the data set


def test_the_authors_annotation(tmp_path, optional_data):
    "In its real form: 52 frames, subject 30 reported as a copy of subject 1."
    real = optional_data(
        "micc-annotations/data/micc", "hyperparams-free-3D-losses/data/micc", source="README, Evaluate on MICC"
    )
    for number in range(1, 54):
        (tmp_path / f"subject_{number:02d}").mkdir()
    subjects, problems = read_micc(tmp_path, real)
    assert [s.number for s in subjects] == list(range(1, 54))
    framed = [s for s in subjects if s.frame]
    assert len(framed) == 52 and {len(s.vertex_landmarks) for s in framed} == {4} and subjects[0].frame == 890
    assert subjects[0].vertex_landmarks == {
        "right_eye_lacrimal": 24302,
        "left_eye_lacrimal": 24086,
        "nose_base": 9561,
        "lips_central": 12514,
    }
    assert subjects[29].frame is None and not subjects[29].vertex_landmarks
    said = rows(problems, 30)
    assert (
        "malformed: '950 24302'" in said["vertex landmarks"]
        and "those of subject 1: a copy" in said["vertex landmarks"]
    )
    assert said["frontal2"] == "missing (the data set has none)" and said["frame"] == "names no frame of this subject"
    assert {row["what"] for row in problems} == {*SCANS, *VIDEOS, "vertex landmarks", "frame", "landmarks"}
    assert not [row for row in problems if row["what"] == "vertex landmarks" and row["subject"] != 30]


def test_the_lookalike_is_read(built):
    subjects, problems = read(built[0])
    assert list(subjects) == [1, 28, 30]
    assert all(
        list(s.scans) == [k for k in SCANS if (n, k) != (30, "frontal2")] and list(s.videos) == list(VIDEOS)
        for n, s in subjects.items()
    )
    assert {row["subject"] for row in problems} == {30} and set(rows(problems, 30)) == {
        "frontal2",
        "frame",
        "vertex landmarks",
    }
    for number in (1, 28):
        about = built[1]["subjects"][str(number)]
        assert (
            subjects[number].frame == about["frame"]
            and subjects[number].vertex_landmarks == about["scans"][about["annotated"]]["vertices"]
        )
        assert annotated_scan(subjects[number]) == about["annotated"]
    assert {built[1]["subjects"][n]["annotated"] for n in ("1", "28")} == {"frontal1", "frontal2"}
    with pytest.raises(ValueError, match="subject 30: no vertices by the authors"):
        annotated_scan(subjects[30])


def test_what_is_missing_is_said_and_the_rest_goes_on(copy):
    micc = copy / "micc"
    shutil.rmtree(micc / "subject_01/Model/frontal1")
    next((micc / "subject_01/Video").glob("Indoor-Coop*")).unlink()
    next((micc / "subject_28/Model/sidel/obj").glob("*.obj")).write_bytes(b"")
    shutil.copy(
        *[next((micc / "subject_28/Model/sider/obj").glob("*.obj")), micc / "subject_28/Model/sider/obj/zz.obj"]
    )
    (micc / "subject_028").mkdir()
    shutil.rmtree(copy / "ganfit/subject_30")
    (micc / "notes.txt").write_text("mine")
    subjects, problems = read(copy)
    assert (
        rows(problems, 1) == {"frontal1": "missing", "Indoor-Cooperative": "missing"}
        and "frontal1" not in subjects[1].point_landmarks
    )
    said = rows(problems, 28)
    assert said["subject"].startswith("2 folders") or subjects[28].scans
    shutil.rmtree(micc / "subject_028")
    subjects, problems = read(copy)
    said = rows(problems, 28)
    assert (
        said["sidel"] == "an empty file"
        and said["sider"] == "2 files, the first by name is taken; the others: zz.obj"
        and set(subjects[28].scans) == {"frontal1", "frontal2", "sider"}
    )
    assert subjects[28].scans["sider"].stem.isdigit() and rows(problems, 30)["landmarks"].startswith("none: neither")
    assert all(set(row) == {"subject", "what", "file", "problem"} for row in problems)
    shutil.rmtree(micc / "subject_28")
    subjects, problems = read(copy)
    assert list(subjects) == [1, 30] and rows(problems, 28) == {"subject": "missing"}


def test_no_subject_at_all(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{copy}: expected folders subject_01.*; {copy / 'micc'} has some"):
        read_micc(copy)
    with pytest.raises(FileNotFoundError, match="nowhere: expected folders subject_01"):
        read_micc(tmp_path / "nowhere")


def test_letter_cases_and_unpadded_folders(copy):
    micc = copy / "micc"
    (micc / "subject_01").rename(micc / "Subject_1")
    obj = next((micc / "Subject_1/Model/frontal1/obj").glob("*.obj"))
    obj.rename(obj.with_suffix(".OBJ"))
    video = micc / "Subject_1/Video"
    (video / "film").mkdir()
    next(video.glob("Indoor-Coop*")).rename(video / "film/x.MPEG")
    (video / "film/x.MPEG").rename(video / "film/x.mjpeg")
    (video / "film").rename(video / "Indoor-Cooperative")
    subjects, problems = read(copy)
    assert (
        not rows(problems, 1)
        and subjects[1].scans["frontal1"].suffix == ".OBJ"
        and subjects[1].videos["Indoor-Cooperative"].name == "x.mjpeg"
    )
    assert read_frame(subjects[1]).shape == (240, 320, 3)


@pytest.mark.parametrize(
    "change, expected",
    {
        "no such file": lambda f: (f / "annotations.json").unlink(),
        "not a JSON file": lambda f: (f / "annotations.json").write_text("{"),
        "keys missing: cases": lambda f: (f / "annotations.json").write_text("{}"),
        "expected a list of cases with frame and correspondences": lambda f: (f / "annotations.json").write_text(
            '{"cases": [3]}'
        ),
    }.items(),
)
def test_an_annotation_that_cannot_be_used(copy, change, expected):
    change, expected = expected, change
    change(copy / "annotations")
    subjects, problems = read(copy)
    assert len(subjects) == 3 and all(s.frame is None and s.point_landmarks for s in subjects.values())
    assert any(
        row["subject"] is None and expected in row["problem"] and "annotations.json" in row["file"] for row in problems
    )


@pytest.mark.parametrize(
    "text, expected",
    [
        ("950 7\n4507 3\n16 9\n53 2\n", "malformed: '950 7'"),
        ("", "malformed: no right_eye_lacrimal"),
        ("nose_base 3\nlips_central 4\nleft_eye_lacrimal 1\n", "malformed: no right_eye_lacrimal"),
        ("nose_base -3\n", "malformed: 'nose_base -3'"),
        ("nose_base 3.5\n", "malformed"),
        ("nose 3\n", "malformed: 'nose 3', expected one of right_eye_lacrimal"),
        ("nose_base\n", "malformed"),
        (None, "missing"),
    ],
)
def test_malformed_correspondences(copy, text, expected):
    path = copy / "annotations/cases/subject_1/correspondences.txt"
    path.write_text(text) if text is not None else path.unlink()
    subjects, problems = read(copy)
    assert (
        rows(problems, 1)["vertex landmarks"].startswith(expected)
        and not subjects[1].vertex_landmarks
        and subjects[1].frame
    )
    # GANFit's take their place
    assert len(scan_landmarks(subjects[1], "frontal1", read_mesh(subjects[1].scans["frontal1"]))) == 10


def test_cases_that_contradict_themselves(copy):
    path = copy / "annotations/annotations.json"
    cases = json.loads(path.read_text())["cases"]
    wrong = [
        {"frame": "./cases/subject_1/frame5.jpg", "correspondences": "./cases/subject_28/correspondences.txt"},
        {"frame": "video.mov", "correspondences": ""},
        cases[1],
        cases[1],
    ]
    path.write_text(json.dumps({"cases": wrong}))
    subjects, problems = read(copy)
    assert "of another subject? not used" in rows(problems, 1)["annotation"] and subjects[1].frame is None
    assert rows(problems, 28)["annotation"] == "named twice, the first is taken" and subjects[28].frame
    assert "frame 'video.mov': expected .../subject_X/frameN.jpg" in rows(problems, None)["annotation"]


# ---- landmarks


def truth_marks(population, about, scan):
    "Landmarks of an identity in the frame of a scan, from truth.json alone."
    corner, weights = _landmarks(population)
    x = np.einsum("nij,ni->nj", population.heads(about["identity"])[corner].astype(np.float64), weights)
    M = np.array(about["scans"][scan]["head_to_scan"])
    marks = {k: x[i] for k, i in IBUG.items()} | {"lips_central": (x[62] + x[66]) / 2}
    return {k: v @ M[:3, :3].T + M[:3, 3] for k, v in marks.items()}


def test_landmarks_are_where_the_identity_has_them(built, population):
    subjects, _ = read(built[0])
    for number, s in subjects.items():
        for scan in set(s.scans) & set(SCANS[:2]):
            about, mesh = built[1]["subjects"][str(number)], read_mesh(s.scans[scan])
            for t in (s, replace(s, vertex_landmarks={})):
                marks, truth = scan_landmarks(t, scan, mesh), truth_marks(population, about, scan)
                four = t.vertex_landmarks and scan == about["annotated"]
                assert set(marks) == (set(AUTHORS_LANDMARKS.values()) if four else set(truth))
                assert max(np.linalg.norm(marks[k] - truth[k]) for k in marks) < 2.5


@pytest.mark.parametrize(
    "factor, expected",
    [(1e-3, "metres. multiply by 1000"), (0.1, "centimetres. multiply by 10"), (1e3, "micrometres. multiply by 0.001")],
)
def test_scans_in_another_unit(copy, factor, expected):
    "Both scans of a subject; found by the authors' vertices, which have no unit, and by points that came along."
    for path in (copy / "micc/subject_01").rglob("*.obj"):
        lines = path.read_text().split("\n")
        path.write_text(
            "\n".join(
                "v " + " ".join(repr(float(c) * factor) for c in line.split()[1:]) if line.startswith("v ") else line
                for line in lines
            )
        )
    s = read(copy)[0][1]
    mesh = read_mesh(s.scans["frontal1"])
    with pytest.raises(ValueError, match=f"subject 1, {mesh.path}.*{expected}"):
        scan_landmarks(s, "frontal1", mesh)
    with pytest.raises(ValueError, match=f"subject 1, {mesh.path}, its 68 points.*{expected}"):
        scan_landmarks(
            replace(s, vertex_landmarks={}, point_landmarks={"frontal1": s.point_landmarks["frontal1"] * factor}),
            "frontal1",
            mesh,
        )
    with pytest.raises(ValueError, match=f"subject 1, {mesh.path}: the 68 points are .* a scan that is not in mm"):
        scan_landmarks(replace(s, vertex_landmarks={}), "frontal1", mesh)


def test_an_annotation_of_another_subject(built):
    subjects, _ = read(built[0])
    one, two = subjects[1], subjects[28]
    mesh = read_mesh(one.scans["frontal1"])
    for bare in (
        replace(one, vertex_landmarks=two.vertex_landmarks, point_landmarks={}),
        replace(one, vertex_landmarks={}, point_landmarks=two.point_landmarks),
    ):
        with pytest.raises(ValueError, match=f"subject 1, {mesh.path}: .*annotation of another scan or subject"):
            scan_landmarks(bare, "frontal1", mesh)
    with pytest.raises(ValueError, match="subject 1: the authors' vertices fit no frontal scan .*frontal1.*frontal2"):
        annotated_scan(replace(one, vertex_landmarks=two.vertex_landmarks))
    missing = replace(
        one, vertex_landmarks=one.vertex_landmarks | {"nose_base": len(mesh.vertices)}, point_landmarks={}
    )
    with pytest.raises(
        ValueError,
        match=f"subject 1, {mesh.path}: nose_base is vertex {len(mesh.vertices)}, "
        f"but the scan has {len(mesh.vertices)}",
    ):
        scan_landmarks(missing, "frontal1", mesh)
    assert len(scan_landmarks(replace(missing, point_landmarks=one.point_landmarks), "frontal1", mesh)) == 10


def test_vertices_of_the_other_scan_are_not_used(built, tmp_path):
    s = read(built[0])[0][28]  # annotated on frontal2
    bare = replace(s, point_landmarks={})
    assert len(scan_landmarks(bare, "frontal2", read_mesh(s.scans["frontal2"]))) == 4
    with pytest.raises(ValueError, match="subject 28, .*frontal1.*: annotation of another scan or subject"):
        scan_landmarks(bare, "frontal1", read_mesh(s.scans["frontal1"]))
    both = replace(bare, scans=bare.scans | {"frontal1": s.scans["frontal2"]})  # plausible on both: frontal1
    assert annotated_scan(both) == "frontal1"
    with pytest.raises(ValueError, match="those of the other frontal scan"):
        scan_landmarks(both, "frontal2", read_mesh(s.scans["frontal2"]))
    metres = tmp_path / "m.ply"  # ... of human size, if one is
    mesh = read_mesh(s.scans["frontal2"])
    trimesh.Trimesh(mesh.vertices / 1000, mesh.triangles, process=False).export(metres)
    assert annotated_scan(replace(bare, scans=bare.scans | {"frontal1": metres})) == "frontal2"
    alone = replace(bare, scans={"frontal2": s.scans["frontal2"]})
    assert annotated_scan(alone) == "frontal2"
    with pytest.raises(ValueError, match="subject 28, .*: no landmarks for sidel"):
        scan_landmarks(s, "sidel", read_mesh(s.scans["sidel"]))


def test_left_and_right(built):
    s = read(built[0])[0][30]
    mesh, p = read_mesh(s.scans["frontal1"]), s.point_landmarks["frontal1"].copy()
    p[[36, 39, 48, 42, 45, 54]] = p[[45, 42, 54, 39, 36, 48]]
    with pytest.raises(
        ValueError, match="subject 30, .*the nose points into the head, so left and right are exchanged"
    ):
        scan_landmarks(replace(s, point_landmarks={"frontal1": p}), "frontal1", mesh)
    p = s.point_landmarks["frontal1"]
    with pytest.raises(ValueError, match="subject 30, .*annotation of another scan or subject"):
        scan_landmarks(replace(s, point_landmarks={"frontal1": p[::-1]}), "frontal1", mesh)
    with pytest.raises(ValueError, match="subject 30, .*the 68 points are 1[0-9.]+ mm from the scan"):
        far = np.cross(p[45] - p[36], p[27] - p[8])
        scan_landmarks(replace(s, point_landmarks={"frontal1": p + 15 * far / np.linalg.norm(far)}), "frontal1", mesh)


@pytest.mark.parametrize(
    "points, expected",
    [
        ([[0.0, 0, 0]] * 67, "expected 68 points of three finite numbers, got 67 x 3"),
        ([[0.0, 0, None]] * 68, "expected 68 points of three numbers"),
        ([[0.0, 0, float("nan")]] * 68, "not all finite"),
        ([[0.0, 0]] * 68, "got 68 x 2"),
        ([["a", 0, 0]] * 68, "could not convert|68 points"),
        (7, "68 points of three numbers"),
        ([[0, 0, 0], [0, 0]], "68 points|inhomogeneous"),
    ],
)
def test_faulty_points(copy, points, expected):
    path = next((copy / "ganfit/subject_01/Model/frontal1/obj").glob("*.ljson"))
    path.write_text(json.dumps({"version": 3, "groups": {"LJSON": {"landmarks": {"points": points}}}}))
    subjects, problems = read(copy)
    (row,) = (row for row in problems if row["subject"] == 1)
    assert row["what"] == "points of frontal1" and row["file"] == str(path) and re.search(expected, row["problem"])
    assert list(subjects[1].point_landmarks) == ["frontal2"]


# ---- frames


def picture(number):
    "A picture that tells its number in bars."
    x = np.full((96, 128, 3), 30, np.uint8)
    for bit in range(8):
        x[20:60, 8 + 14 * bit : 20 + 14 * bit] = 230 if number >> bit & 1 else 0
    return x


def number_of(image):
    return sum(int(image[40, 14 + 14 * bit].mean() > 128) << bit for bit in range(8))


def film(n):
    out = io.BytesIO()
    for k in range(1, n + 1):
        Image.fromarray(picture(k)).save(out, "JPEG", quality=90)
    return out.getvalue()


def filmed(s, path, frame):
    return replace(s, videos=s.videos | {"Indoor-Cooperative": path}, frame=frame, frame_path=None)


@pytest.mark.parametrize(
    "name, codec", [("a.mjpg", None), ("a.MJPEG", None), ("a.mpg", None), ("b.mpg", "PIM1"), ("c.mjpg", "MJPG")]
)
def test_the_frame_that_is_named_and_no_other(built, tmp_path, name, codec):
    "JPEG after JPEG, MPEG-1 with frames predicted from others, MJPEG in AVI: frame k is the k-th picture."
    import cv2

    path = tmp_path / name
    if codec:
        written = tmp_path / (name if codec == "PIM1" else "c.avi")
        writer = cv2.VideoWriter(str(written), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25, (128, 96))
        for k in range(1, 41):
            writer.write(picture(k))
        writer.release()
        written.rename(path)
    else:
        path.write_bytes(film(40))
    s = read(built[0])[0][1]
    for frame in (1, 2, 13, 39, 40):
        assert number_of(read_frame(filmed(s, path, frame))) == frame
    with pytest.raises(
        ValueError, match=f"subject 1, {path}: has only 40 frames that can be decoded, frame 41 is asked for"
    ):
        read_frame(filmed(s, path, 41))


def test_videos_that_cannot_be_decoded(built, tmp_path):
    s, path = read(built[0])[0][1], tmp_path / "a.mjpg"
    for data in (b"", b"\x00" * 5000, np.random.default_rng(0).bytes(5000)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"subject 1, {path}: cannot be decoded as a video"):
            read_frame(filmed(s, path, 3))
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=f"subject 1, {path}: expected the file itself, got a web page"):
        read_frame(filmed(s, path, 3))
    path.write_bytes(film(40)[:-40_000])
    with pytest.raises(ValueError, match="has only [0-9]+ frames"):
        read_frame(filmed(s, path, 40))
    with pytest.raises(ValueError, match="subject 1, .*gone.mpg: no such file"):
        read_frame(filmed(s, tmp_path / "gone.mpg", 1))
    with pytest.raises(ValueError, match="subject 30: the annotation names no frame$"):
        read_frame(read(built[0])[0][30])
    with pytest.raises(ValueError, match="subject 1: no video Indoor-Cooperative"):
        read_frame(replace(s, videos={}))
    with pytest.raises(ValueError, match="frames are counted from 1, frame 0 is asked for"):
        read_frame(s, frame=0)
    assert read_frame(s, "PTZ-Indoor", 1).shape == (120, 160, 3)


@pytest.mark.parametrize("damage", [lambda jpeg: jpeg[:2] + jpeg[-2:], lambda jpeg: jpeg[: len(jpeg) // 2]])
def test_a_damaged_frame_is_neither_the_end_nor_handed_out(built, tmp_path, damage):
    "Frame 10 of 40 is empty, or ends in the middle: the 39 others keep their numbers."
    frames = [film(40)[a:b] for a, b, _ in _pictures(film(40))]
    frames[9] = damage(frames[9])
    path = tmp_path / "a.mjpg"
    path.write_bytes(b"".join(frames))
    s = read(built[0])[0][1]
    with pytest.warns(UserWarning, match="a.mjpg: 1 of 40 frames are damaged: 10"):
        assert [number_of(read_frame(filmed(s, path, k))) for k in (9, 11, 12, 40)] == [9, 11, 12, 40]
        with pytest.raises(ValueError, match="a.mjpg: frame 10 is damaged"):
            read_frame(filmed(s, path, 10))
        spread = read_frames(filmed(s, path, 1), "Indoor-Cooperative", 10)
    assert len(spread) == 10 and all(number_of(image) == n != 10 for n, image in spread) and spread[-1][0] > 30


def test_hidden_files_are_no_data(copy):
    "Files that macOS leaves on foreign disks: the same subjects, the same problems."
    before = read(copy)
    for path in list(copy.rglob("*.*")):
        if path.is_file():
            (path.parent / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(96))
    assert str(read(copy)) == str(before)


def test_the_scan_of_another_subject_is_noticed(copy):
    subjects = read(copy)[0]
    one, two = sorted(subjects)[:2]
    shutil.copy(subjects[one].scans["frontal1"], subjects[two].scans["frontal1"])
    assert f"the same file as frontal1 of subject {one}: one is a copy" in rows(read(copy)[1], two).values()


@pytest.mark.parametrize("where", ["annotations/cases/subject_1", "micc/subject_01/Video/Indoor-Cooperative"])
@pytest.mark.parametrize("name", ["frame{}.jpg", "frame{:04d}.JPG", "frame{:06d}.png", "Frame{:04d}.jpeg"])
def test_extracted_frames(copy, where, name):
    frame = read(copy)[0][1].frame
    (copy / where).mkdir(exist_ok=True)
    for k in (frame, frame * 10, frame + 1):
        Image.fromarray(picture(k)).save(copy / where / name.format(k), quality=95)
    s = read(copy)[0][1]
    assert s.frame_path.name == name.format(frame) and number_of(read_frame(s)) == frame
    assert read_frame(s, frame=frame).shape == (240, 320, 3)  # asked for by number: the film's
    s.frame_path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"subject 1, {s.frame_path}: cannot be read as a picture"):
        read_frame(s)


# ---- the look-alike


def digest(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.slow
def test_the_lookalike_is_the_same_every_time(tmp_path, population):
    small = dict(frames=3, spacing=4.0, size=(64, 48), population=population)
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_lookalike(tmp_path / folder, 2, seed, **small)
    a, b, c = (digest(tmp_path / k) for k in "abc")
    assert (
        a == b
        and set(a) == set(c)
        and not set(a.values()) & {c[k] for k in c if k.endswith((".obj", ".mjpg", ".MJPG", ".ljson"))}
    )
    # an earlier one is replaced
    build_lookalike(tmp_path / "c", 1, 0, missing=["subject_01/Model/sidel", "subject_01/Video/PTZ-Indoor"], **small)
    assert not (tmp_path / "c/micc/subject_30").exists()
    assert rows(read(tmp_path / "c")[1], 1) == {"sidel": "missing", "PTZ-Indoor": "missing"}
    scan = next((tmp_path / "c/micc").rglob("*.obj"))
    look, real = scan.read_bytes(), b"v 0 0 0\n"
    scan.write_bytes(real)  # a real one in its place
    with pytest.raises(FileExistsError, match=f"{scan.name} is there already, and not as a look-alike"):
        build_lookalike(tmp_path / "c", 1, **small)
    assert scan.read_bytes() == real
    scan.write_bytes(look)
    (tmp_path / "c/truth.json").unlink()
    with pytest.raises(FileExistsError, match="is there already, and not as a look-alike"):
        build_lookalike(tmp_path / "c", 1, **small)
    with pytest.raises(ValueError, match="missing: 'subject_01/Model/left' names nothing"):
        build_lookalike(tmp_path / "d", 1, missing=["subject_01/Model/left"], **small)


def test_the_lookalike_shows_held_out_people(built, population):
    folder, truth = built
    assert truth == json.loads((folder / "truth.json").read_text()) and truth["what"] == ABOUT and "fixture" in ABOUT
    people = [s["identity"] for s in truth["subjects"].values()]
    assert set(people) <= set(split_identities(len(population))["test"].tolist()) and len(set(people)) == 3


def test_scans_are_of_the_identity(built, population):
    "Moved back they lie on the head, by scanner noise; they have holes, shreds, vertices and triangles of their own."
    for _number, about in built[1]["subjects"].items():
        head = trimesh.Trimesh(population.heads(about["identity"]), population.triangles, process=False)
        face = population.faces(about["identity"])
        for scan, said in about["scans"].items():
            mesh, M = read_mesh(built[0] / said["file"]), np.array(said["head_to_scan"])
            assert (
                np.allclose(M[:3, :3] @ M[:3, :3].T, np.eye(3))
                and np.linalg.det(M[:3, :3]) > 0
                and np.linalg.norm(M[:3, 3]) > 5
            )
            x = (mesh.vertices - M[:3, 3]) @ M[:3, :3]
            some = np.random.default_rng(0).choice(np.flatnonzero((x[:, 1] < 30) & (x[:, 2] > 20)), 300, replace=False)
            away = Surface(head.vertices, head.faces).closest(x[some])[0]
            assert (
                0.05 < np.median(away) < 0.25
                and np.quantile(away, 0.95) < 0.6
                and np.linalg.norm(x - face[population.landmarks["nose_tip"]], axis=1).max() > 120
            )
            assert x[:, 1].min() > face[population.landmarks["chin"], 1] - 75  # shoulders are cut off
            edges, uses = np.unique(
                np.sort(mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0, return_counts=True
            )
            rims = trimesh.graph.connected_components(edges[uses == 1], min_len=3)
            assert uses.max() == 2 and len(rims) > 1  # a surface with holes
            side = (x[:, 0] > 30).sum() / (x[:, 0] < -30).sum()
            assert (side > 3) if scan == "sidel" else (side < 1 / 3) if scan == "sider" else 0.6 < side < 1.6


def test_the_named_frame_is_frontal(built):
    "It is in the middle third of the film; (0, 1, 0, 0) is the frontal camera."
    for about in built[1]["subjects"].values():
        q, t = np.array(about["q"]), np.array(about["t"])
        assert (
            np.degrees(2 * np.arccos(abs(q[1]))) < 12
            and np.degrees(np.arctan2(np.hypot(*t[:2]), t[2])) < 8
            and about["frame"] in range(3, 6)
        )


def test_the_film_shows_the_head_where_its_camera_says(built, population):
    """Where rays of its camera meet the eyeballs the picture is less red than on the skin beside them.

    So pose, intrinsics and the number of the frame are right.
    """
    from mrl.render.renderer import Renderer

    renderer, subjects = Renderer(population), read(built[0])[0]
    for number in (1, 28):
        about = built[1]["subjects"][str(number)]
        K, q, t = (np.array(about[k]) for k in "Kqt")
        image, head = read_frame(subjects[number]).astype(float), population.heads(about["identity"])
        hit = renderer.cast(head, K, q, t, 320)[0][:240]
        seen = np.where(hit >= 0, population.part[hit], 9)
        eye, skin = np.isin(seen, (1, 2)), seen == 0
        assert eye.sum() > 30
        around = skin & (np.abs(np.arange(240)[:, None] - np.nonzero(eye)[0].mean()) < 12)
        red = image[..., 0] - image[..., 2]  # eyes are whiter than skin
        assert red[eye].mean() < red[around].mean() - 5
