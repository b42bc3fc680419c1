"""Execute notebooks in place, in their own folders, so that their outputs can be committed.

    python benchmarks/execute_notebooks.py [-j 2] [NOTEBOOK ...]

Without names: every notebook of the library and those reports whose results come with the repository. Cells are left
out as `nbdev_test` leaves them out (`#| eval: false`, the flags of settings.ini, exports); `skip_exec` is ignored.
Figures are stored with pictures (mrl.show.display). Run `nbdev_clean` afterwards; `make notebooks` does both.
Notebooks of SHORT run with other parameters than their defaults, and the output of their parameters says so. Data and
runs of those that write some go to a folder for temporary files.
"""

import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.config import get_config

NBS = Path(__file__).resolve().parent.parent / "nbs"
REPORTS = (
    "00_overview",
    "face_model",
    "study",
    "pose_robustness",
    "face_diversity",
    "evaluate_micc",
    "realism",
    "throughput",
    "model_free",
    "evaluate_photographs",
    "photo",
)
SHORT = {
    "train": {"n_images": 2000, "steps": 400, "eval_every": 50},
    "build_data": {"n_images": 1000, "size": 64},
    "figures": {"gallery": "/tmp/mrl/figures"},
}
ELSEWHERE = {"train": "/tmp/mrl", "build_data": "/tmp/mrl"}  # MRL_HOME, whose name is in the output
SAY = "__import__('IPython').display.display(__import__('IPython').display.Markdown({text!r}))"


def is_left_out(source):
    "Return whether nbdev_test would not run a cell."
    directives = re.findall(r"^#\|\s*(.+)$", source, re.M)
    flags = set(get_config().tst_flags.split())
    return "nbdev_export(" in source or any(d == "eval: false" or d.split()[0] in flags for d in directives)


def shorten(notebook, parameters):
    "Set parameters of a notebook and show them; return the cell and its source before that."
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    flags = " ".join(f"-p {name} {value}" for name, value in parameters.items())
    text = f"**The outputs below were made with other parameters: `{flags}`.**"
    before = cell.source
    assigned = [f"{name} = {value!r}" for name, value in parameters.items()]
    cell.source = "\n".join([before, *assigned, SAY.format(text=text)])
    return cell, before


def drop_progress(notebook):
    "Remove progress bars, which no viewer shows without a kernel."
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
            ]


def execute(path):
    "Run all cells of a notebook and write it; return what went wrong, or None."
    notebook = nbformat.read(path, as_version=4)
    shortened = shorten(notebook, SHORT[path.stem]) if path.stem in SHORT else None
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    env |= {"MRL_HOME": ELSEWHERE[path.stem]} if path.stem in ELSEWHERE else {}
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    start = time.time()
    with client.setup_kernel(env=env):
        client.kc.execute(
            "from mrl.show.display import store_pictures; store_pictures()", silent=True, store_history=False
        )
        for i, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and not is_left_out(cell.source):
                try:
                    client.execute_cell(cell, i)
                except CellExecutionError as e:
                    return f"{path}: cell {i}: {e.ename}: {e.evalue}"
    if shortened:
        shortened[0].source = shortened[1]
        drop_progress(notebook)
    nbformat.write(notebook, path)
    size = path.stat().st_size / 1e6
    print(f"{path.relative_to(NBS)}: {time.time() - start:.0f} s, {size:.2f} MB", flush=True)
    return f"{path}: {size:.2f} MB, 1 MB is the limit" if size > 1 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("-j", "--jobs", type=int, default=2, help="notebooks at a time")
    args = parser.parse_args()
    library = [p for p in sorted(NBS.glob("[0-9]*/**/*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
    paths = [p.resolve() for p in args.notebooks]
    paths = paths or [*library, *(NBS / f"{name}.ipynb" for name in (*REPORTS, *SHORT))]
    with ThreadPoolExecutor(args.jobs) as pool:
        problems = [p for p in pool.map(execute, paths) if p]
    sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
