"Hard tests of mrl.data.store, on images that cost nothing: the same bytes however made, nothing half-written trusted."

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import mrl.data.store as store
from mrl.data.store import SHARD, open_dataset, read_record, shard_path, verify_dataset, write_dataset
from mrl.io.files import read_json, write_json

N = 4 * SHARD + 20


def plan(n, seed):
    return {"number": torch.arange(n) + seed}


def paint(pause, k, labels):
    "Images of random bytes that depend on their label and shard."
    time.sleep(pause)
    return np.stack(
        [
            np.random.default_rng([int(number), k]).integers(256, size=(8, 8, 3), dtype=np.uint8)
            for number in labels["number"]
        ]
    )


def here(painter):
    return {"painter": painter}


def make(folder, n=N, seed=0, pause=0.0, painter="1", shard=None, **how):
    asked = {"config": {"n_images": n, "size": 8, "seed": seed}, "painter": "1"}
    return write_dataset(
        folder,
        asked,
        partial(plan, n, seed),
        shard or partial(paint, pause),
        {"versions": {"numpy": "2"}},
        partial(here, painter),
        **{"jobs": 1, "progress": False, **how},
    )


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return make(tmp_path_factory.mktemp("store") / "one")


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "copy")


@pytest.fixture
def start():
    "`make` in a process of its own; at the end of the test nothing of it is left running."
    processes = []

    def begin(folder, **how):
        here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
        code = f"{here}; from test_store import make; make({str(folder)!r}, **{how!r})"
        # not a pipe: idle workers of a killed build would keep it open
        said = open(f"{folder}.{time.monotonic_ns()}.said", "w+")
        processes.append(subprocess.Popen([sys.executable, "-c", code], stdout=said, start_new_session=True))
        processes[-1].said = lambda: (said.seek(0), said.read())[1]
        return processes[-1]

    yield begin
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition, process, seconds=120):
    deadline = time.time() + seconds
    while not condition() and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)


def test_what_was_made_is_read(built):
    meta, labels, shards = open_dataset(built, ["painter"], ["number"])
    assert (
        meta["config"]["n_images"] == N
        and meta["versions"] == {"numpy": "2"}
        and [len(s) for s in shards] == [SHARD] * 4 + [20]
    )
    assert torch.equal(labels["number"], torch.arange(N))
    assert np.array_equal(
        np.concatenate(shards),
        np.concatenate([paint(0, k, {"number": range(k * SHARD, min(N, k * SHARD + SHARD))}) for k in range(5)]),
    )
    for names in (["population"], []), ([], ["q"]):
        with pytest.raises(ValueError, match="missing: (population|q)"):
            open_dataset(built, *names)


@pytest.mark.slow
def test_bytes_do_not_depend_on_processes(built, tmp_path):
    assert contents(make(tmp_path / "two", jobs=2)) == contents(built)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_again_and_again(built, tmp_path, start, jobs):
    "After SIGKILL at random moments the reader refuses what is left, and the next call completes it to the same bytes."
    folder, rng = tmp_path / "killed", random.Random(jobs)
    moments = [None, folder / "build.lock", folder / "progress.json", shard_path(folder, 1)]
    for first in moments if jobs == 1 else moments[2:]:
        process = start(folder, jobs=jobs, pause=0.1)
        wait_for(lambda: first is None or first.exists(), process)
        time.sleep(rng.uniform(0, 0.2 if first else 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (folder / "meta.json").exists():
            with pytest.raises(FileNotFoundError, match="no meta.json"):
                open_dataset(folder)
    if not (folder / "meta.json").exists():
        (folder / "images-0001.npy.99999.tmp").write_bytes(b"half a shard of a dead process")
    make(folder, jobs=jobs)
    assert contents(folder) == contents(built)


@pytest.mark.parametrize("kind", ["write_json", "save_tensors", "_save_shard", "sha256", "_write_record"])
def test_stopped_at_every_step(built, tmp_path, monkeypatch, kind):
    "An exception at the first, second, ... call of each function that touches the disk, until the build gets through."
    function, left = getattr(store, kind), 0

    def stops(*args, **named):
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("stopped")
        return function(*args, **named)

    monkeypatch.setattr(store, kind, stops)
    for allowed in range(100):
        left = allowed
        with suppress(RuntimeError):
            make(tmp_path / "stopped", n=2 * SHARD)
            break
        assert not (tmp_path / "stopped" / "meta.json").exists() or kind != "_write_record"
    monkeypatch.setattr(store, kind, function)
    make(tmp_path / "stopped", n=2 * SHARD)
    assert allowed > 0 and contents(tmp_path / "stopped") == contents(make(tmp_path / "at once", n=2 * SHARD))


@pytest.mark.parametrize("name", ["empty", "flipped", "cut", "longer", "not on record", "right"])
def test_what_a_disk_spoiled_before_the_build_was_complete_is_made_again(built, copy, name):
    "A shard that is empty, changed by a bit, too short, too long or not on record does not count as done."
    path = shard_path(copy, 2)
    whole = path.read_bytes()
    spoiled = {
        "empty": b"",
        "flipped": whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:],
        "cut": whole[:-1],
        "longer": whole + b"0",
        "not on record": whole[::-1],
        "right": whole,
    }
    (copy / "meta.json").rename(copy / "progress.json")
    if name == "not on record":
        record = read_record(copy / "progress.json")
        store._write_record(
            copy / "progress.json", record | {"sha256": {k: v for k, v in record["sha256"].items() if k != path.name}}
        )
    path.write_bytes(spoiled[name])
    before = path.stat().st_mtime_ns
    make(copy)
    assert contents(copy) == contents(built)
    assert (path.stat().st_mtime_ns == before) == (name == "right")


@pytest.mark.slow
def test_two_builders_in_one_folder(built, tmp_path, start):
    "The second waits, and finds the data set complete."
    folder = tmp_path / "shared"
    one = start(folder, pause=0.1)
    wait_for((folder / "progress.json").exists, one)
    one.send_signal(signal.SIGSTOP)
    two = start(folder)
    wait_for(two.said, two)
    assert not (folder / "meta.json").exists()
    one.send_signal(signal.SIGCONT)
    assert one.wait(timeout=120) == two.wait(timeout=120) == 0 and not one.said()
    assert f"is being written by process {one.pid} on" in two.said()
    assert contents(folder) == contents(built)


@pytest.mark.slow
def test_a_waiting_builder_takes_over_from_a_killed_one(built, tmp_path, start):
    folder = tmp_path / "shared"
    one = start(folder, jobs=2, pause=0.1)
    wait_for((folder / "progress.json").exists, one)
    one.send_signal(signal.SIGSTOP)
    two = start(folder)
    wait_for(two.said, two)
    one.send_signal(signal.SIGKILL)
    one.wait()
    assert not (folder / "meta.json").exists() and "waiting" in two.said()
    assert two.wait(timeout=120) == 0 and contents(folder) == contents(built)


@pytest.mark.slow
def test_two_builders_of_different_data(tmp_path, start):
    "Also when both begin in an empty folder at the same time, one of them is refused."
    builders = [start(tmp_path / "shared", seed=s, n=20) for s in (0, 1)]
    assert sorted(p.wait(timeout=120) for p in builders) == [0, 1]
    verify_dataset(tmp_path / "shared")


@pytest.mark.slow
def test_a_dask_cluster_makes_the_same_bytes(built, tmp_path):
    import distributed
    import joblib

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        how = {"scheduler": cluster.scheduler_address, "jobs": -1}
        make(tmp_path / "one", **how)
        assert contents(tmp_path / "one") == contents(built)
        shard_path(tmp_path / "one", 2).unlink()
        with pytest.raises(ValueError, match="has another painter than this build began with"):
            make(tmp_path / "one", painter="2", **how)
        with distributed.Client(cluster), joblib.parallel_config("dask"):  # joblib's own way, the same call
            make(tmp_path / "one", jobs=-1)
        assert contents(tmp_path / "one") == contents(built)


def test_a_worker_that_has_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has another painter than this build began with"):
        make(tmp_path / "other", painter="2")
    assert not list((tmp_path / "other").glob("images-*"))


def test_a_finished_folder_is_left_alone(built):
    before = {p.name: p.stat().st_mtime_ns for p in built.iterdir()}
    make(built)
    assert {p.name: p.stat().st_mtime_ns for p in built.iterdir()} == before


@pytest.mark.parametrize("name", ["config.json", "meta.json", "labels.safetensors", "images-0002.npy"])
def test_a_flipped_bit_anywhere_is_found_named_and_mended(built, copy, name):
    rng = random.Random(name)
    whole = (copy / name).read_bytes()
    for at in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(30))]:
        (copy / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=name):
            verify_dataset(copy)
    (copy / name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=name):
        verify_dataset(copy)
    make(copy)
    verify_dataset(copy)
    assert (
        contents(copy).keys() == contents(built).keys()
        and read_json(copy / "meta.json")["sha256"] == read_json(built / "meta.json")["sha256"]
    )


@pytest.mark.parametrize("name", ["meta.json", "labels.safetensors", "images-0001.npy"])
def test_the_reader_names_what_is_missing_or_cut_short(copy, name):
    whole = (copy / name).read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        (copy / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            open_dataset(copy)
    (copy / name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=name):
        open_dataset(copy)


def test_what_cannot_be_made_again_as_it_was_is_not_touched(copy):
    "Other code would give other bytes: a finished data set with a missing shard is then left as it is, and says so."
    shard_path(copy, 1).unlink()
    before = contents(copy)
    with pytest.raises(ValueError, match="images-0001.npy: made again it is not what it was"):
        make(copy, shard=lambda k, labels: np.zeros((len(labels["number"]), 8, 8, 3), np.uint8))
    after = contents(copy)
    assert {k: after[k] for k in before} == before and after.keys() - before.keys() <= {"progress.json"}


def test_another_configuration_or_painter_is_another_data_set(copy):
    with pytest.raises(ValueError, match="n_images: 1044 there, 1045 asked; seed: 0 there, 1 asked"):
        make(copy, n=N + 1, seed=1)
    write_json(copy / "config.json", read_json(copy / "config.json") | {"painter": "0"})
    with pytest.raises(ValueError, match="another painter"):
        make(copy)


def test_a_full_disk_is_seen_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match="GB needed"):
        make(tmp_path / "big")
    assert not (tmp_path / "big" / "config.json").exists()


def test_a_finished_data_set_needs_no_space(built, monkeypatch):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9, 0))
    make(built)


def test_a_leftover_temporary_file_does_not_lock_the_folder(tmp_path):
    (tmp_path / "config.json.123.tmp").write_text("{")
    make(tmp_path, n=3)
    assert sorted(contents(tmp_path)) == [
        "config.json",
        "images-0000.npy",
        "labels.safetensors",
        "meta.json",
    ]


def test_a_foreign_folder_is_not_written_to(tmp_path):
    (tmp_path / "thesis.txt").write_text("please keep")
    with pytest.raises(ValueError, match="not empty and not a data set"):
        make(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db"])
def test_what_a_file_browser_leaves_does_not_make_a_folder_foreign(tmp_path, name):
    (tmp_path / name).write_bytes(b"icons")
    make(tmp_path, n=3)
    verify_dataset(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "0",
        "null",
        "{}",
        '{"config": []}',
        '{"config": "n_images", "painter": "1"}',
        '{"model_type": "bert"}',
    ],
)
def test_a_damaged_or_foreign_configuration(built, copy, content):
    (copy / "config.json").write_text(content)
    with pytest.raises(
        ValueError,
        match="config.json: not the configuration of a data set, or damaged; choose another folder, or delete it "
        "and make the data set again",
    ):
        make(copy)
    (copy / "config.json").unlink()
    make(copy)
    assert contents(copy) == contents(built)


@pytest.mark.parametrize("name", ["meta.json", "labels.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"0", b"{}", b"\xff\xfe garbage", None])
def test_a_damaged_record_or_labels_are_not_a_finished_data_set(built, copy, name, content):
    "The error says to delete the file and make the data set again, and that works."
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[:-20] + b"1" + whole[-19:] if content is None else content)
    for use in (make, open_dataset):
        with pytest.raises(
            ValueError,
            match=rf"{name}: .*changed since .*; delete .* and make the data set again \(same call, same folder\)",
        ):
            use(copy)
    (copy / name).unlink()
    make(copy)
    assert contents(copy) == contents(built)


@pytest.mark.parametrize(
    "shape, dtype",
    [((3, 8, 8, 1), "uint8"), ((2, 8, 8, 3), "uint8"), ((3, 16, 16, 3), "uint8"), ((3, 8, 8, 3), "float32")],
)
def test_images_of_another_shape_or_type_are_not_stored(tmp_path, shape, dtype):
    expected = (
        rf"images-0000.npy: uint8 \(3, 8, 8, 3\) expected, got {dtype} {str(shape).replace('(', '.').replace(')', '.')}"
    )
    with pytest.raises(ValueError, match=expected):
        make(tmp_path, n=3, shard=lambda k, labels: np.zeros(shape, dtype))
    assert not shard_path(tmp_path, 0).exists()
    make(tmp_path, n=3)
    verify_dataset(tmp_path)


def test_a_read_only_data_set_can_be_used(built):
    "Nothing is written into a finished folder, not even a lock."
    mode = built.stat().st_mode
    os.chmod(built, 0o555)
    try:
        before = sorted(p.name for p in built.iterdir())
        make(built)
        verify_dataset(built)
        assert sorted(p.name for p in built.iterdir()) == before
    finally:
        os.chmod(built, mode)


def test_the_store_knows_nothing_of_faces():
    code = "import sys, mrl.data.store; print(*(m for m in sys.modules if m.startswith('mrl.')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert {name for name in found if not name.startswith("mrl.io")} == {"mrl.data", "mrl.data.store"}
