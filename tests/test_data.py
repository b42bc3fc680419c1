"Hard tests of mrl.data: the same bytes however they were made, nothing half-written trusted, truth that belongs to its image."
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import mrl.data as data
from mrl.camera import project, resize_intrinsics
from mrl.data import SHARD, DataConfig, FaceImages, batches, build_dataset, detector_crop, plan_labels, sample_cameras, shard_path, verify_dataset
from mrl.faces import load_population, split_identities
from mrl.files import read_json, write_json
from mrl.render import sample_appearance

CONFIG = DataConfig(n_images=2 * SHARD + 20, size=16)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_dataset(tmp_path_factory.mktemp("data") / "one", CONFIG, jobs=1, progress=False)


def hashes(folder):
    return read_json(folder / "meta.json")["sha256"]


def test_bytes_do_not_depend_on_processes(built, tmp_path):
    assert hashes(build_dataset(tmp_path / "two", CONFIG, jobs=2, progress=False)) == hashes(built)


def test_killed_and_completed(built, tmp_path):
    "SIGKILL in the middle of a build; what is left is refused by the reader, and completed by the next call."
    folder = tmp_path / "killed"
    code = f"from mrl.data import *; build_dataset({str(folder)!r}, {CONFIG!r}, jobs=1, progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.time() + 120
    while not shard_path(folder, 0).exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "meta.json").exists()
    with pytest.raises(FileNotFoundError, match="unfinished"):
        FaceImages(folder, "train")
    (folder / "images-0001.npy.99999.tmp").write_bytes(b"half a shard of a dead process")
    assert hashes(build_dataset(folder, CONFIG, jobs=1, progress=False)) == hashes(built)
    verify_dataset(folder)


def test_a_finished_folder_is_left_alone(built):
    before = {p.name: p.stat().st_mtime_ns for p in built.iterdir()}
    build_dataset(built, CONFIG, progress=False)
    assert {p.name: p.stat().st_mtime_ns for p in built.iterdir()} == before


def test_larger_begins_with_smaller():
    population = load_population()
    small, large = (plan_labels(replace(CONFIG, n_images=n), population) for n in (300, 700))
    assert all(torch.equal(large[k][:300], small[k]) for k in small)
    other = plan_labels(replace(CONFIG, n_images=300, seed=1), population)
    assert not any(torch.equal(other[k], small[k]) for k in small)


def test_truth_belongs_to_its_image(built):
    "Every field of a batch, against the labels by hand; landmarks inside the picture."
    test = FaceImages(built, "test")
    population = load_population()
    batch = next(iter(batches(test, 16)))
    assert batch["image"].shape == (16, 3, 16, 16) and batch["image"].dtype == torch.uint8
    for i in range(16):
        k = int(test.index[i])
        stored = np.load(shard_path(built, k // SHARD), allow_pickle=False)[k % SHARD]
        assert np.array_equal(batch["image"][i].permute(1, 2, 0).numpy(), stored)
        assert np.allclose(batch["x"][i], population.faces(np.array([int(test.labels["identity"][k])]))[0])
        uv = project(batch["x"][i], batch["K"][i], batch["q"][i], batch["t"][i])
        assert (uv > 0).all() and (uv < 16).all()
        one = test[i]
        assert all(torch.equal(one[name], batch[name][i]) for name in batch)


def test_splits_share_nobody(built):
    people = {s: set(FaceImages(built, s).labels["identity"][FaceImages(built, s).index].tolist()) for s in ("train", "val", "test")}
    expected = split_identities(len(load_population()))
    for s, members in people.items():
        assert members <= set(expected[s].tolist())
    assert not people["train"] & people["val"] and not people["train"] & people["test"] and not people["val"] & people["test"]


def test_images_show_the_face_where_the_labels_say(tmp_path):
    "Give the stored scene a longer nose: its picture changes around the place where the labels project the nose."
    population = load_population()
    config = DataConfig(n_images=6, size=96)
    labels = plan_labels(config, population)
    images = data.render_shard(config, 0, labels)
    _, renderer = data._renderer()
    for i in range(6):
        x = torch.as_tensor(population.faces(labels["identity"][i : i + 1].numpy()))[0].double()
        uv = project(x, *(labels[k][i].double() for k in ("K", "q", "t"))).numpy()
        head = population.heads(int(labels["identity"][i]))
        bumped = head.copy()
        nose = population.landmarks["nose_tip"]
        near = np.linalg.norm(x.numpy() - x[nose].numpy(), axis=1) < 12
        bumped[population.face_vertices[near]] += np.float32([0, 0, 6])  # a longer nose
        assert np.array_equal(render_again(renderer, population, config, i, labels, head), images[i])
        changed = render_again(renderer, population, config, i, labels, bumped, noise=False).astype(int)
        changed -= render_again(renderer, population, config, i, labels, head, noise=False)
        rows, columns = np.mgrid[:96, :96] + 0.5
        near = np.hypot(columns - uv[nose, 0], rows - uv[nose, 1]) < 12
        change = np.abs(changed).max(-1)
        assert change[near].mean() > 4 * change[~near].mean(), i  # strands of hair move a little with any head


def render_again(renderer, population, config, i, labels, head, noise=True):
    rng = np.random.default_rng([config.seed, 0, 1, i])
    identity = int(labels["identity"][i])
    appearance = sample_appearance(rng, {k: v[identity] for k, v in population.labels.items()})
    appearance.film[3] *= noise
    return renderer.image(head, *(np.asarray(labels[k][i], np.float64) for k in ("K", "q", "t")), appearance, config.size, rng)


def test_the_same_scene_at_another_size():
    "render_image with K to match is the same picture, larger."
    population = load_population()
    config = DataConfig(n_images=3, size=48)
    labels = plan_labels(config, population)
    small = data.render_shard(config, 0, labels).astype(float)
    for i in range(3):
        label = {k: v[i] for k, v in labels.items()} | {"K": resize_intrinsics(labels["K"][i], 2)}
        large = data.render_image(replace(config, size=96), i, label).astype(float)
        assert np.corrcoef(large.reshape(48, 2, 48, 2, 3).mean((1, 3)).ravel(), small[i].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", ["meta.json", "labels.safetensors", "images-0001.npy"])
def test_missing_or_damaged_files_are_named(built, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    whole = (folder / name).read_bytes()
    if name != "meta.json":
        (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ValueError, match=name):
            verify_dataset(folder)
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=name):
        FaceImages(folder, "train")
    (folder / name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=name.split(".")[0]):
        FaceImages(folder, "train")


def test_another_population_is_refused(built, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    write_json(folder / "meta.json", read_json(folder / "meta.json") | {"population": "0" * 64})
    with pytest.raises(ValueError, match="another population"):
        FaceImages(folder, "train")


def test_a_full_disk_is_seen_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(data.shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match="GB needed"):
        build_dataset(tmp_path / "big", CONFIG, progress=False)
    assert not (tmp_path / "big" / "config.json").exists()


def test_a_finished_data_set_needs_no_space(built, monkeypatch):
    monkeypatch.setattr(data.shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9, 0))
    build_dataset(built, CONFIG, progress=False)


def test_another_renderer_is_another_data_set(built, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    write_json(tmp_path / "copy/config.json", read_json(tmp_path / "copy/config.json") | {"renderer": "0" * 64})
    with pytest.raises(ValueError, match="another renderer"):
        build_dataset(tmp_path / "copy", CONFIG, progress=False)


def test_a_leftover_temporary_file_does_not_lock_the_folder(tmp_path):
    (tmp_path / "config.json.123.tmp").write_text("{")
    small = replace(CONFIG, n_images=3)
    build_dataset(tmp_path, small, jobs=1, progress=False)
    assert len(FaceImages(tmp_path, "train")) + len(FaceImages(tmp_path, "val")) + len(FaceImages(tmp_path, "test")) == 3


def test_a_foreign_folder_is_not_written_to(tmp_path):
    (tmp_path / "thesis.txt").write_text("please keep")
    with pytest.raises(ValueError, match="not empty and not a data set"):
        build_dataset(tmp_path, CONFIG, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("change", [{"n_images": 0}, {"size": 4}, {"yaw": -1.0}, {"near": 10.0}, {"far": 400.0}, {"margin": 0.5}, {"jitter": 2.0}])
def test_configuration_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(CONFIG, **change)


def test_cameras_cover_their_ranges():
    q, t = sample_cameras(np.random.default_rng(0), 5000, CONFIG)
    x = torch.as_tensor(load_population().faces(np.zeros(5000, int))).double()
    K = detector_crop(np.random.default_rng(1), x[:200], q[:200], t[:200], CONFIG)
    assert torch.allclose(K[:, 0, 0], K[:, 1, 1]) and (K[:, 2] == torch.tensor([0, 0, 1.0])).all()
    assert t.norm(dim=-1).min() < 505 and t.norm(dim=-1).max() > 995
