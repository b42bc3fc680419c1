"""Pictures and labels against stored ones.

After a change of what a configuration stands for: raise mrl.data.rendered.DATA_VERSION and run this file.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrl.data.configuration import DataConfig
from mrl.data.rendered import DATA_VERSION, plan_labels, render_image, renderer_of
from mrl.geometry.camera import project
from mrl.io.files import load_tensors, save_tensors
from mrl.render.appearance import EFFECTS

GOLDEN = Path(__file__).parent / "golden"
CONFIG = DataConfig(n_images=280, size=96)  # into the second shard
EYE_CORNERS = [1742, 1079]  # vertices of the face between which a close-up is centred
WHOLE, CLOSE = range(12), range(4)  # images shown whole, and images shown again as close-ups of an eye
# Share of colour values that may differ by more than two levels: other processors meet other triangles at edges.
CHANGED = 0.005


def close_up(label, population, size):
    "The label of an image whose picture is an eye of it, six times as large."
    x = torch.as_tensor(population.faces(label["identity"].reshape(1).numpy()))[0].double()
    corners = x[EYE_CORNERS]
    K, q, t = (label[name].double() for name in ("K", "q", "t"))
    u = project(corners, K, q, t).mean(0)
    K = K.clone()
    K[:2] *= 6
    K[:2, 2] += size / 2 - 6 * u
    return label | {"K": K}


def scenes():
    "Images 0 to 11 of `CONFIG`, then the eyes of the first four: (index, label)."
    population, _ = renderer_of(CONFIG.face_model)
    labels = plan_labels(CONFIG, population)
    each = lambda i: {name: v[i] for name, v in labels.items()}
    return [(i, each(i)) for i in WHOLE] + [(i, close_up(each(i), population, CONFIG.size)) for i in CLOSE]


def sheet(config=CONFIG):
    "The pictures as a sheet of four rows, uint8."
    pictures = np.stack([render_image(config, *scene) for scene in scenes()])
    return pictures.reshape(4, 4, *pictures.shape[1:]).swapaxes(1, 2).reshape(4 * config.size, -1, 3)


def changed(a, b):
    "The most changed picture of two sheets: the share of its colour values that differ by more than two levels."
    differs = np.abs(a.astype(int) - b) > 2
    return differs.reshape(4, CONFIG.size, 4, -1).mean((1, 3)).max()


def write():
    "Store today's pictures and labels as those of `DATA_VERSION`."
    Image.fromarray(sheet()).save(GOLDEN / f"pictures-{DATA_VERSION}.png")
    save_tensors(
        GOLDEN / f"labels-{DATA_VERSION}.safetensors",
        plan_labels(CONFIG, renderer_of(CONFIG.face_model)[0]),
        "mrl.labels",
    )


@pytest.fixture(scope="module")
def golden():
    return np.asarray(Image.open(GOLDEN / f"pictures-{DATA_VERSION}.png"))


def test_pictures_are_those_of_the_version(golden):
    difference = changed(sheet(), golden)
    assert difference < CHANGED, (
        f"{difference:.1%} of the colour values changed; "
        f"raise mrl.data.rendered.DATA_VERSION and run python {Path(__file__).name}"
    )


def test_labels_are_those_of_the_version():
    stored, _ = load_tensors(GOLDEN / f"labels-{DATA_VERSION}.safetensors", "mrl.labels")
    labels = plan_labels(CONFIG, renderer_of(CONFIG.face_model)[0])
    assert labels.keys() == stored.keys()
    for name, value in labels.items():
        torch.testing.assert_close(value, stored[name], rtol=1e-5, atol=1e-4)


def test_only_the_present_version_is_stored():
    stored = {p.name for p in GOLDEN.iterdir()} - {"losses.json"}  # of tests/test_criterion.py
    assert stored == {f"labels-{DATA_VERSION}.safetensors", f"pictures-{DATA_VERSION}.png"}


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_is_in_the_pictures(golden, effect):
    "Otherwise a change of that effect would pass unseen."
    assert changed(sheet(replace(CONFIG, without=effect)), golden) > CHANGED


if __name__ == "__main__":
    write()
