"""The study's runner: what is missing is run, what is there is kept, one failure does not stop the rest."""

import os
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


@pytest.fixture(scope="module")
def home(tmp_path_factory, datasets):
    "Two runs that exist, and one that was not begun."
    home = tmp_path_factory.mktemp("home")
    (home / "datasets").symlink_to(datasets)
    runs = {"study/rivals/mrl": TINY, "study/rivals/other": TINY | dict(loss="geometric_alignment")}
    run_study(runs, jobs=2, home=home)
    return home, runs


def seen(home, run):
    return {p.name: p.stat().st_mtime_ns for p in (home / "results" / run).iterdir()}


@pytest.mark.slow
def test_a_failure_is_named_and_the_others_are_run(home):
    "What is complete is left alone, what is missing is run, what diverges is reported."
    home, runs = home
    before = {run: seen(home, run) for run in runs}
    more = {"study/x/diverges": TINY | dict(lr=1e30), "study/long/mrl-0": TINY | dict(seed=5)}
    with pytest.raises(RuntimeError, match=r"1 of 4 runs failed.*\nstudy/x/diverges: .*diverged"):
        run_study(runs | more, jobs=1, home=home)
    assert {run: seen(home, run) for run in runs} == before
    study = load_study(results_dir=home / "results")
    assert set(study) == {"rivals/mrl", "rivals/other", "long/mrl-0"}
    values, images = seeds_by_people(study, ["mrl"], "shape")
    assert values["mrl"].shape == (1, len(images)) and (values["mrl"] @ images)[0] / images.sum() == pytest.approx(
        study["long/mrl-0"]["metrics"]["test"]["shape"]["mean"], rel=1e-5
    )
    assert study["long/mrl-0"]["config"] == study["rivals/mrl"]["config"] | {"seed": 5, "run": "study/long/mrl-0"}


def test_another_configuration_under_a_name_is_refused(home):
    home, runs = home
    with pytest.raises(ValueError, match="holds another run .*lr"):
        run_study({"study/rivals/mrl": TINY | dict(lr=0.5)}, home=home)


@pytest.mark.slow
def test_a_killed_study_goes_on(home):
    "Killed with all its processes at some checkpoint, and started again."
    home, _ = home
    run, parameters = "study/x/killed", TINY | dict(steps=100)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from mrl.study.execution import *\nrun_study({{{run!r}: {parameters!r}}}, jobs=1, home={str(home)!r})",
        ],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = home / "results" / run
    deadline = time.time() + 60
    while not (folder / "state.pt").exists() and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # the kernel notices that its parent is gone
    process.wait()
    time.sleep(3)
    assert (folder / "state.pt").exists() and not is_complete(run, parameters, home / "results")
    done = len(read_history(folder))
    run_study({run: parameters}, jobs=1, home=home)
    assert is_complete(run, parameters, home / "results") and 0 < done < 50
    assert [r["step"] for r in read_history(folder)] == list(range(2, 101, 2))


@pytest.mark.slow
def test_the_same_call_spreads_over_a_dask_cluster(home, datasets, tmp_path):
    from distributed import Client, LocalCluster

    home, _ = home
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
