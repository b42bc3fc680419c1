"Hard tests of mrl.data.dataset: truth that belongs to its image, splits that share nobody, the right population."

import shutil

import numpy as np
import pytest
import torch

import mrl.data.dataset as dataset
import mrl.data.store as store
from mrl.data.configuration import DataConfig
from mrl.data.dataset import FaceImages, HeldImages, batches, fits
from mrl.data.rendered import build_dataset
from mrl.data.store import SHARD, read_record, shard_path
from mrl.faces.carrier import population_file
from mrl.faces.population import load_population, split_identities
from mrl.geometry.camera import project
from mrl.io.files import load_tensors, read_json, save_tensors, write_json

CONFIG = DataConfig(n_images=SHARD + 50, size=16)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_dataset(tmp_path_factory.mktemp("data") / "one", CONFIG, jobs=1, progress=False)


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


def test_held_images_give_the_same_batches(built):
    "A split in the memory of a device, bit for bit; with and without expressions; on a device without values."
    train = FaceImages(built, "train")
    items = [3, 0, len(train) - 1, 3]
    for moves in (None, torch.randn(2, train.x[0].numel())):
        train.moves, train.labels["alpha_exp"] = moves, torch.rand(len(train.labels["q"]), 2)
        expected, got = train.__getitems__(items), HeldImages(train, torch.device("cpu")).__getitems__(items)
        assert expected.keys() == got.keys() and ("expression" in got) == (moves is not None)
        assert all(torch.equal(expected[k], got[k]) for k in got)
        assert got["image"].stride() == expected["image"].stride()
    held = HeldImages(train, torch.device("meta")).__getitems__(items)
    assert all(v.is_meta and v.shape == got[k].shape for k, v in held.items())
    assert not fits(train, torch.device("cpu"))


def test_splits_share_nobody(built):
    people = {
        s: set(FaceImages(built, s).labels["identity"][FaceImages(built, s).index].tolist())
        for s in ("train", "val", "test")
    }
    expected = split_identities(len(load_population()))
    for s, members in people.items():
        assert members <= set(expected[s].tolist())
    assert (
        not people["train"] & people["val"]
        and not people["train"] & people["test"]
        and not people["val"] & people["test"]
    )


def test_all_is_every_image(built):
    assert len(FaceImages(built, "all")) == CONFIG.n_images
    with pytest.raises(ValueError, match="split: expected one of"):
        FaceImages(built, "some")


def test_the_population_outlives_its_source(tmp_path, monkeypatch):
    "When the face model has gone or changed, the population is found by its hash in HOME/populations."
    monkeypatch.setattr(dataset, "HOME", tmp_path / "home")
    tensors, about = load_tensors(population_file("anny"), "mrl.faces")
    few = {k: v[:30] if k == "coefficients" or k.startswith("label.") else v for k, v in tensors.items()}
    source = tmp_path / "few.safetensors"
    save_tensors(source, few, "mrl.faces", about)
    digest, whole = load_population(source).sha256, source.read_bytes()
    kept = tmp_path / "home" / "populations"
    save_tensors(
        kept / "few-000000000000.safetensors", {**few, "coefficients": few["coefficients"] * 2}, "mrl.faces", about
    )
    folder = build_dataset(
        tmp_path / "data", DataConfig(n_images=12, size=16, face_model=str(source)), jobs=1, progress=False
    )
    x = FaceImages(folder, "all").x
    for spoil in (lambda: save_tensors(source, tensors, "mrl.faces", about), source.unlink):
        spoil()
        with pytest.raises(
            ValueError,
            match=f"shows another population than .*few.safetensors .*home/populations has its hash .{digest[:12]}"
            ".*copy the population's file there",
        ):
            FaceImages(folder, "all")
        (kept / "any.safetensors").write_bytes(whole)
        found = FaceImages(folder, "all")
        assert (
            found.population.sha256 == digest
            and found.population.path == kept / "any.safetensors"
            and torch.equal(found.x, x)
        )
        (kept / "any.safetensors").unlink()


def test_another_population_is_refused(built, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    store._write_record(folder / "meta.json", read_record(folder / "meta.json") | {"population": "0" * 64})
    with pytest.raises(ValueError, match="another population"):
        FaceImages(folder, "train")


def test_another_renderer_is_another_data_set(built, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    write_json(tmp_path / "copy/config.json", read_json(tmp_path / "copy/config.json") | {"renderer": "0" * 64})
    with pytest.raises(ValueError, match="another renderer"):
        build_dataset(tmp_path / "copy", CONFIG, progress=False)
