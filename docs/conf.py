"Sphinx: the notebooks as pages with live figures, and the reference of the public names. `make docs` builds _site/."

import shutil
import sys
from configparser import ConfigParser
from pathlib import Path

import kaleido.scopes
import plotly.offline

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
settings = ConfigParser()
settings.read(HERE.parent / "settings.ini")
about = settings["DEFAULT"]

project, author, release = about["title"], about["author"], about["version"]
copyright = about["copyright"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["**/.ipynb_checkpoints", "_site"]
html_theme, html_static_path, html_js_files = "furo", ["_static"], ["figures.js"]

nb_execution_mode = "off"
nb_custom_formats = {".ipynb": "notebooks.read_notebook"}
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_linkify_fuzzy_links = False
# MathJax 2 comes with kaleido, so that the site needs no other server; its components are loaded from the same folder
MATHJAX = Path(kaleido.scopes.__file__).parents[1] / "executable/etc/mathjax"
mathjax_path, mathjax_options = "mathjax/MathJax.js", {"defer": "defer"}  # after Plotly, which would configure it
mathjax2_config = {
    "jax": ["input/TeX", "output/SVG"],
    "extensions": ["tex2jax.js"],
    "TeX": {"extensions": ["AMSmath.js", "AMSsymbols.js"]},
    "tex2jax": {"processClass": "math|tex2jax_process"},
    "showMathMenu": False,
    "messageStyle": "none",
}
autodoc_member_order = "bysource"
napoleon_google_docstring, napoleon_numpy_docstring, napoleon_use_rtype = True, False, False
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type", "myst.xref_missing", "toc.not_included"]


def write_generated(app):
    "Write the scripts of Plotly and MathJax, once for all pages, the pages of public names, and the notebooks."
    from notebooks import reference_pages

    skip = shutil.ignore_patterns(".ipynb_checkpoints", "*.yml")
    shutil.rmtree(HERE / "nbs", ignore_errors=True)
    shutil.copytree(HERE.parent / "nbs", HERE / "nbs", ignore=skip)
    (HERE / "_static/plotly.min.js").write_text(plotly.offline.get_plotlyjs(), encoding="utf-8")
    unused = shutil.ignore_patterns("localization", "CommonHTML", "NativeMML", "PreviewHTML", "config", "latest.js")
    shutil.copytree(MATHJAX, HERE / "_static/mathjax", ignore=unused, dirs_exist_ok=True)
    for name, text in reference_pages().items():
        path = HERE / "reference" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def add_plotly(app, page, template, context, doctree):
    "Load Plotly's script on pages with figures."
    if "plotly-figure" in (context.get("body") or ""):
        app.add_js_file("plotly.min.js", priority=100)


def setup(app):
    app.add_js_file(None, type="text/x-mathjax-config", body="MathJax.Ajax.timeout = 120000")  # ms, for busy machines
    app.connect("builder-inited", write_generated)
    app.connect("html-page-context", add_plotly)
