"Two processes against one: the same batch at every step, the same network at the end, and nothing left behind."

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mrl.io.files import load_tensors, read_json
from mrl.training.configuration import TrainConfig
from mrl.training.loop import train
from mrl.training.run import read_history

ROOT = Path(__file__).parent.parent
MRL = TrainConfig(
    run="mrl",
    n_images=256,
    image_size=32,
    n_components=8,
    width=0.06,
    batch_norm=False,
    steps=8,
    batch_size=16,
    eval_every=4,
    device="cpu",
    precision="fp32",
)
RUNS = {
    "mrl": MRL,
    "orbits": replace(MRL, run="orbits", cameras="true+uniform", camera_distance=1.5, unit=1000.0),
    "homoscedastic": replace(MRL, run="homoscedastic", loss="homoscedastic", clip=1.0),
    "log_terms": replace(MRL, run="log_terms", loss="log_terms"),
    "logarithms": replace(MRL, run="logarithms", disentangled=True, parts=3, logarithms=True),
}
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
import mrl.training.loop as m
from mrl.training.configuration import TrainConfig

torch.set_num_threads(1)
rank, (what, home, *configs) = os.environ["RANK"], sys.argv[1:]
configs = [TrainConfig(**json.loads(c)) for c in configs]
where = dict(results_dir=Path(home) / "results", data_dir=Path(home) / "datasets", progress=False)
(Path(home) / f"pid-{rank}").write_text(str(os.getpid()))
if what == "killed":  # the first process, once the first state is written
    save = m.save_state
    m.save_state = lambda *a: (save(*a), os.kill(os.getpid(), signal.SIGKILL))
said = []
for config in configs:
    if config.run == "wrong":  # virtual cameras of the process's own images
        m.of_whole_batch = lambda cameras, fabric: cameras
    try:
        said.append(str(m.train(config, **where).relative_to(where["results_dir"])))
    except ValueError as e:
        said.append(f"ValueError: {e}")
(Path(home) / f"said-{rank}.json").write_text(json.dumps(said))
"""


def torchrun(*command, home, options=()):
    "Run a command in two processes; its exit status and what it wrote."
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | {
        "OMP_NUM_THREADS": "1",
        "MRL_HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            *options,
            *map(str, command),
        ],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        return process.communicate(timeout=240)[0], process.returncode
    finally:
        process.terminate()  # torchrun takes its processes along
        process.wait()


def script(home, what, *configs):
    (home / "script.py").write_text(SCRIPT)
    out, status = torchrun(home / "script.py", what, home, *(json.dumps(asdict(c)) for c in configs), home=home)
    assert (status == 0) == (what != "killed"), out
    for rank in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((home / f"pid-{rank}").read_text()), 0)
    return [read_json(home / f"said-{rank}.json") for rank in (0, 1)] if status == 0 else out


def difference(a, b):
    "Largest absolute difference of weights, and largest relative one in the histories, of two runs."
    x, y = (load_tensors(f / "checkpoint.safetensors", "mrl.checkpoint")[0] for f in (a, b))
    rows = list(zip(read_history(a), read_history(b), strict=True))
    relative = [abs(p[k] - q[k]) / max(abs(p[k]), 1e-6) for p, q in rows for k in p if k != "images_per_s"]
    return max((x[k] - y[k]).abs().max().item() for k in x), max(relative)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, datasets):
    home = tmp_path_factory.mktemp("one")
    for config in RUNS.values():
        train(config, home / "results", datasets, progress=False)
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory, datasets):
    home = tmp_path_factory.mktemp("two")
    (home / "datasets").symlink_to(datasets)
    return home


@pytest.mark.slow
def test_two_processes_follow_the_path_of_one(alone, home):
    refused = [replace(MRL, lr=2e-3), replace(MRL, run="odd", batch_size=15)]
    said = script(home, "finish", *RUNS.values(), MRL, *refused, replace(MRL, run="wrong"))
    n = len(RUNS)
    assert said[0] == said[1] and said[0][: n + 1] == [*RUNS, "mrl"]  # the last was complete
    assert "holds another run (lr: 0.001 there, 0.002 asked)" in said[0][n + 1]
    assert said[0][n + 2] == "ValueError: batch_size: expected a multiple of the number of processes (2), got 15"
    assert not (home / "results/odd").exists() and not list(home.glob("results/**/*.tmp"))
    for name in RUNS:
        one, two = alone / "results" / name, home / "results" / name
        weights, history = difference(one, two)
        assert weights < 5e-5 and history < 1e-4
        assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
        assert [read_json(f / "config.json")["processes"] for f in (one, two)] == [1, 2]
    weights, history = difference(alone / "results/mrl", home / "results/wrong")
    assert weights > 1e-3 and history > 1e-2  # the test would notice


@pytest.mark.slow
def test_a_killed_run_resumes_with_one_process_and_with_two_notebooks(alone, home):
    config = replace(MRL, run="killed")
    out = script(home, "killed", config)
    assert "Signal 9 (SIGKILL)" in out
    folder = home / "results/killed"
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "morphable.safetensors",
        "run.lock",
        "state.pt",
    ]
    shutil.copytree(folder, home / "one/killed")
    one = train(config, home / "one", home / "datasets", progress=False)
    parameters = [word for k, v in asdict(config).items() if v != getattr(TrainConfig, k) for word in ("-p", k, str(v))]
    notebooks = f"nbs/train.ipynb {home}/out-$RANK.ipynb -k python3 --no-progress-bar"
    papermill = f"{sys.executable} -m papermill {notebooks} {' '.join(parameters)}"
    out, status = torchrun("bash", "-c", papermill, home=home, options=["--no-python"])
    assert status == 0, out
    for resumed, processes in ((one, 1), (folder, 2)):
        weights, history = difference(alone / "results/mrl", resumed)
        assert weights < 5e-5 and history < 1e-4 and [r["step"] for r in read_history(resumed)] == [4, 8]
        record = read_json(resumed / "config.json")
        assert record["processes"] == 2 and record.get("resumed", [{}])[0].get("processes", 2) == processes
    for rank in (0, 1):  # every process has the three figures and the table
        cells = json.loads((home / f"out-{rank}.ipynb").read_text())["cells"]
        kinds = [kind for c in cells for o in c.get("outputs", []) for kind in o.get("data", {})]
        assert kinds.count("application/vnd.plotly.v1+json") == 3 and kinds.count("text/markdown") == 1


def test_import_does_not_need_lightning():
    code = "import sys, mrl.training.loop; print([m for m in sys.modules if 'lightning' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"
