"""Varied heads: from the population to a training that starts from a network of the population before."""

import numpy as np
import pytest
import torch

from mrl.data.configuration import DataConfig
from mrl.data.dataset import FaceImages
from mrl.data.rendered import build_dataset, dataset_folder
from mrl.faces.carrier import population_file
from mrl.faces.expressions import load_expressions
from mrl.faces.population import load_population
from mrl.training.configuration import TrainConfig
from mrl.training.loop import train
from mrl.training.run import Run, start_of

TINY = dict(setting="photo", n_images=60, image_size=32, batch_size=8, steps=2, eval_every=2, width=0.06)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def begun(home):
    return train(TrainConfig(run="begun", n_components=5, **TINY), home / "results", home / "datasets", False)


def test_a_varied_data_set_has_expressions_and_the_labels_of_others():
    people, varied = (load_population(population_file(name)) for name in ("anny", "varied"))
    assert varied.varied_from == people.sha256
    assert load_expressions(varied).names == load_expressions(people).names
    away = np.linalg.norm(varied.faces(np.arange(50)).astype(float) - people.faces(np.arange(50)), axis=-1)
    assert 2 < np.sqrt(np.square(away).mean()) < 4
    skin = np.abs(varied.labels["african"] - people.labels["african"]) > 0
    assert 0.4 < skin.mean() < 0.6


def test_the_varied_population_is_found_by_its_data_set(tmp_path):
    config = DataConfig(n_images=20, size=32, face_model="varied", setting="photo")
    folder = build_dataset(dataset_folder(config, tmp_path), config, jobs=1, progress=False)
    assert folder.name == "faces-photo-varied-20-32px-0"
    assert FaceImages(folder, "all").population.varied_from


def test_a_training_starts_from_a_network_of_the_population_before(home, begun):
    config = TrainConfig(run="varied", start=str(begun), face_model="varied", n_components=9, lr=1e-9, **TINY)
    run = Run.load(train(config, home / "results", home / "datasets", False))
    first = Run.load(begun)
    assert len(run.morphable.basis) == 9 and run.record["face_model"]["varied_from"]
    images, K = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.diag(torch.tensor([60.0, 60, 1]))[None]
    now, before = run.network(images, K), first.network(images, K)
    assert torch.allclose(now.q_hat, before.q_hat, atol=0.02)  # batch normalisation has seen two batches more
    assert torch.allclose(run.network.heads.weight[9:], first.network.heads.weight[5:], atol=1e-3)


def test_a_start_from_varied_people_may_have_seen_the_test_people_of_others(home, begun):
    config = TrainConfig(run="varied", start=str(begun), face_model="varied", n_components=9, lr=1e-9, **TINY)
    varied = train(config, home / "results", home / "datasets", False)  # finished by the test before, or now
    with pytest.raises(ValueError, match="start: expected a network of the same population"):
        asked = TrainConfig(run="back", start=str(varied), n_components=5, **TINY)
        train(asked, home / "results", home / "datasets", False)


def test_another_model_for_free_vertices_is_refused(begun):
    with pytest.raises(ValueError, match="start=.*: expected the parameters of that run, geometry='model'"):
        start_of(TrainConfig(start=str(begun), n_components=6, geometry="vertices", **TINY))
