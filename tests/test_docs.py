"The site: it is built without warnings, its figures are live, its search finds, its reference is complete."

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mrl

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "Folder of the built site."
    pytest.importorskip("sphinx", reason="the site needs the extra [docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", folder / "html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "html"


def test_every_notebook_is_a_page(site):
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts:
            assert (site / "nbs" / path.relative_to(ROOT / "nbs").with_suffix(".html")).exists(), path


def test_links_between_pages(site):
    "No link of a page leads to a notebook file, or to a page that is not there."
    for page in (site / "nbs").rglob("*.html"):
        for target in re.findall(r'<a class="reference internal" href="([^"#]+)', page.read_text()):
            assert not target.endswith(".ipynb") and (page.parent / target).resolve().exists(), (page, target)


def test_reference_has_every_public_name(site):
    text = "".join(p.read_text() for p in (site / "reference").glob("*.html"))
    assert [n for n in mrl.__all__ if not n.startswith("__") and f'id="mrl.{n}"' not in text] == []
    assert "true camera centre" in text  # from a docstring


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, chromium-browser or google-chrome on the PATH")
def test_in_a_browser(site):
    "Without the internet a page draws its formulas and figures, and the search finds a notebook."
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, playwright.sync_playwright() as p:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        page = p.chromium.launch(executable_path=CHROMIUM, args=flags).new_page()
        page.set_default_timeout(120_000)
        errors = []
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.route(lambda u: not u.startswith(url), lambda route: route.fulfill(body=""))
        page.goto(f"{url}/nbs/00_overview.html")
        page.locator(".MathJax_SVG svg").first.wait_for()
        page.locator(".plotly-figure .main-svg").first.wait_for()
        page.goto(f"{url}/search.html?q=relative_pose")
        page.locator("#search-results li a").first.wait_for()
        assert "relative" in page.locator("#search-results").inner_text().lower() and not errors
        server.shutdown()
