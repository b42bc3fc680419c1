"Exported networks: the same predictions for any batch, what is stored beside them, and refusals."

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

import mrl.training.export as export
from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population
from mrl.geometry.camera import intrinsics
from mrl.training.configuration import TrainConfig
from mrl.training.export import EXPORTS, check_export, export_network
from mrl.training.heads import texture_places
from mrl.training.network import Reconstructor
from mrl.training.run import Run

OUTPUTS = ["x_hat", "q_hat", "t_hat", "alpha_id_hat"]


def make_run(geometry="model", expressions=False):
    "Return a network with random weights in every head."
    people, g = load_population(), torch.Generator().manual_seed(0)
    morphable = morphable_model_of(people, np.arange(0, 6000, 60), 8)
    if expressions:
        basis = torch.randn(2, *morphable.mean.shape, generator=g)
        morphable = replace(morphable, expression_basis=basis, expression_names=("smile", "blink"))
    places = texture_places(people) if geometry == "uv" else None
    more = {"geometry": geometry, "places": places, "map_size": 32}
    network = Reconstructor(morphable, torch.tensor([0.5, 0.5, 5.8]), torch.ones(3), 32, 0.06, **more)
    for name, v in network.named_parameters():
        if name.startswith(("heads", "geometry")):
            torch.nn.init.normal_(v, std=0.02, generator=g)
    return Run(network.eval(), morphable, TrainConfig(image_size=32, width=0.06, n_components=8, geometry=geometry))


@pytest.fixture(scope="module")
def run():
    return make_run()


def predictions_agree(run, call):
    for batch in (1, 5):
        images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
        K = intrinsics(torch.linspace(90, 200, batch), 32)
        with torch.no_grad():
            expected = run.network(images, K)
            found = call(images, K)
        for name, v in found.items():
            wanted = getattr(expected, name)
            assert v.shape == wanted.shape and (v - wanted).abs().max() < 1e-4 * wanted.abs().max()
    return list(found)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", ["model", "vertices", "uv", "with expressions"])
def test_onnx(geometry, tmp_path):
    pytest.importorskip("onnxscript", reason="needs mrl[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs mrl[onnx]")
    more = geometry == "with expressions"
    run = make_run("model" if more else geometry, more)
    path = export_network(run, tmp_path / "network.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = lambda images, K: session.run(names, {"images": images.numpy(), "K": K.numpy()})
    call = lambda images, K: dict(zip(names, map(torch.from_numpy, values(images, K))))
    assert predictions_agree(run, call) == OUTPUTS + ["alpha_exp_hat"] * more
    about = session.get_modelmeta().custom_metadata_map
    assert about == export.describe(run) and about["mrl"].startswith("network exported by mrl 0.")
    assert ("nearest" in about["alpha_id_hat"]) == (geometry in ("vertices", "uv"))
    assert list(tmp_path.iterdir()) == [path]  # weights are in the file, and nothing is left beside it


@pytest.mark.parametrize("geometry", ["model", "vertices", "uv"])
def test_torch(geometry, tmp_path):
    run = make_run(geometry)
    path = export_network(run, tmp_path / "network.pt2")
    assert predictions_agree(run, torch.export.load(path).module()) == OUTPUTS
    with zipfile.ZipFile(path) as f:
        stored = next(name for name in f.namelist() if name.endswith("extra/mrl.json"))
        assert json.loads(f.read(stored)) == export.describe(run)


def test_a_file_of_somebody_else_is_kept(run, tmp_path):
    path = tmp_path / "network.pt2"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="network.pt2: not a network that mrl exported; choose another name"):
        export_network(run, path)
    assert path.read_bytes() == b"mine"


def test_a_network_that_differs_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "largest_difference", lambda network, call: float("nan"))
    with pytest.raises(RuntimeError, match="network.pt2: expected a difference of at most 0.0001, got nan"):
        export_network(run, tmp_path / "network.pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_difference_is_found(run):
    worse = lambda images, K: {k: v * (1 + 1e-3) for k, v in export.Deployed(run.network)(images, K).items()}
    assert export.largest_difference(run.network, worse) == pytest.approx(1e-3, rel=1e-2)


def test_refusals_name_the_cause(run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="path: expected a file that ends with .onnx or .pt2, got network.tflite"):
        export_network(run, tmp_path / "network.tflite")
    with pytest.raises(ValueError, match="export: expected onnx, torch or nothing, got 'caffe'"):
        check_export("caffe")
    check_export("")
    run.network.bf16 = True
    with pytest.raises(ValueError, match="run: expected a network in evaluation mode, in float32, on the CPU"):
        export_network(run, tmp_path / "network.pt2")
    run.network.bf16 = False
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ModuleNotFoundError, match=r"export: onnx needs onnxruntime; pip install mrl\[onnx\]"):
        export_network(run, tmp_path / "network.onnx")
    monkeypatch.setattr(export, "find_spec", lambda name: name)
    monkeypatch.setattr(export, "LARGEST", 10**3)
    with pytest.raises(ValueError, match="run: expected less than 2 GiB of weights, got 0.0; export .pt2, not .onnx"):
        export_network(run, tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == [] and set(EXPORTS) == {"onnx", "torch"}
