"What the terminal of papermill's command shows while a notebook works."

import os
import pty
import re
import subprocess
import sys

import nbformat
import pytest

from mrl.io.files import ROOT
from mrl.training.configuration import TrainConfig
from mrl.training.loop import announce

CELL = """
import time
from mrl.io.progress import Progress, counted, tell
with Progress("counting", 40, "thing") as bar:
    for i in range(40):
        time.sleep(0.05)
        bar.update(1, loss=f"{i:.2f}")
with Progress("thinking"):
    time.sleep(6)
for i in counted([1, 2, 3], "spelling", "letter"):
    time.sleep(0.5)
tell("4.20 px")
"""


def command(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, tmp_path / "work.ipynb")
    return [sys.executable, "-m", "papermill", "work.ipynb", "out.ipynb"]


def check(said, tmp_path):
    "Fail unless stage, rate, value, time left and both messages are in what was said."
    assert f"the executed notebook will be {tmp_path / 'out.ipynb'}" in said and "4.20 px" in said
    assert said.index("the executed notebook") < said.index("counting") and said.count("the executed notebook") == 1
    assert re.search(r"spelling: 100%.* 3/3 ", said)
    lines = [line for line in re.split(r"[\r\n]+", said) if line.startswith("counting")]
    assert any(re.search(r"\d+/40 \[\d\d:\d\d<\d\d:\d\d, .*thing/s, loss=\d", line) for line in lines)
    assert len(re.findall(r"thinking: 00:0\d", said)) >= 2  # the clock runs while nothing is counted


@pytest.mark.slow
def test_papermill_in_a_terminal_shows_what_the_notebook_shows(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | {"PYTHONPATH": str(ROOT)}
    ours, its = pty.openpty()
    process = subprocess.Popen(command(tmp_path), cwd=tmp_path, env=environment, stdout=its, stderr=its)
    os.close(its)
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # the terminal is closed: all that had it open have ended
            break
    assert process.wait() == 0
    check(said.decode(), tmp_path)


@pytest.mark.slow
def test_papermill_into_a_file_shows_it_too(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | {"PYTHONPATH": str(ROOT)}
    with open(tmp_path / "log", "w") as log:
        subprocess.run(command(tmp_path), cwd=tmp_path, env=environment, stderr=log, check=True)
    said = (tmp_path / "log").read_text()
    assert f"the executed notebook will be {tmp_path / 'out.ipynb'}" in said and "4.20 px" in said


def test_a_run_says_where_it_starts_and_that_it_resumes(tmp_path, capsys):
    announce(TrainConfig(run="mine"), tmp_path)
    announce(TrainConfig(run="mine", start="photo"), tmp_path)
    (tmp_path / "state.pt").touch()
    announce(TrainConfig(run="mine", start="photo"), tmp_path)
    said = [line.split(";")[0] for line in capsys.readouterr().out.splitlines()[::2]]
    assert said == ["run mine begins", "run mine begins with the network of photo", "run mine resumes"]
