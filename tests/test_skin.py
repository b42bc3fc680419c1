"""The painted skin's lookup against scipy."""

import numpy as np
from scipy.ndimage import map_coordinates

from mrl.render.appearance import sample_appearance
from mrl.render.skin import skin_at


class Chart:
    "Random skins with nothing painted."

    size = (13, 17)
    skins = np.random.default_rng(0).random((18, 13 * 17, 3), dtype=np.float32)
    marks = np.tile(np.float32([[99], [0], [0], [0], [0], [99], [0]]), 13 * 17)


def test_texture_lookup_is_scipys():
    rng = np.random.default_rng(1)
    a = sample_appearance(rng, dict(gender=1.0, age=30.0)).changed(skin=dict(tone=[1, 1, 1]))
    uv = rng.uniform(0.05, 0.95, (300, 2)).astype(np.float32)
    skin = np.einsum("k,knc->nc", a.skin.weights, Chart.skins).reshape(*Chart.size, 3)
    at = [uv[:, 1] * 13 - 0.5, uv[:, 0] * 17 - 0.5]
    reference = np.stack([map_coordinates(skin[..., c], at, order=1) for c in range(3)], 1)
    assert np.abs(skin_at(Chart, a, uv)[:, :3] - reference).max() < 1e-5
    assert np.isfinite(skin_at(Chart, a, np.float32([[0, 0], [1, 1], [-3, 9]]))).all()
