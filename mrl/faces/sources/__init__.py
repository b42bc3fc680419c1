"""The morphable models of others, one module per owner's format.

Every module of this package is imported, so that a new one adds its model to `FACE_MODELS` by itself.
"""

from importlib import import_module
from pkgutil import iter_modules

from mrl import lazy_names

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"registry": ("FACE_MODELS", "find_face_model", "is_scan_folder", "read_face_model")}
)
