"""The morphable models of others, one module per owner's format.

Every module of this package is imported, so that a new one adds its model to `FACE_MODELS` by itself.
"""

from importlib import import_module
from pkgutil import iter_modules

from .registry import FACE_MODELS, find_face_model, is_scan_folder, read_face_model

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["FACE_MODELS", "find_face_model", "is_scan_folder", "read_face_model"]
