"The notebooks that do work, as their users run them (papermill, tiny), and the repository's own order."

import ast
import inspect
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import papermill
import pytest
import trimesh
from execution import execute
from nbconvert import MarkdownExporter

from mrl.data.configuration import DataConfig
from mrl.data.store import verify_dataset
from mrl.faces.population import load_population
from mrl.io.files import read_json, write_json
from mrl.scans.lookalike import build_lookalike
from mrl.study.comparison import headline
from mrl.study.execution import load_study
from mrl.study.runs import HEADLINE
from mrl.training.configuration import TrainConfig

ROOT = Path(__file__).parent.parent


def source(name):
    return list(json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text())["cells"])


def execute_here(name, parameters, cells=None, until=None):
    "Execute code cells of a notebook in this process: so many, or until one with this text."
    sources, names = ["".join(c["source"]) for c in source(name) if c["cell_type"] == "code"][:cells], {}
    for i, cell in enumerate(sources):
        exec(cell, names)
        if i == 1:
            names |= parameters  # what papermill puts after the parameters
        if until and until in cell:
            break


PLOTLY = "application/vnd.plotly.v1+json"
PICTURES = {"image/png", "image/svg+xml", "image/jpeg"}
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.mark.slow
def test_train_notebook(executed):
    home = executed("train")
    notebook = json.loads((home / "out.ipynb").read_text())
    outputs = [o for c in notebook["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]
    data = [o.get("data", {}) for o in outputs]
    assert sum({PLOTLY, "image/png"} <= set(d) for d in data) == 3  # curves, overlays, meshes
    assert sum("| mean face, mean pose |" in "".join(d.get("text/markdown", "")) for d in data) == 1
    assert (home / "out.ipynb").stat().st_size < 2_000_000
    run_folder = home / "results/mrl-0"
    config, metrics = read_json(run_folder / "config.json"), read_json(run_folder / "metrics.json")
    assert config["config"]["steps"] == 6 and len(config["data"]) == 64 and config["commit"] and config["device"]
    assert set(metrics["test_controls"]) == {"mean face, mean pose", "mean face, true pose", "model floor"}
    assert (run_folder / "checkpoint.safetensors").exists() and (run_folder / "network.pt2").exists()


@pytest.mark.slow
def test_a_wrong_parameter_stops_papermill_at_once(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="lr must be of type float, got 'abc'"):
        execute("train", tmp_path, dict(lr="abc"))
    assert not (tmp_path / "datasets").exists()


NOBODY = {"run": "nobody-0"}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("train", {"stepz": 3}, "unknown parameter stepz; valid ones are run, loss, views"),
        ("train", {"export": "tflite"}, "export: expected onnx, torch or nothing, got 'tflite'"),
        ("train", {"loss": "mse"}, "loss must be one of mrl, reprojection, geometric_alignment, pixel_alignment, "),
        ("build_data", {"width": 3}, "unknown parameter width; valid ones are n_images"),
        ("pose_robustness", NOBODY, "no run can be drawn: run nobody-0: no config.json"),
        ("face_diversity", NOBODY, "no run can be drawn: run nobody-0: no config.json"),
        ("evaluate_micc", {"protocol": "micc"}, "protocol: expected all, or some of ramon2019"),
        ("evaluate_h3ds", {}, "h3ds_dir is needed"),
        ("evaluate_micc", {"name": "../../x"}, "name: expected the name of a folder in results/, without '..'"),
        ("evaluate_h3ds", {"name": "/tmp/x"}, "name: expected the name of a folder in results/, without '..'"),
        ("study", {"name": "../x"}, "name: expected the name of a folder in results/, without '..'"),
    ],
)
def test_wrong_parameters_are_refused(name, parameters, message):
    "The cells up to the refusal, here and not in a kernel, with what papermill would put after the parameters."
    with pytest.raises(ValueError, match=re.escape(message)):
        execute_here(name, parameters, cells=4)  # the check of the parameters, and what follows it


@pytest.mark.slow
def test_build_data_notebook(tmp_path):
    notebook = execute("build_data", tmp_path, dict(n_images=60, size=16, without="hair"))
    data = [o.get("data", {}) for c in notebook["cells"] for o in c.get("outputs", [])]
    assert sum("image/jpeg" in d for d in data) == 1 and sum(PLOTLY in d for d in data) == 1
    verify_dataset(tmp_path / "datasets/faces-60-16px-0-without-hair")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["throughput", "realism"])
def test_committed_measurements_are_drawn(tmp_path, name):
    (tmp_path / "results").symlink_to(ROOT / "results")
    notebook = execute(name, tmp_path, {})
    outputs = [o for c in notebook["cells"] for o in c.get("outputs", [])]
    assert sum(bool({PLOTLY, "text/markdown"} & set(o.get("data", {}))) for o in outputs) >= 2


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "build_data",
        "build_faces",
        "study",
        "realism",
        "throughput",
        "figures",
        "evaluate_micc",
        "evaluate_h3ds",
        "photo",
        "evaluate_photographs",
        "protocols",
        "pose_robustness",
        "face_diversity",
    ],
)
def test_every_notebook_checks_its_parameters(name):
    "Its first three cells, with what papermill would put between the second and the third."
    before, parameters, check = ["".join(c["source"]) for c in source(name) if c["cell_type"] == "code"][:3]
    names = {}
    exec(parameters, names)
    valid = [k for k in names if not k.startswith("_")]
    for injected in ("", "stepz = 3", f"{valid[0]} = None"):
        try:
            exec("\n".join((before, parameters, injected, check)), {})
        except ValueError as e:
            said = str(e)
        else:
            said = ""
        if "stepz" in injected:
            start, listed = said.split("; valid ones are ")
            assert start == "unknown parameter stepz" and sorted(listed.split(", ")) == sorted(valid)
        else:
            assert re.match(f"{valid[0]} must be of type .*, got None$" if injected else "$", said)


@pytest.mark.parametrize(
    ("name", "config", "others"),
    [
        ("train", TrainConfig, {"export": ""}),
        ("build_data", DataConfig, {"n_images": 50_000, "size": 128, "folder": "", "jobs": -1, "scheduler": ""}),
    ],
)
def test_parameters_cell_is_the_configuration(name, config, others):
    cell = next(c for c in source(name) if "parameters" in c["metadata"].get("tags", []))
    names = {}
    exec("".join(cell["source"]), names)  # the repository's own cell
    written = {k: v for k, v in names.items() if not k.startswith("_")}
    assert written == {f.name: f.default for f in fields(config)} | others
    assert all("#" in line for line in cell["source"])  # each is explained


def test_comments_of_train_are_those_of_its_configuration():
    cell = next(c for c in source("train") if "parameters" in c["metadata"].get("tags", []))
    comments = dict(re.findall(r"^(\w+): .*?  # (.*)$", "".join(cell["source"]), re.M))
    stated = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(TrainConfig), re.M))
    assert {k: v for k, v in comments.items() if k != "export"} == stated


@pytest.mark.slow
@pytest.mark.parametrize(("name", "explorers"), [("pose_robustness", 0), ("face_diversity", 1)])
def test_robustness_notebooks(executed, name, explorers):
    "Kept networks on few people; with them a run that is not there, which is said, and the rest drawn."
    home = executed(name)
    notebook = json.loads((home / "out.ipynb").read_text())
    outputs = [o for c in notebook["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]
    shown = [o.get("data", {}) for o in outputs]
    figures = [d[PLOTLY] for d in shown if PLOTLY in d]
    assert any(t["type"] == "mesh3d" for f in figures for t in f["data"]) and any(
        f["layout"].get("sliders") for f in figures
    )
    assert "left out: run nobody-0: no config.json" in "".join("".join(o.get("text", "")) for o in outputs)
    widgets = ["".join(d["text/plain"]) for d in shown if WIDGET in d]
    assert sum("Box(" in text for text in widgets) == explorers  # the others are progress bars
    notebook["metadata"].pop("widgets", None)  # their state is kept by papermill, not by JupyterLab
    assert len(json.dumps(notebook)) < 1_500_000 and max(len(json.dumps(f)) for f in figures) < 300_000
    assert (home / f"results/{name}/study/long/mrl-0.safetensors").exists()


@pytest.mark.slow
def test_study_of_somebody_else(tmp_path):
    "A sentence that other runs do not bear out is struck out there, and no error."
    theirs = tmp_path / "results/study"
    shutil.copytree(ROOT / "results/study", theirs, ignore=shutil.ignore_patterns("*.safetensors"))
    metrics = read_json(theirs / "rivals/mrl/metrics.json")
    metrics["val"]["shape"]["mean"] = 1.0  # after as many steps, MRL has learned the shape
    write_json(theirs / "rivals/mrl/metrics.json", metrics)
    notebook = execute("study", tmp_path, dict(run=True))
    said = [
        line
        for c in notebook["cells"]
        for o in c.get("outputs", [])
        for line in "".join(o.get("data", {}).get("text/markdown", "")).split("\n")
    ]
    assert any(
        re.match(r"- Not in these runs: <s>\*\*The shape error falls last\.\*\*.* \(1\.00 mm against .*</s>$", line)
        for line in said
    )
    assert any(line.startswith("- **The slides' pattern appears.**") for line in said)


@pytest.mark.slow
def test_evaluate_micc_notebook(tmp_path, monkeypatch):
    "Somebody's meshes, right for one subject of a look-alike and missing for the other."
    look = tmp_path / "look"
    truth = build_lookalike(look, 2, frames=3, spacing=2.5)["subjects"]
    population = load_population()
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    trimesh.Trimesh(population.faces(truth["1"]["identity"]), population.face_triangles, process=False).export(
        meshes / "subject_01.obj"
    )
    write_json(meshes / "landmarks.json", {k: int(i) for k, i in population.landmarks.items()})
    folders = dict(micc_dir=str(look / "micc"), ganfit_dir=str(look / "ganfit"))
    parameters = dict(annotations_dir=str(look / "annotations"), protocol="tran2017,now", predictions_dir=str(meshes))
    notebook = execute("evaluate_micc", tmp_path, folders | parameters)
    outputs = [o for c in notebook["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert any(t["type"] == "mesh3d" for o in outputs for t in o.get("data", {}).get(PLOTLY, {"data": []})["data"])
    record = read_json(tmp_path / "results/micc/summary.json", ["parameters", "commit", "problems"])
    lines = {(line["protocol"], line["method"].split(" (")[0]): line for line in record["summary"]}
    for protocol in ("tran2017", "now"):
        assert (
            lines[protocol, "meshes in meshes"]["mean"] < lines[protocol, "mean face"]["mean"]
            and lines[protocol, "meshes in meshes"]["failed"] == 1
        )
    text = (tmp_path / "results/micc/errors.csv").read_text()
    assert "no mesh subject_30" in text and text.count("\n") == 1 + 2 * 2 * 3
    assert {
        "subject 1, frontal1",
        "meshes/subject_01.obj",
        "meshes/landmarks.json",
        "annotations/annotations.json",
    } <= set(record["sha256"]) and record["protocols"][0]["steps"]["error"].startswith("root mean square")
    monkeypatch.setattr("mrl.io.files.HOME", tmp_path)
    smaller = folders | dict(protocol="now", subset=1)  # papermill -p subset 1 is a number
    with pytest.raises(ValueError, match="micc holds a larger evaluation: 10 of its 12 rows"):
        execute_here("evaluate_micc", smaller)
    execute_here("evaluate_micc", smaller | {"name": "one"}, until="write_report(top")
    assert read_json(tmp_path / "results/one/summary.json")["subjects"] == [1]


@pytest.mark.slow
def test_evaluate_h3ds_notebook(tmp_path, monkeypatch):
    "A look-alike of two scenes, through a stand-in for the authors' package; one mesh is missing."
    population, package = load_population(), tmp_path / "packages" / "h3ds"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "dataset.py").write_text("""
import types
class H3DS:
    def __init__(self, path, config_id):
        self.helper = types.SimpleNamespace(scene_mesh=lambda s: f"{path}/{s}/full_head.obj", \
scene_landmarks=lambda s: f"{path}/{s}/landmarks.txt")
    def scenes(self):
        return ["a", "b"]
    def load_landmarks(self, scene):
        return {k: int(i) for k, i in (line.split() for line in open(self.helper.scene_landmarks(scene)))}
""")
    names = {
        "right_eye": "right_eye_inner",
        "left_eye": "left_eye_inner",
        "nose_tip": "nose_tip",
        "nose_base": "nose_base",
        "right_lips": "mouth_right",
        "left_lips": "mouth_left",
    }
    for i, scene in enumerate("ab"):
        (tmp_path / "data" / scene).mkdir(parents=True)
        trimesh.Trimesh(population.faces(i), population.face_triangles, process=False).export(
            tmp_path / "data" / scene / "full_head.obj"
        )
        (tmp_path / "data" / scene / "landmarks.txt").write_text(
            "".join(f"{theirs} {population.landmarks[ours]}\n" for theirs, ours in names.items())
        )
    (tmp_path / "meshes").mkdir()
    trimesh.Trimesh(population.faces(0), population.face_triangles, process=False).export(tmp_path / "meshes" / "a.obj")
    write_json(tmp_path / "meshes" / "landmarks.json", {k: int(i) for k, i in population.landmarks.items()})
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{ROOT}")
    folders = dict(h3ds_dir=str(tmp_path / "data"), predictions_dir=str(tmp_path / "meshes"))
    execute("evaluate_h3ds", tmp_path, folders)
    lines = {
        line["method"].split(" (")[0]: line
        for line in read_json(tmp_path / "results/h3ds/summary.json", ["protocols", "sha256"])["summary"]
    }
    assert (
        lines["meshes in meshes"]["mean"] < 0.01 < lines["model fit"]["mean"] < lines["mean face"]["mean"]
        and lines["meshes in meshes"]["failed"] == 1
    )


def test_the_study_holds():
    "What the README and study.ipynb say of the long and short runs, from the files."
    study = load_study(ROOT / "results/study")
    rows = {name.split(" (")[0]: row for name, row in headline(study).items()}
    value = lambda row, k: rows[row][k][0]
    px, mm, pos, deg = "reprojection", "shape", "camera_position", "camera_rotation"
    log, terms, space, space_log = (
        HEADLINE[run]
        for run in ("mrl-disentangled-3-log", "log-terms-camera", "alignment-l1", "alignment-l1-disentangled-3-log")
    )
    knows_nothing = study["long/mrl-0"]["metrics"]["test_controls"]["mean face, mean pose"][mm]["mean"]
    assert 0.33 < value("MRL", deg) / value("Best pose", deg) - 1 < 0.37  # the README says 35 %
    assert (
        0.08 < 1 - value("MRL", px) / value("Best pose", px) < 0.12
        and abs(value("MRL", mm) - value("Best pose", mm)) < 0.1
        and all(value("MRL", k) > 1.1 * value("Best pose", k) for k in (pos, deg))
    )
    assert 0.1 < 1 - value("MRL", mm) / knows_nothing < 0.15 and 0.1 < 1 - value("Best pose", mm) / knows_nothing < 0.15
    assert abs(value(space, px) - value("Best pose", px)) < 0.1
    long = lambda run, k: study[f"long/{run}-0"]["metrics"]["test"][k]["mean"]
    assert all(abs(long("alignment-pixels-depth0.45", k) / long("mrl", k) - 1) < 0.1 for k in (px, mm, pos, deg))
    assert 2.7 < long("alpha1000-beta1-gamma0", px) / long("mrl", px) < 3  # the same weights, translation in the world
    assert (
        abs(long("camera-alpha100-beta0.1-gamma0", px) / long("mrl", px) - 1.1) < 0.02
        and abs(long("camera-alpha100-beta0.1-gamma0", mm) / long("mrl", mm) - 7 / 8) < 0.02
    )
    assert all(long("camera-alpha100-beta0.1-gamma0", k) < 0.9 * long("mrl", k) for k in (pos, deg))
    assert value("MRL", px) < value(terms, px) < 1.02 * value("MRL", px) and all(
        value(terms, k) < 0.85 * value("MRL", k) for k in (mm, pos, deg)
    )
    assert value(log, px) == min(value(r, px) for r in rows)
    assert all(
        abs(value(r, k) / value(terms, k) - 1) < 0.05 for r in (log, space_log) for k in (mm, pos, deg)
    ) and value(space_log, px) > 1.02 * value(log, px)
    short = lambda run, k=px: study[run]["metrics"]["val"][k]["mean"]
    low = {
        t: min(short(r) for r, s in study.items() if r.startswith("grid/") and s["config"]["translation"] == t)
        for t in ("world", "camera")
    }
    assert low["world"] > 2.5 * short("rivals/mrl") and low["camera"] < 1.2 * short("rivals/mrl")
    seeds = [short(f"chance/mrl-{s}") for s in range(1, 10)]
    assert (
        all(min(seeds) <= short(f"rescaled/mrl-{u}") <= max(seeds) for u in ("metres", "focal"))
        and 1.4 < short("rescaled/multi_term-metres") / short("grid/alpha100-beta0.1-gamma0") < 1.6
    )
    angles = [15, 30, 60, 90, 180]
    for k, order in ((px, angles), (mm, angles[::-1])):
        assert sorted(angles, key=lambda a: short(f"hidden/uniform-{a}", k)) == order
    assert short("hidden/batch") > 1.2 * short("rivals/mrl") and short("hidden/views-16") > 1.05 * short("rivals/mrl")
    assert all(abs(short(f"hidden/{n}") / short("rivals/mrl") - 1) < 0.03 for n in ("l2", "huber")) and short(
        "hidden/squared"
    ) > 1.15 * short("rivals/mrl")


NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
by_path = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT / "nbs")))


@by_path
def test_notebook_is_small_and_titled(path):
    cells = json.loads(path.read_text())["cells"]
    first = next(c for c in cells if c["cell_type"] == "markdown")
    assert re.match(r"# .+\n\n> .+", "".join(first["source"]))
    assert path.stat().st_size < 1_000_000


@by_path
def test_figures_are_seen_without_javascript(path):
    "Every figure that is stored in Plotly's format has a picture beside it, and no table is a figure."
    outputs = [o.get("data", {}) for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", [])]
    figures = [d for d in outputs if PLOTLY in d]
    assert not [d for d in figures if not PICTURES & set(d)]
    assert not [t for d in figures for t in d[PLOTLY]["data"] if t["type"] == "table"]


def rendered_pictures(path):
    "Return how many pictures a static viewer shows, and how many figures and pictures are stored."
    markdown, resources = MarkdownExporter().from_filename(str(path))
    outputs = [o.get("data", {}) for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", [])]
    stored = [d for d in outputs if {PLOTLY, *PICTURES} & set(d) and "text/html" not in d]
    return len(re.findall(r"!\[\w+\]\(output_\d+_\d+\.\w+\)", markdown)), len(stored)


def test_static_viewers_show_every_figure():
    "nbconvert, which knows no Plotly, shows as many pictures as figures are stored: more than a hundred."
    counts = {p.stem: rendered_pictures(p) for p in NOTEBOOKS if '"outputs": [\n' in p.read_text()}
    assert {name: c for name, c in counts.items() if c[0] != c[1]} == {}
    assert sum(shown for shown, _ in counts.values()) > 100


def draws(cell):
    "Return whether the last statement of a code cell is a figure or a table."
    text = "".join(cell["source"])
    if cell["cell_type"] != "code" or re.search(r"^#\|\s*(export|eval: false|slow|cuda|notest)", text, re.M):
        return False
    last = ([None] + ast.parse(text).body)[-1]
    names = {getattr(n, "id", None) or getattr(n, "attr", "") for n in ast.walk(last)} if last else set()
    is_check = isinstance(last, ast.Expr) and re.match(r"test_|raises|close", ast.unparse(last))
    return (
        isinstance(last, ast.Expr)
        and not is_check
        and any(n in ("show", "markdown_table") or n.endswith("_figure") for n in names)
    )


NOT_EXECUTED = {  # notebook -> reason
    "evaluate_h3ds": "the scenes need a token of their owners; 09_scans/07_h3ds has the tables of two synthetic scenes",
}


@by_path
def test_figures_and_tables_are_stored(path):
    "Every cell that draws a figure or a table has its output, so that a reader need not run anything."
    cells = [c for c in json.loads(path.read_text())["cells"] if draws(c)]
    missing = [c["id"] for c in cells if not c["outputs"]]
    assert missing == [] or path.stem in NOT_EXECUTED


@by_path
def test_links_lead_somewhere(path):
    "Links between notebooks and to files, as GitHub and JupyterLab follow them; no notebook is named without a link."
    text = "\n".join(
        "".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "markdown"
    )
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target
    names = "|".join(p.stem for p in NOTEBOOKS)
    assert not re.findall(rf"(?<!\[)`(?:{names})`(?!\])", text)


def test_the_overview_lists_every_notebook():
    "It also has a glossary, of at most 20 terms."
    cells = json.loads((ROOT / "nbs/00_overview.ipynb").read_text())["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    listed = set(re.findall(r"\]\(([^)#\s]+\.ipynb)", text.partition("## All notebooks")[2])) | {"00_overview.ipynb"}
    assert {str(p.relative_to(ROOT / "nbs")) for p in NOTEBOOKS} - listed == set()
    glossary = text.partition("## Glossary")[2].partition("##")[0]
    assert 10 <= len(re.findall(r"^\| ", glossary, re.M)) - 1 <= 20


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "data/README.md", ROOT / "results/README.md"], ids=str)
def test_links_of_the_readme_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target
