"From a picture to a face and its files: determinism, turned and damaged pictures, crops, NoW."

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mrl.data.cameras import detector_crop, sample_cameras
from mrl.data.configuration import DataConfig
from mrl.data.rendered import render_image
from mrl.faces.landmarks import NOW_LANDMARKS
from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population, split_identities
from mrl.geometry.camera import crop_to_pose, intrinsics, look_at, project
from mrl.io.files import ROOT
from mrl.io.meshes import write_mesh
from mrl.io.pictures import read_picture
from mrl.photo.camera import box_of, crop_of_box
from mrl.photo.card import model_card
from mrl.photo.detection import detect_face, detect_faces
from mrl.photo.files import export_now
from mrl.photo.reconstruction import look, reconstruct, reconstruct_film
from mrl.photo.refinement import Calibration
from mrl.scans.methods import read_face
from mrl.training.configuration import TrainConfig
from mrl.training.network import Reconstructor
from mrl.training.run import Run

SIZE = 256


@pytest.fixture(scope="module")
def population():
    return load_population()


@pytest.fixture(scope="module")
def run(population):
    "A network without training: the mean face, frontal, at the usual place."
    morphable = morphable_model_of(population, np.arange(40), 4)
    torch.manual_seed(0)
    network = Reconstructor(morphable, torch.tensor([0.5, 0.5, 5.8]), torch.ones(3), 32, 0.05).eval()
    return Run(network, morphable, TrainConfig(image_size=32, width=0.05))


@pytest.fixture(scope="module")
def scene(population):
    "A frontal photograph (uint8), its K and the true box of the face."
    config = DataConfig(size=SIZE, seed=1, yaw=5.0, pitch=5.0, roll=5.0, off_axis=3.0, without="glasses,noise,jpeg")
    q, t = sample_cameras(np.random.default_rng(4), 1, config)
    identity = int(split_identities(len(population))["val"][3])
    K = intrinsics(torch.tensor(420.0, dtype=torch.float64), SIZE)
    uv = project(torch.as_tensor(population.faces(np.array([identity]))).double(), K, q, t)[0]
    return (
        render_image(config, 5, {"identity": identity, "K": K, "q": q[0], "t": t[0]}),
        K,
        (*uv.amin(0).tolist(), *uv.amax(0).tolist()),
    )


def iou(a, b):
    (l, t, r, b_), (l2, t2, r2, b2) = a, b
    shared = max(0, min(r, r2) - max(l, l2)) * max(0, min(b_, b2) - max(t, t2))
    return shared / ((r - l) * (b_ - t) + (r2 - l2) * (b2 - t2) - shared)


@pytest.mark.slow
def test_face_is_found_the_same_every_time_at_any_place_and_size(scene):
    import cv2

    image, _, truth = scene
    box, threads = detect_face(image).box, cv2.getNumThreads()
    assert iou(box, truth) > 0.5
    try:
        for n in (1, 4):
            cv2.setNumThreads(n)
            assert detect_face(image).box == box
    finally:
        cv2.setNumThreads(threads)
    moved = detect_face(np.pad(image, ((30, 0), (60, 0), (0, 0)), mode="edge")).box
    assert iou(np.subtract(moved, (60, 30, 60, 30)), box) > 0.8
    large = detect_face(
        np.asarray(Image.fromarray(image).resize((4 * SIZE, 4 * SIZE)))
    ).box  # shrunk again before the detector sees it
    assert iou(np.array(large) / 4, box) > 0.75
    mirrored = detect_face(np.ascontiguousarray(image[:, ::-1])).box
    assert iou((SIZE - mirrored[2], mirrored[1], SIZE - mirrored[0], mirrored[3]), box) > 0.75


def test_the_larger_of_two_faces(scene):
    image, _, truth = scene
    small = np.asarray(Image.fromarray(image).resize((SIZE // 2, SIZE // 2)))
    both = np.concatenate([image, np.pad(small, ((0, SIZE // 2), (0, 0), (0, 0)), mode="edge")], 1)
    found = detect_faces(both)
    assert len(found) == 2 and iou(found[0].box, truth) > 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2), (20, 20)])
def test_pictures_too_small_for_a_face(shape):
    with pytest.raises(ValueError, match=f"no face found in the picture of {shape[1]} x {shape[0]}"):
        detect_face(np.full((*shape, 3), 128, np.uint8))


def test_crop_is_that_of_training(population):
    "For any pose: the crop of the true box is detector_crop without jitter, whatever the picture's own intrinsics."
    rng, config = np.random.default_rng(0), DataConfig(size=64, jitter=0.0)
    q, t = sample_cameras(rng, 20, config)
    x = torch.as_tensor(population.faces(rng.integers(len(population), size=20))).double()
    expected = detector_crop(rng, x, q, t, config)
    for i in range(20):
        K = torch.tensor([[900.0 + 40 * i, 0, 512 - 9 * i], [0, 900 + 40 * i, 300], [0, 0, 1]], dtype=torch.float64)
        uv = project(x[i], K, q[i], t[i])
        assert torch.allclose(
            crop_of_box((*uv.amin(0).tolist(), *uv.amax(0).tolist()), K, 64), expected[i], rtol=1e-9, atol=1e-7
        )


def test_network_is_given_training_pixels(population, run):
    "The crop of a photograph shows what rendering the crop would show."
    config = DataConfig(size=320, seed=2, without="noise,jpeg,film,blur,background,glasses")
    q, t = sample_cameras(np.random.default_rng(1), 1, config)
    x = torch.as_tensor(population.faces(np.array([11]))).double()
    label = {"identity": 11, "K": intrinsics(torch.tensor(500.0, dtype=torch.float64), 320), "q": q[0], "t": t[0]}
    uv = project(x[0], label["K"], q[0], t[0])
    _, crop, K_crop = look(
        run.network, render_image(config, 0, label), label["K"], (*uv.amin(0).tolist(), *uv.amax(0).tolist())
    )
    rendered = render_image(DataConfig(**{**vars(config), "size": 32}), 0, label | {"K": K_crop})
    inner = np.s_[6:26, 8:24]
    assert np.abs(crop[inner].astype(float) - rendered[inner]).mean() < 12
    assert np.corrcoef(crop[inner].mean(-1).ravel(), rendered[inner].mean(-1).ravel())[0, 1] > 0.9


def test_second_look_is_made_around_the_prediction(run, scene):
    image, K, truth = scene
    left, top, right, bottom = truth
    shift = 0.1 * (right - left)
    first = reconstruct(run, image, focal=420.0, box=(left + shift, top, right + shift, bottom), looks=1)
    second = reconstruct(run, image, focal=420.0, box=(left + shift, top, right + shift, bottom))
    assert first.box == (left + shift, top, right + shift, bottom)
    seen = box_of(first.x, first.K, first.q, first.t)
    assert np.allclose(second.box, seen, atol=1e-3) and torch.allclose(
        second.K_crop, crop_of_box(seen, K, 32).float(), atol=1e-3
    )


def test_a_network_that_sees_the_face_elsewhere_is_not_followed(run, scene):
    astray = Reconstructor(run.morphable, torch.tensor([3.5, 0.5, 5.8]), torch.ones(3), 32, 0.05).eval()
    face = reconstruct(replace(run, network=astray), scene[0], box=scene[2])
    assert face.box == scene[2]


def test_pose_is_that_of_the_picture(run, scene):
    "Vertices projected by the picture's K are those projected by the crop's, moved."
    face = reconstruct(run, scene[0], focal=420.0)
    in_crop, in_picture = (project(face.x, K, face.q, face.t) for K in (face.K_crop, face.K))
    scale = face.K_crop[0, 0] / face.K[0, 0]
    assert torch.allclose((in_picture - face.K[:2, 2]) * scale + face.K_crop[:2, 2], in_crop, atol=1e-2)
    q, t = crop_to_pose(torch.tensor([[0.0, 1, 0, 0]]), torch.tensor([[0.5, 0.5, 5.8]]), face.K_crop[None], 32)
    assert torch.allclose(face.t, t[0], rtol=1e-3) and torch.allclose(face.q.abs(), q[0].abs(), atol=1e-3)


def test_focal_length(run, scene, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA405: 50, 0xA002: SIZE, 0xA003: SIZE})
    Image.fromarray(scene[0]).save(tmp_path / "a.jpg", exif=exif, quality=95)
    face = reconstruct(run, tmp_path / "a.jpg")
    assert face.focal_from == "EXIF" and np.isclose(face.K[0, 0], 50 / 43.2666 * SIZE * 2**0.5, rtol=1e-4)
    assert reconstruct(run, str(tmp_path / "a.jpg"), focal=300).focal_from == "given"
    face = reconstruct(run, scene[0])
    assert face.focal_from.startswith("guessed") and face.K[0, 0] >= 1.2 * SIZE
    for wrong in (0, -3, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="focal: expected a positive number of pixels"):
            reconstruct(run, scene[0], focal=wrong)


def test_a_guessed_focal_length_says_why_exif_was_not_used(run, scene, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA405: 26, 0xA002: 4000, 0xA003: 3000})
    Image.fromarray(scene[0]).save(tmp_path / "crop.jpg", exif=exif, quality=95)
    face = reconstruct(run, tmp_path / "crop.jpg")
    assert face.K[0, 0] >= 1.2 * SIZE
    assert face.focal_from.startswith("guessed") and face.focal_from.endswith("a picture of 4000 x 3000 pixels")


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_lying_on_their_side_are_turned(tmp_path, orientation, suffix):
    rng = np.random.default_rng(0)
    upright = np.kron(rng.integers(0, 255, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    # how the camera stored it
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    stored = stored.transpose(turns[orientation]) if turns[orientation] is not None else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **lossless)
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert np.abs(picture.pixels.astype(int) - upright).max() <= (3 if suffix == "jpg" else 0)
    assert picture.turned == (orientation > 1)


def test_kinds_of_pictures(tmp_path):
    for mode in ("L", "RGBA", "P", "CMYK", "LA"):
        name = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        Image.new("RGB", (7, 5), (40, 90, 200)).convert(mode).save(name)
        pixels, focal, *_ = read_picture(name)
        assert pixels.shape == (5, 7, 3) and pixels.dtype == np.uint8 and focal is None
    Image.fromarray(np.full((5, 7), 3000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="deep.png: cannot be read as a picture .*8 bits per channel"):
        read_picture(tmp_path / "deep.png")
    Image.new("RGB", (60, 50)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    with pytest.raises(ValueError, match="cut.jpg: cannot be read as a picture"):
        read_picture(tmp_path / "cut.jpg")


def test_heic(tmp_path, monkeypatch):
    "An iPhone's format, with pillow-heif; without it the message says what to install."
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48] = 200
    Image.fromarray(pixels).save(tmp_path / "a.heic", quality=100)
    assert np.abs(read_picture(tmp_path / "a.heic").pixels[:, [20, 70]].astype(int) - [[[200] * 3, [0] * 3]]).max() < 9
    (tmp_path / "a.heic").rename(tmp_path / "b.jpg")  # as some programs name it
    assert read_picture(tmp_path / "b.jpg").pixels.shape == (64, 96, 3)
    (tmp_path / "c.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:40])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match="c.jpg: .*HEIC; pip install pillow-heif"):
        read_picture(tmp_path / "c.jpg")


@pytest.mark.parametrize(
    ("name", "begins", "kind"),
    [
        ("a.jxl", b"\xff\x0a", "JPEG XL; save it as JPEG"),
        ("a.avif", b"\0\0\0\x20ftypavif", "AVIF; save it as JPEG"),
        ("a.cr3", b"\0\0\0\x18ftypcrx ", "a raw file of a camera; save it as JPEG"),
        ("a.pdf", b"%PDF-1.4", "PDF; save it as JPEG"),
        ("a.svg", b"<?xml version='1.0'?>\n<svg>", "SVG; save it as JPEG"),
        ("a.jpg", b"\0\0\0\x18ftypisom", "a film; -p photo reads films by their suffix"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, name, begins, kind):
    (tmp_path / name).write_bytes(begins + bytes(200))
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as a picture \({kind}"):
        read_picture(tmp_path / name)


@pytest.mark.parametrize(("marker", "bits", "kind"), [(0xC0, 12, "JPEG of 12 bits"), (0xC3, 8, "lossless JPEG")])
def test_jpeg_of_other_kinds_is_named(tmp_path, marker, bits, kind):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    start = data.find(b"\xff\xc0")
    data[start + 1], data[start + 4] = marker, bits
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a.jpg: cannot be read as a picture \({kind}; save it as JPEG"):
        read_picture(tmp_path / "a.jpg")


def test_an_empty_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match="a.jpg: an empty file"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5, 3)),
        None,
        3,
    ],
)
def test_not_an_image(run, image):
    with pytest.raises(ValueError, match=re.escape("image: expected (H, W, 3) uint8 RGB, got")):
        reconstruct(run, image, box=(0, 0, 5, 5))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3), "box: expected (left, top, right, bottom)"),
        ((50, 50, 40, 90), "at least 4 wide and high; got"),
        ((0, 0, float("nan"), 9), "at least 4 wide and high; got"),
        ((0, 0, 9e9, 9), "at least 4 wide and high; got"),
        ((SIZE + 1, 0, SIZE + 90, 90), "lies outside the picture"),
        ((-90, 0, -1, 90), "lies outside the picture"),
    ],
)
def test_boxes_that_are_none(run, scene, box, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        reconstruct(run, scene[0], box=box)


def test_meshes_are_read_by_others(run, tmp_path):
    import trimesh

    x, triangles, landmarks = run.morphable.mean, run.morphable.triangles, run.morphable.landmarks
    for name in ("a.obj", "a.PLY"):
        write_mesh(tmp_path / name, x, triangles, landmarks)
        mesh = trimesh.load(tmp_path / name, process=False)
        assert np.abs(mesh.vertices - x.numpy()).max() < 1e-4 and (mesh.faces == triangles.numpy()).all()
    assert json.loads((tmp_path / "a.landmarks.json").read_text()) == landmarks
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PLY", "a.landmarks.json", "a.obj"]
    loose = np.concatenate([x.numpy(), [[0, 0, 500.0]]])  # a vertex that no triangle uses keeps its place
    write_mesh(tmp_path / "b.obj", loose, triangles)
    assert (
        sum(line.startswith("v ") for line in (tmp_path / "b.obj").read_text().splitlines()) == len(loose)
        and not (tmp_path / "b.landmarks.json").exists()
    )
    for kw, wrong in (
        ({"vertices": x * torch.nan}, "finite vertices"),
        ({"landmarks": {"chin": len(x)}}, "within 0 to"),
        ({"triangles": triangles - 1}, "within 0 to"),
        ({"triangles": triangles[:0]}, "finite vertices"),
    ):
        with pytest.raises(ValueError, match=f"c.obj: .*{wrong}"):
            write_mesh(tmp_path / "c.obj", **{"vertices": x, "triangles": triangles, **kw})
    assert not (tmp_path / "c.obj").exists()


def test_our_own_evaluator_reads_the_mesh(run, tmp_path):
    write_mesh(tmp_path / "subject_01.obj", run.morphable.mean, run.morphable.triangles, run.morphable.landmarks)
    mesh = read_face(tmp_path / "subject_01.obj")
    assert mesh is not None


def test_now(run, scene, tmp_path):
    image, _, truth = scene
    lines = [
        "S_01/multiview_neutral/IMG_0001.png",
        "S_01/selfie/IMG_2.png",
        "S_02/selfie/IMG_2.png",
        "S_03/selfie/none.png",
    ]
    for line, pixels in zip(lines, (image, image[:, ::-1], np.full((40, 50, 3), 99, np.uint8))):
        (tmp_path / "pictures" / line).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / line)
    (tmp_path / "list.txt").write_text("\r\n".join(lines) + "\r\n\r\n")
    out = tmp_path / "out"
    (out / "S_02" / "selfie").mkdir(parents=True)
    (out / "S_02" / "selfie" / "IMG_2.obj").write_text("# face predicted by mrl from another picture\n")
    (out / "S_02" / "selfie" / "IMG_2.npy").write_bytes(b"of an earlier export")
    problems = export_now(run, tmp_path / "list.txt", tmp_path / "pictures", out, progress=False)
    assert (
        [p["image"] for p in problems] == lines[2:]
        and "no face found" in problems[0]["problem"]
        and "no such file" in problems[1]["problem"]
    )
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == sorted(
        f"{line[:-4]}.{s}" for line in lines[:2] for s in ("npy", "obj")
    )
    seven = np.load(out / "S_01" / "multiview_neutral" / "IMG_0001.npy", allow_pickle=False)
    assert seven.dtype == np.float64 and np.allclose(
        seven, run.morphable.mean[[run.morphable.landmarks[k] for k in NOW_LANDMARKS]], atol=1e-4
    )
    again = export_now(
        run, tmp_path / "list.txt", tmp_path / "pictures", out, boxes={lines[2]: (5, 5, 35, 35)}, progress=False
    )
    assert [p["image"] for p in again] == lines[3:] and (out / "S_02" / "selfie" / "IMG_2.obj").is_file()
    for name in ("IMG_2.obj", "IMG_2.npy"):  # a scan, or anything else that is no export
        foreign = tmp_path / "foreign" / name / "S_02" / "selfie" / name
        foreign.parent.mkdir(parents=True)
        foreign.write_bytes(b"v 0 0 0\n")
        with pytest.raises(FileExistsError, match="IMG_2.obj: it or its .npy is no export of mrl"):
            export_now(run, tmp_path / "list.txt", tmp_path / "pictures", tmp_path / "foreign" / name, progress=False)
        assert [p for p in (tmp_path / "foreign" / name).rglob("*.*") if p.is_file()] == [foreign]
        assert foreign.read_bytes() == b"v 0 0 0\n"
    for bad in ("../../etc/IMG.png", "IMG.png", "/S/selfie/IMG.png", "S/selfie/../IMG.png"):
        (tmp_path / "bad.txt").write_text(bad)
        with pytest.raises(ValueError, match="bad.txt: expected subject/challenge/image"):
            export_now(run, tmp_path / "bad.txt", tmp_path, out, progress=False)
    (tmp_path / "bad.txt").write_text("\n")
    with pytest.raises(ValueError, match="bad.txt: no pictures listed"):
        export_now(run, tmp_path / "bad.txt", tmp_path, out, progress=False)


def test_the_card_of_the_network_that_ships_is_made_from_its_files():
    records = {
        title: json.loads((ROOT / f"results/photographs/photo-from-30-px{suffix}.json").read_text())
        for title, suffix in (("network alone", ""), ("refined", "-refined"))
    }
    found = Run.load("photo", ROOT)
    assert (found.folder / "README.md").read_text() == model_card(found, records)
    assert sum(path.stat().st_size for path in found.folder.iterdir()) < 30e6


def test_the_notebook_states_the_errors_of_the_records():
    text = "".join((ROOT / "nbs/photo.ipynb").read_text().split())
    for name in ("photo-from-30-px", "photo-from-30-px-refined", "mrl-disentangled-3-log-0-from-30-px"):
        record = json.loads((ROOT / f"results/photographs/{name}.json").read_text())
        assert f"{record['summary']['within 30']['given']['landmarks']:.1f}%" in text
    record = json.loads((ROOT / "results/photo/calibration.json").read_text())
    known, other, scanned = (record[k] for k in ("test", "test_other_skins", "test_scanned"))
    assert f"withprobability{other['network']['same_person_auc']:.2f}." in text
    assert f"theprobabilityis{known['network']['same_person_auc']:.2f}." in text
    assert f"atrandom,itis{scanned['network']['same_person_auc']:.2f}," in text
    for group, kind in ((other, "network"), (scanned, "refined")):
        found, mean = (group[k]["shape_aligned"] for k in (kind, "mean face"))
        assert f"are{found:.2f}mmfromthetruth" in text and f"{mean:.2f}mm" in text


def photo_notebook(tmp_path, **parameters):
    "Execute photo.ipynb; return what it prints and the number of its Plotly figures."
    import papermill

    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(ROOT / "nbs/photo.ipynb", out, parameters, progress_bar=False, kernel_name="python3")
    outputs = [o for c in json.loads(out.read_text())["cells"] for o in c.get("outputs", [])]
    figures = sum("application/vnd.plotly.v1+json" in o.get("data", {}) for o in outputs)
    return "".join("".join(o.get("text", "")) for o in outputs), figures


@pytest.mark.slow
def test_notebook(run, scene, tmp_path, monkeypatch):
    "photo.ipynb with the command of the README, on an untrained run that was saved."
    from mrl.faces.morphable import save_morphable_model
    from mrl.io.files import save_tensors, write_json

    folder = tmp_path / "results" / "tiny"
    write_json(folder / "config.json", {"config": {"run": "tiny", "image_size": 32, "width": 0.05, "n_components": 4}})
    assert TrainConfig(run="tiny", image_size=32, width=0.05).batch_norm
    save_morphable_model(folder / "morphable.safetensors", run.morphable)
    save_tensors(folder / "checkpoint.safetensors", run.network.state_dict(), "mrl.checkpoint", {"step": 0})
    Image.fromarray(scene[0]).save(tmp_path / "me.png")
    monkeypatch.setenv("MRL_HOME", str(tmp_path))
    _, figures = photo_notebook(tmp_path, photo=str(tmp_path / "me.png"), run="tiny")
    assert figures == 3
    assert (tmp_path / "me.obj").is_file()
    assert json.loads((tmp_path / "me.landmarks.json").read_text()) == run.morphable.landmarks


def test_a_film_without_a_face_is_named(run, tmp_path):
    cv2 = pytest.importorskip("cv2")
    film = str(tmp_path / "grey.avi")
    writer = cv2.VideoWriter(film, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(3):
        writer.write(np.full((64, 64, 3), 128, np.uint8))
    writer.release()
    with pytest.raises(ValueError, match="grey.avi: Face Mesh sees no face in any of its frames"):
        reconstruct_film(run, film)


def test_a_changed_calibration_is_noticed(tmp_path):
    kept = Run.load("photo", ROOT).folder
    for name in ("calibration.json", "SHA256SUMS"):
        (tmp_path / name).write_bytes((kept / name).read_bytes())
    assert Calibration.read(tmp_path).distance_factor > 1
    text = (tmp_path / "calibration.json").read_text()
    (tmp_path / "calibration.json").write_text(text.replace('"distance_factor": ', '"distance_factor": 9'))
    with pytest.raises(ValueError, match="calibration.json: changed since it was written"):
        Calibration.read(tmp_path)


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    "The folder of a film in which a rendered person turns, and of one of its frames."
    cv2 = pytest.importorskip("cv2")
    folder, config = tmp_path_factory.mktemp("film"), DataConfig(size=256, seed=2)
    writer = cv2.VideoWriter(str(folder / "turn.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (256, 256))
    for x in (-200.0, -100.0, 0.0):
        t = torch.tensor([x, 0.0, 650.0], dtype=torch.float64)
        label = {"identity": 3, "K": intrinsics(300.0, 256).double(), "q": look_at(t, torch.zeros_like(t)), "t": t}
        picture = render_image(config, 5, label)
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    (folder / "pictures").mkdir()
    Image.fromarray(picture).save(folder / "pictures" / "frontal.png")
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(folder / "pictures" / "grey.png")
    return folder


@pytest.mark.slow
def test_the_notebook_takes_a_film(turning, tmp_path):
    said, figures = photo_notebook(tmp_path, photo=str(turning / "turn.avi"), out=str(tmp_path))
    assert "3 frames in" in said and "the most frontal, 3, is shown" in said and figures == 4
    record = json.loads((tmp_path / "turn.frames.json").read_text())["frames"]
    assert [frame["frame"] for frame in record] == [1, 2, 3]
    assert record[0]["alpha_id"] == record[2]["alpha_id"]
    assert (tmp_path / "turn.obj").is_file()


@pytest.mark.slow
def test_the_notebook_takes_a_folder(turning, tmp_path):
    said, figures = photo_notebook(tmp_path, photo=str(turning / "pictures"), out=str(tmp_path))
    assert "1 of 2 pictures reconstructed" in said and "- grey.png: " in said and figures == 3
    assert (tmp_path / "frontal.obj").is_file() and not (turning / "pictures" / "frontal.obj").exists()
