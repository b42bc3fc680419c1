"Hard tests of mrl.data.rendered: the same bytes however rendered, faces where the labels say (see also test_store.py)."

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mrl.data.rendered as data
from mrl.data.configuration import DataConfig
from mrl.data.dataset import FaceImages
from mrl.data.rendered import build_dataset, dataset_folder, plan_labels
from mrl.data.store import SHARD, shard_path
from mrl.faces.carrier import population_file
from mrl.faces.population import load_population
from mrl.geometry.camera import project, resize_intrinsics
from mrl.io.files import load_tensors, read_json, save_tensors
from mrl.render.appearance import sample_appearance, switch_off

CONFIG = DataConfig(n_images=SHARD + 50, size=16)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_dataset(tmp_path_factory.mktemp("data") / "one", CONFIG, jobs=1, progress=False)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.slow
def test_rendered_by_a_process_that_is_killed_and_by_a_dask_cluster(built, tmp_path):
    "A process that is killed makes the first shard, a cluster's worker the rest: the bytes of one undisturbed process."
    import distributed

    folder = tmp_path / "killed"
    code = (
        "from mrl.data.configuration import DataConfig; from mrl.data.rendered import build_dataset; "
        f"build_dataset({str(folder)!r}, {CONFIG!r}, jobs=1, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        on_record = lambda: (
            (folder / "progress.json").exists() and shard_path(folder, 0).name in (folder / "progress.json").read_text()
        )
        while not on_record() and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(FileNotFoundError, match="unfinished, 1 shards so far"):
        FaceImages(folder, "train")
    first = shard_path(folder, 0).stat().st_mtime_ns
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        build_dataset(folder, CONFIG, progress=False, scheduler=cluster.scheduler_address)
    assert contents(folder) == contents(built) and shard_path(folder, 0).stat().st_mtime_ns == first


def test_a_worker_with_other_code_is_refused(tmp_path, monkeypatch):
    small = replace(CONFIG, n_images=1)
    asked = {**data.data_identity(small), "versions": data._versions()}
    assert data._here(small) == asked
    for other in ({"renderer": "0"}, {"population": "0"}, {"versions": {**asked["versions"], "numpy": "1.0"}}):
        monkeypatch.setattr(data, "_here", lambda config: {**asked, **other})
        with pytest.raises(ValueError, match=f"has another {next(iter(other))} than"):
            build_dataset(tmp_path / next(iter(other)), small, jobs=1, progress=False)


def test_larger_begins_with_smaller():
    population = load_population()
    small, large = (plan_labels(replace(CONFIG, n_images=n), population) for n in (300, 700))
    assert all(torch.equal(large[k][:300], small[k]) for k in small)
    other = plan_labels(replace(CONFIG, n_images=300, seed=1), population)
    assert not any(torch.equal(other[k], small[k]) for k in small)


def test_images_show_the_face_where_the_labels_say(tmp_path):
    "Give the stored scene a longer nose: its picture changes around the place where the labels project the nose."
    population = load_population()
    config = DataConfig(n_images=6, size=96)
    labels = plan_labels(config, population)
    images = data.render_shard(config, 0, labels)
    _, renderer = data.renderer_of("anny")
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
    appearance = appearance.changed(film=dict(noise=appearance.film.noise * noise))
    return renderer.image(
        head, *(np.asarray(labels[k][i], np.float64) for k in ("K", "q", "t")), appearance, config.size, rng
    )


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


def test_an_effect_left_out_changes_only_the_picture():
    "`without` keeps people, cameras and crops; its order and spaces do not matter."
    config = replace(CONFIG, n_images=2, size=48)
    assert (
        DataConfig(without=" noise,hair ,").without == "hair,noise" == DataConfig(without="hair, noise, hair").without
    )
    labels = plan_labels(config, load_population())
    other = plan_labels(replace(config, without="hair"), load_population())
    assert all(torch.equal(labels[k], other[k]) for k in labels)
    with pytest.raises(ValueError, match="without: expected effects .*hair.* got nose"):
        DataConfig(without="hair,nose")
    one = {k: v[1] for k, v in labels.items()}
    population, renderer = data.renderer_of("anny")
    rng = np.random.default_rng([config.seed, 0, 1, 1])
    identity = int(one["identity"])
    bald = switch_off(sample_appearance(rng, {k: v[identity] for k, v in population.labels.items()}), ["hair", "noise"])
    expected = renderer.image(
        population.heads(identity), *(one[k].double().numpy() for k in ("K", "q", "t")), bald, 48, rng
    )
    assert np.array_equal(data.render_image(replace(config, without="noise,hair"), 1, one), expected)
    assert not np.array_equal(data.render_image(config, 1, one), expected)


def test_another_population(tmp_path):
    "A population of 30 heads without labels, in a file of its own, is rendered and found again."
    tensors, about = load_tensors(population_file("anny"), "mrl.faces")
    tensors = {k: v[:30] if k == "coefficients" else v for k, v in tensors.items() if not k.startswith("label.")}
    save_tensors(tmp_path / "few.safetensors", tensors, "mrl.faces", about)
    config = DataConfig(n_images=12, size=16, face_model=str(tmp_path / "few.safetensors"))
    build_dataset(tmp_path / "data", config, jobs=1, progress=False)
    data = FaceImages(tmp_path / "data", "all")
    assert len(data.population) == 30 and data.config == config and data.labels["identity"].max() < 30
    assert (
        data.population.sha256
        != load_population().sha256
        == read_json(
            build_dataset(tmp_path / "anny", replace(config, face_model="anny"), jobs=1, progress=False) / "config.json"
        )["population"]
    )
    with pytest.raises(ValueError, match="face_model: .* another population"):
        build_dataset(tmp_path / "data", replace(config, face_model="anny"))
    save_tensors(
        tmp_path / "few.safetensors", {**tensors, "coefficients": tensors["coefficients"] * 2}, "mrl.faces", about
    )
    with pytest.raises(ValueError, match="shows another population than"):
        FaceImages(tmp_path / "data", "all")
    # no worker renders the population as it was before
    build_dataset(tmp_path / "other", config, jobs=1, progress=False)
    assert not np.array_equal(
        FaceImages(tmp_path / "other", "all").shards[0], np.load(shard_path(tmp_path / "data", 0))
    )


def test_a_relative_face_model_is_found_from_another_folder(tmp_path, monkeypatch):
    "Also through '..', and by a name that differs from its file's only in the folder."
    (tmp_path / "a").mkdir()
    tensors, about = load_tensors(population_file("anny"), "mrl.faces")
    save_tensors(
        tmp_path / "few.safetensors",
        {k: v[:30] if k == "coefficients" or k.startswith("label.") else v for k, v in tensors.items()},
        "mrl.faces",
        about,
    )
    monkeypatch.chdir(tmp_path / "a")
    config = DataConfig(n_images=2, size=16, face_model="../few.safetensors")
    folder = build_dataset(dataset_folder(config, tmp_path), config, jobs=1, progress=False)
    assert folder == tmp_path / "faces-few-2-16px-0"
    monkeypatch.chdir("/")
    assert len(FaceImages(folder, "all")) == 2
    assert (
        config
        == DataConfig(n_images=2, size=16, face_model=str(tmp_path / "few.safetensors"))
        == build_again(folder).config
    )
    for name in ("anny", "ict", "bfm", "flame", "sfm"):
        assert DataConfig(face_model=name).face_model == name


def build_again(folder):
    data = FaceImages(folder, "all")
    build_dataset(folder, data.config, progress=False)
    return data


def test_names_of_folders():
    assert dataset_folder(DataConfig(), "x") == Path("x/faces-20000-64px-0")
    other = DataConfig(n_images=9, size=32, seed=4, face_model="bfm", without="noise, hair", yaw=10)
    assert dataset_folder(other, Path("/x")) == Path("/x/faces-bfm-9-32px-4-without-hair-without-noise")
