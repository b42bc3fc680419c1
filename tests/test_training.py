"Hard tests of mrl.training: what a killed, diverging or mistaken run leaves behind, and history.csv by hand."

import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mrl.training.loop as training
import mrl.training.network as network
from mrl.data.dataset import FaceImages
from mrl.faces.morphable import MorphableModel
from mrl.geometry.camera import crop_to_pose, intrinsics, pose_to_crop
from mrl.geometry.rotation import geodesic_angle, quaternion_multiply, random_quaternion_within
from mrl.io.files import ROOT, load_tensors, read_json, save_tensors, write_json
from mrl.losses import BALANCES, CRITERIA, example_batch
from mrl.training.configuration import TrainConfig
from mrl.training.evaluation import evaluate
from mrl.training.loop import StepSampler, train
from mrl.training.network import VGG16, Reconstructor
from mrl.training.run import (
    Run,
    keep_run,
    load_state,
    own_run,
    read_faces,
    read_history,
    run_folder,
    run_record,
    save_state,
)

TINY = TrainConfig(
    n_images=256,
    image_size=32,
    n_components=8,
    width=0.06,
    steps=8,
    batch_size=16,
    eval_every=2,
    device="cpu",
    precision="fp32",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def where(home, datasets):
    return dict(results_dir=home / "results", data_dir=datasets, progress=False)


@pytest.fixture(scope="module")
def finished(where):
    return train(replace(TINY, run="finished"), **where)


@pytest.mark.parametrize("loss", CRITERIA)
def test_every_loss_trains(where, loss):
    own = {"gamma": 1e-3} if loss == "multi_term" else {}
    folder = train(replace(TINY, run=f"loss-{loss}", loss=loss, steps=40, lr=3e-3, eval_every=20, **own), **where)
    metrics = read_json(folder / "metrics.json")
    values = [v for m in metrics["test"].values() for v in m.values()]
    assert all(math.isfinite(v) for v in values)
    assert read_history(folder)[-1]["loss"] < read_history(folder)[0]["loss"]


@pytest.mark.parametrize("balance", BALANCES)
def test_every_balance_trains(where, balance):
    parts = dict(loss="reprojection", disentangled=True, parts=3, balance=balance)
    folder = train(replace(TINY, run=f"balance-{balance}", **parts), **where)
    rows = read_history(folder)
    assert len(rows) == 4 and all(math.isfinite(v) for row in rows for v in row.values())


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_network(where, home, datasets, finished):
    "SIGKILL, between checkpoints; then the same call again."
    slow = f"""
import time
from pathlib import Path
from mrl import TrainConfig, train
import mrl.training.loop as m

step = m.train_step

def waits(*a):
    time.sleep(0.4)
    return step(*a)

m.train_step = waits
train({replace(TINY, run="killed")!r}, Path({str(home)!r}) / "results", Path({str(datasets)!r}), progress=False)
"""
    env = {
        k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")
    }  # a Dask cluster in an earlier test leaves some behind
    process = subprocess.Popen(
        [sys.executable, "-c", slow], env=env | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    )
    state = home / "results/killed/state.pt"
    deadline = time.time() + 120
    while not state.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = home / "results/killed"
    assert state.exists() and not (folder / "metrics.json").exists()
    step = torch.load(state, weights_only=True)["step"]
    assert 0 < step < TINY.steps
    train(replace(TINY, run="killed"), **where)
    a, b = (load_tensors(f / "checkpoint.safetensors", "mrl.checkpoint")[0] for f in (folder, finished))
    assert not [k for k in a if not torch.equal(a[k], b[k])]
    assert [r["step"] for r in read_history(folder)] == [2, 4, 6, 8]


def test_a_finished_run_is_not_trained_again(where, finished):
    before = {p.name: p.stat().st_mtime_ns for p in finished.iterdir()}
    train(replace(TINY, run="finished"), **where)
    assert {p.name: p.stat().st_mtime_ns for p in finished.iterdir()} == before


def test_seed_decides(where, finished):
    same = train(replace(TINY, run="same"), **where)
    other = train(replace(TINY, run="other", seed=1), **where)
    assert read_json(same / "metrics.json") == read_json(finished / "metrics.json")
    assert read_json(other / "metrics.json")["test"] != read_json(finished / "metrics.json")["test"]


def test_resuming_elsewhere_is_recorded_and_other_data_refused(where, home, finished):
    folder = home / "results/moved"
    folder.mkdir()
    for name in ("config.json", "checkpoint.safetensors", "morphable.safetensors", "history.csv"):
        (folder / name).write_bytes((finished / name).read_bytes())
    (folder / "state.pt").touch()
    config = read_json(folder / "config.json")
    about = {k: v for k, v in config.items() if k != "config"}
    record = run_record(folder, TINY, about | {"device": "another", "commit": "later"})
    assert record["resumed"] == [{"device": "another", "commit": "later"}]
    assert record["device"] == about["device"]
    write_json(
        folder / "config.json", {k: v for k, v in config.items() if k != "processes"}
    )  # begun before there were several
    assert run_record(folder, TINY, about)["resumed"] == [{"processes": 1}]
    with pytest.raises(ValueError, match="cannot be resumed: data changed"):
        run_record(folder, TINY, about | {"data": "0" * 64})


def test_divergence_keeps_the_last_good_checkpoint(where, home, monkeypatch):
    "A gradient that is not finite at step 5: the weights on disk are those of step 4, and finite."
    calls = []

    def criterion(*a):
        inner, generator = make(*a)

        class Loss(torch.nn.Module):
            def forward(self, *a, **k):
                calls.append(1)
                value = inner(*a, **k)
                return value * torch.inf if len(calls) == 5 else value

        return Loss(), generator

    make = training.make_criterion
    monkeypatch.setattr(training, "make_criterion", criterion)
    with pytest.raises(
        FloatingPointError,
        match=r"run nan diverged at step 5: .*finite.*last good checkpoint is .*checkpoint.safetensors",
    ):
        train(replace(TINY, run="nan"), **where)
    tensors, about = load_tensors(home / "results/nan/checkpoint.safetensors", "mrl.checkpoint")
    assert about["step"] == 4 and all(torch.isfinite(v).all() for v in tensors.values() if v.is_floating_point())


class Bomb:
    def __reduce__(self):
        return os.system, ("echo code from a file was run >&2",)


def test_state_with_code_inside_is_refused(where, home, capfd):
    folder = home / "results/bomb"
    config = replace(TINY, run="bomb")
    train(config, **where)
    (folder / "metrics.json").unlink()  # as if it had been killed
    (folder / "state.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="state.pt: cannot be resumed from"):
        train(config, **where)
    assert "code from a file" not in capfd.readouterr().err


def test_results_of_another_configuration_are_not_touched(where, finished):
    with pytest.raises(ValueError, match=r"holds another run \(loss: 'mrl' there, 'reprojection' asked\)"):
        train(replace(TINY, run="finished", loss="reprojection"), **where)


def test_model_and_data_must_belong_together(datasets, finished):
    run = Run.load(finished)
    model, morphable = run.network, run.morphable
    data = FaceImages(datasets / read_json(finished / "config.json")["data_folder"], "test")
    cut = MorphableModel(
        morphable.mean[:100], morphable.basis[:, :100], torch.zeros(0, 3, dtype=torch.long), morphable.variance_ratio
    )
    with pytest.raises(ValueError, match="predicts 100 vertices .* different face models"):
        evaluate(Reconstructor(cut, model.t_crop_mean, model.t_crop_sd, 32, 0.06).eval(), data)
    with pytest.raises(ValueError, match=r"images \(B, 3, 64, 64\) uint8 expected"):
        evaluate(Reconstructor(morphable, model.t_crop_mean, model.t_crop_sd, 64, 0.06).eval(), data)


def test_damaged_run_is_named(finished, tmp_path):
    for p in finished.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    (tmp_path / "SHA256SUMS").unlink()
    write_json(tmp_path / "config.json", {"config": {"steps": "many"}})
    with pytest.raises(ValueError, match="steps must be of type int"):
        Run.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json"):
        Run.load(tmp_path)


@pytest.mark.slow
def test_augmented_runs_resume_to_the_same_network(where, monkeypatch):
    "Killed after its first state and resumed, a run sees the batches that it would have seen."
    config = replace(TINY, augment="mirror,photometric")

    def load(folder):
        return load_tensors(folder / "checkpoint.safetensors", "mrl.checkpoint")[0]

    whole = load(train(replace(config, run="augmented"), **where))
    save = training.save_state

    def killed(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, run="augmented-resumed"), **where)
    monkeypatch.setattr(training, "save_state", save)
    resumed = load(train(replace(config, run="augmented-resumed"), **where))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    mirrored = load(train(replace(config, run="mirrored", augment="mirror"), **where))
    assert any(not torch.equal(whole[k], mirrored[k]) for k in whole)


def test_a_checkpoint_says_how_its_network_is_built(finished, tmp_path):
    "Other sizes in config.json change nothing. A checkpoint without its own, of version 0.1.0, takes them from there."
    for p in finished.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    (tmp_path / "SHA256SUMS").unlink()
    tensors, about = load_tensors(tmp_path / "checkpoint.safetensors", "mrl.checkpoint")
    built = {"encoder": "vgg16", "size": 32, "width": 0.06, "batch_norm": True, "n_components": 8}
    assert about["network"] == built | {"geometry": "model", "map_size": 64}
    record = read_json(tmp_path / "config.json")
    other = record["config"] | {"image_size": 64, "width": 0.5, "batch_norm": False, "n_components": 3}
    write_json(tmp_path / "config.json", record | {"config": other})
    assert Run.load(tmp_path).network.size == 32
    save_tensors(tmp_path / "checkpoint.safetensors", tensors, "mrl.checkpoint", {"step": 8})
    with pytest.raises(ValueError, match="checkpoint.safetensors: does not fit its metadata or config.json"):
        Run.load(tmp_path)
    write_json(tmp_path / "config.json", record)
    assert Run.load(tmp_path).network.architecture == about["network"]


def test_a_network_is_read_without_the_data_stack():
    code = "import sys, mrl.training.run as r; r.Run.load('study/long/mrl-0'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mrl.training.run" in modules
    assert not [m for m in modules if m.startswith(("mrl.data", "mrl.render", "mrl.training.loop", "lightning"))]


def test_where_a_run_is(tmp_path, monkeypatch):
    "A name in the home's results, then in the repository's, then a path; all of them are named if it is in none."
    ours = run_folder("study/long/mrl-0", tmp_path)
    assert ours == ROOT / "results/study/long/mrl-0" and run_folder(ours, tmp_path) == ours
    write_json(tmp_path / "results/study/long/mrl-0/config.json", {})
    assert run_folder("study/long/mrl-0", tmp_path) == tmp_path / "results/study/long/mrl-0"
    monkeypatch.chdir(tmp_path / "results")
    assert run_folder("study/long/mrl-0", "elsewhere").resolve() == ours  # the path is tried last
    with pytest.raises(
        FileNotFoundError, match="run nobody-0: no config.json in elsewhere/results/nobody-0, .*, nobody-0"
    ):
        run_folder("nobody-0", "elsewhere")


def test_history_by_hand(where, monkeypatch):
    """Every row is the mean over the steps since the last one, with the learning rate of its last step.

    The rate rises to the peak in 5 % of the 40 points of the schedule (PyTorch counts from 0, so at point 1), then
    falls along a cosine to nothing.
    """
    steps, step = [], training.train_step

    def watched(*args):
        loss, out, norm = step(*args)
        steps.append((loss.item(), norm.item()))
        return loss, out, norm

    monkeypatch.setattr(training, "train_step", watched)
    config = replace(TINY, run="by-hand", steps=39, eval_every=15, clip=10.0)
    rows = read_history(train(config, **where))
    assert [r["step"] for r in rows] == [15, 30, 39] and len(steps) == 39
    for first, row in zip((0, 15, 30), rows):
        last = int(row["step"])
        losses, norms = zip(*steps[first:last])
        assert row["loss"] == pytest.approx(sum(losses) / (last - first), rel=1e-5)
        assert row["gradient_norm"] == pytest.approx(sum(norms) / (last - first), rel=1e-5)
        assert row["clipped"] == pytest.approx(sum(n > 10 for n in norms) / (last - first))
        assert row["lr"] == pytest.approx(1e-3 * (1 + math.cos(math.pi * (last - 1) / 38)) / 2, abs=1e-8)
    assert any(n > 10 for _, n in steps) and rows[-1]["lr"] < 1e-8


def test_units_change_neither_the_balance_nor_the_columns(where, home):
    "With lengths in metres, a balance has the gradients of the parts, and a row has the parts and their shares."
    parts = {"loss": "reprojection", "disentangled": True, "parts": 3, "balance": "nash-mtl"}
    rows = []
    for unit in (1.0, 1000.0):
        config = replace(TINY, run=f"unit-{unit:g}", unit=unit, **parts)
        train(config, **where)
        rows.append(read_history(home / "results" / config.run)[0])
    columns = [f"{what}_{part}" for what in ("part", "share") for part in ("shape", "rotation", "translation")]
    assert set(columns) <= set(rows[0]) and list(rows[0]) == list(rows[1])
    assert all(rows[1][k] == pytest.approx(rows[0][k], rel=0.05) for k in columns)  # reprojection has no unit of length


def test_a_start_from_the_mean_of_two_runs(where, finished, home):
    "The record names both; a network of other people is refused."
    results = home / "results"
    train(replace(TINY, run="second", start=str(finished), seed=1), **where)
    config = replace(TINY, run="mean", start=f"{finished}, {results / 'second'}", steps=2, lr=1e-9)
    start = read_json(train(config, **where) / "config.json")["start"]
    assert start["config"]["run"] == "second" and [r["config"]["run"] for r in start["mean_with"]] == ["finished"]
    first, second, mean = (
        load_tensors(results / n / "checkpoint.safetensors", "mrl.checkpoint")[0]
        for n in ("finished", "second", "mean")
    )
    k = "heads.weight"
    assert torch.allclose(mean[k], (first[k] + second[k]) / 2, atol=1e-6) and not torch.equal(first[k], second[k])
    about = {"face_model": {"population": "ours"}, "start": {"mean_with": [{"face_model": {"population": "theirs"}}]}}
    with pytest.raises(ValueError, match="start: expected a network of the same population"):
        run_record(home, config, about)


def test_a_row_has_what_a_criterion_learns(where, home):
    train(replace(TINY, run="learns", loss="homoscedastic"), **where)
    row = read_history(home / "results/learns")[0]
    assert {"log_scale_shape", "log_scale_rotation", "log_scale_translation"} <= set(row)


def test_only_the_network_has_weight_decay():
    "A step with gradients of zero pulls the network's weights to zero and leaves weights that a criterion learns."
    config = TrainConfig(loss="homoscedastic", steps=40, lr=1e-2, weight_decay=0.1)
    network, (criterion, _) = torch.nn.Linear(3, 3), training.make_criterion(config)
    learned, weights = [p.detach().clone() for p in criterion.parameters()], network.weight.detach().clone()
    assert sum(p.abs().sum() for p in learned) > 0
    optimiser, schedule = training.make_optimiser(network, criterion, config)
    for p in (*network.parameters(), *criterion.parameters()):
        p.grad = torch.zeros_like(p)
    rate = schedule.get_last_lr()[0]
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(learned, criterion.parameters()))
    assert torch.allclose(network.weight, weights * (1 - 0.1 * rate), rtol=1e-6)


def test_the_encoder_is_given_normalised_colours(finished):
    "Channel by channel as torchvision normalises for its ImageNet weights."
    from torchvision.models import VGG16_Weights

    network, given = Run.load(finished).network, []
    network.encoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        network(images, intrinsics(80.0, 32).expand(2, 3, 3))
    theirs = VGG16_Weights.IMAGENET1K_V1.transforms()
    for i, (mean, sd) in enumerate(zip(theirs.mean, theirs.std)):
        assert torch.allclose(given[0][:, i], (images[:, i] / 255 - mean) / sd, atol=1e-5)


def test_order_of_images_is_the_seeds():
    whole = list(StepSampler(50, 8, 20, seed=3))
    for start in range(20):
        assert list(StepSampler(50, 8, 20, seed=3, start=start)) == whole[start:]
    epoch = [i for b in whole[:6] for i in b]
    assert len(set(epoch)) == 48


@pytest.mark.parametrize("seed", range(3))
def test_crop_and_pose_are_inverse(seed):
    g = torch.Generator().manual_seed(seed)
    frontal = torch.tensor([0.0, 1, 0, 0], dtype=torch.float64)
    q_crop = quaternion_multiply(random_quaternion_within(2.0, (200,), generator=g, dtype=torch.float64), frontal)
    crop = torch.rand(200, 3, generator=g, dtype=torch.float64) * torch.tensor([1.0, 1, 2]) + torch.tensor([0.0, 0, -1])
    K = intrinsics(torch.rand(200, generator=g, dtype=torch.float64) * 500 + 100, 64).double()
    K[:, :2, 2] += 300 * torch.randn(200, 2, generator=g, dtype=torch.float64)  # principal points far outside the crop
    q_back, crop_back = pose_to_crop(*crop_to_pose(q_crop, crop, K, 64), K, 64)
    assert geodesic_angle(q_back, q_crop).max() < 1e-6 and torch.allclose(crop_back, crop, atol=1e-9)


def test_vgg16_is_torchvisions():
    "Same weights, same features."
    from torchvision.models import vgg16

    theirs, ours = vgg16().eval(), VGG16(64, 1.0, batch_norm=False).eval()
    ours.features.load_state_dict(theirs.features.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours.features(images), theirs.features(images))


def test_imagenet_weights_without_internet(monkeypatch):
    from torchvision.models import VGG16_BN_Weights

    def offline(self, *a, **k):
        raise OSError("no route to host")

    monkeypatch.setattr(VGG16_BN_Weights, "get_state_dict", offline)
    with pytest.raises(RuntimeError, match="without internet use weights=None"):
        VGG16(64, 1.0, weights="imagenet")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains(where):
    folder = train(replace(TINY, run="cuda", device="cuda", precision="auto"), **where)
    assert read_json(folder / "config.json")["device"] == torch.cuda.get_device_name()


def test_a_data_set_of_ones_own(where, datasets, finished):
    "The folder decides what is rendered elsewhere; another size, or parameters it would ignore, are refused."
    folder = datasets / read_json(finished / "config.json")["data_folder"]
    own = replace(TINY, data=str(folder), n_images=TrainConfig.n_images, run="own")
    a, b = (load_tensors(f / "checkpoint.safetensors", "mrl.checkpoint")[0] for f in (train(own, **where), finished))
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ValueError, match="image_size=64: the images of .* have 32 px"):
        train(replace(own, image_size=64, run="other-size"), **where)
    with pytest.raises(
        ValueError, match="decides setting, face_model, n_images, data_seed, without, near, far: leave them out"
    ):
        replace(own, face_model="ict")
    with pytest.raises(ValueError, match="expected effects .skins"):
        TrainConfig(without="hairs")
    assert TrainConfig(without="noise, hair").without == "hair,noise"


def test_the_loss_sees_some_vertices_and_the_metrics_all(where):
    metrics = {
        n: read_json(train(replace(TINY, run=f"vertices-{n}", vertices=n), **where) / "metrics.json")
        for n in (40, 2500)
    }
    assert metrics[40]["test"]["shape"] != metrics[2500]["test"]["shape"]
    assert metrics[40]["test_controls"] == metrics[2500]["test_controls"]


def test_one_changed_bit_is_noticed_and_named(finished, tmp_path):
    "In every file of a run, at random places; also in the copy that is kept in the repository."
    rng = np.random.default_rng(0)
    keep_run(finished, tmp_path / "kept")
    read = {
        "config.json": Run.load,
        "morphable.safetensors": Run.load,
        "checkpoint.safetensors": Run.load,
        "metrics.json": lambda folder: read_json(folder / "metrics.json"),
        "history.csv": read_history,
        "faces.csv": read_faces,
    }
    for folder in (finished, tmp_path / "kept"):
        for name, reader in read.items():
            copy = shutil.copytree(folder, tmp_path / f"{folder.name}-{name}")
            whole = (copy / name).read_bytes()
            reader(copy)
            for at in rng.integers(len(whole), size=5):
                flipped = bytes([whole[at] ^ 1 << int(rng.integers(8))])
                (copy / name).write_bytes(whole[:at] + flipped + whole[at + 1 :])
                with pytest.raises(ValueError, match=f"{name}: changed since it was written"):
                    reader(copy)


def test_a_second_training_under_one_name_is_refused_or_waits(where, finished):
    "Another configuration is refused while a run is trained, before it has written anything."
    folder = where["results_dir"] / "shared"
    with own_run(folder, replace(TINY, run="shared")):
        with pytest.raises(ValueError, match="shared holds another run .*lr: .* there, 0.01 asked"):
            train(replace(TINY, run="shared", lr=1e-2), **where)
        assert [p.name for p in folder.iterdir()] == ["run.lock"]


def test_a_state_of_another_run_is_refused(where):
    folder = where["results_dir"] / "mixed"
    network = torch.nn.Linear(2, 2)
    learner = SimpleNamespace(model=network)
    network.architecture = {}
    folder.mkdir(parents=True)
    save_state(folder, replace(TINY, run="mixed", loss="reprojection"), learner, 4, [])
    with pytest.raises(ValueError, match="state.pt holds another run .*loss: 'reprojection' there, 'mrl' asked"):
        load_state(folder, replace(TINY, run="mixed"), learner)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    "PyTorch's own message is about positions in a file."

    def full(state, file):
        raise RuntimeError("unexpected pos 576 vs 534") from None

    def save(state, file):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            full(state, file)

    learner = SimpleNamespace(model=torch.nn.Linear(2, 2))
    learner.model.architecture = {}
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="state.pt: cannot be written .*No space left on device.*; free some space"):
        save_state(tmp_path, TINY, learner, 4, [])


@pytest.mark.parametrize("loss", ["mrl", "log_mrl"])
def test_a_step_on_a_gpu_reads_nothing(loss, monkeypatch):
    "On a CPU that is taken for a GPU: not one value is read in a step, and the step is the same."
    reads = []
    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        real = getattr(torch.Tensor, method)
        monkeypatch.setattr(torch.Tensor, method, lambda self, *a, f=real, m=method: reads.append(m) or f(self, *a))
    x_hat, _, _, x, q, t = (v.float() for v in example_batch(B=4, N=10))
    model = MorphableModel(x[0], torch.randn(2, 10, 3), torch.tensor([[0, 1, 2]]), torch.ones(2))
    config, losses = replace(TINY, loss=loss, optimiser="sgd"), []  # AdamW reads its count of steps, on the host
    batch = {"image": torch.randint(0, 255, (4, 3, 32, 32)).to(torch.uint8), "x": x, "q": q, "t": t}
    batch["K"] = intrinsics(100.0, 32).expand(4, 3, 3)
    for waits in (False, True):
        for module in (training, network):
            monkeypatch.setattr(module, "waits", lambda device, waits=waits: waits)
        torch.manual_seed(0)
        reconstructor = Reconstructor(model, torch.zeros(3), torch.ones(3), size=32, width=0.06).train()
        criterion, cameras = training.make_criterion(config)
        training.do_not_wait(criterion, torch.device("cpu"))
        optimiser, _ = training.make_optimiser(reconstructor, criterion, config)
        cameras.manual_seed(0)
        reads.clear()
        loss_value, _, _ = training.train_step(training.Objective(reconstructor, criterion), optimiser, batch, 1.0)
        found = list(reads)
        losses.append(loss_value.item())
        assert bool(found) != waits, found
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_loss_that_is_not_finite_is_found_at_the_next_row(where, monkeypatch):
    "As on a GPU, where a step is not looked at: the run stops at the row, before anything is saved."
    real = training.train_step

    def poisoned(*args):
        loss, out, norm = real(*args)
        return loss * math.nan, out, norm

    monkeypatch.setattr(training, "train_step", poisoned)
    monkeypatch.setattr(training, "waits", lambda device: True)
    with pytest.raises(FloatingPointError, match="diverged at step 2: loss or gradient of one of the last 2 steps"):
        train(replace(TINY, run="poisoned"), **where)
