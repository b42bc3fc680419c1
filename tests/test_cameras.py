"Hard tests of mrl.data.cameras and mrl.data.configuration: ranges, types, cameras that see the whole face."

from dataclasses import replace

import numpy as np
import pytest
import torch

from mrl.data.cameras import detector_crop, sample_cameras
from mrl.data.configuration import DataConfig
from mrl.data.rendered import plan_labels
from mrl.data.store import SHARD
from mrl.faces.population import load_population

CONFIG = DataConfig(n_images=SHARD + 50, size=16)


@pytest.mark.parametrize(
    "change",
    [{"n_images": 0}, {"size": 4}, {"yaw": -1.0}, {"near": 10.0}, {"far": 400.0}, {"margin": 0.5}, {"jitter": 2.0}],
)
def test_configuration_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    "change", [{"near": 150, "off_axis": 30}, {"near": 150, "off_axis": 60.0}, {"near": 250, "off_axis": 45}]
)
def test_a_camera_in_the_face(change):
    with pytest.raises(ValueError, match="near and off_axis: with .* depth of .* must be at least 145 mm"):
        DataConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"n_images": 2.5},
        {"n_images": True},
        {"yaw": "60"},
        {"face_model": 3},
        {"without": None},
        {"without": ("hair",)},
    ],
)
def test_configuration_of_the_wrong_type(change):
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=f"{name} must be of type .*, got"):
        replace(CONFIG, **change)


def test_the_nearest_cameras_see_the_whole_face():
    config = DataConfig(n_images=2 * SHARD, size=16, near=150, far=150)
    assert all(v.isfinite().all() for v in plan_labels(config, load_population()).values())
    q, t = sample_cameras(np.random.default_rng(0), 4, config)
    x = torch.as_tensor(load_population().faces(np.arange(4))).double()
    with pytest.raises(ValueError, match="4 of 4 faces reach behind their camera"):
        detector_crop(np.random.default_rng(0), 2 * x, q, t, config)


def test_cameras_cover_their_ranges():
    q, t = sample_cameras(np.random.default_rng(0), 5000, CONFIG)
    x = torch.as_tensor(load_population().faces(np.zeros(5000, int))).double()
    K = detector_crop(np.random.default_rng(1), x[:200], q[:200], t[:200], CONFIG)
    assert torch.allclose(K[:, 0, 0], K[:, 1, 1]) and (K[:, 2] == torch.tensor([0, 0, 1.0])).all()
    assert t.norm(dim=-1).min() < 505 and t.norm(dim=-1).max() > 995
