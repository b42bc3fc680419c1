"""Execute notebooks in place, in their own folders, so that their outputs can be committed.

    python benchmarks/execute_notebooks.py [-j 2] [NOTEBOOK ...]

Without names: every notebook of the library and those reports whose results come with the repository. Cells are left
out as `nbdev_test` leaves them out (`#| eval: false`, the flags of settings.ini, exports); `skip_exec` is ignored.
Figures are stored with pictures (mrl.show.display). Run `nbdev_clean` afterwards; `make notebooks` does both.
"""

import argparse
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
)


def is_left_out(source):
    "Return whether nbdev_test would not run a cell."
    directives = re.findall(r"^#\|\s*(.+)$", source, re.M)
    flags = set(get_config().tst_flags.split())
    return "nbdev_export(" in source or any(d == "eval: false" or d.split()[0] in flags for d in directives)


def execute(path):
    "Run all cells of a notebook and write it; return what went wrong, or None."
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    start = time.time()
    with client.setup_kernel():
        client.kc.execute(
            "from mrl.show.display import store_pictures; store_pictures()", silent=True, store_history=False
        )
        for i, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and not is_left_out(cell.source):
                try:
                    client.execute_cell(cell, i)
                except CellExecutionError as e:
                    return f"{path}: cell {i}: {e.ename}: {e.evalue}"
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
    paths = [p.resolve() for p in args.notebooks] or [*library, *(NBS / f"{name}.ipynb" for name in REPORTS)]
    with ThreadPoolExecutor(args.jobs) as pool:
        problems = [p for p in pool.map(execute, paths) if p]
    sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
