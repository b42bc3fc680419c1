"Hard tests of mrl.data.photographs: nothing lost in the crop, every usual mistake caught and named."

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from mrl.data.cameras import sample_cameras
from mrl.data.configuration import CropConfig, DataConfig
from mrl.data.dataset import FaceImages
from mrl.data.photographs import crop_photograph, fault_table, import_photographs, read_cameras, read_photographs
from mrl.data.rendered import render_image
from mrl.data.store import SHARD, shard_path, verify_dataset
from mrl.faces.carrier import population_file
from mrl.faces.landmarks import LANDMARKS
from mrl.faces.population import load_population
from mrl.geometry.camera import pose_matrix, project
from mrl.io.files import read_json

WIDTH, HEIGHT, N = 400, 360, 5
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="session")
def population():
    return load_population(population_file("anny"))


@pytest.fixture(scope="session")
def truth(population):
    "Make cameras with SciPy, with principal points off the middle and pixels that are not square."
    rng = np.random.default_rng(7)
    q, t = sample_cameras(rng, N, DataConfig(yaw=40.0, off_axis=2.0))
    K = torch.eye(3, dtype=torch.float64).repeat(N, 1, 1)
    K[:, 0, 0] = 1.1 * 400 * t.norm(dim=-1) / 500
    K[:, 1, 1] = 0.97 * K[:, 0, 0]
    K[:, :2, 2] = torch.tensor([WIDTH, HEIGHT]) / 2 + torch.from_numpy(rng.uniform(-15, 15, (N, 2)))
    return {"identity": torch.from_numpy(rng.choice(len(population), N, replace=False)), "q": q, "t": t, "K": K}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, truth):
    "Photographs of our own heads, one of them a JPEG."
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(N):
        K = truth["K"][i]
        image = render_image(DataConfig(size=400), i, {k: v[i] for k, v in truth.items()} | {"K": K})[:HEIGHT]
        Image.fromarray(image).save(
            folder / (f"{i}.png" if i else "0.jpg"), **({} if i else {"quality": 97, "subsampling": 0})
        )
    return folder


def transforms(truth, H=None):
    H = np.eye(4) if H is None else H
    frames = [
        {
            "file_path": f"./{i}" if i else "0.jpg",
            "scan": int(truth["identity"][i]),
            "fl_x": K[0, 0].item(),
            "fl_y": K[1, 1].item(),
            "cx": K[0, 2].item(),
            "cy": K[1, 2].item(),
            "transform_matrix": (H @ pose_matrix(truth["q"][i], truth["t"][i]).numpy() @ OPENGL).tolist(),
        }
        for i, K in enumerate(truth["K"])
    ]
    return {"w": WIDTH, "h": HEIGHT, "head_to_world": H.tolist(), "frames": frames}


@pytest.fixture
def source(tmp_path, pictures, truth):
    folder = tmp_path / "source"
    shutil.copytree(pictures, folder)
    (folder / "transforms.json").write_text(json.dumps(transforms(truth)))
    return folder


def write(folder, change=lambda cameras: None):
    cameras = json.loads((folder / "transforms.json").read_text())
    change(cameras)
    (folder / "transforms.json").write_text(json.dumps(cameras))


def write_csv(folder, truth):
    (folder / "transforms.json").unlink()
    with open(folder / "images.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["image", "scan", "fx", "fy", "cx", "cy", "qw", "qx", "qy", "qz", "tx", "ty", "tz", "units"])
        for i in range(N):
            K, R = truth["K"][i].numpy(), pose_matrix(truth["q"][i], truth["t"][i]).numpy()[:3, :3]
            q = -Rotation.from_matrix(R).as_quat(scalar_first=True)
            writer.writerow(
                [
                    f"{i}.png" if i else "0.jpg",
                    int(truth["identity"][i]),
                    K[0, 0],
                    K[1, 1],
                    K[0, 2],
                    K[1, 2],
                    *q,
                    *(truth["t"][i] / 10).tolist(),
                    "cm",
                ]
            )


def read(folder):
    data = FaceImages(folder, "all")
    return data, data.__getitems__(list(range(len(data))))


@pytest.mark.parametrize("form", ["nerf", "nerf with the heads elsewhere", "csv"])
def test_nothing_is_lost(source, truth, population, form):
    "Pose, intrinsics, shape and picture, from files in three conventions, against what rendered the photographs."
    if form == "csv":
        write_csv(source, truth)
    elif "elsewhere" in form:
        H = np.eye(4)
        H[:3, :3], H[:3, 3] = Rotation.from_rotvec([0.4, -2.0, 1.1]).as_matrix(), [300, -1200, 70]
        (source / "transforms.json").write_text(json.dumps(transforms(truth, H)))
    assert import_photographs(source / "out", source, size=96, jobs=1, progress=False) == []
    verify_dataset(source / "out")
    data, batch = read(source / "out")
    assert type(data.config) is CropConfig and len(data) == N
    assert torch.equal(batch["identity"], truth["identity"])
    assert np.allclose(batch["x"], population.faces(truth["identity"].numpy()))
    assert (batch["t"] - truth["t"]).norm(dim=-1).max() < 1e-3
    assert (batch["q"] * truth["q"]).sum(-1).abs().min() > 1 - 1e-6
    x, K = batch["x"].double(), batch["K"].double()
    in_photograph = project(x, truth["K"], truth["q"], truth["t"])
    in_crop = project(x, K, batch["q"].double(), batch["t"].double())
    back = (in_crop - K[:, None, :2, 2]) / K[:, None, [0, 1], [0, 1]] * truth["K"][:, None, [0, 1], [0, 1]] + truth[
        "K"
    ][:, None, :2, 2]
    assert (back - in_photograph).norm(dim=-1).max() < 0.01  # pixels of the photograph
    assert torch.allclose(K[:, 0, 0], K[:, 1, 1]) and (in_crop > 0).all() and (in_crop < 96).all()
    share = (in_crop.amax(1) - in_crop.amin(1)).amax(-1) / 96
    assert torch.allclose(share, torch.full((N,), 1 / 1.35, dtype=torch.float64), atol=1e-4)
    for i in range(N):  # the same scene, rendered straight into the crop
        straight = render_image(DataConfig(size=96), i, {k: batch[k][i] for k in ("identity", "K", "q", "t")})
        marks = in_crop[i, [population.landmarks[k] for k in LANDMARKS]]
        box = (*(marks.amin(0).int() - 4).tolist(), *(marks.amax(0).int() + 4).tolist())
        a, b = (
            np.ravel(Image.fromarray(v).crop(box).reduce(2))
            for v in (straight, batch["image"][i].permute(1, 2, 0).numpy())
        )
        assert np.corrcoef(a, b)[0, 1] > 0.95


@pytest.mark.parametrize("zoom", [0.3, 0.9, 1.0, 2.7])
def test_a_crop_shows_what_its_intrinsics_say(zoom):
    "Colours are coordinates: each pixel of the crop has the colour of its place, reduced, enlarged or shifted."
    rows, columns = np.mgrid[:300, :420] + 0.5
    image = Image.fromarray(np.stack([columns / 2, rows / 2, 0 * rows], -1).astype(np.uint8))
    K = np.array([[500.0, 0, 211.3], [0, 480.0, 148.9], [0, 0, 1]])
    K_crop = np.array([[500 * zoom, 0, 23.4], [0, 500 * zoom, 31.7], [0, 0, 1]])
    crop = crop_photograph(image, K, K_crop, 64).astype(float)
    i, j = np.mgrid[:64, :64] + 0.5
    u, v = (j - 23.4) / zoom + 211.3, (i - 31.7) / zoom * 480 / 500 + 148.9
    inside = (u > 12) & (u < 408) & (v > 12) & (v < 288)
    assert (
        abs((crop[..., 0] * 2 + 1 - u)[inside].mean()) < 0.12 and abs((crop[..., 1] * 2 + 1 - v)[inside].mean()) < 0.12
    )
    assert abs(crop[..., 0] * 2 + 1 - u)[inside].max() < 2.1
    assert (crop[(u < -12) | (v < -12) | (u > 432) | (v > 312)] == 0).all()


@pytest.mark.slow
def test_crops_with_jitter(source, truth):
    "Several crops of a photograph: the same pose, different K, the face inside; the same again for the same seed."
    import_photographs(source / "a", source, size=48, jitter=0.06, crops=60, jobs=2, progress=False)
    import_photographs(source / "b", source, size=48, jitter=0.06, crops=60, jobs=1, progress=False)
    for seed, folder in enumerate("cd"):
        import_photographs(source / folder, source, size=48, jitter=0.06, seed=seed, jobs=1, progress=False)
    assert 60 * N > SHARD
    a, b, c, d = (read_json(source / k / "meta.json")["sha256"] for k in "abcd")
    assert a == b and c["labels.safetensors"] != d["labels.safetensors"]
    _, batch = read(source / "a")
    assert torch.equal(batch["identity"], truth["identity"].repeat_interleave(60))
    assert batch["K"].flatten(1).unique(dim=0).shape[0] == 60 * N and batch["t"].unique(dim=0).shape[0] == N
    uv = project(batch["x"], batch["K"], batch["q"], batch["t"])
    assert (uv > 0).all() and (uv < 48).all()
    with pytest.raises(
        ValueError, match=r"on_error, crops: expected raise or skip, and a positive integer \(1 without jitter\)"
    ):
        import_photographs(source / "e", source, crops=2)


def test_a_damaged_import_is_mended_and_a_changed_photograph_noticed(source):
    import_photographs(source / "out", source, size=32, jobs=1, progress=False)
    before = {p.name: p.read_bytes() for p in (source / "out").iterdir()}
    shard_path(source / "out", 0).write_bytes(b"")
    with pytest.raises(ValueError, match="images-0000.npy; delete"):
        verify_dataset(source / "out")
    import_photographs(source / "out", source, size=32, jobs=1, progress=False)
    assert {p.name: p.read_bytes() for p in (source / "out").iterdir()} == before
    with pytest.raises(ValueError, match="size: 32 there, 64 asked"):
        import_photographs(source / "out", source, size=64)
    Image.open(source / "1.png").rotate(1).save(source / "1.png")
    with pytest.raises(ValueError, match="another photographs"):
        import_photographs(source / "out", source, size=32)


def test_skipped_files_are_listed(source):
    (source / "3.png").write_bytes((source / "3.png").read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"1 of 5 photographs are faulty\n./3  cannot be read"):
        import_photographs(source / "out", source)
    assert not (source / "out").exists()
    faults = import_photographs(source / "out", source, on_error="skip", jobs=1, progress=False)
    meta = read_json(source / "out" / "meta.json")
    assert [tuple(v) for v in meta["skipped"]] == faults and faults[0][0] == "./3"
    assert meta["files"] == ["0.jpg", "1.png", "2.png", "4.png"] and len(FaceImages(source / "out", "all")) == 4
    verify_dataset(source / "out")


def matrix(change):
    "A change of frame 2's transform_matrix."

    def apply(cameras):
        cameras["frames"][2]["transform_matrix"] = np.asarray(
            change(np.array(cameras["frames"][2]["transform_matrix"]))
        ).tolist()

    return apply


def frame(**values):
    return lambda cameras: cameras["frames"][2].update(values)


def lengths(factor):
    return np.array([[1, 1, 1, factor]] * 3 + [[1] * 4])


def turn(axis, degrees):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    return T


def frontal(cameras, T):
    "Frame 2 straight ahead of the face, in a world moved by T."
    cameras["frames"][2]["transform_matrix"] = (
        T @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 700], [0, 0, 0, 1.0]])
    ).tolist()


MIRROR = np.diag([-1.0, 1, 1, 1])
FAULTS = {
    "no such file": frame(file_path="photo.png"),
    "file_path .* is missing": lambda c: c["frames"][2].pop("file_path"),
    "listed twice": frame(file_path="1.png"),
    "scan is missing": lambda c: c["frames"][2].pop("scan"),
    "unknown scan 'Ada'": frame(scan="Ada"),
    "unknown scan 6000": frame(scan=6000),
    "unknown scan -1": frame(scan=-1),
    "w is 800, but the picture is 400 x 360": frame(w=800),
    "h is 400, but the picture is 400 x 360": frame(h=400),
    "focal lengths: expected positive numbers": frame(fl_y=-500),
    "fl_x: expected a number, got 'long'": frame(fl_x="long"),
    "fl_x: expected a finite number": frame(fl_x=float("inf")),
    "fl_x is missing": lambda c: c["frames"][2].pop("fl_x"),
    "principal point .* outside the picture": frame(cx=0.0),
    r"lens distortion \(k1, p2\): undistort": frame(k1=0.1, p2=-0.01),
    r"lens distortion \(is_fisheye\)": frame(is_fisheye=True),
    "transform_matrix: left-handed": matrix(lambda M: M @ MIRROR),
    "transform_matrix: no rotation, it scales by 0.5 to 0.5": matrix(lambda M: M @ np.diag([0.5, 0.5, 0.5, 1])),
    "transform_matrix: no rotation": matrix(lambda M: M + np.eye(4)[[1, 0, 2, 3]] * [[0.1], [0], [0], [0]]),
    "transform_matrix: expected 4 x 4 finite": matrix(lambda M: M[:3]),
    "transform_matrix: expected 4 x 4 finite numbers": matrix(lambda M: M * np.nan),
    "head_to_world: left-handed": frame(head_to_world=MIRROR.tolist()),
    "head_to_world: expected 4 x 4": frame(head_to_world="identity"),
    "units: expected one of mm, cm, m, got 'feet'": frame(units="feet"),
    r"units: expected one of mm, cm, m, got \['mm'\]": frame(units=["mm"]),
    "^no such file$": frame(file_path="x" * 300),  # longer than a file name may be
    "fl_x: expected a number, got 1000": frame(fl_x=10**400),
    "fl_x: expected a number, got True": frame(fl_x=True),
    "fl_x: expected a number, got '1_000'": frame(fl_x="1_000"),
    "transform_matrix: expected 4 x 4 finite .*": frame(transform_matrix=[[10**400, 0, 0, 0]] * 4),
    "focal lengths: expected pixels, got 1.3, 1.4: millimetres, or shares": frame(fl_x=1.3, fl_y=1.4),
    r"principal point: expected pixels, got \(0.5, 0.49\): shares of width and height": frame(cx=0.5, cy=0.49),
    r"camera_angle_x is 1.2, but fl_x = [0-9.]+ sees [0-9.]+ radians": frame(camera_angle_x=1.2),
    r"lens distortion \(distortion_params\)": frame(distortion_params=[0.1, 0, 0, 0]),
    "camera_angle_x: expected radians between 0 and pi": lambda c: (
        c["frames"][2].pop("fl_x") and c["frames"][2].update(camera_angle_x=0)
    ),
    "unknown scan 3.5": frame(scan=3.5),
    "camera_model 'OPENCV_FISHEYE': only OPENCV": frame(camera_model="OPENCV_FISHEYE"),
    "camera_model 'EQUIRECTANGULAR'": frame(camera_model="EQUIRECTANGULAR"),
    r"lens distortion \(k5, k6\)": frame(camera_model="OPENCV", k5=1e-3, k6=1e-3),
    "applied_scale: expected a positive number": frame(applied_scale=0),
    "applied_scale: expected a number": frame(applied_scale="big"),
    "applied_transform: expected 4 x 4": frame(applied_transform=[[1, 0], [0, 1], [0, 0]]),
    "applied_transform: left-handed": frame(applied_transform=MIRROR[:3].tolist()),
    "seen from behind, 1[0-9]+ degrees.*if the world is turned by 180 degrees about y": matrix(
        lambda M: turn("y", 180) @ M
    ),
    "upside down, rolled by 1[0-9]+ degrees .*if the world is turned by 180 degrees about z": matrix(
        lambda M: turn("z", 180) @ M
    ),
    "seen from behind.*if the world is turned by 180 degrees about x": matrix(lambda M: turn("x", 180) @ M),
    "seen from below.*if the world is turned by 90 degrees about x": lambda c: frontal(c, turn("x", 90)),
    "0.[0-9]+ mm from .* lengths are in m: factor 1000, write units = m": matrix(lambda M: M * lengths(1e-3)),
    "lengths are in cm: factor 10, write units = cm": matrix(lambda M: M * lengths(0.1)),
    "lengths are in mm: factor 0.001, write units = mm": frame(units="m"),
    "would be behind the camera .it would fit if the camera axes are OpenCV's": matrix(lambda M: M @ OPENGL),
    "it would fit if the pose is world-to-camera.$": matrix(np.linalg.inv),
    "it would fit if the pose is world-to-camera with OpenCV's axes": matrix(lambda M: np.linalg.inv(M @ OPENGL)),
    r"\d of 9 landmarks would lie outside the picture of 400 x 360: right_eye_outer at": frame(
        fl_x=9000.0, fl_y=9000.0
    ),
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_fault_is_named_with_its_file(source, population, expected):
    write(source, FAULTS[expected])
    good, faults = read_photographs(source, population)
    assert len(good) == N - 1 and len(faults) == 1
    name, fault = faults[0]
    assert name == read_cameras(source)[1][2].get("file_path", "row 3")
    assert re.search(expected, fault), fault


def lie_down(path):
    "State in EXIF that a picture lies on its side."
    exif = Image.Exif()
    exif[274] = 6
    Image.open(path).copy().save(path, exif=exif)


@pytest.mark.parametrize(
    "expected, spoil",
    {
        "cannot be read as a picture": lambda p: p.write_bytes(b"GIF89a"),
        "cannot be read as a picture .*truncated": lambda p: p.write_bytes(p.read_bytes()[:3000]),
        "turned by its EXIF orientation": lie_down,
        "pixels of kind I;16; save it with 8 bits": lambda p: Image.fromarray(
            np.zeros((HEIGHT, WIDTH), np.uint16)
        ).save(p),
        "h is 360, but the picture is 360 x 400|w is 400": lambda p: Image.open(p).rotate(90, expand=True).save(p),
    }.items(),
)
def test_a_faulty_picture_is_named(source, population, expected, spoil):
    spoil(source / "2.png")
    good, ((name, fault),) = read_photographs(source, population)
    assert len(good) == N - 1 and name == "./2"
    assert re.search(expected, fault), fault


def portraits(angles, distances):
    "Return poses (n, 4, 4) of cameras that look at the middle of the head: camera-to-head, OpenCV axes, mm."
    turn = Rotation.from_euler("yx", angles, degrees=True).as_matrix()
    poses = np.tile(np.eye(4), (len(turn), 1, 1))
    poses[:, :3, :3] = turn @ np.diag([1, -1, -1])
    poses[:, :3, 3] = turn[:, :, 2] * np.array(distances)[:, None]
    return poses


def write_poses(source, poses, focal, inverse=False, **common):
    poses = np.linalg.inv(poses @ OPENGL) if inverse else poses @ OPENGL
    frames = [
        {"file_path": f"{i}.png" if i else "0.jpg", "scan": i, "transform_matrix": M.tolist()}
        for i, M in enumerate(poses)
    ]
    (source / "transforms.json").write_text(json.dumps({"fl_x": focal, "frames": frames} | common))


NEARLY_FRONTAL = [(0, 0), (6, 2), (-5, 3), (3, -4), (-4, -2)]


def test_a_convention_is_judged_over_the_file(source, population):
    "World-to-camera poses within 6 degrees of frontal pass one by one; together they do not."
    poses = portraits(NEARLY_FRONTAL, [700, 650, 800, 600, 900])
    write_poses(source, poses, 500.0)
    assert len(read_photographs(source, population)[0]) == N
    write_poses(source, poses, 500.0, inverse=True)
    good, faults = read_photographs(source, population)
    assert not good and all("it would fit if the pose is world-to-camera)" in fault for _, fault in faults)
    with pytest.raises(ValueError, match="5 of 5 photographs are faulty"):
        import_photographs(source / "out", source, on_error="skip", jobs=1, progress=False)
    assert not (source / "out").exists()


def test_what_passes_by_chance_is_not_kept(source, population):
    "Of a world-to-camera file with wide views, the frontal photograph passes alone."
    poses = np.linalg.inv(portraits([(0, 0), (40, 0), (-30, 10), (50, 5), (-45, 0)], [700, 650, 800, 600, 900]))
    (source / "transforms.json").unlink()
    with open(source / "images.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["image", "scan", "fx", "qw", "qx", "qy", "qz", "tx", "ty", "tz"])
        for i, pose in enumerate(poses):
            q = Rotation.from_matrix(pose[:3, :3]).as_quat(scalar_first=True)
            writer.writerow([f"{i}.png" if i else "0.jpg", i, 500.0, *q, *pose[:3, 3]])
    good, faults = read_photographs(source, population)
    assert not good and faults[0][1].startswith("the file's photographs together fit another reading better")
    assert all("it would fit if the pose is world-to-camera)" in fault for _, fault in faults)


def test_the_likeliest_mistake_is_named(source, population):
    "Pictures at half size with the focal length of the whole ones: not centimetres, although these would fit."
    poses = portraits(NEARLY_FRONTAL, [700, 750, 800, 650, 900])
    write_poses(source, poses, 1200.0)
    good, faults = read_photographs(source, population)
    assert not good and all("a focal length half as long" in fault for _, fault in faults), faults


def test_lengths_ten_times_too_long_are_named_in_a_warning(source, population):
    poses = portraits(NEARLY_FRONTAL, [700, 650, 800, 600, 900])
    write_poses(source, poses, 500.0, units="cm")
    with pytest.warns(UserWarning, match="would be usual if the lengths are in mm: factor 0.1"):
        read_photographs(source, population)


def test_one_picture_under_two_names(source, population):
    shutil.copy(source / "1.png", source / "2.png")
    good, ((name, fault),) = read_photographs(source, population)
    assert len(good) == N - 1 and name == "./2" and fault == "the same picture as 1.png"


def test_csv_in_the_other_convention_is_caught(source, truth, population):
    write_csv(source, truth)
    rows = list(csv.DictReader(open(source / "images.csv")))
    for row in rows:
        q = Rotation.from_quat(
            [float(row[k]) for k in ("qw", "qx", "qy", "qz")], scalar_first=True
        ) * Rotation.from_euler("x", 180, degrees=True)
        row.update(zip(("qw", "qx", "qy", "qz"), q.as_quat(scalar_first=True)))
    rows[1]["qw"] = 7
    rows[2]["fx"] = ""
    with open(source / "images.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    good, faults = read_photographs(source, population)
    assert (
        not good
        and "the camera axes are OpenGL's" in faults[0][1]
        and "quaternion: expected length 1" in faults[1][1]
        and "fl_x is missing (fx in a CSV)" in faults[2][1]
    )


def nerfstudio(cameras):
    "What colmap_to_json of ns-process-data does to the poses; the transform that it writes."
    for f in cameras["frames"]:
        c2w = np.array(f["transform_matrix"])[[0, 2, 1, 3]]
        c2w[2] *= -1
        f["transform_matrix"] = c2w.tolist()
    A = np.eye(4)[:3][[0, 2, 1]]
    A[2] *= -1
    return A


@pytest.mark.parametrize("rows, scale", [(3, None), (4, None), (3, 0.02)])
def test_nerfstudio_moves_the_world(source, truth, population, rows, scale):
    "applied_transform and applied_scale are undone; without them frontal faces are refused and the turn is named."

    def change(cameras):
        A = nerfstudio(cameras)
        for f in cameras["frames"]:
            f["transform_matrix"] = (np.array(f["transform_matrix"]) * lengths(scale or 1)).tolist()
        cameras.update(
            camera_model="OPENCV", applied_transform=np.vstack([A, [0, 0, 0, 1]])[:rows].tolist(), applied_scale=scale
        )

    write(source, change)
    good, faults = read_photographs(source, population)
    assert not faults
    assert np.allclose([p.C for p in good], pose_matrix(truth["q"], truth["t"]).numpy(), atol=1e-6)
    write(source, lambda c: c.pop("applied_transform"))
    _, faults = read_photographs(source, population)
    ahead = [i for i, t in enumerate(truth["t"]) if t[2] / t.norm() > 0.87]
    assert ahead and {f"./{i}" if i else "0.jpg" for i in ahead} <= {name for name, _ in faults}
    if scale is None:
        assert all("the world is turned by -90 degrees about x" in fault for _, fault in faults)
        assert any("from above" in fault for _, fault in faults)


@pytest.mark.parametrize("encoding, delimiter", [("utf-8-sig", ","), ("utf-8", ";"), ("utf-8-sig", "\t")])
def test_csv_as_spreadsheets_write_it(source, truth, population, encoding, delimiter):
    write_csv(source, truth)
    rows = list(csv.reader(open(source / "images.csv")))
    rows[1:] = [[row[0], row[1] + ".0", *row[2:]] for row in rows[1:]]
    with open(source / "images.csv", "w", newline="", encoding=encoding) as f:
        csv.writer(f, delimiter=delimiter).writerows(
            [[" image", *rows[0][1:]], *rows[1:3], [" "] * len(rows[0]), [], *rows[3:], [""] * 40]
        )
    good, faults = read_photographs(source, population)
    assert not faults and [p.identity for p in good] == truth["identity"].tolist()
    (source / "images.csv").write_text("image;scan;fx;qw\n0.jpg;1;2;3\n")
    with pytest.raises(
        ValueError, match="images.csv: columns missing: qx, qy, qz, tx, ty, tz; the header is image, scan, fx, qw"
    ):
        read_cameras(source)
    (source / "images.csv").write_bytes("image,scan,größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="images.csv: not a CSV file in UTF-8"):
        read_cameras(source)


def test_names_and_numbers_as_tools_write_them(source, truth, population, tmp_path):
    "A byte order mark, null, 3.0, backslashes, upper case, and photographs that lie elsewhere."
    (source / "images").mkdir()
    (source / "1.png").rename(source / "images" / "1.PNG")
    (source / "2.png").rename(tmp_path / "2.png")

    def change(cameras):
        for f, values in zip(
            cameras["frames"], ({}, {"file_path": "images\\1"}, {"file_path": str((tmp_path / "2.png").resolve())})
        ):
            f.update(values, scan=float(f["scan"]), w=None, units=None, applied_transform=None)

    write(source, change)
    (source / "transforms.json").write_text((source / "transforms.json").read_text(), encoding="utf-8-sig")
    assert import_photographs(source / "out", source, size=32, jobs=1, progress=False) == []
    assert read_json(source / "out" / "meta.json")["files"] == ["0.jpg", "images/1.PNG", "../2.png", "3.png", "4.png"]
    assert torch.equal(read(source / "out")[1]["identity"], truth["identity"])


def test_a_picture_too_large_is_a_fault(source, population, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    good, faults = read_photographs(source, population)
    assert not good and len(faults) == N and all("decompression bomb" in fault for _, fault in faults)


def test_many_faults_in_one_table(source):
    write(source, lambda c: [f.update(scan=f"person {i}") for i, f in enumerate(c["frames"])])
    with pytest.raises(ValueError) as e:
        import_photographs(source / "out", source)
    lines = str(e.value).splitlines()
    assert (
        "5 of 5 photographs are faulty" in lines[0]
        and len(lines) == 6
        and lines[5].startswith("./4    unknown scan 'person 4'")
    )
    assert fault_table([("a.png", "fault")] * 100).endswith("and 60 more")


def test_scans_by_name(source, truth, population):
    names = [f"subject-{i}" for i in range(len(population))]
    write(source, lambda c: [f.update(scan=names[f["scan"]]) for f in c["frames"]])
    good, faults = read_photographs(source, replace(population, identities=names))
    assert not faults and [p.identity for p in good] == truth["identity"].tolist()


def test_field_of_view_instead_of_focal_length(source, truth, population):
    "camera_angle_x, and defaults: principal point in the middle, square pixels, size from the picture."
    angle = 2 * np.arctan(WIDTH / 2 / truth["K"][0, 0, 0].item())
    one = transforms(truth)["frames"][0]
    frames = [{k: one[k] for k in ("file_path", "scan", "transform_matrix")}]
    (source / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    (photograph,), faults = read_photographs(source, population)
    f = truth["K"][0, 0, 0].item()
    assert not faults and np.allclose(photograph.K, [[f, 0, WIDTH / 2], [0, f, HEIGHT / 2], [0, 0, 1]])


def test_a_frame_states_its_own_lens(source, truth, population):
    "What the file says for all does not mix with it, whichever of the two ways of saying it is used."

    def two_ways(cameras):
        cameras["fl_x"], cameras["fl_y"], cameras["camera_angle_y"] = 77.0, 78.0, 0.1
        for frame in cameras["frames"][::2]:
            frame["camera_angle_x"] = 2 * np.arctan(WIDTH / 2 / frame.pop("fl_x"))
            frame.pop("fl_y")

    write(source, two_ways)
    good, faults = read_photographs(source, population)
    assert not faults
    for i, photograph in enumerate(good):
        fx, fy = truth["K"][i].diagonal()[:2].tolist()
        assert np.allclose(photograph.K.diagonal(), [fx, fy if i % 2 else fx, 1])


def test_a_meaning_has_one_column(source, truth):
    write_csv(source, truth)
    text = (source / "images.csv").read_text()
    (source / "images.csv").write_text(text.replace(",fy,", ",fl_x,", 1))
    with pytest.raises(ValueError, match="images.csv: line 1: expected one column of each meaning"):
        read_cameras(source)


def test_which_file(source, truth, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected one of transforms.json and images.csv, got none"):
        read_cameras(tmp_path)
    shutil.copy(source / "transforms.json", source / "keep.json")
    write_csv(source, truth)
    shutil.copy(source / "keep.json", source / "transforms.json")
    with pytest.raises(FileNotFoundError, match="got 2"):
        read_cameras(source)
    assert len(read_cameras(source / "images.csv")[1]) == len(read_cameras(source / "keep.json")[1]) == N
    for content, message in (
        ("{", "not a JSON file"),
        ("{}", "keys missing: frames"),
        ('{"frames": []}', "no photographs"),
        ('{"frames": 3}', "list of objects"),
        ('{"frames": [1]}', "list of objects"),
        ("[]", "frames"),
    ):
        (source / "keep.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            read_cameras(source / "keep.json")


def test_training_code_reads_photographs(source):
    "The evaluation of a network, on photographs."
    from mrl.faces.morphable import morphable_model_of
    from mrl.training.evaluation import evaluate
    from mrl.training.metrics import mean_crop
    from mrl.training.network import Reconstructor

    import_photographs(source / "out", source, size=32, jobs=1, progress=False)
    data = FaceImages(source / "out", "all")
    morphable = morphable_model_of(data.population, np.arange(40), 8)
    stats = mean_crop(data.labels["q"], data.labels["t"], data.labels["K"], 32)
    torch.manual_seed(0)
    model = Reconstructor(morphable, *stats[1:], 32, 0.05, True, None)
    assert all(v.isfinite().all() for v in evaluate(model, data).values())


@pytest.mark.slow
@pytest.mark.parametrize("moved", [False, True])
def test_cameras_in_the_frames_of_the_scans(tmp_path, population, moved):
    "Scans lie anywhere, cameras were calibrated with them: projections of a scan's own vertices are the truth."
    rng, scans, frames = np.random.default_rng(2), tmp_path / "scans", []
    scans.mkdir()
    for i in range(12):
        x = population.faces(i) @ Rotation.random(random_state=i).as_matrix().T + rng.uniform(-300, 300, 3)
        trimesh.Trimesh(x / 1000, population.face_triangles, process=False).export(scans / f"{i:02d}.ply")
        front, base = (x[population.landmarks[k]] for k in ("nose_tip", "nose_base"))
        middle = x.mean(0)
        z = middle - front
        eye, down = front - 500 * z / np.linalg.norm(z), base - front
        R = np.stack([np.cross(down, z), down - z * (down @ z) / (z @ z), z], 1)
        C = np.eye(4)
        C[:3, :3], C[:3, 3] = R / np.linalg.norm(R, axis=0), eye  # OpenCV axes
        W = np.eye(4)
        if moved:
            W[:3, :3], W[:3, 3] = Rotation.random(random_state=50 + i).as_matrix(), [1000, -50, 3]
        Image.fromarray(rng.integers(0, 255, (200, 300, 3), np.uint8)).save(tmp_path / f"{i}.png")
        world = W @ C @ OPENGL
        metres = np.array([[1, 1, 1, 1e-3]] * 3 + [[1] * 4])
        frames.append(
            {"file_path": f"{i}.png", "scan": f"{i:02d}.ply", "transform_matrix": (world * metres).tolist()}
            | ({"scan_to_world": (W * metres).tolist()} if moved else {})
        )
    (tmp_path / "scans.json").write_text(json.dumps({"units": "m", "landmarks": population.landmarks}))
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 400, "units": "m", "frames": frames}))
    people = load_population(population_file(str(scans), tmp_path / "populations"))
    import_photographs(tmp_path / "out", tmp_path, face_model=str(people.path), size=64, jobs=1, progress=False)
    data, batch = read(tmp_path / "out")
    K = np.array([[400, 0, 150], [0, 400, 100], [0, 0, 1.0]])
    for i, frame in enumerate(frames):
        x = trimesh.load(scans / frame["scan"], process=False).vertices * 1000
        C = (
            np.linalg.inv(np.array(frame.get("scan_to_world", np.eye(4))))
            @ np.array(frame["transform_matrix"])
            @ OPENGL
        )
        x_cam = (x - 1000 * C[:3, 3]) @ C[:3, :3]
        truth_px = x_cam[:, :2] / x_cam[:, 2:] * 400 + K[:2, 2]
        k = batch["K"][i].double().numpy()
        crop = project(
            batch["x"][i].double(), batch["K"][i].double(), batch["q"][i].double(), batch["t"][i].double()
        ).numpy()
        there = (crop - k[:2, 2]) / k[0, 0] * 400 + K[:2, 2]  # back in the photograph's pixels
        assert np.abs(there - truth_px).max() < 0.1
    with pytest.raises(ValueError, match="scan_to_world: give it"):
        (tmp_path / "transforms.json").write_text(
            json.dumps({"fl_x": 400, "frames": [frames[0] | {"scan": 0, "scan_to_world": np.eye(4).tolist()}]})
        )
        import_photographs(tmp_path / "other", tmp_path, progress=False)
