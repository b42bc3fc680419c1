"Inputs of the kinds that public bug reports describe: each gives the right value, or an error with file and remedy."

import json
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mrl.faces.sources import find_face_model, read_face_model
from mrl.faces.sources.scans import read_labels, read_scans
from mrl.io.files import read_json, read_lines
from mrl.io.films import read_film_frame, read_film_frames
from mrl.io.meshes import read_mesh, write_mesh
from mrl.io.pictures import read_picture
from mrl.io.tables import read_csv, read_numbers
from mrl.losses import BALANCES, Disentangled, LogMultiviewReprojectionLoss, MultiviewReprojectionLoss
from mrl.losses.functional import example_batch
from mrl.photo import reconstruction
from mrl.photo.evaluation import read_annotations
from mrl.photo.reconstruction import reconstruct_film, reconstruct_person
from mrl.photo.refinement import Calibration
from mrl.scans import methods
from mrl.scans.known_faces import known_person
from mrl.scans.methods import read_face
from mrl.scans.protocol_files import read_protocol
from mrl.training.configuration import TrainConfig, check_used
from mrl.training.run import Run, run_record, start_of

COMPOSED, SPLIT = (unicodedata.normalize(form, "Zoë Müller") for form in ("NFC", "NFD"))
K = torch.tensor([[900.0, 0, 112], [0, 900, 112], [0, 0, 1]], dtype=torch.float64)


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ---- text formats are parsed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"frames": [{"fl_x": 600, "fl_x": 300}]}', "the key 'fl_x' is there twice"),
        ("[" * 100_000, "not a JSON file"),
        ('{"w": ' + "4" * 5000 + "}", "not a JSON file"),
        ('{"w": 400}\0\0', "not a JSON file"),
    ],
)
def test_json_that_readers_take_for_something_else(tmp_path, text, said):
    with pytest.raises(ValueError, match="a.json: ") as e:
        read_json(written(tmp_path / "a.json", text))
    assert said in str(e.value)


@pytest.mark.parametrize("text", ["1_000", "True", "١٢", "0x10", "1,5", "½"])
def test_cells_that_python_takes_for_numbers(tmp_path, text):
    path = written(tmp_path / "a.csv", f'file;age\na.obj;"{text}"\n')
    with pytest.raises(ValueError, match="a.csv: line 2, column age: expected a number"):
        read_numbers(path, {"file": str})
    with pytest.raises(ValueError, match="a.csv: row 'a.obj', column 'age': expected a finite number"):
        read_labels(path, ["a.obj"])


def test_tables_of_pandas_and_excel(tmp_path):
    with pytest.raises(ValueError, match="a.csv: line 2: a cell stands below no name; name its column"):
        read_csv(written(tmp_path / "a.csv", ",file,age\n0,a.obj,30\n"))
    path = written(tmp_path / "b.csv", "\ufeffsep=;\r\nfile;age\r\na.obj;30\r\n")
    assert read_csv(path) == (["file", "age"], [{"file": "a.obj", "age": "30"}])


def test_lists_in_another_encoding(tmp_path):
    with pytest.raises(ValueError, match="list.txt: expected text in UTF-8 .*save it in that encoding"):
        read_lines(written(tmp_path / "list.txt", "Zoë/neutral/1.jpg\n".encode("utf-16")))


@pytest.mark.parametrize("where", ["1_0", True, 10**400, -1, [0, 0], [0, 0, True], [0, 0, 10**400], [0, 0, "1"], None])
def test_landmarks_that_are_no_vertices(tmp_path, where):
    write_mesh(tmp_path / "a.obj", np.eye(3), np.array([[0, 1, 2]]))
    written(tmp_path / "a.landmarks.json", json.dumps({"nose_tip": where}))
    with pytest.raises(ValueError, match="a.landmarks.json: nose_tip is"):
        read_face(tmp_path / "a.obj")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '{"a.png": null}',
        '{"a.png": [3]}',
        '{"a.png": [{"landmarks": [1, [2]], "box": [0, 0, 9, 9]}]}',
        json.dumps({"a.png": [{"landmarks": [[1, 2]] * 68, "box": [0, 0, -9, 9]}]}),
        json.dumps({"a.png": [{"landmarks": [[1, 2]] * 67 + [["x", 2]], "box": [0, 0, 9, 9]}]}),
    ],
)
def test_annotations_of_photographs_that_are_none(tmp_path, text):
    written(tmp_path / "landmarks.json", text)
    with pytest.raises(ValueError, match="landmarks.json: (expected an object|a.png: expected 68 landmarks)"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(("sd", "factor"), [([], 1), ([1, "2"], 1), ([1, -2], 1), ([1, 0], 1), (3, None), ([[1]], 1)])
def test_calibrations_that_are_none(tmp_path, sd, factor):
    written(tmp_path / "calibration.json", json.dumps({"identity_sd": sd, "distance_factor": factor}))
    with pytest.raises(ValueError, match="calibration.json: expected a list identity_sd and a distance_factor"):
        Calibration.read(tmp_path)


@pytest.mark.parametrize("said", [{"base": ["now"]}, {"base": {}}, {"landmarks": [["chin"], "chin", {}]}])
def test_protocols_of_other_kinds(tmp_path, said):
    with pytest.raises(ValueError, match="p.json: (base|landmarks): expected "):
        read_protocol(written(tmp_path / "p.json", json.dumps({"name": "mine"} | said)))


# ---- pictures

PNG = {
    "a header in the middle": b"\0\0\0\0IHDR\xa8\xa1\xae\x0a",
    "an empty sRGB chunk": b"\0\0\0\0sRGB\x10\x1c\xd3\xce",
    "a chunk longer than the file": b"\x7f\xff\xff\xffiTXt",
}


@pytest.mark.parametrize("name", PNG)
def test_damaged_png(tmp_path, name):
    "Pillow raises struct.error, IndexError and others, or reads on."
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IEND") - 4
    written(tmp_path / "a.png", data[:at] + PNG[name] + data[at:])
    try:
        assert (read_picture(tmp_path / "a.png").pixels == pixels).all()
    except ValueError as e:
        assert str(e).startswith(f"{tmp_path / 'a.png'}: cannot be read as a picture (")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it passes over
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_any_bytes_are_a_picture_or_a_named_fault(tmp_path, kind):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif.update({0x0112: 6})
    Image.fromarray(rng.integers(0, 255, (6, 9, 3), np.uint8)).save(tmp_path / "a", kind, exif=exif)
    whole = (tmp_path / "a").read_bytes()
    for _ in range(150):
        data = bytearray(whole[: rng.integers(len(whole) // 2, len(whole) + 1)])
        for at in rng.integers(0, min(len(data), 400), 3):
            data[at] = rng.integers(256)
        (tmp_path / "a").write_bytes(data)
        try:
            assert read_picture(tmp_path / "a").pixels.dtype == np.uint8
        except ValueError as e:
            assert str(e).startswith(f"{tmp_path / 'a'}: ")


# ---- names


@pytest.mark.parametrize(("there", "asked"), [(COMPOSED, SPLIT), (SPLIT, COMPOSED)])
def test_names_in_the_other_unicode_form(tmp_path, there, asked):
    "A folder that a Mac has written, and a name that a keyboard has."
    write_mesh(tmp_path / there / f"{there}.obj", np.eye(3), np.array([[0, 1, 2]]))
    assert len(read_mesh(tmp_path / asked / f"{asked}.obj").vertices) == 3
    write_mesh(tmp_path / asked / "b.obj", np.eye(3), np.array([[0, 1, 2]]))
    assert [p.name for p in tmp_path.iterdir()] == [there]
    Image.new("RGB", (4, 4)).save(tmp_path / there / f"{there}.png")
    assert read_picture(tmp_path / asked / f"{asked}.png").pixels.shape == (4, 4, 3)


def test_a_model_in_the_trash_is_not_found(tmp_path):
    written(tmp_path / ".Trash-1000" / "01_MorphableModel.mat", "")
    with pytest.raises(FileNotFoundError, match="no Basel Face Model in it"):
        find_face_model("bfm", tmp_path)
    there = written(tmp_path / "bfm" / "01_MorphableModel.mat", "")
    assert find_face_model("bfm", tmp_path) == there


class Case:
    name = 1

    def meshes(self, video):
        return ["subject_01", "subject_1"]


def test_two_meshes_of_one_subject(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "read_face", lambda path: path.name)
    method = methods.folder_predictions(tmp_path)
    written(tmp_path / "subject_01.OBJ", "")
    assert method.predict(Case(), None, None) == "subject_01.OBJ"
    written(tmp_path / "subject_1.obj", "")
    with pytest.raises(ValueError, match="expected one mesh for 1, got subject_01.OBJ, subject_1.obj; keep one"):
        method.predict(Case(), None, None)


# ---- scans


@pytest.mark.parametrize("units", ["mm", "m"])
def test_scans_in_coordinates_of_the_earth(tmp_path, units):
    "Single precision would round them by up to 0.25 mm."
    rng = np.random.default_rng(0)
    x, t = rng.normal(0, 50, (40, 3)), rng.integers(0, 40, (60, 3))
    for i in range(4):
        moved = (x + rng.normal(0, 2, x.shape) + [0, 5e6, 4e5]) * (1e-3 if units == "m" else 1)
        write_mesh(tmp_path / "scans" / f"{i}.obj", moved, t)
    with pytest.raises(ValueError, match=r"0.obj: expected vertices within 100 m of the origin, got one 500[0-9.]+ m"):
        read_scans(tmp_path / "scans", units=units)


# ---- losses

GRADIENTS = ("imtl-g", "aligned-mtl", "nash-mtl", "db-mtl")  # balances that need the features of an encoder


@pytest.mark.parametrize("kind", [torch.complex64, torch.float8_e4m3fn, torch.bool])
@pytest.mark.parametrize("place", [0, 3])
def test_types_that_no_loss_can_use(kind, place):
    batch = list(example_batch(dtype=torch.float32))
    batch[place] = batch[place].to(kind)
    with pytest.raises(ValueError, match=r"x(_hat)?: expected real numbers of 16 to 64 bits, got torch\."):
        MultiviewReprojectionLoss()(*batch, K=K)


@pytest.mark.parametrize(
    "wrong",
    [K.mT, 2 * K, K * torch.tensor([[1.0], [-1.0], [1.0]]), K * torch.tensor([[1.0], [0.0], [1.0]]), K.bool()],
    ids=["transposed", "scaled", "flipped", "flat", "bool"],
)
@pytest.mark.parametrize("validate", [True, "async"])
def test_intrinsics_that_are_none(wrong, validate):
    "A transposed matrix, one that is scaled as a whole, a picture upside down."
    criterion = MultiviewReprojectionLoss(validate=validate)
    with pytest.raises((ValueError, RuntimeError), match="K: expected |a loss was given values that it cannot use"):
        criterion(*example_batch(), K=wrong)


def test_intrinsics_of_a_resized_crop_are_right_within_rounding():
    rounded = (K.float() / 3).mul(3)
    rounded[2] = torch.tensor([0.0, 1e-6, 1 + 1e-6])
    MultiviewReprojectionLoss()(*example_batch(dtype=torch.float32), K=rounded)


@pytest.mark.parametrize("balance", [name for name in BALANCES if name not in GRADIENTS])
def test_balances_of_parts_that_are_zero(balance):
    "One such step would spoil the weights of every later one."
    pytest.importorskip("torchjd")

    def distance(x_hat, q_hat, t_hat, x, q, t, alpha_id_hat=None, K=None):
        return (x_hat - x).abs().mean()  # exactly zero for all parts

    criterion = Disentangled(distance, balance=balance)
    truth = example_batch(dtype=torch.float32)[3:]
    prediction = [v.clone().requires_grad_() for v in truth]
    loss = criterion(*prediction, *truth)
    loss.backward()
    assert loss.isfinite() and prediction[0].grad.isfinite().all()
    assert criterion(truth[0] + 1, *prediction[1:], *truth).isfinite()
    with pytest.raises(ValueError, match="balance: expected predictions for all 3 parts, got 1"):
        criterion(truth[0] + 1, *truth[1:], *truth)


# ---- what a download leaves in place of a file

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
PAGE = "\ufeff\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n"
ENTRANCES = {
    "a.obj": read_mesh,
    "a.ply": read_mesh,
    "a.off": read_mesh,
    "a.jpg": read_picture,
    "a.csv": read_csv,
    "a.json": read_json,
    "a.txt": read_lines,
    "a.mp4": lambda path: read_film_frames(path, 2),
    "a.safetensors": read_face_model,
    "a.pkl": read_face_model,
    "a.npz": read_face_model,
    "a.mat": read_face_model,
    "a.bin": read_face_model,
}


@pytest.mark.parametrize("name", ENTRANCES)
@pytest.mark.parametrize(("text", "said"), [(POINTER, "a pointer of Git LFS"), (PAGE, "a web page")])
def test_files_that_were_not_fetched(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=f"{name}: expected the file itself, got {said}"):
        ENTRANCES[name](written(tmp_path / name, text))


def test_an_npz_without_arrays_gets_no_advice_to_execute_it(tmp_path):
    with pytest.raises(ValueError, match="a.npz: not an .npz of arrays, or damaged$"):
        read_face_model(written(tmp_path / "a.npz", b"\x80\x04N."))


def test_labels_with_a_separator_at_the_end_of_every_line(tmp_path):
    path = written(tmp_path / "a.csv", "file,age,\na.obj,30,\nb.obj,31,\n")
    assert {k: v.tolist() for k, v in read_labels(path, ["a.obj", "b.obj"]).items()} == {"age": [30, 31]}


# ---- parameters


@pytest.mark.parametrize("run", ["~/x", ".", " ", "a ", "a\nb", "a\0b", "../x", "/x"])
def test_runs_have_names_of_folders_in_results(run):
    with pytest.raises(ValueError, match="run: expected the name of a folder in results/"):
        TrainConfig(run=run)


@pytest.mark.parametrize(
    "parameters", [{"alpha": 5.0}, {"reading": "world-to-camera"}, {"loss": "multi_term", "views": 3}, {"parts": 3}]
)
def test_a_parameter_of_another_loss_is_refused(parameters):
    "It would change nothing, and nobody would notice."
    with pytest.raises(ValueError, match=f"{list(parameters)[-1]}: expected only with losses that use it"):
        check_used(TrainConfig(**parameters))


@pytest.mark.parametrize("views", [0, 1.5, float("nan"), "2"])
@pytest.mark.parametrize("criterion", [MultiviewReprojectionLoss, LogMultiviewReprojectionLoss])
def test_views_are_a_number_of_cameras(criterion, views):
    with pytest.raises(ValueError, match="views: expected at least 1 and no fraction"):
        criterion(views=views)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"name": " now "}, "name"),
        ({"name": "a|b"}, "name"),
        ({"exceptions": [[3, 80], [3, 90]]}, "exceptions"),
        ({"exceptions": [[99, 80]]}, "exceptions"),
        ({"scans": ["frontal1", "annotated"]}, "scans"),
    ],
)
def test_protocols_that_say_two_things(tmp_path, said, field):
    with pytest.raises(ValueError, match=f"p.json: {field}: expected "):
        read_protocol(written(tmp_path / "p.json", json.dumps({"name": "mine"} | said)))


# ---- films, and photographs of one person


@pytest.mark.parametrize("said", [{"count": 0}, {"count": 2.5}, {"smoothing": 0}, {"focal": -1}, {"focal": "900"}])
def test_films_of_no_frames(tmp_path, said):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.mjpg", "JPEG")
    with pytest.raises(ValueError, match=f"{list(said)[0]}: expected a "):
        reconstruct_film(None, tmp_path / "a.mjpg", **said)


def test_frames_are_counted_from_one(tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.mjpg", "JPEG")
    with pytest.raises(ValueError, match="a.mjpg: frames are counted from 1, frame 0 is asked for"):
        read_film_frame(tmp_path / "a.mjpg", 0)


def test_pictures_of_one_person_are_a_list():
    for images in ("a.jpg", np.zeros((40, 40, 3), np.uint8)):
        with pytest.raises(ValueError, match="images: expected a list of paths or arrays, got (str|ndarray)"):
            reconstruct_person(None, images)


def test_a_picture_of_one_person_counts_once(monkeypatch):
    "Twice the same evidence would make the standard deviations too small."
    face = lambda seed: SimpleNamespace(crop=np.full((2, 2, 3), seed, np.uint8), points=1)
    monkeypatch.setattr(reconstruction, "reconstruct", lambda run, image, focal, looks: face(image))
    with pytest.raises(ValueError, match=r"images: expected different pictures, got one again in \[2\]"):
        reconstruct_person(None, [1, 2, 1])


# ---- a training that starts from another run


def begun(folder, **parameters):
    config = vars(TrainConfig(**parameters))
    written(folder / "config.json", json.dumps({"config": config}))
    return folder


def test_a_start_from_a_run_that_is_not_finished(tmp_path):
    folder = begun(tmp_path / "run")
    for name in ("", "metrics.json", "state.pt"):
        if name:
            written(folder / name, "{}")
        if name != "metrics.json":
            with pytest.raises(ValueError, match="start=.*: expected a finished run, got an interrupted one"):
                start_of(TrainConfig(start=str(folder)))


def test_a_start_from_a_run_that_saw_who_is_left_out(tmp_path, monkeypatch):
    folder = begun(tmp_path / "run")
    written(folder / "metrics.json", "{}")
    monkeypatch.setattr(Run, "load", lambda name: SimpleNamespace(config=TrainConfig(), folder=folder, record={}))
    with pytest.raises(ValueError, match="leave_out='age>55': .* has seen these people; start from one that has not"):
        start_of(TrainConfig(start=str(folder), leave_out="age>55"))


def test_a_start_from_a_run_of_other_people(tmp_path):
    about = {"face_model": {"population": "ours"}, "start": {"face_model": {"population": "theirs"}}}
    with pytest.raises(ValueError, match="start: expected a network of the same population"):
        run_record(tmp_path, TrainConfig(), about)


def test_known_people_are_of_the_population():
    for identity in (-1, 20):
        with pytest.raises(ValueError, match="identity: expected 0 to 19"):
            known_person(range(20), identity)
