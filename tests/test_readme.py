"The README: its snippet, its commands and its numbers."

import csv
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from mrl.io.files import read_json
from mrl.study.comparison import headline
from mrl.study.execution import load_study
from mrl.study.findings import rate_table, seed_ratio

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REPOSITORY = ConfigParser()
REPOSITORY.read(ROOT / "settings.ini")
SHOWN = ("reprojection", "shape", "camera_position", "camera_rotation")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_snippet_runs_as_pasted(tmp_path):
    "The snippet, in another folder; what it prints is a loss in pixels. That PyTorch is enough: test_package.py."
    (snippet,) = blocks("python")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{snippet}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    number, unit = done.stdout.split()
    assert 1 < float(number) < 100 and unit == "px", done.stderr


def test_commands_are_known():
    "Each command is one of those that the tests below run."
    url = f"https://github.com/{REPOSITORY['DEFAULT']['user']}/{REPOSITORY['DEFAULT']['repo']}"
    install = ["pip install torch", f"pip install --no-deps git+{url}"]
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert commands == [*install, f"git clone {url}", f"cd {url.split('/')[-1]}", "make train"]
    assert f"url     = {{{url}}}" in README and f"version = {{{REPOSITORY['DEFAULT']['version']}}}" in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)`", README))))
def test_targets_of_make(target):
    "make finds each target and what it needs; test_notebooks.py executes the notebooks of `train` and `data`, small."
    done = subprocess.run(["make", "-n", target], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for notebook in re.findall(r"papermill (?:--\S+ )*(\S+)", done.stdout):
        assert (ROOT / notebook).exists()


def test_no_target_of_make_trains_into_a_run_that_ships():
    runs = re.findall(r"-p run (\S+)", (ROOT / "Makefile").read_text())
    assert runs and not any((ROOT / "results" / name / "config.json").exists() for name in runs)


@pytest.mark.slow
def test_clone_and_install(tmp_path):
    "The clone has what `make train` starts from, and its wheel without dependencies gives the loss of the snippet."
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "mrl"], check=True, timeout=300)
    done = subprocess.run(["make", "-n", "train"], capture_output=True, text=True, cwd=tmp_path / "mrl")
    (papermill,) = (shlex.split(line) for line in done.stdout.splitlines() if "papermill" in line)
    notebook = next(word for word in papermill if word.endswith(".ipynb"))
    assert (tmp_path / "mrl" / notebook).exists() and papermill[-2:] == ["loss", "mrl"]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    # no git+file://: pip asks for a clone without blobs, which git 2.39 never ends where the source is a shallow clone
    subprocess.run([*pip, tmp_path / "site", tmp_path / "mrl"], check=True, timeout=300)
    code = "import mrl; print(mrl.__file__)\n" + blocks("python")[0]
    snippet = {"capture_output": True, "text": True, "cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path / "site")}}
    done = subprocess.run([sys.executable, "-c", code], **snippet)
    assert str(tmp_path / "site") in done.stdout and done.stdout.endswith(" px\n"), done.stderr


def test_results_are_the_long_runs():
    "The four rows follow from results/study/long, so does the mean face."
    study = load_study(ROOT / "results/study")
    rows = {name.split(" (")[0]: row for name, row in headline(study).items()}
    table = README.split("<!-- headline -->")[1].split("<!-- /headline -->")[0].strip().splitlines()[2:]
    assert len(table) == 4
    for line in table:
        name, *cells, seeds = (cell.strip() for cell in line.strip("|").split("|"))
        assert cells == ["{:.2f} [{:.2f}, {:.2f}]".format(*rows[name][k]) for k in SHOWN]
        assert seeds == str(rows[name]["seeds"])
    knows_nothing = study["long/mrl-0"]["metrics"]["test_controls"]["mean face, mean pose"]["shape"]["mean"]
    assert f"mean pose has a shape error of {knows_nothing:.2f} mm" in README


def test_the_settled_runs_say_what_the_readme_says():
    test = {r: read_json(ROOT / f"results/study/settled/{r}-0/metrics.json")["test"] for r in ("mrl", "log-mrl")}
    smaller = {k: 1 - test["log-mrl"][k]["mean"] / test["mrl"][k]["mean"] for k in ("reprojection", "shape")}
    said = (
        f"a {smaller['reprojection']:.0%} smaller reprojection error and a {smaller['shape']:.0%} smaller shape error"
    )
    assert said.replace("%", " %") in README
    config = read_json(ROOT / "results/study/settled/mrl-0/config.json")["config"]
    assert f"({config['steps']:,} steps, one seed)" in README


def test_the_sum_at_its_best_rate_is_what_the_readme_says():
    study = load_study(ROOT / "results/study")
    runs = rate_table(study)
    error = lambda run, k: study[run]["metrics"]["val"][k]["mean"]
    larger = {}
    for loss in ("log-mrl", "sum", "oracle"):
        fewest = min(error(row[loss], "reprojection") for row in runs.values())
        near = [row[loss] for row in runs.values() if error(row[loss], "reprojection") < 1.01 * fewest]
        best = min(near, key=lambda run: error(run, "shape"))
        larger[loss] = {k: error(best, k) for k in ("shape", "reprojection")}
    percent = lambda loss, k: f"{100 * (larger[loss][k] / larger['log-mrl'][k] - 1):.0f} %"
    assert f"a {percent('sum', 'shape')} larger shape error and a {percent('sum', 'reprojection')} larger" in README
    assert f"a {percent('oracle', 'shape')} and a {percent('oracle', 'reprojection')} larger one" in README
    ratios = (f"{100 * (seed_ratio(study, k) - 1):.0f} %" for k in ("shape", "reprojection"))
    assert f"Differences below {' and '.join(ratios)} are not resolved" in README


def test_what_the_log_sum_loss_trades():
    rows = {name.split(" (")[0]: row for name, row in headline(load_study(ROOT / "results/study")).items()}
    ours, terms = rows["disentangled log-MRL"], rows["log-sum multi-term loss in the camera frame"]
    ratio = {k: 100 * (terms[k][0] / ours[k][0] - 1) for k in ("shape", "camera_rotation", "reprojection")}
    assert f"a {-ratio['shape']:.0f} % smaller shape error than disentangled log-MRL" in README
    assert (
        f"a {-ratio['camera_rotation']:.0f} % smaller rotation error, and a {ratio['reprojection']:.0f} % larger"
        in README
    )


def test_training_takes_what_is_said():
    "Time and disk of `make train` and `make data`, and the errors of the first, from results/."
    folder = ROOT / "results/reference/mrl-0"
    config, test = read_json(folder / "config.json")["config"], read_json(folder / "metrics.json")["test"]
    assert (
        f"error of {test['reprojection']['mean']:.2f} px and a shape error of {test['shape']['mean']:.2f} mm" in README
    )
    with open(folder / "history.csv") as f:
        speeds = [float(row["images_per_s"]) for row in csv.DictReader(f)]
    rendered = {
        s: v["images_per_second"]["2"] for s, v in read_json(ROOT / "results/throughput/render.json")["sizes"].items()
    }
    train = config["n_images"] / rendered["64"] + config["steps"] * config["batch_size"] / (sum(speeds) / len(speeds))
    for command, minutes, gigabytes in (
        ("train", train / 60, config["n_images"] * 64 * 64 * 3e-9),
        ("data", 50_000 / rendered["128"] / 60, 50_000 * 128 * 128 * 3e-9),
    ):
        said = re.search(rf"\| `make {command}` \| about (\d+) minutes \| ([\d.]+) GB", README)
        assert abs(float(said[1]) / minutes - 1) < 0.2 and abs(float(said[2]) / gigabytes - 1) < 0.1


def test_it_is_short():
    assert len(README.splitlines()) <= 135
