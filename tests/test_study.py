"""The study's runner: what is missing is run, what is there is kept, one failure does not stop the rest."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from mrl.io.files import ROOT, read_json
from mrl.study.comparison import seeds_by_people
from mrl.study.execution import is_complete, load_study, run_study
from mrl.study.runs import long_runs, study_runs
from mrl.training.run import read_history

TINY = dict(
    n_images=256,
    image_size=32,
    n_components=8,
    width=0.06,
    steps=4,
    batch_size=16,
    eval_every=2,
    device="cpu",
    precision="fp32",
)


RUNS = {
    "study/rivals/mrl": TINY,
    "study/long/mrl-0": TINY | dict(seed=5, steps=60),
    "study/x/diverges": TINY | dict(lr=1e30),
}


def seen(home, run):
    return {p.name: p.stat().st_mtime_ns for p in (home / "results" / run).iterdir()}


def study_killed_in(run, runs, home):
    "Start a study, kill it with all its processes at the first checkpoint of a run; return the run's evaluations."
    code = f"from mrl.study.execution import *\nrun_study({runs!r}, jobs=1, home={str(home)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = home / "results" / run
    deadline = time.time() + 300
    while not (folder / "state.pt").exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # the kernel notices that its parent is gone
    process.wait()
    time.sleep(3)
    assert (folder / "state.pt").exists() and not is_complete(run, runs[run], home / "results")
    return read_history(folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, datasets):
    "A study that was killed: its first run is complete, the second has begun, the third has not."
    home = tmp_path_factory.mktemp("home")
    (home / "datasets").symlink_to(datasets)
    done = study_killed_in("study/long/mrl-0", RUNS, home)
    return home, seen(home, "study/rivals/mrl"), len(done)


@pytest.fixture(scope="module")
def resumed(killed):
    "The killed study, started again, two runs at a time; what it said at the end."
    home, *_ = killed
    with pytest.raises(RuntimeError) as said:
        run_study(RUNS, jobs=2, home=home)
    return home, str(said.value)


@pytest.mark.slow
def test_a_killed_study_goes_on(killed, resumed):
    "What is complete is left alone, and what had begun resumes at its last checkpoint."
    home, complete, done = killed
    assert seen(home, "study/rivals/mrl") == complete and 0 < done < 30
    run = "study/long/mrl-0"
    assert is_complete(run, RUNS[run], home / "results")
    history = read_history(home / "results" / run)
    assert [r["step"] for r in history] == list(range(2, 61, 2))


@pytest.mark.slow
def test_a_failure_is_named_and_the_others_are_run(resumed):
    "What diverges is reported; the rest can be read."
    home, said = resumed
    assert re.search(r"1 of 3 runs failed.*\nstudy/x/diverges: .*diverged", said)
    study = load_study(results_dir=home / "results")
    assert set(study) == {"rivals/mrl", "long/mrl-0"}
    values, images = seeds_by_people(study, ["mrl"], "shape")
    assert values["mrl"].shape == (1, len(images)) and (values["mrl"] @ images)[0] / images.sum() == pytest.approx(
        study["long/mrl-0"]["metrics"]["test"]["shape"]["mean"], rel=1e-5
    )
    changes = {"seed": 5, "steps": 60, "run": "study/long/mrl-0"}
    assert study["long/mrl-0"]["config"] == study["rivals/mrl"]["config"] | changes


@pytest.mark.slow
def test_another_configuration_under_a_name_is_refused(killed):
    home, *_ = killed
    with pytest.raises(ValueError, match="holds another run .*lr"):
        run_study({"study/rivals/mrl": TINY | dict(lr=0.5)}, home=home)


@pytest.mark.slow
def test_the_same_call_spreads_over_a_dask_cluster(killed, datasets, tmp_path):
    from distributed import Client, LocalCluster

    home, *_ = killed
    (tmp_path / "datasets").symlink_to(datasets)
    runs = {f"study/dask/{loss}": TINY | dict(loss=loss) for loss in ("mrl", "reprojection")}
    kept = dict(os.environ)
    try:
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            assert len(client.scheduler_info()["workers"]) == 2
            run_study(runs, scheduler=cluster.scheduler_address, home=tmp_path)
            ran = client.run(lambda: "MRL_HOME" in os.environ)
    finally:
        os.environ.clear()
        os.environ.update(kept)
    assert all(is_complete(r, p, tmp_path / "results") for r, p in runs.items())
    assert sum(ran.values()) == 2  # either worker did one
    here, there = (
        read_json(h / f"results/study/{run}/metrics.json") for h, run in ((home, "rivals/mrl"), (tmp_path, "dask/mrl"))
    )
    assert here == there  # one configuration, one result


def test_no_two_runs_are_the_same():
    runs = {r: p for r, p in study_runs(width=0.5).items() if "/again/" not in r}
    assert len({tuple(sorted(p.items())) for p in runs.values()}) == len(runs)
    long = long_runs({"Best pose": "alpha100-beta0.1-gamma0"}, seeds=2, width=0.5)
    assert all(p["width"] == 0.5 and p["steps"] == 4000 and p["test"] for p in long.values())
