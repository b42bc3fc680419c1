"Notebooks executed as papermill's users do."

import json
from pathlib import Path

import papermill
import pytest

ROOT = Path(__file__).parent.parent

# Notebooks whose outputs are checked in test_notebooks.py and looked at in test_browser.py: parameters, and whether
# figures get pictures. Kept networks and a run that is not there, on few people.
TWO = "study/long/mrl-0,study/long/camera-alpha1000-beta1-gamma0-0"
TINY = dict(n_images=256, image_size=32, n_components=8, width=0.06, steps=6, batch_size=16, eval_every=3, device="cpu")
EXECUTED = {
    "train": (dict(loss="mrl", export="torch", **TINY), True),
    "pose_robustness": (dict(run=f"{TWO},nobody-0", people=2, grid_people=2, poses="60,90"), False),
    "face_diversity": (dict(run="study/long/mrl-0,nobody-0", per_cell=2, explore=True), False),
}


def execute(notebook, home, parameters, pictures=False):
    "Execute a notebook as papermill's users do, with its results in `home`; return home/out.ipynb, read."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRL_HOME", str(home))
        if pictures:
            patch.delenv("IN_TEST")
        path = ROOT / f"nbs/{notebook}.ipynb"
        papermill.execute_notebook(path, home / "out.ipynb", parameters, progress_bar=False, kernel_name="python3")
    return json.loads((home / "out.ipynb").read_text())
