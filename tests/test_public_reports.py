"Inputs of public bug reports of other tools, second collection: the right value, or an error with file and remedy."

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_cases import written
from test_photographs import HEIGHT, WIDTH, N, frame, pictures, population, source, truth, write  # noqa: F401
from test_sources import face, ict_layout  # noqa: F401

from mrl.data.photographs import read_photographs
from mrl.faces.landmarks import LANDMARKS
from mrl.faces.sources import read_face_model
from mrl.faces.sources.assembly import assemble
from mrl.faces.sources.ict import read_ict
from mrl.faces.sources.scans import read_scans
from mrl.geometry.camera import intrinsics, look_at, project
from mrl.io.films import _with_messages, read_film_frame, read_film_frames
from mrl.io.meshes import read_mesh, write_mesh
from mrl.io.parameters import check_parameters, of_type
from mrl.io.pictures import read_picture
from mrl.io.tables import read_csv
from mrl.losses import CRITERIA, MultiviewReprojectionLoss
from mrl.losses.functional import example_batch
from mrl.photo.detection import check_image
from mrl.photo.evaluation import errors_on_photographs, read_annotations
from mrl.photo.reconstruction import reconstruct_faces
from mrl.scans.methods import folder_predictions, read_face
from mrl.training.configuration import TrainConfig
from mrl.training.loop import train

# ---- meshes

V = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"


@pytest.mark.parametrize("corner", ["1/1/1/2/2/2", "1/-/2", "1/2-3/1", "9999999999999999", "1/", "-4/1/1", "1//", "+1"])
def test_corners_are_read_to_their_end(tmp_path, corner):
    "A blank that is lost between two corners, and numbers beyond 2**53, which had no message."
    path = written(tmp_path / "a.obj", V + f"f {corner} 2 3\n")
    if corner in ("1/", "-4/1/1", "1//"):
        assert read_mesh(path).triangles.tolist() == [[0, 1, 2]]
    else:
        with pytest.raises(ValueError, match=rf"a.obj: line 5: expected a corner as .* got '{re.escape(corner)}'"):
            read_mesh(path)


def ply(vertex, element, rows):
    head = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
    return f"{head}{vertex}\nelement face 1\n{element}\nend_header\n{rows}"


POINTS = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"


@pytest.mark.parametrize(
    ("element", "row"),
    [
        ("property uchar material\nproperty list uchar int vertex_indices", "7 3 0 1 2"),  # open4dfoundation/Open4D#22
        # meshlab#290
        (
            "property list ushort uint vertex_indices\nproperty list uchar float texcoord",
            "3 0 1 2 2 0.5 0.5",
        ),
        ("property list uchar uint vertex_index\nproperty uchar red", "3 0 1 2 9"),
    ],
)
def test_properties_of_faces_are_in_the_order_of_the_header(tmp_path, element, row):
    path = written(tmp_path / "a.ply", ply("property float z", element, f"{POINTS}{row}\n"))
    assert read_mesh(path).triangles.tolist() == [[0, 1, 2]]


def test_coordinates_in_a_list_are_named_as_such(tmp_path):
    rows = POINTS.replace(" 0\n", " 1 0\n").replace(" 1\n", " 1 1\n")
    text = ply("property list uchar float z", "property list uchar int vertex_indices", rows + "3 0 1 2\n")
    with pytest.raises(ValueError, match="a.ply: expected x, y and z of each vertex, got x, y, a list z"):
        read_mesh(written(tmp_path / "a.ply", text))


# ---- face models: every file is checked, and the unit of the modes


def edited(path, change):
    "Replace the vertices (N, 3) of an OBJ file by a function of them."
    lines = path.read_text().split("\n")
    rows = [i for i, line in enumerate(lines) if line.startswith("v ")]
    x = change(np.array([lines[i].split()[1:] for i in rows], float))
    for i, point in zip(rows, x.tolist()):
        lines[i] = "v {:.7f} {:.7f} {:.7f}".format(*point)
    path.write_text("\n".join(lines))


SPOILED = {
    r"identity001 \(1\).obj: expected a name like identity000.obj": lambda m: shutil.copy(
        m / "identity001.obj", m / "identity001 (1).obj"
    ),
    "identity001.obj: no such file, while later ones exist": lambda m: (m / "identity001.obj").unlink(),
    "identity002.obj: the same mesh as identity001.obj": lambda m: shutil.copy(
        m / "identity001.obj", m / "identity002.obj"
    ),
    "identity001.obj: expected vertices .* got 0 mm": lambda m: shutil.copy(
        m / "generic_neutral_mesh.obj", m / "identity001.obj"
    ),
    "identity001.obj: expected vertices .* another unit": lambda m: edited(m / "identity001.obj", lambda x: x / 100),
    "identity001.obj: expected vertices .* order of vertices": lambda m: edited(
        m / "identity001.obj", lambda x: x[::-1]
    ),
    "identity001.obj: expected vertices .* got 300 mm": lambda m: edited(
        m / "identity001.obj", lambda x: x + [0, 0, 30]
    ),
    "identity001.obj: other faces than generic_neutral_mesh.obj": lambda m: (m / "identity001.obj").write_text(
        re.sub(r"\nf (\S+) (\S+)", r"\nf \2 \1", (m / "identity001.obj").read_text(), count=1)
    ),
}


@pytest.mark.parametrize("message", SPOILED)
def test_every_mode_of_a_kit_is_checked(tmp_path, face, message):  # noqa: F811
    folder = ict_layout(tmp_path / "kit", face)
    assert len(read_ict(folder).basis) == len(face.basis)
    SPOILED[message](folder / "FaceXModel")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_ict(folder)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1000, r"a.npz: mode 0 \(counted from 0\): expected vertices to move by up to 50 mm"),  # metres and millimetres
        (1e-4, "a.npz: modes: expected vertices to move by 0.01 mm or more, .* unit vectors"),
    ],
)
def test_modes_have_the_unit_of_the_mean(tmp_path, face, factor, message):  # noqa: F811
    model = (tmp_path / "a.npz", face.x, face.basis, face.t, 1, "a", "CC0")
    assert torch.allclose(assemble(*model).basis, torch.as_tensor(face.basis).float(), atol=1e-4)
    with pytest.raises(ValueError, match=message):
        assemble(*model[:2], face.basis * factor, *model[3:])


# ---- annotations of photographs


@pytest.fixture(scope="module")
def annotated(population):  # noqa: F811
    "Return a picture's annotation, a face seen from 20 degrees, and the nine points in pixels."
    t = torch.tensor([240.0, 60, 660], dtype=torch.float64)
    K, q = intrinsics(900.0, (800, 600)).double(), look_at(t, torch.zeros_like(t))
    numbers = [population.landmarks[f"ibug_{i:02d}"] for i in range(68)]
    x = torch.as_tensor(population.faces(3)).double()
    points, named = (
        project(x[rows], K, q, t).numpy() for rows in (numbers, [population.landmarks[k] for k in LANDMARKS])
    )
    low, high = points.min(0) - 8, points.max(0) + 8
    return {"landmarks": points.tolist(), "box": [*low.tolist(), *(high - low).tolist()]}, named


def annotations(folder, *faces):
    written(folder / "landmarks.json", json.dumps({"a.jpg": faces}))
    return read_annotations(folder)


def test_a_face_at_any_roll_and_in_profile_is_read(tmp_path, annotated):
    entry, named = annotated
    (found,) = annotations(tmp_path, entry | {"person": None})
    assert np.allclose(found.points, named + 0.5) and found.person == ""  # the middle of the first pixel is at 0.5
    assert [f.person for f in annotations(tmp_path, entry | {"person": 7})] == ["7"]
    points = np.array(entry["landmarks"])
    middle = points.mean(0)
    for turned in (
        2 * middle - points,
        (points - middle)[:, ::-1] * [1, -1] + middle,
        points * [0.05, 1] + middle * [0.95, 0],
    ):
        low, high = turned.min(0) - 8, turned.max(0) + 8
        assert len(annotations(tmp_path, {"landmarks": turned.tolist(), "box": [*low, *(high - low)]})) == 1


FIT = "its landmarks are [0-9.e+-]+ times as large as its box, .* box .left, top, width, height"
MIRRORED = r"its landmarks are a mirrored face; are they \(y, x\)"


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (FIT, lambda p, b: (p / [800, 600], b)),  # shares of the picture
        (FIT, lambda p, b: (p, [b[0], b[1], b[0] + b[2], b[1] + b[3]])),  # D-X-Y/landmark-detection#18
        (FIT, lambda p, b: (p + 900, b)),
        (FIT, lambda p, b: (p * 0 + b[:2], b)),
        (MIRRORED, lambda p, b: (p[:, ::-1], [b[1], b[0], b[3], b[2]])),  # (y, x), as menpo has them
        (MIRRORED, lambda p, b: (p * [1, -1] + [0, 600], [b[0], 600 - b[1] - b[3], b[2], b[3]])),  # y up
        ("expected 68 landmarks", lambda p, b: (p, [True, *b[1:]])),
    ],
)
def test_annotations_in_another_convention(tmp_path, annotated, message, change):
    points, box = change(np.array(annotated[0]["landmarks"]), annotated[0]["box"])
    with pytest.raises(ValueError, match=f"landmarks.json: a.jpg: {message}"):
        annotations(tmp_path, {"landmarks": points.tolist(), "box": box})


@pytest.mark.parametrize("person", [float("nan"), True, {}, ["Ada"], 2.5])
def test_people_have_names(tmp_path, annotated, person):
    with pytest.raises(ValueError, match="landmarks.json: a.jpg: person: expected a name, or null if it is unknown"):
        annotations(tmp_path, annotated[0] | {"person": person})


def test_a_face_is_annotated_once(tmp_path, annotated):
    with pytest.raises(ValueError, match="landmarks.json: a.jpg: expected different faces, got one twice"):
        annotations(tmp_path, annotated[0], annotated[0])


# ---- cameras


def without(*names, **values):
    "A change of frame 2: names are deleted, values are set."
    return lambda c: [c["frames"][2].pop(name, None) for name in names] and c["frames"][2].update(values)


def test_a_field_of_view_along_y_is_read(source, truth, population):  # noqa: F811
    "Pixels that are not square, in the other way of stating them."
    K = truth["K"][2]
    angles = {
        f"camera_angle_{axis}": float(2 * np.arctan(side / 2 / K[i, i].item()))
        for i, (axis, side) in enumerate((("x", WIDTH), ("y", HEIGHT)))
    }
    write(source, without("fl_x", "fl_y", **angles))
    good, faults = read_photographs(source, population)
    assert not faults and np.allclose(good[2].K, K)


LENSES = {
    r"camera_angle_y is 0.5, but fl_y = [0-9.]+ sees [0-9.]+ radians of a picture of 360 pixels": frame(
        camera_angle_y=0.5
    ),
    r"lens distortion \(b1, b2\): undistort": frame(b1=3.0, b2=9.0),  # Metashape
    r"lens distortion \(skew\): undistort": frame(skew=9.0),
    r"lens distortion \(p3\): undistort": frame(p3=0.1),
    "intrinsics: not read; write fl_x, fl_y, cx, cy": frame(intrinsics=[[900, 0, 200], [0, 900, 180], [0, 0, 1]]),
    "x_fov: not read; write fl_x, fl_y, cx, cy": frame(x_fov=40.0),  # instant-ngp
    r"lens distortion \(ftheta_p1\): undistort": frame(ftheta_p0=0.0, ftheta_p1=0.1),  # instant-ngp
    r"lens distortion \(rolling_shutter\): undistort": frame(rolling_shutter=[0, 0, 1, 0]),
    r"lens distortion \(latlong\): undistort": frame(latlong=True),
    "transform_matrix is missing, or qw, qx, qy": without("transform_matrix"),
    "last row 0, 0, 0, 1; it is transposed": lambda c: c["frames"][2].update(
        transform_matrix=np.transpose(c["frames"][2]["transform_matrix"]).tolist()
    ),
    "file_path: expected the name of a picture, got 2": frame(file_path=2),
}


@pytest.mark.parametrize("message", LENSES)
def test_what_is_said_of_a_camera_is_read_or_refused(source, population, message):  # noqa: F811
    write(source, LENSES[message])
    good, ((_, fault),) = read_photographs(source, population)
    assert len(good) == N - 1 and re.search(message, fault), fault


# ---- pictures, films, tables


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_colours_under_transparency_are_not_seen(tmp_path, alpha):
    "kohya-ss/sd-scripts#1269: a picture is what viewers show on white."
    pixels = np.full((4, 4, 4), (10, 200, 30, alpha), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = 255 + (np.array([10, 200, 30]) - 255) * alpha / 255
    assert np.abs(read_picture(tmp_path / "a.png").pixels - expected).max() <= 1


@pytest.mark.parametrize("name", ["take:1.mp4", "http:a.mp4", "concat:other.mp4", "-a.mp4", "a%02d.mp4"])
def test_names_of_films_are_names_of_files(tmp_path, monkeypatch, name):
    "FFmpeg takes what stands before a colon for a protocol."
    monkeypatch.chdir(tmp_path)
    for file, grey in (("other.mp4", 20), ("film.mp4", 200)):
        film = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
        film.write(np.full((48, 64, 3), grey, np.uint8))
        film.release()
    shutil.move("film.mp4", tmp_path / name)
    assert abs(read_film_frame(name, 1).mean() - 200) < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('file, age\n"a, b", "3"\n', {"file": "a, b", "age": "3"}),  # CLARIAH/COW#59
        ('"file, name";age\na;3\n', {"file, name": "a", "age": "3"}),
        ("\n\nfile,age\na,3\n", {"file": "a", "age": "3"}),
        ('file,note\n"a\nb",1\n', {"file": "a\nb", "note": "1"}),
    ],
)
def test_tables_with_quotes_and_blanks(tmp_path, text, expected):
    assert read_csv(written(tmp_path / "a.csv", text))[1] == [expected]


def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path):
    with pytest.raises(ValueError, match="a.csv: not a CSV file, line 3: .*for a quote in quotes"):
        read_csv(written(tmp_path / "a.csv", 'file,age\na,3\n"b"x,4\n'))


def film(path, count=40):
    "Write a film whose frame n has a grey of 5 n."
    out = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v")), 25, (64, 48)
    )
    for n in range(1, count + 1):
        out.write(np.full((48, 64, 3), 5 * n, np.uint8))
    out.release()
    return path


def test_a_film_that_is_cut_off_says_so(tmp_path):
    path = film(tmp_path / "a.avi")
    assert len(read_film_frames(path, 40)) == 40
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="a.avi: [0-9]+ of 40 frames are there; is it cut off"):
        frames = read_film_frames(path, 40)
    assert 3 < len(frames) < 30 and all(abs(image.mean() - 5 * n) < 4 for n, image in frames)


def moving_film(path, codec, count=40):
    "Write a film of a texture that moves; return its frames as they are decoded."
    texture = np.random.default_rng(0).integers(0, 255, (160, 200, 3), np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (128, 96))
    for n in range(count):
        out.write(np.ascontiguousarray(texture[n : n + 96, n : n + 128]))
    out.release()
    return dict(read_film_frames(path, count))


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "XVID"), ("a.avi", "MJPG")])
def test_frames_that_the_decoder_fills_in_are_not_handed_out(tmp_path, name, codec):
    "FFmpeg conceals damage, says so on the standard error only, and predicts later frames from what it made up."
    path = tmp_path / name
    whole = moving_film(path, codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 60] = b"\xff" * 60
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=f"{name}: [0-9]+ of 40 frames are damaged: [0-9]+"):
        frames = dict(read_film_frames(path, 40))
    assert 10 < len(frames) < 40
    assert all(np.abs(image.astype(int) - whole[n]).max() < 24 for n, image in frames.items())
    lost = min(set(whole) - set(frames))
    with pytest.raises(ValueError, match=f"{name}: frame {lost} is damaged"):
        read_film_frame(path, lost)
    assert (read_film_frame(path, lost - 1) == whole[lost - 1]).all()


def test_what_others_write_to_the_standard_error_is_passed_on(capfd):
    with tempfile.TemporaryFile(buffering=0) as file:
        said = b"[mpeg4 @ 0x55d0] ac-tex damaged at 9 6\nsomebody else\n"
        assert _with_messages(lambda: os.write(2, said), file) == (len(said), True)
        assert _with_messages(lambda: 3, file) == (3, False)
    assert capfd.readouterr().err == "somebody else\n"


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_films_are_read_without_a_standard_error(tmp_path, closed):
    "As in a service: the file for FFmpeg's messages may get the number of the standard error."
    moving_film(tmp_path / "a.mp4", "mp4v")
    code = "import sys; from mrl.io.films import read_film_frame as f; print(f(sys.argv[1], 3).shape)"
    words = ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-c", code, str(tmp_path / "a.mp4")]
    assert subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout == "(96, 128, 3)\n"


def test_frames_that_are_missing_in_the_middle(tmp_path):
    "A packet of no bytes: later frames have smaller numbers than their times say."
    path = tmp_path / "a.avi"
    moving_film(path, "MJPG")
    data = path.read_bytes()
    at = data.find(b"movi") + 4
    for _ in range(10):
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    size = (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    path.write_bytes(data[: at + 4] + bytes(4) + data[at + 8 + size :])
    with pytest.warns(UserWarning, match="a.avi: frames are missing after frame 10; they are not counted"):
        assert len(read_film_frames(path, 40)) == 39


@pytest.mark.parametrize(
    ("a", "b", "c", "d"), [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1), (1, 0, 0, -1)]
)
def test_films_are_turned_as_their_header_says_or_refused(tmp_path, a, b, c, d):
    "opencv/opencv#15499: the matrix (a b, c d) of the track takes a stored frame to the one that players show."
    path = tmp_path / "a.mp4"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32] = 200  # the upper left quarter is bright
    out.write(stored)
    out.release()
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44
    data[at : at + 36] = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    if a * d - b * c < 0:
        with pytest.raises(ValueError, match="a.mp4: its header mirrors the frames.*ffmpeg -i a.mp4"):
            read_film_frame(path, 1)
        return
    seen = read_film_frame(path, 1)
    x, y = np.array([-1, -1]) @ [[a, b], [c, d]]  # from the middle to the upper left corner
    h, w = seen.shape[0] // 2, seen.shape[1] // 2
    quarter = seen[h:] if y > 0 else seen[:h]
    quarter = quarter[:, w:] if x > 0 else quarter[:, :w]
    assert quarter.mean() > 180 and seen.mean() < 60 and (w > h) == (b == 0)


def test_predictions_that_are_one_file(tmp_path):
    for name in ("subject_01", "subject_02"):
        written(tmp_path / name / "Indoor-Cooperative.obj", V + "f 1 2 3\n")
    with pytest.warns(UserWarning, match="subject_02.*the same file as .*subject_01"):
        folder_predictions(tmp_path)
    written(tmp_path / "subject_02" / "Indoor-Cooperative.obj", V + "f 1 2 4\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder_predictions(tmp_path)


def test_a_name_that_papermill_takes_for_a_number():
    "nteract/papermill#75: `-p run 2024` passes a number."
    with pytest.raises(ValueError, match="run must be of type str, got 2024; papermill passes text with -r run 2024"):
        of_type("run", 2024, str)


def resized(path, size):
    Image.open(path).resize(size).save(path)


@pytest.mark.parametrize(
    ("size", "common", "fault"),
    [
        (
            (WIDTH // 2, HEIGHT // 2),
            {"fl_x": 500.0},
            "fl_x is 500.0, as for pictures of 400 x 360, but this has 200 x 180",
        ),
        ((HEIGHT, WIDTH), {"camera_angle_x": 0.76}, "camera_angle_x is 0.76, as for pictures of 400 x 360"),
        ((HEIGHT, WIDTH), {"fl_x": 500.0, "cx": 200.0, "cy": 180.0}, "fl_x is 500.0, .* but this has 360 x 400"),
        ((HEIGHT, WIDTH), {"fl_x": 500.0}, None),  # the same camera, upright
        ((WIDTH, HEIGHT - 20), {"fl_x": 500.0, "cx": 200.0, "cy": 180.0}, None),  # cut at the bottom
        ((WIDTH, HEIGHT - 20), {"camera_angle_x": 0.76}, None),
        ((WIDTH // 2, HEIGHT // 2), {"camera_angle_x": 0.76}, None),  # an angle stays when a picture is resized
    ],
)
def test_one_lens_for_pictures_of_several_sizes(source, population, size, common, fault):  # noqa: F811
    "colmap/colmap#3136, alicevision/Meshroom#2115: pictures of mixed resolution, portrait and landscape."
    cameras = json.loads((source / "transforms.json").read_text())
    frames = [{k: f[k] for k in ("file_path", "scan")} for f in cameras["frames"]]
    poses = np.tile(np.diag([1.0, 1, 1, 1]), (N, 1, 1)) + np.eye(4)[2][:, None] * np.eye(4)[3] * 900
    frames = [f | {"transform_matrix": M.tolist()} for f, M in zip(frames, poses)]
    (source / "transforms.json").write_text(json.dumps(common | {"frames": frames}))
    resized(source / "2.png", size)
    good, faults = read_photographs(source, population)
    assert len(good) == N - bool(fault), faults
    assert not fault or re.search(fault, faults[0][1]) and faults[0][1].endswith("state lens, w and h of each")


# ---- tensors and devices


FORMS = {
    "sparse": (lambda v: v.to_sparse(), "expected a dense tensor, got torch.sparse_coo; convert it with .to_dense"),
    "mkldnn": (lambda v: v.float().to_mkldnn(), "expected a dense tensor, got torch._mkldnn; convert it"),
    "nested": (lambda v: torch.nested.nested_tensor(list(v)), "expected a dense tensor, got a nested one; pad it"),
    "quantised": (lambda v: torch.quantize_per_tensor(v.float(), 0.1, 0, torch.qint32), "with .dequantize"),
    "meta": (lambda v: v.to("meta"), "expected a tensor (on cpu as the prediction|with values), got one on meta"),
    "number": (lambda v: v.sum(), "expected (shape|a tensor)"),
    "empty": (lambda v: v[:0], "expected (shape|a tensor)"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch warns that some of these forms are prototypes
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["x_hat", "q_hat", "x", "q", "t", "K", "weight"])
def test_forms_of_tensors_that_losses_cannot_use(form, name):
    change, message = FORMS[form]
    K = torch.tensor([[900.0, 0, 112], [0, 900, 112], [0, 0, 1]])
    batch = dict(zip(("x_hat", "q_hat", "t_hat", "x", "q", "t"), example_batch(dtype=torch.float32)))
    batch |= {"K": K, "weight": torch.ones(4)}
    batch[name] = change(batch[name])
    with pytest.raises(ValueError, match=rf"^(x_hat|{name}): .*{message}"):
        MultiviewReprojectionLoss()(**batch)


@pytest.mark.parametrize("criterion", CRITERIA.values())
def test_views_of_tensors_and_truths_with_gradients_have_the_same_loss(criterion):
    K = torch.tensor([[900.0, 0, 112], [0, 900, 112], [0, 0, 1]], dtype=torch.float64)
    batch = example_batch()
    expected = criterion()(*batch, K=K)
    strided = [v.repeat_interleave(2, -1)[..., ::2] for v in batch]
    assert torch.allclose(criterion()(*strided, K=K.mT.contiguous().mT), expected)
    wanted = [v.clone().requires_grad_() for v in batch]
    loss = criterion()(*wanted, K=K)
    loss.backward()
    assert torch.allclose(loss, expected) and all(v.grad is None or v.grad.isfinite().all() for v in wanted)
    assert wanted[0].grad is not None or wanted[1].grad is not None


@pytest.mark.parametrize(
    "device", ["gpu", "CPU", "cuda:", "cuda:-1", "cuda:1.0", " cuda", "", "0", "mps", "meta", "cuda:0,1"]
)
def test_devices_are_checked_with_the_configuration(device):
    with pytest.raises(ValueError, match=rf"device: expected auto, cpu, cuda or cuda:N, got {re.escape(repr(device))}"):
        TrainConfig(device=device)


@pytest.mark.parametrize("device", ["cuda:99", "cuda:01"])
def test_devices_that_are_not_there_are_refused_before_anything_is_rendered(tmp_path, device):
    with pytest.raises(ValueError, match=rf"device: expected one of auto, cpu.* on this machine, got '{device}'"):
        train(TrainConfig(device=device), tmp_path / "results", tmp_path / "data")
    assert not list(tmp_path.iterdir())


# ---- packed files, arrays, parameters


PACKED = {
    "a.obj": (b"\x1f\x8b\x08\0rest", read_mesh, "gzip"),
    "a.ply": (b"PK\3\4rest", read_mesh, "ZIP"),
    "a.jpg": (b"\x28\xb5\x2f\xfdrest", read_picture, "zstd"),
    "a.csv": (b"\xfd7zXZ\0rest", read_csv, "xz"),
    "a.mp4": (b"7z\xbc\xaf\x27\x1crest", lambda path: read_film_frames(path, 2), "7-Zip"),
    "01_MorphableModel.mat": (b"\x1f\x8b\x08\0rest", read_face_model, "gzip"),
    "generic_model.pkl": (b"PK\3\4rest", read_face_model, "ZIP"),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_are_named_as_such(tmp_path, name):
    data, read, kind = PACKED[name]
    with pytest.raises(ValueError, match=rf"{name}: expected the file itself, got a packed one \({kind}\); unpack it"):
        read(written(tmp_path / name, data))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (float, "1e-3", "got '1e-3'; write 0.001"),  # YAML 1.1, Reed-CompBio/spras#484
        (float, "inf", "got 'inf'"),
        (int, 1e4, "got 10000.0; write 10000"),
        (int, "400", "got '400'; write 400"),
        (int, 1.5, "got 1.5"),
        (int, True, "got True"),
        (bool, "no", "got 'no'; write True or False"),
        (bool, 0, "got 0; write True or False"),
    ],
)
def test_parameters_of_another_type_say_how_to_write_them(kind, value, message):
    with pytest.raises(ValueError, match=re.escape(f"p must be of type {kind.__name__}, {message}") + "$"):
        of_type("p", value, kind)


@pytest.mark.parametrize("jobs", [0, -2])
def test_a_number_of_jobs(jobs):
    with pytest.raises(ValueError, match=f"jobs: expected 1 or more, or -1 for one per core, got {jobs}"):
        check_parameters({"jobs": jobs}, (), {"jobs": int})


def test_an_array_with_a_mask_is_no_picture():
    "Its mask would be ignored."
    with pytest.raises(ValueError, match="image: expected .H, W, 3. uint8 RGB, got"):
        check_image(np.ma.masked_array(np.zeros((4, 4, 3), np.uint8), True))


@pytest.mark.parametrize("looks", [0, -1, 1.5, True])
def test_looks_are_a_number_for_all_faces_of_a_picture_too(looks):
    with pytest.raises(ValueError, match="looks: expected a number of predictions of at least 1"):
        reconstruct_faces(None, np.zeros((40, 40, 3), np.uint8), looks=looks)


@pytest.mark.parametrize("portrait", [-2.0, 0.1, float("nan")])
def test_portraits_are_as_large_as_the_face(tmp_path, portrait):
    with pytest.raises(ValueError, match="portrait: expected 0, or at least 1 side of the face's box, got"):
        errors_on_photographs(None, tmp_path, portrait=portrait)


ORDERS = {
    "without the first vertex": lambda x: np.roll(x, -1, 0),  # trimesh#539 and others: programs that reorder vertices
    "sorted": lambda x: x[np.lexsort(x.T)],
    "all x, then all y": lambda x: x.T.reshape(-1, 3),
}


@pytest.mark.parametrize("order", ORDERS)
def test_vertices_in_another_order_than_the_triangles(tmp_path, face, order):  # noqa: F811
    "The sizes are those of a face."
    wrong, message = ORDERS[order](face.x), r"expected triangles of neighbouring vertices, got sides of [0-9]+ mm"
    with pytest.raises(ValueError, match=f"a.npz: {message}"):
        assemble(tmp_path / "a.npz", wrong, face.basis, face.t, 1, "a", "CC0")
    random = np.random.default_rng(0)
    for i in range(6):
        x = face.x + np.tensordot(random.normal(size=3), face.basis, 1)
        write_mesh(tmp_path / "scans" / f"{i}.obj", ORDERS[order](x) if i == 4 else x, face.t)
    with pytest.raises(ValueError, match=f"4.obj: {message}"):
        read_scans(tmp_path / "scans")
    with pytest.raises(ValueError, match=f"4.obj: {message}"):
        read_face(tmp_path / "scans" / "4.obj")
