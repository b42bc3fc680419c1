"The package as others install it: the losses with PyTorch alone, and a wheel outside of a checkout."

import ast
import json
import os
import shutil
import site
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = [
    "nbdev",
    "fastcore",
    "IPython",
    "plotly",
    "papermill",
    "embreex",
    "trimesh",
    "torchvision",
    "joblib",
    "igl",
    "cv2",
]

TORCH_ALONE = """
import builtins, sys

ordinary = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    "Refuse what a module of mrl imports besides PyTorch, the standard library and mrl."
    top = name.split(".")[0]
    importer = (globals or {}).get("__name__", "")
    if importer.split(".")[0] == "mrl" and level == 0 and top not in {"torch", "mrl", *sys.stdlib_module_names}:
        raise ImportError(f"{importer} imports {name}")
    return ordinary(name, globals, locals, fromlist, level)

builtins.__import__ = guarded

import torch
from mrl.losses import MultiviewReprojectionLoss

x, q, t = 60 * torch.randn(2, 5, 3), torch.tensor([[0.0, 1, 0, 0]] * 2), torch.tensor([[0.0, 0, 600]] * 2)
K = torch.tensor([[100.0, 0, 32], [0, 100, 32], [0, 0, 1]]).expand(2, 3, 3)
x_hat = (x + 1).requires_grad_()
loss = MultiviewReprojectionLoss()(x_hat, q, t, x, q, t, K=K)
loss.backward()
print(loss.item() > 0, x_hat.grad.norm().item() > 0)
"""


FOUND_LATER = (p for p in (ROOT / "mrl").glob("*/__init__.py") if "lazy_names" in p.read_text())
LAZY = sorted(p.parent.name for p in FOUND_LATER if p.parent.name != "losses")  # whose modules register their classes
IMPORTS = f"""
import sys
import mrl
{"".join(f"import mrl.{name}; " for name in LAZY)}
print([m for m in sys.modules if m.startswith("mrl.") and m.count(".") > 1])
print([m for m in ("torch", "numpy", "scipy") if m in sys.modules])
import mrl.losses
print([m for m in {HEAVY} if m in sys.modules])
"""


def test_import_is_light():
    "Packages import none of their modules; the losses need no tool of notebooks, images or meshes."
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["[]", "[]", "[]"], done.stdout + done.stderr


@pytest.mark.parametrize("package", ["mrl", *(f"mrl.{name}" for name in LAZY)])
def test_every_public_name_is_found(package):
    "Each name is found once, in a module that offers it, and none hides a module of the package."
    module = import_module(package)
    assert set(module.__all__) <= set(dir(module)) and len(module.__all__) == len(set(module.__all__))
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert not {m.name for m in iter_modules(module.__path__)} & set(module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'; its public names are "):
        module.nothing  # noqa: B018


def test_losses_need_pytorch_alone():
    "`pip install --no-deps` and PyTorch are enough for a loss and its gradient."
    done = subprocess.run([sys.executable, "-c", TORCH_ALONE], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "True"], done.stderr


FROM_A_WHEEL = """
import json
from pathlib import Path

import mrl
from mrl.data.rendered import plan_labels, render_image
from mrl.io.files import HOME, ROOT

population = mrl.load_population()
config = mrl.DataConfig(n_images=1, size=256, yaw=5.0, pitch=5.0, roll=5.0, margin=2.0)
label = {k: v[0] for k, v in plan_labels(config, population).items()}
face = mrl.reconstruct(
    mrl.Run.load("photo"), render_image(config, 0, label), box=(64, 64, 192, 192)
)
tiny = mrl.TrainConfig(run="two-steps", n_images=64, image_size=32, n_components=4, width=0.06, steps=2, batch_size=8)
folder = mrl.train(tiny, progress=False)
record = json.loads((folder / "config.json").read_text())
print(
    json.dumps(
        {
            "package": mrl.__file__,
            "root": str(ROOT),
            "home": str(HOME),
            "vertices": list(face.x.shape),
            "run": str(folder),
            "files": sorted(p.name for p in folder.iterdir()),
            "commit": record["commit"],
        }
    )
)
"""


def clean_environment(**more):  # dict
    "Return the environment variables without those that would lead to this checkout or its data."
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MRL_HOME", "MRL_DATA")} | more


def build_wheel(folder):
    "Build the wheel from a copy of what it is made from, since a build leaves files behind; return its path."
    source = folder / "source"
    for name in ("mrl", "data", "results/photo"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, env=clean_environment())
    return next(folder.glob("mrl-*.whl"))


def install(wheel, folder):
    "Install a wheel into a new environment that has the dependencies of this one; return its interpreter."
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "-q", "--no-deps", wheel], check=True, env=clean_environment())
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return python


@pytest.mark.slow
def test_a_wheel_outside_of_a_checkout(tmp_path):
    "Faces, a network, a data set and a run from an installed wheel, in an empty folder inside another repository."
    python = install(build_wheel(tmp_path), tmp_path / "environment")
    home, here = tmp_path / "home", tmp_path / "empty"
    here.mkdir()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    env = clean_environment(HOME=str(home), XDG_DATA_HOME=str(home / "share"))
    done = subprocess.run([python, "-c", FROM_A_WHEEL], capture_output=True, text=True, cwd=here, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    package = Path(found["package"]).parent
    assert package.is_relative_to(tmp_path / "environment") and Path(found["root"]) == package / "share"
    assert found["home"] == str(home / "share" / "mrl") and found["run"].startswith(found["home"])
    assert found["vertices"][-1] == 3 and "metrics.json" in found["files"] and found["commit"] == "unknown"
    assert (package / "py.typed").exists() and (package / "share" / "data" / "README.md").exists()
    assert not list(here.iterdir())


def test_no_assignment_is_hidden_in_an_expression():
    files = [p for folder in ("mrl", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    nodes = [(p.relative_to(ROOT), node) for p in files for node in ast.walk(ast.parse(p.read_text()))]
    assert len(files) > 100
    assert not [f"{path}:{node.lineno}" for path, node in nodes if isinstance(node, ast.NamedExpr)]
