"The committed report on the look-alike: notebook and files agree, and today's code gives the same errors."

import csv
import json
import re

import pytest

from mrl.io.files import ROOT, read_json
from mrl.scans.evaluation import evaluate
from mrl.scans.lookalike import build_lookalike
from mrl.scans.methods import MiccCase, methods_of
from mrl.scans.micc import VIDEOS, read_micc
from mrl.scans.protocols import PROTOCOLS

FOLDER = ROOT / "results/micc-lookalike"
ROWS = list(csv.DictReader((FOLDER / "errors.csv").open()))
NETWORK = "network mrl-disentangled-3-log-0"


def errors_of(subject):
    "Return the kept errors of a subject under ramon2019, by method."
    rows = [r for r in ROWS if r["subject"] == str(subject) and r["protocol"] == "ramon2019"]
    return {r["method"]: float(r["error"]) for r in rows}


def test_the_notebook_shows_the_files():
    "The errors of every subject in the outputs of evaluate_micc are those of errors.csv, from one clean commit."
    notebook = json.loads((ROOT / "nbs/evaluate_micc.ipynb").read_text())
    outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    text = "\n".join("".join(o["data"]["text/markdown"]) for o in outputs if "text/markdown" in o.get("data", {}))
    table = text.split("| ramon2019: subject |")[1].split(": subject |")[0].splitlines()
    for line in (line for line in table[2:] if "failed" not in line and re.match(r"\| \d+ \|", line)):
        subject, *shown = (cell.strip() for cell in line.strip("|").split("|"))
        assert shown == [f"{e:.2f}" for e in errors_of(subject).values()]
    assert re.fullmatch("[0-9a-f]{40}", read_json(FOLDER / "summary.json", ["commit"])["commit"])


@pytest.mark.slow
def test_todays_code_gives_the_kept_errors(tmp_path):
    "A change of landmarks, look-alike, detector, network or alignment means: execute evaluate_micc again."
    build_lookalike(tmp_path)
    subjects, _ = read_micc(*(tmp_path / name for name in ("micc", "annotations", "ganfit")))
    methods = methods_of("study/long/mrl-disentangled-3-log-0", [], [VIDEOS[0]])
    rows = evaluate([MiccCase(subjects[0])], [PROTOCOLS["ramon2019"]], methods)
    found = {row["method"]: row["error"] for row in rows}
    assert NETWORK in found and found == pytest.approx(errors_of(subjects[0].number), rel=0.01)
