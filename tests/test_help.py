"help() of the public names: what goes in, what comes out, which errors, from which source."

import dataclasses
import inspect

import pytest

import mrl

PUBLIC = {name: getattr(mrl, name) for name in mrl.__all__ if callable(getattr(mrl, name))}
OWN = {
    f"{name}.{method}": f
    for name, cls in PUBLIC.items()
    if inspect.isclass(cls)
    for method, f in vars(cls).items()
    if not method.startswith("_") and (inspect.isfunction(f) or isinstance(f, classmethod))
}
FUNCTIONS = {n: f for n, f in PUBLIC.items() if inspect.isfunction(f)} | OWN
PENDING = {  # docstrings that still have their arguments as comments of the signature
    *("camera_pose", "rotation_6d_to_matrix", "euler_to_matrix", "weak_perspective", "axis_angle_to_quaternion"),
    *("Disentangled", "DataConfig", "GeometricAlignmentLoss", "HomoscedasticLoss", "LogMultiviewReprojectionLoss"),
    *(
        "LogTermsLoss",
        "MorphableModel",
        "MultiTermLoss",
        "MultiviewReprojectionLoss",
        "PixelAlignmentLoss",
        "Prediction",
    ),
    *("Reconstructor", "ReprojectionLoss", "Run", "TrainConfig", "fit_morphable_model", "load_morphable_model"),
    *("multiview_reprojection", "reconstruct", "save_morphable_model"),
}
CLASSES = {n: c for n, c in PUBLIC.items() if inspect.isclass(c)}


def arguments(f):
    names = inspect.signature(getattr(f, "__func__", f)).parameters
    return [n for n in names if n not in ("self", "cls")]


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n.split(".")[0] not in PENDING])
def test_functions(name):
    "The docstring describes every argument, and what is returned, or that nothing is."
    f = FUNCTIONS[name]
    text = inspect.getdoc(f)
    assert text and text[0].isupper() and text.split("\n")[0].endswith(".")
    assert [n for n in arguments(f) if f"\n    {n}: " not in text] == []
    assert "\nReturns:\n" in text or "return " not in inspect.getsource(f)


@pytest.mark.parametrize("name", [n for n in CLASSES if n not in PENDING])
def test_classes(name):
    "The docstring describes every field, or every argument of the constructor."
    cls = CLASSES[name]
    text = inspect.getdoc(cls)
    if dataclasses.is_dataclass(cls):
        names = list(cls.__annotations__)  # fields of a base class stand in its docstring
    elif issubclass(cls, tuple):
        names = list(cls._fields)
    else:
        names = arguments(cls.__init__)
    assert [n for n in names if f"\n    {n}: " not in text] == []
