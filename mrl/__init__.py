"""The Multiview Reprojection Loss, and what it takes to train, evaluate and study it.

The public names below are found when they are first used, so that `import mrl` stays light (PEP 562).
"""

__version__ = "0.2.0"

from importlib import import_module

_PUBLIC = {
    "losses": (
        "MultiviewReprojectionLoss",
        "ReprojectionLoss",
        "GeometricAlignmentLoss",
        "PixelAlignmentLoss",
        "MultiTermLoss",
        "HomoscedasticLoss",
        "LogTermsLoss",
        "LogMultiviewReprojectionLoss",
        "Disentangled",
        "multiview_reprojection",
    ),
    "geometry.camera": ("project", "look_at"),
    "geometry.conventions": ("camera_pose", "rotation_6d_to_matrix", "euler_to_matrix", "weak_perspective"),
    "geometry.rotation": ("axis_angle_to_quaternion",),
    "geometry.relative_pose": ("relative_pose",),
    "faces.population": ("Population", "load_population"),
    "faces.morphable": ("MorphableModel", "fit_morphable_model", "load_morphable_model", "save_morphable_model"),
    "faces.sources": ("read_face_model",),
    "render.renderer": ("Renderer",),
    "data.configuration": ("DataConfig",),
    "data.rendered": ("build_dataset",),
    "data.dataset": ("FaceImages",),
    "data.photographs": ("import_photographs",),
    "training.network": ("Prediction", "Reconstructor"),
    "training.configuration": ("TrainConfig",),
    "training.evaluation": ("evaluate",),
    "training.loop": ("train",),
    "training.run": ("Run",),
    "io.meshes": ("read_mesh", "write_mesh"),
    "photo.reconstruction": ("reconstruct",),
    "scans.protocols": ("PROTOCOLS", "Protocol"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mrl' has no attribute {name!r}; its public names are {', '.join(_MODULE_OF)}")
    return getattr(import_module(f"mrl.{_MODULE_OF[name]}"), name)


def __dir__():
    return sorted({*globals(), *_MODULE_OF})
