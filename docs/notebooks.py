"What the site makes of notebooks and of the package: live figures, links that leave nbs/, pages of public names."

import inspect
import json
import re
from configparser import ConfigParser
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PLOTLY = "application/vnd.plotly.v1+json"
MEMBERS = ["   :members:", "   :inherited-members: Module, tuple, Dataset"]  # of our own base classes only
_settings = ConfigParser()
_settings.read(ROOT / "settings.ini")
URL = "{git_url}/blob/{branch}/".format(**_settings["DEFAULT"])


def live_figure(figure):
    "Return HTML for a Plotly figure (dict), which _static/figures.js draws when it is scrolled into view."
    layout = figure["layout"]
    size = f"overflow-x: auto; height: {layout.get('height', 450) + 20}px"  # a wide figure scrolls
    data = json.dumps({k: figure[k] for k in ("data", "layout")}).replace("</", "<\\/")
    return f'<div class="plotly-figure" style="{size}"><script type="application/json">{data}</script></div>'


def outward_links(text):
    "Return Markdown whose links to files outside of nbs/, and to folders, lead to the repository."

    def link(match):
        target = re.sub(r"^(\.\./)+|^\./", "", match[1])
        inside = target.endswith(".ipynb")
        is_url = re.match(r"[a-z]+:|#", match[1])
        if inside or is_url:
            return match[0]
        path = target if (ROOT / target).exists() else f"nbs/{target}"
        return f"]({URL}{path})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def read_notebook(text):
    "Return a notebook for the site: without hidden cells, with live figures."
    notebook = nbformat.reads(text, as_version=4)
    hidden = re.compile(r"^#\|\s*(hide|default_exp)\b", re.M)
    notebook.cells = [c for c in notebook.cells if c.cell_type != "raw" and not hidden.search(c.source)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = outward_links(cell.source)
        cell.source = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M) if cell.cell_type == "code" else cell.source
        for output in cell.get("outputs", []):
            if PLOTLY in output.get("data", {}):
                output["data"] = {"text/html": live_figure(output["data"][PLOTLY])}
    return notebook


def reference_pages():
    "Return a page (Markdown) for each module that defines public names of `mrl`, and the page that lists them."
    import mrl

    objects = {name: getattr(mrl, name) for name in mrl.__all__ if not name.startswith("__")}
    modules = {}
    for name, thing in objects.items():
        modules.setdefault(getattr(thing, "__module__", None) or "mrl", []).append(name)
    pages = {}
    for module, names in modules.items():
        lines = [f"# {module}", "", "```{eval-rst}"]
        for name in names:
            thing = objects[name]
            if not callable(thing):
                lines += [f".. py:data:: mrl.{name}", "", f"   A {type(thing).__name__}: {', '.join(thing)}.", ""]
                continue
            kind, members = ("class", MEMBERS) if inspect.isclass(thing) else ("function", [])
            lines += [f".. auto{kind}:: mrl.{name}", *members, ""]
        pages[module] = "\n".join([*lines, "```", ""])
    listed = "\n".join(sorted(pages))
    index = "# Reference\n\nThe public names of `mrl`, by the module that defines them.\n\n"
    pages["index"] = f"{index}```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    return pages
