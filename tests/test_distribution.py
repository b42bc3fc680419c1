"Hard tests of mrl.data.distribution and its figure."

from dataclasses import replace

import numpy as np
import torch

from mrl.data.configuration import DataConfig
from mrl.data.distribution import distribution
from mrl.data.rendered import plan_labels
from mrl.data.store import SHARD
from mrl.faces.population import load_population
from mrl.geometry.camera import project
from mrl.show.plots import distribution_figure

CONFIG = DataConfig(n_images=SHARD + 50, size=16)


def test_distribution_against_the_cameras_that_were_drawn():
    "Columns agree with the angles and distances of `sample_cameras`; a population without labels has fewer columns."
    population = load_population()
    labels = plan_labels(CONFIG, population)
    columns = distribution(labels, population, CONFIG.size)
    rng = np.random.default_rng([CONFIG.seed, 0, 0])
    rng.integers(len(population), size=SHARD)
    drawn = [rng.uniform(-getattr(CONFIG, k), getattr(CONFIG, k), SHARD) for k in ("yaw", "pitch", "roll")]
    for name, angles in zip(("yaw", "pitch", "roll"), drawn):
        assert np.abs(np.abs(columns[f"{name} (deg)"][:SHARD]) - np.abs(angles)).max() < 0.01
    assert (
        np.allclose(columns["distance (mm)"], labels["t"].norm(dim=-1))
        and columns["images per identity"].sum() == CONFIG.n_images
    )
    x = torch.as_tensor(population.faces(labels["identity"][300:301].numpy()))[0]
    uv = project(x, *(labels[k][300] for k in ("K", "q", "t")))
    assert np.isclose(columns["face (share of the crop)"][300], (uv.amax(0) - uv.amin(0)).max() / CONFIG.size)
    assert len(distribution_figure(columns).data) == len(columns)
    bare = replace(population, labels={"name": np.array(["a"] * len(population)), "age": np.ones(len(population))})
    assert columns.keys() - distribution(labels, bare, CONFIG.size).keys() == {"age (years)", *columns} - {
        *list(columns)[:11]
    }


def test_a_column_that_is_constant_up_to_rounding():
    "Photographs that are cropped without jitter give such a column."
    share = np.float32([0.74, np.nextafter(np.float32(0.74), np.float32(1)), 0.74])
    (bars,) = distribution_figure({"face (share of the crop)": share}).data
    assert sum(bars.y) == 3
