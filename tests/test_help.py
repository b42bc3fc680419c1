"help() of the public names: what goes in, what comes out, which errors, from which source."

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

import mrl

PUBLIC = {name: getattr(mrl, name) for name in mrl.__all__ if callable(getattr(mrl, name))}
CLASSES = {n: c for n, c in PUBLIC.items() if inspect.isclass(c)}
PACKAGES = ["geometry", "losses", "faces", "faces.sources", "render", "data", "training", "study", "photo", "scans"]
PACKAGES += ["show", "stats"]


def methods(cls):
    "Return the public methods of a class and of its bases in mrl: dict name -> function or class method."
    ours = [base for base in reversed(cls.__mro__) if base.__module__.split(".")[0] == "mrl"]
    found = {name: f for base in ours for name, f in vars(base).items() if not name.startswith("_")}
    return {name: f for name, f in found.items() if inspect.isfunction(f) or isinstance(f, classmethod)}


METHODS = {f"{name}.{method}": f for name, cls in CLASSES.items() for method, f in methods(cls).items()}
FUNCTIONS = {n: f for n, f in PUBLIC.items() if inspect.isfunction(f)} | METHODS


def documentation(name):
    "Return the docstring of a function, and those of the methods that it overrides."
    owner, _, method = name.partition(".")
    if not method:
        return inspect.getdoc(FUNCTIONS[name])
    overridden = [vars(cls)[method] for cls in PUBLIC[owner].__mro__ if method in vars(cls)]
    return "\n".join(inspect.getdoc(f) or "" for f in overridden)


def described(text):
    "Return the names that the lines `name: ...` and `name, name: ...` of a docstring describe."
    lines = re.findall(r"^    ([a-zA-Z_][\w, ]*): ", text, re.M)
    return {name.strip() for line in lines for name in line.split(",")}


def arguments(f):
    names = inspect.signature(getattr(f, "__func__", f)).parameters
    return [n for n in names if n not in ("self", "cls")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    "The docstring, or that of an overridden method, describes every argument and what is returned."
    f = FUNCTIONS[name]
    own, text = inspect.getdoc(f), documentation(name)
    assert own and own[0].isupper() and own.split("\n")[0].endswith(".")
    assert [n for n in arguments(f) if n not in described(text)] == []
    assert "\nReturns:\n" in text or "return " not in inspect.getsource(f)


def check_class(cls):
    text = inspect.getdoc(cls)
    if dataclasses.is_dataclass(cls):
        names = list(cls.__annotations__)  # fields of a base class stand in its docstring
    elif issubclass(cls, tuple):
        names = list(cls._fields)
    else:
        names = arguments(cls.__init__)
    assert [n for n in names if n not in described(text)] == []


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    "The docstring describes every field, or every argument of the constructor."
    check_class(CLASSES[name])


@pytest.mark.parametrize("package", PACKAGES)
def test_names_of_packages(package):
    "Their docstrings describe arguments and results, too: from the comments in the source."
    module = importlib.import_module(f"mrl.{package}")
    for thing in (getattr(module, name) for name in module.__all__):
        text = inspect.getdoc(thing)
        if inspect.isclass(thing):
            check_class(thing)
        elif inspect.isfunction(thing):
            assert [n for n in arguments(thing) if n not in described(text)] == [], thing
            assert "\nReturns:\n" in text or "return " not in inspect.getsource(thing), thing


VERBS = """
Add Align Announce Append Apply Be Begin Bend Broadcast Build Call Check Clean Close Compare Complete Compute
Convert Copy Count Decode Delete Describe Do Download Draw Encode End Enter Estimate Evaluate Execute Export
Find Fit Give Go Hide Hold Invert Keep Label Leave Let List Load Log Look Make Mark Measure Mix Move Open Own
Parse Predict Prepare Print Project Put Raise Read Reconstruct Refine Refuse Register Remove Render Replace
Restore Resume Return Rotate Run Save Say Set Show Solve Stack Start Stop Store Sum Take Tell Time Tint Train
Transform Turn Undo Update Use Wait Warn Write Yield
"""


@pytest.mark.parametrize(
    "path", sorted(Path(mrl.__file__).parent.rglob("*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_docstrings_of_functions_begin_with_a_verb(path):
    "In the imperative: Return, Draw, Raise; a new verb is added to VERBS."
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    texts = {f.name: ast.get_docstring(f) for f in functions}
    first = {name: text.split()[0].strip(".,:;") for name, text in texts.items() if text}
    assert {name: word for name, word in first.items() if word not in VERBS.split()} == {}
