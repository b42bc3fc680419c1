"""The Multiview Reprojection Loss, and what it takes to train, evaluate and study it.

The public names below are found when they are first used, so that `import mrl` stays light (PEP 562).
"""

__version__ = "0.2.0"

from importlib import import_module


def lazy_names(package, modules):
    """Return `__getattr__`, `__dir__` and `__all__` of a package that imports a module when a name of it is first used.

    `modules` is a dict from a module of the package to the names that the package offers of it.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def find(name):
        if name not in module_of:
            names = ", ".join(module_of)
            raise AttributeError(f"module {package!r} has no attribute {name!r}; its public names are {names}")
        thing = getattr(import_module(f"{package}.{module_of[name]}"), name)
        documented = isinstance(thing, type) or hasattr(thing, "__code__")
        return import_module("mrl.io.documentation").document(thing) if documented else thing

    return find, lambda: sorted({*vars(import_module(package)), *module_of}), list(module_of)


__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
__all__ = ["__version__", *__all__]
