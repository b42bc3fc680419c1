"""Backgrounds: grey, or different for every seed."""

import numpy as np

from mrl.render.background import background


def test_backgrounds():
    assert (background(-1, 33) == background(-1, 33)[0, 0]).all() and background(-1, 33).std() == 0
    images = [background(i, 40) for i in range(80)]
    assert all(x.shape == (40, 40, 3) and x.dtype == np.float32 and x.min() > 0 and x.max() < 3.01 for x in images)
    assert np.array_equal(images[7], background(7, 40)) and len({x.tobytes() for x in images}) == 80
