"Full and read-only disks, little memory, files with code in them, python -O, no home, blanks and umlauts in paths."

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mrl.data import store
from mrl.io.files import ROOT, load_tensors, read_json, save_tensors, temporaries, write_json
from mrl.io.meshes import write_mesh
from mrl.io.processes import sole_owner
from mrl.io.tables import write_csv
from mrl.training.configuration import TrainConfig
from mrl.training.run import save_state

TINY = TrainConfig(run="tiny", steps=2)


def state(path):
    learner = SimpleNamespace(model=torch.nn.Linear(2, 2))
    learner.model.architecture = {}
    learner.optimiser = SimpleNamespace(state_dict=lambda: {"momentum": torch.zeros(60_000)})
    save_state(path.parent, TINY, learner, 1, [])


WRITERS = {
    "a.json": lambda path: write_json(path, ["x" * 100] * 2000),
    "a.csv": lambda path: write_csv(path, [{"step": i} for i in range(60_000)]),
    "a.obj": lambda path: write_mesh(path, np.zeros((9000, 3)), np.array([[0, 1, 2]])),
    "a.safetensors": lambda path: save_tensors(path, {"a": torch.zeros(60_000)}, "mrl.example"),
    "state.pt": state,
}


@pytest.fixture
def small_disk(tmp_path):
    "A disk of 128 kB, and the function that makes it read-only."
    folder = tmp_path / "small disk ä"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs Linux and the right to mount a disk")
    remount = lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield SimpleNamespace(folder=folder, make_read_only=remount)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_left_clean(small_disk, name):
    "What was there stays as it was."
    (small_disk.folder / name).write_text("before")
    with pytest.raises(OSError, match=f"{name}: cannot be written .*; free some space, or let MRL_HOME name a folder"):
        WRITERS[name](small_disk.folder / name)
    assert not temporaries(small_disk.folder)
    assert (small_disk.folder / name).read_text() == "before"


def test_a_disk_too_small_for_a_data_set(small_disk):
    with pytest.raises(OSError, match=r"0\.00 GB needed, 0\.00 GB free"):
        store._check_space(small_disk.folder, 256, 32)


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_disk_is_named(small_disk, name):
    small_disk.make_read_only()
    name = "checkpoint.safetensors" if name == "state.pt" else name  # it is written first
    writer = WRITERS.get(name, state)
    with pytest.raises(OSError, match=f"{name}: cannot be written .*; choose a folder that you may write to"):
        writer(small_disk.folder / name)


def test_a_folder_on_a_read_only_disk_cannot_be_owned(small_disk):
    small_disk.make_read_only()
    for path, said in (("run.lock", "cannot be locked"), ("run/run.lock", "cannot be created")):
        with (
            pytest.raises(OSError, match=f"{said} .*; choose a folder that you may write to"),
            sole_owner(small_disk.folder / path),
        ):
            pass


def test_no_memory_to_map_images_does_not_sound_like_damage(tmp_path):
    "As under `ulimit -v`."
    path = tmp_path / "images-0000.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (1 << 30,)).flush()  # a sparse file
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), before[1]))
    try:
        with pytest.raises(OSError, match=r"images-0000.npy: no memory left to map it; lift the limit \(ulimit -v\)"):
            store._map_shard(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert len(store._map_shard(path)) == 1 << 30


class Bomb:
    def __reduce__(self):
        return os.system, ("echo code from a file was run >&2",)


def test_files_with_code_in_them_are_refused(tmp_path, capfd):
    poison = pickle.dumps(Bomb())
    np.save(tmp_path / "images-0000.npy", np.array([Bomb()]), allow_pickle=True)
    (tmp_path / "a.safetensors").write_bytes(poison)
    (tmp_path / "a.json").write_bytes(poison)
    readers = {
        "images-0000.npy: cannot be read as images": lambda: store._map_shard(tmp_path / "images-0000.npy"),
        "a.safetensors: truncated, damaged": lambda: load_tensors(tmp_path / "a.safetensors", "mrl.example"),
        "a.json: not a JSON file": lambda: read_json(tmp_path / "a.json"),
    }
    for said, read in readers.items():
        with pytest.raises(ValueError, match=said):
            read()
    assert "code from a file" not in capfd.readouterr().err


TRAINING = """
import hashlib, json, sys, warnings
from pathlib import Path
import mrl
from mrl.io.files import HOME
config = mrl.TrainConfig(run="two steps", n_images=64, image_size=32, n_components=4, width=0.06, steps=2, batch_size=8)
folder = mrl.train(config, progress=False)
names = ("checkpoint.safetensors", "morphable.safetensors", "metrics.json")
print(json.dumps([str(HOME), [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]]))
"""


@pytest.mark.slow
def test_odd_environments_change_no_byte(tmp_path):
    "No assertions, no HOME, another locale, hash seed and time zone, one thread; blanks and umlauts in paths."
    plain = {k: v for k, v in os.environ.items() if k not in ("MRL_DATA", "IN_TEST")} | {"PYTHONPATH": str(ROOT)}
    odd = {k: v for k, v in plain.items() if k not in ("HOME", "LANG", "LC_ALL", "USER", "LOGNAME")}
    odd |= {"LC_ALL": "C", "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "OMP_NUM_THREADS": "1"}
    found = []
    for name, environment, options in (("plain", plain, []), ("a home ä é", odd, ["-O"])):
        home = tmp_path / name
        command = [sys.executable, *options, "-c", TRAINING]
        environment |= {"MRL_HOME": str(home)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said, hashes = json.loads(done.stdout.splitlines()[-1])
        assert Path(said) == home
        found.append(hashes)
    assert found[0] == found[1]
