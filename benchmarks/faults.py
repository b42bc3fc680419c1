"""Kill long work at random moments, run it again, and count what is not as it would have been without the kill.

    python benchmarks/faults.py build train notebook study sweep evaluate [--trials 20] [--out results/faults]

A trial does the work in a child of this process with a session of its own, and kills the child, its whole group or one
of its workers (a kernel, a renderer) with SIGKILL, or interrupts it with SIGINT or SIGTERM. It then waits until every
process of the trial has ended, repeats the work, and compares its files with those of undisturbed work. Only processes
of the trial's session, or with its mark in their environment, are looked at, and only they are killed. Children have
the libraries, the population and its face model from their parent, so that a trial takes seconds and not minutes.
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
import traceback
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SIZE = dict(n_images=128, image_size=32)
TINY = dict(SIZE, n_components=8, width=0.06, steps=24, batch_size=8, eval_every=3, device="cpu", precision="fp32")
IMAGES_PER_FILE = 16  # in `build`, so that a small data set has files to be killed between
KILLS = ("process", "group", "worker", "SIGINT", "SIGTERM")
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
    "notebook": """
import os
import papermill
from mrl.io.files import ROOT
os.environ["MRL_HOME"] = str(home)
notebook = str(ROOT / "nbs" / "train.ipynb")
(home / "results").mkdir(parents=True, exist_ok=True)
out = str(home / "results" / "out.ipynb")
papermill.execute_notebook(notebook, out, dict(run="killed", **TINY), progress_bar=False)
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
from mrl.scans.evaluation import evaluate
from mrl.scans.methods import MiccCase, methods_of
from mrl.scans.micc import read_micc
from mrl.scans.protocols import PROTOCOLS
from mrl.scans.report import own_report, write_report
look = home / "look"
subjects, _ = read_micc(look / "micc", look / "annotations", look / "ganfit")
cases, protocols = [MiccCase(s) for s in subjects], [PROTOCOLS["now"]]
methods = methods_of("", [], ["Indoor-Cooperative"])
with own_report(home / "results" / "micc", cases, protocols, methods):
    write_report(home / "results" / "micc", evaluate(cases, protocols, methods), protocols, {}, {})
""",
}
LOOKALIKE = """
from mrl.scans.lookalike import build_lookalike
build_lookalike(home / "look", 2, frames=3, spacing=2.5)
"""
DONE = {  # what is compared with undisturbed work
    "build": ("datasets/*/*",),
    "train": ("datasets/*/*", "results/killed/*"),
    "notebook": ("datasets/*/*", "results/killed/*"),
    "study": ("results/study/x/*/*.*",),
    "sweep": ("results/sweeps/*",),
    "evaluate": ("results/micc/*",),
}
STRAY = (".tmp", ".lock", "progress.json", "state.pt")


class Child:
    "A child of this process with a session of its own."

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, seconds=900):
        end = time.time() + seconds
        while self.poll() is None:
            if time.time() > end:
                raise subprocess.TimeoutExpired("the work of a trial", seconds)
            time.sleep(0.02)
        return self.returncode

    def work_done(self):
        "Return the processor time that this child and those that it started have had (s): a clock that load spares."
        total = 0.0
        with suppress(psutil.Error):
            own = psutil.Process(self.pid)
            for process in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    total += sum(process.cpu_times()[:2])
        return total

    def processes(self, mark):
        "Return the processes of this child's session and those with a mark, as far as they run."
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                own = os.getsid(process.pid) == self.pid or process.environ().get("MRL_FAULTS") == mark
                if own and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def start(work, home, mark):
    "Return a child that does some work."
    home.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return Child(pid)
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        log = os.open(f"{home}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        os.environ |= {"PYTHONPATH": str(ROOT), "MRL_FAULTS": mark, "OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"}
        sys.argv = ["-c", str(home)]
        exec(COMMON + WORK.get(work, work), {"__name__": "__main__"})
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def preload(kinds):
    "Import what the work needs, and keep the population and its face model for all trials."
    import mrl.faces.morphable
    import mrl.faces.population
    import mrl.scans.lookalike
    import mrl.scans.report
    import mrl.study.execution
    import mrl.study.sweeps
    import mrl.training.loop

    load, make = mrl.faces.population.load_population, mrl.faces.morphable.morphable_model_of
    kept, models = lru_cache(load), {}

    def model_of(population, identities, n_components=64, expressions=None):
        key = bytes(identities), n_components
        if expressions or key not in models:
            return models.setdefault(key, make(population, identities, n_components, expressions))
        return models[key]

    for module in [m for name, m in sys.modules.items() if name.startswith("mrl.")]:
        for name, old, new in (("load_population", load, kept), ("morphable_model_of", make, model_of)):
            if vars(module).get(name) is old:
                setattr(module, name, new)
        if "build" in kinds and "SHARD" in vars(module):
            module.SHARD = IMAGES_PER_FILE
    kept()


def content(home, kind):
    "Return the hashes of finished work by path, without speeds, and the stray files."
    found = {}
    for path in sorted(p for pattern in DONE[kind] for p in Path(home).glob(pattern) if p.is_file()):
        data = path.read_bytes().replace(str(home).encode(), b"home")
        if path.name in ("history.csv", "SHA256SUMS", "train.ipynb"):  # they hold or hash times
            data = b"".join(line.split(b",")[1] for line in data.splitlines()) if path.suffix == ".csv" else b""
        found[str(path.relative_to(home))] = hashlib.sha256(data).hexdigest()
    stray = [str(p.relative_to(home)) for p in Path(home).rglob("*") if p.name.endswith(STRAY)]
    return found, stray


def wait_until_gone(child, mark, seconds=30):
    "Return how long processes of a trial outlived its kill (s), None if some had to be killed here."
    began = time.time()
    while time.time() < began + seconds:
        if not child.processes(mark):
            return round(time.time() - began, 1)
        time.sleep(0.2)
    for process in child.processes(mark):
        process.kill()
    return None


def strike(child, mark, how, rng):
    "Kill or interrupt a trial in one of the ways of `KILLS`; return what was hit."
    with suppress(ProcessLookupError, psutil.Error):
        if how == "group":
            os.killpg(child.pid, signal.SIGKILL)
        elif how.startswith("SIG"):
            os.killpg(child.pid, getattr(signal, how))
        else:
            workers = [p for p in child.processes(mark) if p.pid != child.pid] if how == "worker" else []
            if workers:
                rng.choice(workers).kill()
                return how
            os.kill(child.pid, signal.SIGKILL)
            return "process"
    return how


def kill_trial(kind, whole, duration, folder, rng, i):
    "Disturb work at a random moment and repeat it; return what was found."
    home, mark = folder / f"{kind}-{i}", f"{os.getpid()}-{kind}-{i}"
    give_data(kind, folder, home)
    moment = rng.uniform(*duration)
    child = start(kind, home, mark)
    while child.poll() is None and child.work_done() < moment:
        time.sleep(0.05)
    ended = child.poll() is not None
    hit = "nothing" if ended else strike(child, mark, KILLS[i % len(KILLS)], rng)
    child.wait()
    outlived = wait_until_gone(child, mark)
    left = [str(p.relative_to(home)) for p in home.rglob("*") if p.name.endswith(STRAY)]
    code = start(kind, home, mark).wait()
    found, stray = content(home, kind)
    differs = sorted(k for k in whole.keys() | found.keys() if whole.get(k) != found.get(k))
    failed = bool(code or stray or differs or outlived is None)
    if not failed:
        shutil.rmtree(home, ignore_errors=True)
    return dict(
        moment_cpu_s=round(moment, 2), hit=hit, exit=child.returncode, outlived_s=outlived, left_by_the_kill=left,
        exit_of_the_repetition=code, stray=stray, differs=differs, failed=failed,
    )  # fmt: skip


@lru_cache
def made(name, work, folder):
    "Return a folder that some work was done in once, for all trials."
    assert start(work, folder / name, name).wait() == 0, f"see {folder / name}.log"
    return folder / name


def give_data(kind, folder, home):
    "Copy what work needs and is not killed in it."
    if kind in ("train", "notebook", "study", "sweep", "two"):
        shutil.copytree(made("data", "build", folder) / "datasets", home / "datasets")
    if kind == "evaluate":
        shutil.copytree(made("lookalike", LOOKALIKE, folder) / "look", home / "look")


def kills(kind, trials, folder, seed, keep):
    "Return the processor time of undisturbed work up to its first and its last file (s), and the trials of its kind."
    home = folder / f"{kind}-whole"
    give_data(kind, folder, home)
    process, first, last = start(kind, home, f"{os.getpid()}-whole"), None, 0.0
    while process.poll() is None:
        last = max(last, process.work_done())
        if first is None and any(p.is_file() for p in home.glob(DONE[kind][-1])):
            first = last
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{kind} fails without a kill: {Path(f'{home}.log').read_text()}")
    duration = 0.7 * (first or 0), last
    whole, stray = content(home, kind)
    assert whole and not stray, stray
    rng, done = random.Random(f"{kind} {seed}"), []
    found = {"first_and_last_file_cpu_s": [round(t, 1) for t in duration], "files": len(whole), "trials": done}
    for i in range(trials):
        done.append(kill_trial(kind, whole, duration, folder, rng, i))
        print(kind, i, done[-1], flush=True)
        keep(found)
    return found


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
    home = made("flip", "sweep", folder)
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
    if "build" in args.kinds and len(args.kinds) > 1:
        parser.error("build: expected alone, since its data sets have smaller files")
    sys.path.insert(0, str(ROOT))
    from mrl.io.files import write_json
    from mrl.training.run import commit

    failures = 0
    preload(args.kinds)
    with tempfile.TemporaryDirectory(prefix="mrl faults ä ") as folder:  # a blank and an umlaut in every path
        for kind in args.kinds:
            about = {"commit": commit(), "kind": kind, "seed": args.seed, "config": TINY, "work": WORK.get(kind, "")}

            def keep(found, about=about, kind=kind):
                "Write the trials so far, and return how many failed."
                failed = sum(t["failed"] for t in found["trials"])
                write_json(args.out / f"{kind}.json", about | {"failures": failed} | found)
                return failed

            if kind == "two":
                found = two(args.trials, Path(folder))
            elif kind == "flip":
                found = flips(args.trials, Path(folder))
            else:
                found = kills(kind, args.trials, Path(folder), args.seed, keep)
            failed = keep(found)
            print(f"{kind}: {failed} of {len(found['trials'])} trials failed", flush=True)
            failures += failed
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
