"""Kill long work at random moments, run it again, and count what is not as it would have been without the kill.

    python benchmarks/faults.py build train study sweep evaluate [--trials 20] [--out results/faults]

A trial starts the work in a session of its own and kills, with SIGKILL, either the process or its whole group. It then
waits until every process of the trial has ended, repeats the work, and compares its files with those of undisturbed
work. Only processes that carry the mark of the trial in their environment are looked at, and only they are killed.
`two` starts the same training twice at once, and another one under its name. `flip` changes single bits of the files
of a run, a data set and a sweep, and reads them. For each kind a file in `--out` holds every trial with commit and
configuration.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SIZE = dict(n_images=512, image_size=32)
TINY = dict(SIZE, n_components=8, width=0.06, steps=60, batch_size=16, eval_every=10, device="cpu", precision="fp32")
COMMON = f"""
import sys
from dataclasses import replace
from pathlib import Path
from mrl.training.configuration import TrainConfig
home = Path(sys.argv[1])
TINY = {TINY!r}
where = dict(results_dir=home / "results", data_dir=home / "datasets")
"""
WORK = {
    "build": """
from mrl.training.preparation import dataset_of
dataset_of(TrainConfig(**TINY), home / "datasets")
""",
    "train": """
from mrl.training.loop import train
train(TrainConfig(run="killed", **TINY), **where)
""",
    "study": """
from mrl.study.execution import run_study
runs = {f"study/x/{loss}": TINY | dict(loss=loss) for loss in ("mrl", "reprojection")}
run_study(runs, jobs=2, home=home)
""",
    "sweep": """
from mrl.study.sweeps import Sweep, held_out, sweep_run
from mrl.training.loop import train
train(TrainConfig(run="swept", **TINY), **where)
sweeps = {"yaw": Sweep("yaw (degrees)", ("yaw",), ((-30.0,), (0.0,), (30.0,)))}
sweep_run("swept", "sweeps", sweeps, lambda population: {"yaw": held_out(population, 60)}, home=home)
""",
    "evaluate": """
from mrl.scans.lookalike import build_lookalike
from mrl.scans.methods import MiccCase, evaluate, methods_of
from mrl.scans.micc import read_micc
from mrl.scans.protocols import PROTOCOLS
from mrl.scans.report import own_report, write_report
look = home / "look"
if not (look / "truth.json").exists():
    import shutil
    shutil.rmtree(look, ignore_errors=True)  # half of a look-alike, from a killed trial
    build_lookalike(look, 2, frames=3, spacing=2.5)
subjects, _ = read_micc(look / "micc", look / "annotations", None)
cases, protocols = [MiccCase(s) for s in subjects], [PROTOCOLS["now"]]
methods = methods_of("", [], ["Indoor-Cooperative"])
with own_report(home / "results" / "micc", cases, protocols, methods):
    write_report(home / "results" / "micc", evaluate(cases, protocols, methods, 2), protocols, {}, {})
""",
}
DONE = {  # what is compared with undisturbed work
    "build": ("datasets/*/*",),
    "train": ("datasets/*/*", "results/killed/*"),
    "study": ("results/study/x/*/*.*",),
    "sweep": ("results/sweeps/*",),
    "evaluate": ("results/micc/*",),
}
STRAY = (".tmp", ".lock", "progress.json", "state.pt")


def start(work, home, mark):
    "Return a process in a session of its own that does some work, marked in its environment."
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MRL_FAULTS": mark, "OMP_NUM_THREADS": "1"}
    code = COMMON + WORK.get(work, work)
    log = open(f"{home}.log", "a")
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home)], env=environment, stdout=log, stderr=log, start_new_session=True
    )


def marked(mark):
    "Return the processes of a trial that still run."
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("MRL_FAULTS") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def content(home, kind):
    "Return the hashes of finished work by path, without speeds, and the stray files."
    found = {}
    for path in sorted(p for pattern in DONE[kind] for p in Path(home).glob(pattern) if p.is_file()):
        data = path.read_bytes()
        if path.name in ("history.csv", "SHA256SUMS", "train.ipynb"):  # they hold or hash times
            data = b"".join(line.split(b",")[1] for line in data.splitlines()) if path.suffix == ".csv" else b""
        found[str(path.relative_to(home))] = hashlib.sha256(data).hexdigest()
    stray = [str(p.relative_to(home)) for p in Path(home).rglob("*") if p.name.endswith(STRAY)]
    return found, stray


def wait_until_gone(mark, seconds=30):
    "Return how long processes of a trial outlived its kill (s), None if some had to be killed here."
    began = time.time()
    while time.time() < began + seconds:
        if not marked(mark):
            return round(time.time() - began, 1)
        time.sleep(0.2)
    for process in marked(mark):
        process.kill()
    return None


def kill_trial(kind, whole, duration, folder, rng, i):
    "Kill work at a random moment and repeat it; return what was found."
    home, mark, group = folder / f"{kind}-{i}", f"{os.getpid()}-{kind}-{i}", bool(i % 2)
    give_data(kind, folder, home)
    moment = rng.uniform(*duration)
    process = start(kind, home, mark)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    ended = process.poll() is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
    process.wait()
    outlived = wait_until_gone(mark)
    left = [str(p.relative_to(home)) for p in home.rglob("*") if p.name.endswith(STRAY)]
    again = start(kind, home, mark)
    code = again.wait()
    found, stray = content(home, kind)
    differs = sorted(k for k in whole.keys() | found.keys() if whole.get(k) != found.get(k))
    failed = bool(code or stray or differs or outlived is None)
    if not failed:
        shutil.rmtree(home, ignore_errors=True)
    return dict(
        moment_s=round(moment, 1), killed="group" if group else "process", ended_before=ended, outlived_s=outlived,
        left_by_the_kill=left, exit_of_the_repetition=code, stray=stray, differs=differs, failed=failed,
    )  # fmt: skip


def give_data(kind, folder, home):
    "Copy the data set to where work needs it: rendering is killed in `build`."
    if kind in ("train", "study", "sweep"):
        data = folder / "data" / "datasets"
        if not data.exists():
            assert start("build", folder / "data", "data").wait() == 0
        shutil.copytree(data, home / "datasets")


def kills(kind, trials, folder, seed):
    "Return when undisturbed work writes its first and its last file (s), and the trials of one kind of work."
    home = folder / f"{kind}-whole"
    give_data(kind, folder, home)
    began, first = time.time(), None
    process = start(kind, home, f"{os.getpid()}-whole")
    while process.poll() is None:
        if first is None and any(p.is_file() for name in ("results", "look") for p in (home / name).rglob("*")):
            first = time.time() - began
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{kind} fails without a kill: {Path(f'{home}.log').read_text()}")
    duration = first or 0.3 * (time.time() - began), time.time() - began
    whole, stray = content(home, kind)
    assert whole and not stray, stray
    rng, done = random.Random(f"{kind} {seed}"), []
    for i in range(trials):
        done.append(kill_trial(kind, whole, duration, folder, rng, i))
        print(kind, i, done[-1], flush=True)
    return {"first_and_last_file_s": [round(t, 1) for t in duration], "files": len(whole), "trials": done}


def two(trials, folder):
    "Return trials of two trainings at once under one name: of the same configuration, and of different ones."
    done = []
    for i in range(trials):
        same, home, mark = i % 2 == 0, folder / f"two-{i}", f"{os.getpid()}-two-{i}"
        give_data("train", folder, home)
        other = WORK["train"] if same else WORK["train"].replace("**TINY", '**TINY | dict(loss="reprojection")')
        processes = [start(work, home, mark) for work in (WORK["train"], other)]
        codes = sorted(p.wait() for p in processes)
        stray = content(home, "train")[1]
        check = "from mrl.training.run import Run; Run.load(home / 'results' / 'killed')"
        read = start(check, home, mark).wait()
        failed = bool(codes != ([0, 0] if same else [0, 1]) or read or stray)
        done.append(dict(same=same, exits=codes, reads=not read, stray=stray, failed=failed))
        print("two", i, done[-1], flush=True)
    return {"trials": done}


READERS = """
import json, random, shutil
from mrl.data.dataset import FaceImages
from mrl.io.files import read_json
from mrl.study.sweeps import load_errors
from mrl.training.loop import train
from mrl.training.run import Run, read_faces, read_history
data = next((home / "datasets").glob("faces-*"))
run, rng, found = home / "results" / "swept", random.Random(0), []
def images(path):
    split = FaceImages(data, "all")
    split.__getitems__(list(range(len(split))))
readers = {
    run / "config.json": lambda path: Run.load(run),
    run / "morphable.safetensors": lambda path: Run.load(run),
    run / "checkpoint.safetensors": lambda path: Run.load(run),
    run / "metrics.json": read_json,
    run / "history.csv": lambda path: read_history(run),
    run / "faces.csv": lambda path: read_faces(run),
    data / "meta.json": images,
    data / "labels.safetensors": images,
    data / "images-0000.npy": images,
    home / "results" / "sweeps" / "swept.safetensors": load_errors,
}
for path, read in readers.items():
    whole = path.read_bytes()
    for i in range(int(sys.argv[2])):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1:])
        try:
            read(path)
            said = None
        except (ValueError, OSError) as e:
            said = str(e)
        except Exception as e:
            said = f"{type(e).__name__}: {e}"
        found.append(dict(file=path.name, byte=at, bit=bit, said=said, failed=path.name not in (said or "")))
    path.write_bytes(whole)
    read(path)
(home / "flips.json").write_text(json.dumps(found))
"""


def flips(trials, folder):
    "Return trials of single flipped bits in every kind of file that is read back."
    home = folder / "flip"
    assert start("sweep", home, "flip").wait() == 0, f"see {home}.log"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", COMMON + READERS, str(home), str(trials)], env=environment, check=True)
    return {"trials": json.loads((home / "flips.json").read_text())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", choices=[*WORK, "two", "flip"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from mrl.io.files import write_json
    from mrl.training.run import commit

    failures = 0
    with tempfile.TemporaryDirectory(prefix="mrl faults ä ") as folder:  # a blank and an umlaut in every path
        for kind in args.kinds:
            about = {"commit": commit(), "kind": kind, "seed": args.seed, "config": TINY, "work": WORK.get(kind, "")}
            if kind == "two":
                found = two(args.trials, Path(folder))
            elif kind == "flip":
                found = flips(args.trials, Path(folder))
            else:
                found = kills(kind, args.trials, Path(folder), args.seed)
            failed = sum(t["failed"] for t in found["trials"])
            write_json(args.out / f"{kind}.json", about | {"failures": failed} | found)
            print(f"{kind}: {failed} of {len(found['trials'])} trials failed", flush=True)
            failures += failed
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
