"Notebooks and figures as people see them: in a browser, with a running kernel, judged by pixels."

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrl.faces.population import load_population
from mrl.show.plots import mesh_figure, present, slider_figure
from mrl.study.execution import load_study
from mrl.study.fronts import front_figure

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
# the last line draws WebGL without a GPU
FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync "
    "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
)

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="the browser tests need chromium, chromium-browser or google-chrome on the PATH"
    ),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        yield p.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())


@pytest.fixture
def page(request, browser, tmp_path):
    "Give an empty page; afterwards a screenshot in the folder MRL_SCREENSHOTS, if set, and no error on its console."
    page, errors = browser.new_page(viewport={"width": 1400, "height": 1000}), []
    page.set_default_timeout(120_000)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.folder = Path(os.environ.get("MRL_SCREENSHOTS") or tmp_path)
    page.folder.mkdir(parents=True, exist_ok=True)
    yield page
    page.screenshot(path=page.folder / f"{request.node.name}.png")
    page.close()
    assert not errors


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "URL and folder of a JupyterLab with settings of its own, whose kernels import this repository."
    home = tmp_path_factory.mktemp("lab")
    places = {
        name: str(home / name)
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    settings = {  # no question about news, and cells are drawn before one scrolls to them
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, values in settings.items():
        path = home / f"JUPYTERLAB_SETTINGS_DIR/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    (home / "notebooks").mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
    options = [
        "--no-browser",
        "--allow-root",
        "--ServerApp.port_retries=0",
        f"--ServerApp.port={url.split(':')[-1]}",
        f"--ServerApp.root_dir={home / 'notebooks'}",
        "--IdentityProvider.token=",
    ]
    environment = os.environ | places | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with (
        open(home / "log", "w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        ) as server,
    ):
        try:
            until(lambda: answers(url) or server.poll() is not None, "JupyterLab answers")
            assert server.poll() is None, (home / "log").read_text()
            yield url, home / "notebooks"
        finally:
            server.terminate()


def answers(url):
    try:
        return urllib.request.urlopen(f"{url}/api/status").status == 200
    except OSError:
        return False


def until(condition, what, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def open_notebook(page, lab, name, notebook):
    "Open a copy of a notebook in JupyterLab, and nothing else."
    url, folder = lab
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(notebook))
    page.goto(f"{url}/lab/tree/{name}.ipynb?reset")
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()


def run_all(page, lab, name):
    "Open a copy of a notebook, without the cell that exports modules, and run it from the menu."
    notebook = json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text())
    notebook["cells"] = [c for c in notebook["cells"] if "nbdev_export()" not in "".join(c["source"])]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []  # what is seen afterwards is what was run
    open_notebook(page, lab, name, notebook)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def finished():
        assert not page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
        prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt").all_text_contents()
        return prompts and all(re.fullmatch(r"\[\d+\]:", p) for p in prompts)

    until(finished, f"all cells of {name} have run")


def pixels(locator):
    "Screenshot of an element, (H, W, 3) uint8."
    return np.array(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"))


def is_drawn(image):
    "Tell if there is a lit surface: many more colours than letters have (500), a share of pixels off the background."
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    return len(colours) > 500 and counts.max() < 0.99 * counts.sum()


WAKE = """() => {
    const pictures = [...document.querySelectorAll(".plot-img")]
    pictures.forEach(e => e.dispatchEvent(new MouseEvent("mouseenter", {bubbles: true})))
    return pictures.length
}"""


def wait_for_meshes(page, meshes, pictures=False, seconds=300):
    "Wait until so many meshes are drawn; a figure with a stored picture becomes one to turn under the mouse."
    scenes, woken = page.locator(".gl-container canvas"), []

    def shown():  # pictures arrive late, and are gone once their figure is there
        woken.append(page.evaluate(WAKE))
        return scenes.count() == meshes

    until(shown, f"{meshes} meshes are there", seconds)
    assert any(woken) or not pictures
    for scene in scenes.all():
        until(lambda: is_drawn(pixels(scene)), "a mesh is drawn", 60)


def test_sliders(page, lab):
    "A notebook of explorers, run in JupyterLab: sliders change numbers and meshes."
    name, sliders = "10_show/02_explorers", ["depth (mm)", "shape 1 (sd)"]
    run_all(page, lab, name)
    try:
        wait_for_meshes(page, 3, seconds=60)
    except AssertionError:  # a busy machine loses a WebGL context now and then: once more
        run_all(page, lab, name)
        wait_for_meshes(page, 3, seconds=60)
    for label in sliders:
        slider = page.locator(".widget-slider").filter(has=page.get_by_text(label, exact=True))
        output = page.locator(".jp-OutputArea-output").filter(has=slider)
        readout, mesh = output.locator("pre"), output.locator(".gl-container canvas").last
        text, picture = readout.all_text_contents(), pixels(mesh)
        slider.locator(".noUi-handle").focus()
        page.keyboard.press("PageUp")
        until(lambda: readout.all_text_contents() != text, f"{label} changes the readout", 30)
        until(lambda: (pixels(mesh) != picture).any(), f"{label} changes the mesh", 30)
        assert is_drawn(pixels(mesh))
        output.screenshot(path=page.folder / f"{Path(name).name}-{label.split()[0]}.png")


@pytest.mark.parametrize(("name", "pictures"), [("train", True), ("pose_robustness", False), ("face_diversity", False)])
def test_executed_notebook(page, lab, executed, name, pictures):
    "What papermill left, opened in JupyterLab: every mesh of its outputs is drawn. Widgets need a kernel: see above."
    notebook, meshes = json.loads((executed(name) / "out.ipynb").read_text()), 0
    for cell in (c for c in notebook["cells"] if c["cell_type"] == "code"):
        cell["outputs"] = [o for o in cell["outputs"] if WIDGET not in o.get("data", {})]
        for output in cell["outputs"]:
            traces = output.get("data", {}).get(PLOTLY, {"data": []})["data"]
            meshes += len({t.get("scene", "scene") for t in traces if t["type"] == "mesh3d"})
    notebook["metadata"].pop("widgets", None)
    assert meshes
    open_notebook(page, lab, name, notebook)
    wait_for_meshes(page, meshes, pictures)


def test_file_without_server(page, tmp_path):
    "A figure saved as HTML needs neither server nor internet, shows its mesh, and turns under the mouse."
    mesh_figure(load_population().faces(np.arange(2)), load_population().face_triangles, ["one", "two"]).write_html(
        tmp_path / "meshes.html", include_plotlyjs=True
    )
    page.context.set_offline(True)
    page.goto((tmp_path / "meshes.html").as_uri())
    mesh = page.locator(".gl-container canvas").first
    until(lambda: is_drawn(pixels(mesh)), "a mesh is drawn", 60)
    before, box = pixels(mesh), mesh.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    until(lambda: (pixels(mesh) != before).mean() > 0.02, "the mesh turns", 30)


def test_page_of_the_gallery(page, tmp_path):
    "Its slider changes the picture, without a server, a kernel or the internet."
    shades = {v: [np.full((40, 40, 3), v, np.uint8)] for v in (10, 120, 240)}
    present(slider_figure(shades, ["grey"], "grey"), "greys", tmp_path)
    page.context.set_offline(True)
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_text("greys").click()
    picture = page.locator(".plot-container image").first
    until(lambda: abs(np.median(pixels(picture)) - 10) < 3, "the first picture is shown", 60)
    end = page.locator(".slider-rail-touch-rect").bounding_box()
    page.mouse.click(end["x"] + end["width"] - 5, end["y"] + end["height"] / 2)
    until(
        lambda: abs(np.median(pixels(page.locator(".plot-container image").first)) - 240) < 3,
        "the slider shows the last picture",
        30,
    )


def test_a_point_of_the_study_opens_its_configuration(page, tmp_path):
    (tmp_path / "results").symlink_to(ROOT / "results")
    (tmp_path / "figures").mkdir()
    present(front_figure(load_study())[0], "study", tmp_path / "figures")
    page.goto((tmp_path / "figures/study.html").as_uri())
    star = page.locator(".scatterlayer .trace").filter(has_text="mrl").filter(has_not_text="-").locator(".point").first
    star.wait_for()
    box = star.bounding_box()
    with page.expect_popup() as opened:
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.value.wait_for_load_state()
    assert (
        opened.value.url.endswith("/results/study/rivals/mrl/config.json")
        and '"run": "study/rivals/mrl"' in opened.value.content()
    )
