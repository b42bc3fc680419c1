"""Test mrl.training.criterion: criteria of configurations, against values and gradients of version 0.1.0.

`python tests/test_criterion.py` stores today's values in tests/golden/losses.json, after an intended change only.
"""

from pathlib import Path

import pytest
import torch

from mrl.geometry.camera import look_at
from mrl.geometry.rotation import quaternion_multiply, random_quaternion_within
from mrl.io.files import read_json, write_json
from mrl.training.configuration import TrainConfig
from mrl.training.criterion import in_units, make_criterion

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
CONFIGURATIONS = {
    "mrl": {},
    "mrl-seed-5": {"seed": 5},
    "mrl-views-1": {"views": 1},
    "mrl-views-3": {"views": 3},
    "mrl-batch": {"cameras": "batch"},
    "mrl-uniform": {"cameras": "uniform"},
    "mrl-uniform-30": {"cameras": "uniform", "max_angle": 30.0},
    "mrl-true+uniform": {"cameras": "true+uniform"},
    "mrl-true+uniform-60": {"cameras": "true+uniform", "max_angle": 60.0, "views": 3},
    "mrl-distance-2": {"camera_distance": 2.0},
    "mrl-batch-distance-0.5": {"cameras": "batch", "camera_distance": 0.5},
    "mrl-uniform-distance-0.5": {"cameras": "uniform", "camera_distance": 0.5},
    "mrl-true+uniform-distance-2": {"cameras": "true+uniform", "camera_distance": 2.0, "views": 3},
    "mrl-l2": {"norm": "l2"},
    "mrl-squared": {"norm": "squared"},
    "mrl-huber": {"norm": "huber"},
    "mrl-metres": {"unit": 1000.0},
    "mrl-focal": {"focal": 2.0},
    "mrl-disentangled": {"disentangled": True},
    "mrl-disentangled-log": {"disentangled": True, "logarithms": True},
    "mrl-disentangled-3": {"disentangled": True, "parts": 3},
    "mrl-disentangled-3-log": {"disentangled": True, "parts": 3, "logarithms": True},
    "mrl-disentangled-3-log-uniform": {"disentangled": True, "parts": 3, "logarithms": True, "cameras": "uniform"},
    "mrl-disentangled-3-log-metres": {"disentangled": True, "parts": 3, "logarithms": True, "unit": 1000.0},
    "reprojection": {"loss": "reprojection"},
    "reprojection-l2": {"loss": "reprojection", "norm": "l2"},
    "reprojection-focal": {"loss": "reprojection", "focal": 2.0},
    "reprojection-disentangled-3-log": {
        "loss": "reprojection",
        "disentangled": True,
        "parts": 3,
        "logarithms": True,
    },
    "alignment": {"loss": "geometric_alignment"},
    "alignment-l2": {"loss": "geometric_alignment", "norm": "l2"},
    "alignment-squared": {"loss": "geometric_alignment", "norm": "squared"},
    "alignment-huber": {"loss": "geometric_alignment", "norm": "huber"},
    "alignment-released": {"loss": "geometric_alignment", "reading": "world-to-camera"},
    "alignment-disentangled-3-log": {
        "loss": "geometric_alignment",
        "disentangled": True,
        "parts": 3,
        "logarithms": True,
    },
    "pixel_alignment": {"loss": "pixel_alignment"},
    "pixel_alignment-0.45": {"loss": "pixel_alignment", "depth_weight": 0.45, "norm": "huber"},
    "multi_term": {"loss": "multi_term"},
    "multi_term-weights": {"loss": "multi_term", "alpha": 1000.0, "beta": 1.0, "gamma": 0.01, "translation": "camera"},
    "multi_term-xqt": {"loss": "multi_term", "alpha": 1.0, "beta": 1.0, "norm": "squared"},
    "multi_term-metres": {"loss": "multi_term", "unit": 1000.0},
    "homoscedastic": {"loss": "homoscedastic"},
    "homoscedastic-camera": {"loss": "homoscedastic", "alpha": 10.0, "beta": 0.01, "translation": "camera"},
    "log_terms": {"loss": "log_terms"},
    "log_terms-camera": {"loss": "log_terms", "translation": "camera", "norm": "l2"},
}


def sample(dtype=torch.float64, B=5, N=6):
    "A prediction and its truth, with intrinsics and coefficients: (x_hat, q_hat, t_hat, x, q, t), K, alpha_id_hat."
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    x = draw(B, N, 3) * torch.tensor([35.0, 45.0, 25.0])
    t = draw(B, 3) * torch.tensor([200.0, 120.0, 50.0]) + torch.tensor([0.0, 0.0, 700.0])
    q = look_at(t, torch.zeros(3, dtype=torch.float64))
    q_hat = quaternion_multiply(random_quaternion_within(0.2, (B,), generator=g, dtype=torch.float64), q)
    K = torch.tensor([[600.0, 0.0, 112.0], [0.0, 600.0, 110.0], [0.0, 0.0, 1.0]]) * torch.ones(B, 1, 1)
    K[:, :2, :2] *= 1 + 0.05 * torch.arange(B)[:, None, None]
    batch = (x + 3 * draw(B, N, 3), q_hat, t + 15 * draw(B, 3), x, q, t)
    return [v.to(dtype) for v in batch], K.to(dtype), draw(B, 4).to(dtype)


def evaluate(parameters, dtype=torch.float64):
    "Loss of a configuration on `sample`, and its gradient for the prediction and whatever the criterion learns."
    seed = parameters.get("seed", 0)
    config = TrainConfig(**parameters)
    criterion, generator = make_criterion(config)
    generator.manual_seed(seed)
    batch, K, alpha_id_hat = sample(dtype)
    leaves = [v.requires_grad_() for v in batch[:3]]
    given, K = in_units([*leaves, *batch[3:], alpha_id_hat], K, config.unit, config.focal)
    loss = criterion(*given, K=K)
    gradients = torch.autograd.grad(loss, [*leaves, *criterion.parameters()])
    return loss.item(), [g.flatten().tolist() for g in gradients]


def write():
    "Store today's losses and gradients."
    golden = {}
    for name, parameters in CONFIGURATIONS.items():
        loss, gradients = evaluate(parameters)
        single, _ = evaluate(parameters, torch.float32)
        golden[name] = {"parameters": parameters, "loss": loss, "float32": single, "gradients": gradients}
    write_json(GOLDEN, golden)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_values_and_gradients_are_the_stored_ones(name):
    "The virtual cameras of a seed included."
    golden = read_json(GOLDEN)[name]
    assert golden["parameters"] == CONFIGURATIONS[name]
    loss, gradients = evaluate(golden["parameters"])
    assert loss == pytest.approx(golden["loss"], rel=1e-12)
    for got, expected in zip(gradients, golden["gradients"], strict=True):
        scale = max(map(abs, expected))
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale)
    assert evaluate(golden["parameters"], torch.float32)[0] == pytest.approx(golden["float32"], rel=1e-5)


def test_every_stored_configuration_is_tested():
    assert set(read_json(GOLDEN)) == set(CONFIGURATIONS)


if __name__ == "__main__":
    write()
