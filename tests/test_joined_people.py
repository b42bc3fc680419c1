"The people of two face models on one head: data with expressions, individuality, starts of trainings."

import numpy as np
import pytest

from mrl.data.configuration import PHOTO, DataConfig
from mrl.data.dataset import FaceImages
from mrl.data.rendered import build_dataset, data_identity
from mrl.faces.carrier import build_population, population_file
from mrl.faces.expressions import load_expressions
from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population, split_identities, with_individuality
from mrl.training.configuration import TrainConfig
from mrl.training.run import run_record


@pytest.fixture(scope="module")
def own():
    return load_population()


@pytest.fixture(scope="module")
def others(own, tmp_path_factory):
    "Forty people of a model with twelve modes."
    face = morphable_model_of(own, split_identities(len(own))["train"][::8], 12)
    drawn = np.random.default_rng(0).standard_normal((40, 12))
    return build_population(tmp_path_factory.mktemp("others") / "others.safetensors", face, coefficients=drawn)


@pytest.fixture(scope="module")
def both(others, tmp_path_factory):
    return load_population(population_file(f"anny+{others.path}", tmp_path_factory.mktemp("populations")))


def test_it_is_made_once_and_named_after_both(both, others, own):
    assert population_file(f"anny+{others.path}", both.path.parent) == both.path
    assert both.path.name.startswith("anny+others-") and both.joined == [own.sha256, others.sha256]
    assert both.name == f"{own.name}; {others.name}" and len(both) == 6040


def test_heads_keep_lids_lips_and_expressions(both, own):
    assert np.array_equal(both.triangles, own.triangles) and np.array_equal(both.uv, own.uv)
    assert load_expressions(both).basis is load_expressions(own).basis


def test_individuality_is_of_the_generated_people(both, own):
    more = with_individuality(both, 2.5)
    of_others = both.coefficients[:, both.joined_modes] == 1
    assert of_others.sum() == 40
    assert np.array_equal(more.coefficients[of_others], both.coefficients[of_others])
    before, after = (people.coefficients[~of_others][::50, : both.joined_modes] for people in (both, more))
    assert np.array_equal(after[:, :20], before[:, :20]) and np.allclose(after[:, 20:], 2.5 * before[:, 20:])


def test_images_for_photographs(both, others, tmp_path):
    "Splits hold people of both, expressions move them, and the data set is found again by the population's hash."
    config = DataConfig(n_images=300, size=16, face_model=str(both.path), **PHOTO | {"setting": "study"})
    with pytest.raises(ValueError, match="setting: expected study for face_model"):
        DataConfig(face_model=str(others.path), setting="photo")
    assert DataConfig(face_model=f"anny+{others.path}", setting="photo").face_model == f"anny+{others.path}"
    folder = build_dataset(tmp_path / "data", config, jobs=1, progress=False)
    data = {split: FaceImages(folder, split) for split in ("train", "val", "test")}
    assert sum(len(part) for part in data.values()) == 300
    assert data["train"].population.joined == both.joined
    assert data_identity(config)["population"] == both.sha256


def test_a_training_starts_from_a_network_of_the_first_people(both, own, tmp_path):
    ours = {"population": both.sha256, "joined": both.joined}
    started = {"face_model": ours, "start": {"face_model": {"population": own.sha256}}}
    assert run_record(tmp_path, TrainConfig(), started)["face_model"] == ours
    started["start"]["face_model"]["population"] = "theirs"
    with pytest.raises(ValueError, match="start: expected a network of the same population"):
        run_record(tmp_path, TrainConfig(), started)


def test_a_photo_training_needs_the_heads_of_the_repository():
    assert TrainConfig(setting="photo", face_model="anny+ict").face_model == "anny+ict"
    with pytest.raises(ValueError, match="setting='photo' goes with face_model='anny', or 'anny[+]' and another"):
        TrainConfig(setting="photo", face_model="ict")
