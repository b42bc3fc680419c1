"The package as others install it: the losses with PyTorch alone."

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

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

x, q, t = torch.randn(2, 5, 3), torch.tensor([[0.0, 1, 0, 0]] * 2), torch.tensor([[0.0, 0, 600]] * 2)
K = torch.tensor([[100.0, 0, 32], [0, 100, 32], [0, 0, 1]]).expand(2, 3, 3)
x_hat = (x + 1).requires_grad_()
loss = MultiviewReprojectionLoss()(x_hat, q, t, x, q, t, K=K)
loss.backward()
print(loss.item() > 0, x_hat.grad.norm().item() > 0)
"""


def test_losses_need_pytorch_alone():
    "`pip install --no-deps` and PyTorch are enough for a loss and its gradient."
    done = subprocess.run([sys.executable, "-c", TORCH_ALONE], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "True"], done.stderr
