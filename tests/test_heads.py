"Heads without a model: training, checkpoints, refusals, and the same beginning as the model's head."

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population
from mrl.geometry.camera import intrinsics
from mrl.io.files import read_json, write_json
from mrl.losses import LogMultiviewReprojectionLoss
from mrl.training.configuration import TrainConfig
from mrl.training.heads import CORNERS, HEADS, texture_places
from mrl.training.loop import train
from mrl.training.network import Reconstructor
from mrl.training.preparation import check_people
from mrl.training.run import Run, keep_run, read_history

TINY = TrainConfig(
    loss="log_mrl",
    n_images=256,
    image_size=32,
    n_components=8,
    width=0.06,
    steps=30,
    batch_size=16,
    lr=3e-3,
    eval_every=15,
    device="cpu",
    precision="fp32",
)


@pytest.fixture(scope="module")
def people():
    return load_population()


@pytest.fixture(scope="module")
def morphable(people):
    return morphable_model_of(people, np.arange(0, 6000, 60), 8)


@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=g)
    return images, intrinsics(torch.tensor([300.0, 400, 500, 600]), 32)


def network(morphable, people, geometry):
    torch.manual_seed(0)
    places = texture_places(people) if geometry == "uv" else None
    return Reconstructor(
        morphable, torch.tensor([0.5, 0.5, 5.8]), torch.ones(3), 32, 0.06, geometry=geometry, places=places, map_size=32
    )


def test_heads_begin_alike_and_every_parameter_learns(morphable, people, batch):
    first = network(morphable, people, "model").eval()(*batch)
    for geometry in HEADS:
        model = network(morphable, people, geometry)
        out = model.eval()(*batch)
        assert all(torch.equal(a, b) for a, b in zip(out, first))
        adam = torch.optim.Adam(model.train().parameters(), lr=1e-3)
        criterion = LogMultiviewReprojectionLoss(generator=torch.Generator().manual_seed(0))
        x = first.x_hat.detach() + morphable.basis[:4]
        for _ in range(3):  # zero layers let no gradient through until they have moved
            adam.zero_grad()
            out = model(*batch)
            criterion(*out[:3], x, first.q_hat.detach(), first.t_hat.detach() + 5, K=batch[1]).backward()
            adam.step()
        still = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert still == []


@pytest.mark.parametrize("geometry", ["vertices", "uv"])
def test_free_heads_leave_the_span_of_the_model(morphable, people, batch, geometry):
    "Their coefficients are those of the nearest face of the model."
    model = network(morphable, people, geometry).eval()
    with torch.no_grad():
        for p in model.geometry.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
        out = model(*batch)
    assert (morphable.project(out.x_hat) - out.x_hat).norm(dim=-1).mean() > 0.01
    assert torch.allclose(morphable.coefficients(out.x_hat.double()).float(), out.alpha_id_hat, atol=1e-3)


@pytest.mark.parametrize("geometry", HEADS)
def test_training(tmp_path, datasets, geometry):
    "From the configuration to a kept run that loads, learns, resumes and refuses the checkpoint of another head."
    where = dict(results_dir=tmp_path, data_dir=datasets, progress=False)
    config = replace(TINY, run=geometry, geometry=geometry, map_size=32 if geometry == "uv" else 64)
    folder = train(config, **where)
    history = read_history(folder)
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(math.isfinite(v["mean"]) for v in read_json(folder / "metrics.json")["test"].values())
    keep_run(folder, tmp_path / "kept")
    run, kept = Run.load(folder), Run.load(tmp_path / "kept")
    assert isinstance(run.network.geometry, HEADS[geometry])
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    K = intrinsics(torch.tensor([300.0, 400.0]), 32)
    with torch.no_grad():
        assert (run.network(images, K).x_hat - kept.network(images, K).x_hat).abs().max() < 0.5
    shutil.rmtree(tmp_path / "kept")
    (folder / "SHA256SUMS").unlink()
    other = "vertices" if geometry == "model" else "model"
    record = read_json(folder / "config.json")
    write_json(folder / "config.json", record | {"config": record["config"] | {"geometry": other, "map_size": 64}})
    with pytest.raises(ValueError, match=f"expected a network with geometry='{other}' .*got '{geometry}'"):
        Run.load(folder)
    with pytest.raises(ValueError, match="holds another run .geometry"):
        train(config, **where)


def test_faces_without_texture_coordinates_are_refused_before_rendering(people, monkeypatch):
    bare = replace(people, uv=np.zeros_like(people.uv), name="my scans")
    monkeypatch.setattr("mrl.training.preparation.load_population", lambda path: bare)
    with pytest.raises(ValueError, match="geometry='uv': my scans has no texture coordinates; use geometry='vertices'"):
        check_people(replace(TINY, geometry="uv"))
    check_people(replace(TINY, geometry="vertices"))
    elsewhere = replace(people, triangles=people.triangles[:0], uv_triangles=people.uv_triangles[:0])
    with pytest.raises(ValueError, match="has no texture coordinates"):
        texture_places(elsewhere)


def test_texture_of_separate_triangles(people):
    "Every triangle has corners of its own, as wrapped scans have: places agree, and seams stay closed."
    rows = np.arange(people.triangles.size).reshape(-1, 3)
    loose = replace(people, uv=people.uv[people.uv_triangles.ravel()], uv_triangles=rows)
    assert torch.equal(texture_places(loose), texture_places(people))
    shaken = loose.uv + np.random.default_rng(0).normal(0, 0.02, loose.uv.shape).astype(np.float32)
    places = texture_places(replace(loose, uv=shaken))
    assert places.shape == (len(people.face_vertices), CORNERS, 2) and places.abs().max() <= 1
