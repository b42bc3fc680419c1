"Face models in their owners' formats: small files of each, and ICT-FaceKit itself if MRL_DATA has it."

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import types
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
import trimesh
from test_morphable import rims, surface

from mrl.faces.landmarks import IBUG, LANDMARKS, ibug_landmarks
from mrl.faces.morphable import MorphableModel, save_morphable_model
from mrl.faces.sources import FACE_MODELS, is_scan_folder, read_face_model
from mrl.faces.sources.bfm import _BFM_2009_IBUG, _read_matlab, read_bfm
from mrl.faces.sources.flame import _FLAME_IBUG, _unpickle_arrays, read_flame
from mrl.faces.sources.ict import read_ict
from mrl.faces.sources.scans import read_labels, read_scans, scan_files
from mrl.faces.sources.sfm import _SFM_IBUG, read_sfm
from mrl.geometry.surface import Surface

ROOT = Path(__file__).parent.parent
WHERE = {
    "right_eye_outer": (-45, 35, 0),
    "right_eye_inner": (-17, 35, 5),
    "left_eye_inner": (17, 35, 5),
    "left_eye_outer": (45, 35, 0),
    "nose_tip": (0, 0, 40),
    "nose_base": (0, -10, 25),
    "mouth_right": (-26, -35, 12),
    "mouth_left": (26, -35, 12),
    "chin": (0, -75, 5),
}


def gaussian(n, M=3, seed=0):
    "Orthonormal directions (3n, M) and decreasing standard deviations (M,) in mm"
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3 * n, M)))[0], np.array([40.0, 20, 10])[:M]


@pytest.fixture
def face():
    x, t = surface()
    V, sd = gaussian(len(x))
    marks = {k: int(np.linalg.norm(x - w, axis=1).argmin()) for k, w in WHERE.items()}
    for k, i in marks.items():
        x[i] = WHERE[k]
    return types.SimpleNamespace(x=x, t=t, V=V, sd=sd, N=len(x), marks=marks, basis=(V * sd).T.reshape(-1, len(x), 3))


def same(model, face, marks=None):
    "The model is the face, in mm, coefficients in standard deviations, wound outwards"
    assert np.allclose(model.mean, face.x, atol=1e-3) and np.allclose(model.basis, face.basis, atol=1e-4)
    assert {tuple(np.roll(t, -t.argmin())) for t in model.triangles.numpy()} == {
        tuple(np.roll(t, -t.argmin())) for t in face.t
    }
    assert (
        model.units == "mm"
        and model.mean.dtype == model.basis.dtype == torch.float32
        and model.triangles.dtype == torch.int64
    )
    a = torch.tensor([1.0, -2, 0.5])[: len(face.sd)]
    assert np.allclose(model.shape(a), face.x + np.tensordot(a.numpy(), face.basis, 1), atol=1e-3)
    assert np.allclose(model.coefficients(model.shape(a)), a, atol=1e-3)
    assert model.variance_ratio.sum() == pytest.approx(1) and np.allclose(
        model.variance_ratio, face.sd**2 / (face.sd**2).sum(), atol=1e-4
    )
    if marks is not None:
        assert {k: model.landmarks.get(k) for k in marks} == marks


def curve(n):
    "Return points (n, 3) in mm along a curve, so that neighbours in the file are neighbours in space."
    knots = np.random.default_rng(0).normal(size=(n // 30 + 2, 3)) * 40
    return np.stack([np.interp(np.arange(n), 30 * np.arange(len(knots)), column) for column in knots.T], -1)


# ---- Basel Face Model -----------------------------------------------------------------------------------------------
def bfm_2009(path, face, version="5", **changes):
    "01_MorphableModel.mat: micrometres, standard deviations, triangles from 1 and clockwise; float32, as the owner's"
    data = {
        "shapeMU": np.float32(face.x * 1000).reshape(-1, 1),
        "shapePC": np.float32(face.V),
        "shapeEV": np.float32(face.sd * 1000)[:, None],
        "tl": np.float64(face.t[:, [0, 2, 1]] + 1),
        "texMU": np.zeros((3 * face.N, 1), np.float32),
        **changes,
    }
    data = {k: v for k, v in data.items() if v is not None}
    if version == "5":
        scipy.io.savemat(path, data, do_compression=True)
    else:
        with h5py.File(
            path, "w", userblock_size=512
        ) as f:  # MATLAB 7.3: HDF5 behind a block of text, matrices transposed
            for k, v in data.items():
                f[k] = v.T
        with open(path, "r+b") as f:
            f.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


def bfm_2017(path, face, landmarks="text", without=()):
    "model2017-1_*.h5, model2019_*.h5: statismo, mm, variances, cells (3, T)"
    entries = [
        {"id": i, "coordinates": [float(c) for c in face.x[face.marks[k]] + 0.3]}
        for k, i in {
            "right_eye_outer": "right.eye.corner_outer",
            "left_eye_outer": "left.eye.corner_outer",
            "nose_tip": "center.nose.tip",
            "nose_base": "center.nose.attachement_to_philtrum",
            "chin": "center.chin.tip",
            "mouth_left": "left.lips.corner",
        }.items()
    ]
    entries.append({"id": "left.ear.helix.top", "coordinates": [90.0, 40, -60]})
    text = json.dumps(entries)
    with h5py.File(path, "w") as f:
        f["shape/model/mean"], f["shape/model/pcaBasis"] = np.float32(face.x).reshape(-1), np.float32(face.V)
        f["shape/model/pcaVariance"], f["shape/model/noiseVariance"] = np.float32(face.sd**2), np.float32([0])
        f["shape/representer/cells"], f["shape/representer/points"] = np.int32(face.t.T), np.float32(face.x.T)
        f["version/majorVersion"], f["version/minorVersion"] = 0, 9
        if landmarks == "text":
            f["metadata/landmarks/json"] = text
        elif landmarks == "bytes":
            f["metadata/landmarks/json"] = np.frombuffer(text.encode() + b"\0", np.int8)
        elif landmarks == "list":
            f.create_dataset("metadata/landmarks/json", data=[text], dtype=h5py.string_dtype())
        elif landmarks:
            f["metadata/landmarks/json"] = landmarks
        for name in without:
            del f[name]
    return path


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_bfm_2009(tmp_path, face, version):
    model = read_bfm(bfm_2009(tmp_path / "01_MorphableModel.mat", face, version))
    same(model, face, {})
    assert model.name == "BFM 2009 (face)" and "Basel" in model.licence and not model.landmarks


@pytest.mark.parametrize("landmarks", ["text", "bytes", "list"])
def test_bfm_2017_and_2019(tmp_path, face, landmarks):
    model = read_bfm(bfm_2017(tmp_path / "model2019_face12.h5", face, landmarks))
    same(
        model,
        face,
        {
            k: face.marks[k]
            for k in ("right_eye_outer", "left_eye_outer", "nose_tip", "nose_base", "chin", "mouth_left")
        },
    )
    assert model.landmarks["ibug_08"] == face.marks["chin"] and model.name == "BFM model2019_face12 (face)"


def test_bfm_region(tmp_path, face):
    "The owner's face12 is taken whole; the larger files are cut around the nose"
    cut = read_bfm(bfm_2017(tmp_path / "model2017-1_bfm_nomouth.h5", face))
    far = np.linalg.norm(face.x - face.x[face.marks["nose_tip"]], axis=1)
    assert len(cut.mean) < face.N and np.linalg.norm(cut.mean - cut.mean[cut.landmarks["nose_tip"]], axis=1).max() <= 95
    inside = [i for i in range(face.N) if far[i] <= 95 and any((far[t] <= 95).all() for t in face.t if i in t)]
    assert np.allclose(cut.mean, face.x[inside], atol=1e-4) and np.allclose(cut.basis, face.basis[:, inside], atol=1e-4)
    assert np.allclose(cut.mean[cut.landmarks["chin"]], WHERE["chin"])
    same(read_bfm(tmp_path / "model2017-1_bfm_nomouth.h5", region="all"), face)


def test_bfm_2009_has_landmarks_at_its_own_size(tmp_path):
    "53,490 vertices: the 68 points of the public list, and a face cut out by them"
    x = curve(53490)
    x[list(_BFM_2009_IBUG)] = [0, 0, 20]  # within the face, where no place is stated
    for k, i in IBUG.items():
        x[_BFM_2009_IBUG[i]] = WHERE[k]
    t = np.concatenate(
        [
            np.array(_BFM_2009_IBUG[:66]).reshape(-1, 3),
            np.array(_BFM_2009_IBUG[-3:])[None],
            np.arange(53490).reshape(-1, 3),
        ]
    )
    f = types.SimpleNamespace(x=x, t=t, N=len(x), V=np.eye(3 * 53490, 1), sd=np.array([3.0]))
    model = read_bfm(bfm_2009(tmp_path / "01_MorphableModel.mat", f))
    assert {k: tuple(np.round(model.mean[model.landmarks[k]].tolist()).astype(int)) for k in LANDMARKS} == WHERE
    assert 1000 < len(model.mean) < 53490
    with pytest.raises(ValueError, match="outer corners of the eyes are 0.09 apart, .* metres. multiply by 1000"):
        read_bfm(bfm_2009(tmp_path / "01_MorphableModel.mat", f, shapeMU=np.float32(x).reshape(-1, 1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapePC": None}, "shapePC missing"),
        ({"tl": None, "shapeMU": None}, "shapeMU, tl missing"),
        ({"shapeEV": np.ones((2, 1))}, r"shapeMU, shapePC, shapeEV: expected shapes \(3N\), \(3N, M\), \(M\)"),
        ({"shapeMU": np.ones((100, 1))}, ": expected shapes"),
        ({"tl": np.zeros((5, 3))}, "triangles name vertices -1 to -1"),
        ({"tl": np.full((5, 3), 1.5)}, "triangles: expected whole numbers"),
        ({"tl": "text"}, "tl: expected an array of numbers, got bytes"),
        ({"tl": np.ones((5, 4))}, r"tl \(T, 3\) expected, got \(5, 4\)"),
    ],
)
def test_bfm_2009_errors(tmp_path, face, changes, message):
    with pytest.raises(ValueError, match="01_MorphableModel.mat: .*" + message):
        read_bfm(bfm_2009(tmp_path / "01_MorphableModel.mat", face, **changes))


def test_matlab_as_another_library_reads_it(tmp_path, face):
    names = ("shapeMU", "shapePC", "shapeEV", "tl")
    for kind in (np.float64, ">f4", np.uint16, np.int8):
        path = bfm_2009(tmp_path / "a.mat", face, shapeMU=(face.x[:, :1] % 100).astype(kind), half="text", z=[1 + 2j])
        got, expected = _read_matlab(path, names), scipy.io.loadmat(path, variable_names=names)
        assert all(np.array_equal(got[name], expected[name]) for name in names)


def test_damaged_matlab_is_a_named_fault(tmp_path, face):
    "SciPy's reader ends the process on some of these files."
    path, rng = tmp_path / "01_MorphableModel.mat", np.random.default_rng(0)
    scipy.io.savemat(path, {"shapeMU": np.float32(face.x).reshape(-1, 1), "tl": face.t + 1.0})
    whole = path.read_bytes()
    assert not _read_matlab(path, ["shapePC"]) and len(_read_matlab(path, ["shapeMU", "tl"])) == 2
    for at in rng.integers(126, 260, 300):
        path.write_bytes(whole[:at] + bytes([rng.integers(256)]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="01_MorphableModel.mat: "):
            read_bfm(path)


@pytest.mark.parametrize(("name", "write"), [("01_MorphableModel.mat", bfm_2009), ("model2019_bfm.h5", bfm_2017)])
@pytest.mark.parametrize("part", [0, 0.003, 0.3, 0.7])
def test_bfm_truncated(tmp_path, face, name, write, part):
    data = write(tmp_path / name, face).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match=name):
        read_bfm(tmp_path / name)


@pytest.mark.parametrize(
    "gone",
    ["shape/model/mean", "shape/model/pcaBasis", "shape/model/pcaVariance", "shape/representer/cells", "shape/model"],
)
def test_bfm_2017_missing_groups(tmp_path, face, gone):
    with pytest.raises(ValueError, match=f"model2019_bfm.h5: .*{gone}.* missing"):
        read_bfm(bfm_2017(tmp_path / "model2019_bfm.h5", face, without=[gone]))


def test_bfm_2017_bad_landmarks(tmp_path, face):
    for text in ("{", "[1]", '[{"id": "center.chin.tip"}]', '[{"id": "center.chin.tip", "coordinates": [1, 2]}]'):
        with pytest.raises(ValueError, match="model2019_bfm.h5: metadata/landmarks/json"):
            read_bfm(bfm_2017(tmp_path / "model2019_bfm.h5", face, text))
    face.x = face.x / 10  # centimetres in a file of millimetres
    with pytest.raises(ValueError, match="model2019_bfm.h5: the outer corners of the eyes are 9 apart.*multiply by 10"):
        read_bfm(bfm_2017(tmp_path / "model2019_bfm.h5", face))


def test_bfm_2017_landmarks_off_the_mesh(tmp_path, face):
    with h5py.File(bfm_2017(tmp_path / "model2019_face12.h5", face), "r+") as f:
        entries = json.loads(f["metadata/landmarks/json"][()])
        entries[2]["coordinates"] = [0, 0, 200]
        del f["metadata/landmarks/json"]
        f["metadata/landmarks/json"] = json.dumps(entries)
    with pytest.warns(
        UserWarning,
        match="model2019_face12.h5: landmarks left out, since no vertex lies within 5 mm of them: center.nose.tip$",
    ):
        model = read_bfm(tmp_path / "model2019_face12.h5")
    assert "nose_tip" not in model.landmarks and "chin" in model.landmarks


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("shape/model/pcaVariance", np.float32([4, -1, 1]), "shape/model/pcaVariance holds negative numbers"),
        ("shape/model/mean", "text", "shape/model/mean: expected an array of numbers, got bytes"),
        ("shape/representer/cells", np.float32([[0, 1, 2.5]] * 2), "triangles: expected whole numbers"),
        ("shape/model/pcaBasis", 3.0, "shape/model/pcaBasis: expected an array of numbers, got float64"),
    ],
)
def test_bfm_2017_errors(tmp_path, face, field, value, message):
    with h5py.File(bfm_2017(tmp_path / "model2019_bfm.h5", face, without=[field]), "r+") as f:
        f[field] = value
    with pytest.raises(ValueError, match=f"model2019_bfm.h5: {message}"):
        read_bfm(tmp_path / "model2019_bfm.h5")


def test_bfm_2009_in_the_layout_of_statismo(tmp_path, face):
    "The owner's HDF5 file of the model of 2009: in micrometres or in millimetres, with landmarks or without"
    for scale in (1, 1000):
        for landmarks in (None, "text"):
            big = types.SimpleNamespace(**vars(face) | {"x": face.x * scale, "sd": face.sd * scale})
            path = bfm_2017(tmp_path / "model2009-publicmm1-bfm.h5", big, landmarks)
            if landmarks:  # 0.3 mm from their vertices
                with h5py.File(path, "r+") as f:
                    entries = [
                        e | {"coordinates": [c * scale for c in face.x[face.marks["chin"]] + 0.3]}
                        for e in json.loads(f["metadata/landmarks/json"][()])
                        if e["id"] == "center.chin.tip"
                    ]
                    del f["metadata/landmarks/json"]
                    f["metadata/landmarks/json"] = json.dumps(entries)
            model = read_face_model(path)
            same(model, face, {"chin": face.marks["chin"]} if landmarks else {})
            assert model.name == "BFM model2009-publicmm1-bfm (face)" and "Basel" in model.licence


@pytest.mark.parametrize(("factor", "hint"), [(1e-3, "metres. multiply by 1000"), (0.1, "centimetres. multiply by 10")])
def test_sizes_without_landmarks(tmp_path, face, factor, hint):
    "A model whose file names no landmarks is measured as a whole, in every format."
    wrong = types.SimpleNamespace(**vars(face) | {"x": face.x * factor, "sd": face.sd * factor})
    (tmp_path / "a.bin").write_bytes(cereal(wrong, 1))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(flame(wrong)))
    wrong_ict = types.SimpleNamespace(**vars(wrong) | {"basis": face.basis * factor})
    (ict_layout(tmp_path / "ict", wrong_ict) / "FaceXModel/vertex_indices.json").unlink()
    save_morphable_model(
        tmp_path / "a.safetensors",
        MorphableModel(
            torch.from_numpy(wrong.x), torch.from_numpy(face.basis), torch.from_numpy(face.t), torch.ones(len(face.sd))
        ),
    )
    paths = [tmp_path / "a.bin", tmp_path / "a.pkl", tmp_path / "ict", tmp_path / "a.safetensors"]
    paths += [bfm_2009(tmp_path / "a.mat", wrong), bfm_2017(tmp_path / "a.h5", wrong, landmarks=None)]
    for path in paths:
        with pytest.raises(
            ValueError, match=rf"{path.name}.*: the mesh is .* mm long, expected 100 to 1000 mm: {hint}"
        ):
            read_face_model(path)


# ---- FLAME ----------------------------------------------------------------------------------------------------------
class Python2Pickler(pickle._Pickler):
    "Writes what Python 2 wrote: 8-bit strings for text and for the bytes of arrays"

    dispatch = dict(pickle._Pickler.dispatch)

    def string(self, s):
        data = s if isinstance(s, bytes) else s.encode("latin1")
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(s)

    dispatch[str] = dispatch[bytes] = string


def python2_pickle(value, protocol):
    "Bytes of a pickle as Python 2, numpy 1 and scipy 0.x wrote it"
    f = io.BytesIO()
    Python2Pickler(f, protocol, fix_imports=True).dump(value)
    return (
        f.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.").replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")
    )


@pytest.fixture
def chumpy(monkeypatch):
    "A stand-in for chumpy.ch.Ch, with the attributes that the real one pickles; gone when `forget` is called"

    class Ch:
        def __init__(self, x):
            self.__dict__.update(
                x=x, _dirty_vars={"x"}, _itr=None, _depends_on_deps={}, _make_dense=False, _status="new"
            )

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module = types.ModuleType("chumpy.ch")
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return types.SimpleNamespace(Ch=Ch, forget=lambda: [sys.modules.pop(k, None) for k in ("chumpy", "chumpy.ch")])


def flame(face, wrap=lambda x: x, K=None):
    modes = np.moveaxis(face.basis, 0, -1) / 1000
    if K:
        modes = np.concatenate([modes, np.zeros((face.N, 3, K - modes.shape[2]))], -1)
    return {
        "v_template": wrap(face.x / 1000),
        "shapedirs": wrap(modes),
        "f": np.uint32(face.t),
        "weights": wrap(np.ones((face.N, 5))),
        "J_regressor": scipy.sparse.csc_matrix(np.eye(5, face.N)),
        "kintree_table": np.array([[-1, 0], [0, 1]]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


@pytest.mark.parametrize("protocol", [0, 2])
def test_flame_as_python_2_pickled_it(tmp_path, face, chumpy, protocol):
    data = python2_pickle(flame(face, chumpy.Ch), protocol)
    assert (
        b"cchumpy.ch\nCh\n" in data
        and b"cnumpy.core.multiarray\n_reconstruct\n" in data
        and b"cscipy.sparse.csc\ncsc_matrix\n" in data
    )
    assert (b"ccopy_reg\n_reconstructor\n" in data) == (protocol == 0)
    chumpy.forget()
    (tmp_path / "generic_model.pkl").write_bytes(data)
    model = read_flame(tmp_path / "generic_model.pkl")
    same(model, face, {})
    assert model.name == "FLAME generic_model (face)" and "FLAME" in model.licence and "chumpy" not in sys.modules
    got = _unpickle_arrays(tmp_path / "generic_model.pkl")
    assert (
        np.array_equal(got["kintree_table"], [[-1, 0], [0, 1]])
        and got["bs_style"] == "lbs"
        and np.array_equal(got["weights"], np.ones((face.N, 5)))
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_flame_as_python_3_pickles_it(tmp_path, face, protocol):
    (tmp_path / "flame2023.pkl").write_bytes(pickle.dumps(flame(face), protocol=protocol))
    same(read_flame(tmp_path / "flame2023.pkl"), face)


def test_flame_npz(tmp_path, face):
    np.savez(tmp_path / "flame2023.npz", **{k: v for k, v in flame(face).items() if isinstance(v, np.ndarray)})
    same(read_flame(tmp_path / "flame2023.npz"), face)
    (tmp_path / "flame2023.npz").rename(tmp_path / "FLAME.NPZ")
    same(read_flame(tmp_path / "FLAME.NPZ"), face)
    same(read_face_model(tmp_path / "FLAME.NPZ"), face)


@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", "|u1", "|b1", "<f2"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_of_every_kind(tmp_path, kind, protocol):
    "What comes out of the reader that calls no numpy function of a pickle is what numpy itself would give"
    x = (np.arange(24).reshape(2, 3, 4) % 7).astype(kind)
    values = {
        "c": x,
        "fortran": np.asfortranarray(x),
        "part": x[:, ::2],
        "empty": x[:0],
        "number": x[0, 0, 1],
        "point": x[0, 0, 2, ...],
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(values, protocol=protocol))
    got = _unpickle_arrays(tmp_path / "a.pkl")
    assert all(
        np.array_equal(got[k], v) and got[k].dtype == v.dtype and got[k].shape == v.shape for k, v in values.items()
    )


def test_flame_takes_the_modes_of_shape_only(tmp_path, face):
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(flame(face, K=400)))
    model = read_flame(tmp_path / "generic_model.pkl")
    assert len(model.basis) == 300 and np.allclose(model.basis[:3], face.basis, atol=1e-4)


def test_flame_masks(tmp_path, face):
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(flame(face)))
    part = np.flatnonzero(np.abs(face.x[:, 0]) < 60)
    (tmp_path / "FLAME_masks.pkl").write_bytes(python2_pickle({"face": part, "nose": part[:3]}, 2))
    model = read_flame(tmp_path / "generic_model.pkl")
    assert (
        np.allclose(model.mean, face.x[part], atol=1e-4) and len(model.triangles) == np.isin(face.t, part).all(1).sum()
    )
    assert np.allclose(model.mean[model.triangles], face.x[face.t[np.isin(face.t, part).all(1)]], atol=1e-4)
    same(read_flame(tmp_path / "generic_model.pkl", region="all"), face)
    for bad, message in (
        ({"nose": part}, "face missing"),
        ({"face": part + face.N}, "face: expected a list of vertices from 0 to"),
    ):
        (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(bad))
        with pytest.raises(ValueError, match=f"FLAME_masks.pkl: {message}"):
            read_flame(tmp_path / "generic_model.pkl")


def test_flame_at_its_own_size(tmp_path):
    "5,023 vertices: landmarks of the public list, and no eyeballs"
    x = curve(5023)
    for k, i in IBUG.items():
        x[_FLAME_IBUG[i]] = WHERE[k]
    t = np.concatenate([np.arange(3930).reshape(-1, 3), [[3928, 3929, 3930]], np.arange(3931, 5023).reshape(-1, 3)])
    (tmp_path / "generic_model.pkl").write_bytes(
        pickle.dumps({"v_template": x / 1000, "shapedirs": np.full((5023, 3, 2), 0.001), "f": np.uint32(t)})
    )
    model = read_flame(tmp_path / "generic_model.pkl")
    assert len(model.mean) == 3931 and len(model.landmarks) == 68 + 9
    assert {k: tuple(np.round(model.mean[model.landmarks[k]].tolist()).astype(int)) for k in LANDMARKS} == WHERE
    assert len(read_flame(tmp_path / "generic_model.pkl", region="all").mean) == 5023


class Calls:
    def __init__(self, f, *args):
        self.call = (f, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("f", "args", "named"),
    [
        (os.mkdir, ("attacked",), f"{os.name}.mkdir"),
        (os.system, ("mkdir attacked",), f"{os.name}.system"),
        (eval, ("__import__('os').mkdir('attacked')",), "eval"),
        (subprocess.check_call, (["mkdir", "attacked"],), "check_call"),
        (getattr, (os, "mkdir"), "getattr"),
        (np.load, ("x",), "numpy.load"),
        (scipy.io.loadmat, ("x",), "loadmat"),
        (torch.load, ("x",), "torch"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles_are_refused_and_not_run(tmp_path, monkeypatch, face, f, args, named, protocol):
    if f is getattr:
        args = ("", "upper")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(flame(face) | {"zz": Calls(f, *args)}, protocol=protocol))
    with pytest.raises(ValueError, match=f"generic_model.pkl: refused, the pickle asks for .*{named}"):
        read_flame(tmp_path / "generic_model.pkl")
    assert not (tmp_path / "attacked").exists()


class Built:
    "Pickles as a call and a state, as arrays do"

    def __init__(self, f, args, state):
        self.parts = (f, args, state)

    def __reduce__(self):
        return self.parts


RECONSTRUCT, SCALAR, POINTER = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0], b"A" * 8
# objects that do not say so
DISGUISED = Built(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))


FORGED = [
    Calls(np.ndarray, (1,), np.dtype("O"), POINTER),
    Calls(np.ndarray, (1,), DISGUISED, POINTER),
    Built(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, POINTER)),
    Built(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), DISGUISED, False, POINTER)),
    Calls(SCALAR, np.dtype("O"), POINTER),
    Calls(SCALAR, DISGUISED, POINTER),
    Calls(np.zeros(1).__reduce_ex__(5)[0], POINTER, DISGUISED, (1,), "C"),
]


def test_forged_pointers(tmp_path, face):
    "Eight bytes that a pickle declares to be an object: a ValueError, in a process that would die if they became one"
    paths = [tmp_path / f"{i}{protocol}.pkl" for i in range(len(FORGED)) for protocol in (0, 2, 4)]
    for path in paths:
        path.write_bytes(pickle.dumps(flame(face) | {"f": FORGED[int(path.stem[0])]}, protocol=int(path.stem[1])))
    code = """if True:
        import sys
        from mrl.faces.sources.flame import read_flame
        for path in sys.argv[1:]:
            try: print(read_flame(path).triangles[0])
            except ValueError as e: print(e)
    """
    got = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, cwd=ROOT)
    assert got.returncode == 0, got.stderr
    for path, line in zip(paths, got.stdout.splitlines(), strict=True):
        assert line.startswith(
            (f"{path}: not a pickle of arrays, or damaged", f"{path}: f: expected an array of numbers")
        )


def test_names_that_look_allowed_do_nothing(tmp_path, monkeypatch):
    "chumpy and scipy names become empty shells: calling them, or giving them state, runs nothing"
    monkeypatch.chdir(tmp_path)
    for module, name in (("scipy.sparse.os", "mkdir"), ("chumpy.os", "mkdir"), ("scipy.sparse", "load_npz")):
        (tmp_path / "a.pkl").write_bytes(
            b"\x80\x02}X\x01\x00\x00\x00k" + f"c{module}\n{name}\n".encode() + b"U\x08attacked\x85R" + b"s."
        )
        assert (
            type(_unpickle_arrays(tmp_path / "a.pkl")["k"]).__name__ in ("_Shell", "str")
            and not (tmp_path / "attacked").exists()
        )
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cnumpy.core.multiarray\nos\n.")
    with pytest.raises(ValueError, match="refused, the pickle asks for numpy.core.multiarray.os"):
        _unpickle_arrays(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f": None}, "f missing"),
        ({"v_template": np.zeros((4, 2))}, "mean"),
        ({"shapedirs": np.zeros((4, 3, 2))}, "modes"),
        ({"shapedirs": "text"}, "shapedirs: expected an array of numbers, got str"),
        ({"v_template": np.array(None)}, "v_template: expected an array of numbers"),
        ({"v_template": np.float32(3)}, r"mean \(N, 3\) expected, got \(\)"),
        ({"shapedirs": np.zeros((4, 3))}, r"shapedirs \(N, 3, K\) expected"),
        ({"shapedirs": np.full((168, 3, 2), "a")}, "shapedirs: expected an array of numbers, got"),
        ({"f": np.array([[0, 1, 1.5]])}, "triangles: expected whole numbers"),
        ({"f": [[0, 1, 2]]}, "f: expected an array of numbers, got list"),
        ({"f": np.array([[0, 1, np.nan]])}, "triangles holds numbers that are not finite"),
        ({"v_template": np.zeros((168, 3), complex)}, "v_template: expected an array of numbers, got complex128"),
        ({"f": np.uint32([[0, 1, 10**6]])}, "triangles name vertices 0 to 1000000"),
    ],
)
def test_flame_errors(tmp_path, face, change, message):
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(flame(face) | change))
    with pytest.raises(ValueError, match=f"generic_model.pkl: .*{message}"):
        read_flame(tmp_path / "generic_model.pkl")


def test_flame_damaged(tmp_path, face):
    data = pickle.dumps(flame(face), protocol=2)
    for cut in (0, 10, 1000, len(data) - 1):
        (tmp_path / "generic_model.pkl").write_bytes(data[:cut])
        with pytest.raises(ValueError, match="generic_model.pkl: not a pickle of arrays, or damaged"):
            read_flame(tmp_path / "generic_model.pkl")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 but not a zip")
    with pytest.raises(ValueError, match="a.npz: not an .npz of arrays"):
        read_flame(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", v_template=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="b.npz"):
        read_flame(tmp_path / "b.npz")


@pytest.mark.parametrize("protocol", [0, 1])
def test_flame_with_other_line_ends(tmp_path, face, protocol):
    "A Windows checkout, or an unpacker in text mode: the remedy is named, no module is blamed."
    for name, value in (("generic_model.pkl", flame(face)), ("FLAME_masks.pkl", {"face": np.arange(10)})):
        (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(flame(face)))
        (tmp_path / name).write_bytes(pickle.dumps(value, protocol=protocol).replace(b"\n", b"\r\n"))
        with pytest.raises(ValueError, match=f"{name}: its line ends were changed .CRLF.; get the file again"):
            read_flame(tmp_path / "generic_model.pkl")


def test_refusals_show_what_cannot_be_seen(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"cnumpy\x07\nload\n.")
    with pytest.raises(ValueError, match=r"asks for 'numpy\\x07.load', which"):
        read_flame(tmp_path / "a.pkl")


# ---- Surrey Face Model ----------------------------------------------------------------------------------------------
def matrix(x):
    x = np.asarray(x, "<f4")
    return struct.pack("<ii", *x.shape) + x.T.tobytes()


def pca(x, V, variance, t):
    return (
        matrix(x.reshape(-1, 1))
        + matrix(V)
        + matrix(variance[:, None])
        + struct.pack("<Q", len(t))
        + np.int32(t).tobytes()
    )


EMPTY = matrix(np.zeros((0, 1))) + matrix(np.zeros((0, 0))) + matrix(np.zeros((0, 1))) + struct.pack("<Q", 0)


def cereal(face, version, expressions=b"\1", landmarks=b"\1"):
    "An eos model, member by member, as cereal writes it: little-endian, no padding, no names"
    data = struct.pack("<I", version) + pca(face.x, face.V, face.sd**2, face.t) + EMPTY
    if version >= 2:
        data += expressions
    if version >= 3:
        data += landmarks
    return data + struct.pack("<Q", 0) * (2 if version >= 4 else 1)


def definitions(points):
    return (
        b"\0"
        + struct.pack("<Q", len(points))
        + b"".join(struct.pack("<Q", len(k)) + k.encode() + struct.pack("<i", v) for k, v in points.items())
    )


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_sfm(tmp_path, face, version):
    (tmp_path / "sfm_shape_3448.bin").write_bytes(cereal(face, version))
    model = read_sfm(tmp_path / "sfm_shape_3448.bin")
    same(model, face, {})
    assert model.name == "Surrey Face Model" and "Surrey" in model.licence


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("expressions", ["none", "pca", "blendshapes"])
def test_sfm_landmark_definitions(tmp_path, face, version, expressions):
    shapes = (
        b"\0"
        + struct.pack("<i", 1)
        + struct.pack("<Q", 2)
        + (struct.pack("<Q", 5) + b"anger" + matrix(np.zeros((3 * face.N, 1)))) * 2
    )
    before = {
        "none": b"\1",
        "pca": b"\0" + struct.pack("<i", 0) + pca(face.x, face.V, face.sd**2, face.t),
        "blendshapes": shapes,
    }[expressions]
    points = {
        "37": face.marks["right_eye_outer"],
        "46": face.marks["left_eye_outer"],
        "31": face.marks["nose_tip"],
        "earlobe": 2,
    }
    (tmp_path / "a.bin").write_bytes(cereal(face, version, before, definitions(points)))
    same(
        read_sfm(tmp_path / "a.bin"),
        face,
        {k: face.marks[k] for k in ("right_eye_outer", "left_eye_outer", "nose_tip")},
    )


@pytest.mark.parametrize("style", ["info", "toml"])
def test_sfm_mapping_beside_the_model(tmp_path, face, style):
    "ibug_to_sfm.txt in the two syntaxes that eos has had; the contour lists are no mappings"
    lines = {37: face.marks["right_eye_outer"], 46: face.marks["left_eye_outer"], 9: face.marks["chin"]}
    if style == "info":
        text = (
            "; comment 5\nlandmarkMappings ; A mapping\n{\n"
            + "".join(f"\t{i:2d}   {v} ; point (3)\n" for i, v in lines.items())
            + "\t     ; 61 not defined\n}\ncontour_landmarks\n{\n\tright {\n\t\t1\n\t\t2\n\t}\n}"
        )
    else:
        text = (
            "# comment\n[landmark_mappings]\n"
            + "".join(f"{i:2d} = {v:5d}  # point (3.12)\n" for i, v in lines.items())
            + "#61         # not\n[contour_landmarks]\nright = [  1,\n           2\n ]\n"
        )
    (tmp_path / "sfm_shape_3448.bin").write_bytes(cereal(face, 1))
    (tmp_path / "ibug_to_sfm.txt").write_text(text)
    model = read_sfm(tmp_path / "sfm_shape_3448.bin")
    assert model.landmarks == ibug_landmarks({i - 1: v for i, v in lines.items()})
    (tmp_path / "ibug_to_sfm.txt").write_text(text.replace(str(face.marks["chin"]), "99999"))
    with pytest.raises(ValueError, match=r"ibug_to_sfm.txt: landmarks name vertices that do not exist .*\{9: 99999\}"):
        read_sfm(tmp_path / "sfm_shape_3448.bin")


def test_sfm_against_eos(tmp_path, face):
    "Files that eos itself writes"
    mm = pytest.importorskip("eos").morphablemodel
    shape = mm.PcaModel(
        face.x.reshape(-1).astype("f4"), face.V.astype("f4"), (face.sd**2).astype("f4"), face.t.tolist()
    )
    shapes = [mm.Blendshape(), mm.Blendshape()]
    for b in shapes:
        b.name, b.deformation = "anger", np.zeros(3 * face.N, "f4")
    points = {"37": face.marks["right_eye_outer"], "46": face.marks["left_eye_outer"]}
    for model in (
        mm.MorphableModel(shape, mm.PcaModel()),
        mm.MorphableModel(shape, shape, points),
        mm.MorphableModel(shape, shape, shape, points),
        mm.MorphableModel(shape, shapes, shape, points),
    ):
        mm.save_model(model, str(tmp_path / "a.bin"))
        got = read_sfm(tmp_path / "a.bin")
        same(got, face)
        assert got.landmarks == (
            ibug_landmarks({int(k) - 1: v for k, v in points.items()}) if model.get_landmark_definitions() else {}
        )
        assert np.allclose(
            mm.load_model(str(tmp_path / "a.bin")).get_shape_model().draw_sample([1.0, 2, 3]).reshape(-1, 3),
            got.shape(torch.tensor([1.0, 2, 3])),
            atol=1e-3,
        )


def test_sfm_at_its_own_size(tmp_path):
    x = curve(3448)
    for k, i in IBUG.items():
        x[_SFM_IBUG[i]] = WHERE[k]
    t = np.concatenate([np.arange(3447).reshape(-1, 3), [[3445, 3446, 3447]]])
    f = types.SimpleNamespace(x=x, t=t, V=np.eye(3 * 3448, 1), sd=np.array([3.0]))
    (tmp_path / "sfm_shape_3448.bin").write_bytes(cereal(f, 1))
    model = read_sfm(tmp_path / "sfm_shape_3448.bin")
    assert {k: tuple(np.round(model.mean[model.landmarks[k]].tolist()).astype(int)) for k in LANDMARKS} == WHERE
    assert len(model.landmarks) == len(_SFM_IBUG) + 9


def test_sfm_damaged(tmp_path, face):
    "Every truncation and a thousand flipped bytes: read, or refused by name"
    data, path = cereal(face, 4, landmarks=definitions({"37": 3})), tmp_path / "sfm.bin"
    for cut in [*range(60), 2000, len(data) // 2, len(data) - 17]:
        path.write_bytes(data[:cut])
        with pytest.raises(
            ValueError, match="sfm.bin: damaged or truncated at (version|shape|colour|expressions|landmarks)"
        ):
            read_sfm(path)
    rng = np.random.default_rng(0)
    for _ in range(300):
        d = bytearray(data)
        for at in rng.integers(len(d), size=3):
            d[at] = rng.integers(256)
        d[rng.integers(24)] = rng.integers(256)
        path.write_bytes(d)
        try:
            read_sfm(path)
        except ValueError as e:
            assert "sfm.bin" in str(e)
    path.write_bytes(struct.pack("<I", 1) + pca(face.x, face.V, np.array([4.0, -1, 1]), face.t) + EMPTY)
    with pytest.raises(ValueError, match="sfm.bin: shape eigenvalues holds negative numbers"):
        read_sfm(path)
    path.write_bytes(struct.pack("<I", 0) + data[4:])
    with pytest.raises(ValueError, match="sfm.bin: expected an eos model of version 1 to 4, got version 0"):
        read_sfm(path)


# ---- ICT-FaceKit ----------------------------------------------------------------------------------------------------
def ict_layout(folder, face):
    "FaceXModel/ with quads, texture coordinates and materials, in centimetres"
    folder.mkdir()
    (folder / "LICENSE").write_text("MIT")
    m = folder / "FaceXModel"
    m.mkdir()
    q = face.t.reshape(2, -1, 3)
    quads = np.stack([q[0, :, 0], q[0, :, 1], q[0, :, 2], q[1, :, 2]], 1)  # halves of one quad each
    for name, x in [
        ("generic_neutral_mesh", face.x),
        *((f"identity{k:03d}", face.x + b) for k, b in enumerate(face.basis)),
    ]:
        v = "".join("v {:.7f} {:.7f} {:.7f}\n".format(*p) for p in x / 10)
        f = "".join("f " + " ".join(f"{i}/{i}" for i in p) + "\n" for p in quads + 1)
        (m / f"{name}.obj").write_text(
            "##\n# ICT FaceKit\n##\n\nmtllib a.mtl\n" + v + "vt 0 0\n" * face.N + "usemtl M_Face\n" + f
        )
    marks = [0] * 68
    for k, i in IBUG.items():
        marks[i] = face.marks[k]
    (m / "vertex_indices.json").write_text(json.dumps({"idx_to_landmark_verts": marks, "expressions": []}))
    return folder


def test_ict_layout(tmp_path, face):
    folder = ict_layout(tmp_path / "ICT-FaceKit", face)
    for path in (folder, folder / "FaceXModel"):
        same(read_ict(path), face, face.marks)
    assert read_face_model(folder).licence == "MIT" and read_face_model("ict", folder).name == "ICT-FaceKit (face)"
    with pytest.raises(ValueError, match="region: expected one of narrow, face, all, got 'nose'"):
        read_ict(folder, "nose")
    with pytest.raises(FileNotFoundError, match="generic_neutral_mesh.obj and identity000.obj"):
        read_ict(tmp_path)


def test_ict_errors(tmp_path, face):
    folder = ict_layout(tmp_path / "ict", face) / "FaceXModel"
    whole = (folder / "identity001.obj").read_text()
    (folder / "identity001.obj").write_text(whole[:5000])
    with pytest.raises(ValueError, match="identity001.obj: (line|[0-9]+ vertices|has no faces)"):
        read_ict(folder)
    (folder / "identity001.obj").write_text(re.sub(r"v \S+", "v nan", whole, count=1))
    with pytest.raises(ValueError, match="identity001.obj: line .* vertices are not finite"):
        read_ict(folder)
    (folder / "identity001.obj").write_text(re.sub(r"v \S+", "v minus", whole, count=1))
    with pytest.raises(ValueError, match="identity001.obj: line "):
        read_ict(folder)
    (folder / "identity001.obj").write_text(whole)
    (folder / "vertex_indices.json").write_text('{"idx_to_landmark_verts": [1, "two"]}')
    with pytest.raises(ValueError, match="vertex_indices.json: idx_to_landmark_verts: expected a list of vertices"):
        read_ict(folder)
    (folder / "vertex_indices.json").write_text("{}")
    with pytest.raises(ValueError, match="vertex_indices.json: keys missing: idx_to_landmark_verts"):
        read_ict(folder)


@pytest.fixture(scope="session")
def ict(optional_data, tmp_path_factory):
    "The folder FaceXModel, in MRL_DATA or unpacked from an archive in it"
    found = optional_data("FaceXModel", "ict-facekit-identity.tar.xz", source=FACE_MODELS["ict"].home)
    if found.is_dir():
        return found
    folder = tmp_path_factory.mktemp("ict")
    with tarfile.open(found) as f:
        f.extractall(folder, filter="data")
    return next(folder.rglob("FaceXModel"))


def test_ict_itself(ict):
    model = read_ict(ict)
    assert model.mean.shape == (9409, 3) and model.basis.shape == (100, 9409, 3) and len(model.landmarks) == 68 + 9
    lines = [line.split() for line in (Path(ict) / "generic_neutral_mesh.obj").read_text().splitlines()]
    # millimetres
    assert np.allclose(model.mean, 10 * np.array([p[1:] for p in lines if p[:1] == ["v"]], float)[:9409], atol=1e-4)
    polygons = [[int(c.split("/")[0]) - 1 for c in p[1:]] for p in lines if p[:1] == ["f"]]
    # 9,230 quads, says the README
    assert len(model.triangles) == sum(len(p) - 2 for p in polygons if max(p) < 9409) == 2 * 9230
    p = {k: model.mean[model.landmarks[k]] for k in LANDMARKS}
    assert 80 < (p["left_eye_outer"] - p["right_eye_outer"]).norm() < 100
    # x to the subject's left
    assert p["right_eye_outer"][0] < p["right_eye_inner"][0] < 0 < p["left_eye_inner"][0] < p["left_eye_outer"][0]
    assert p["left_eye_inner"][1] > p["nose_tip"][1] > p["nose_base"][1] > p["mouth_left"][1] > p["chin"][1]
    assert max(p, key=lambda k: p[k][2]) == "nose_tip"
    mesh = trimesh.Trimesh(model.mean.numpy(), model.triangles.numpy(), process=False)
    assert mesh.is_winding_consistent and mesh.face_normals[:, 2].mean() > 0.3
    gram = model.basis.flatten(1).double() @ model.basis.flatten(1).double().T
    assert gram.diagonal()[:50].mean() > gram.diagonal()[50:].mean()
    assert (read_ict(ict, "narrow").mean == model.mean[:6706]).all()


def test_ict_thinned(ict):
    model = read_face_model(ict, max_vertices=3000)
    assert 2500 < len(model.mean) <= 3000 and "thinned from 9409 to" in model.name and len(model.landmarks) == 77
    whole = read_ict(ict)
    reduced = trimesh.Trimesh(model.mean.numpy(), model.triangles.numpy(), process=False)
    full = trimesh.Trimesh(whole.mean.numpy(), whole.triangles.numpy(), process=False)
    assert rims(reduced) == rims(full) == 4  # outline, eyes and lips; no holes
    assert Surface(reduced.vertices, reduced.faces).closest(whole.mean.numpy()[::7])[0].max() < 5  # mm
    assert 0.97 < reduced.area / full.area < 1.01


# ---- own scans ------------------------------------------------------------------------------------------------------
def turned(x, rng):
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return x @ (R * np.sign(np.linalg.det(R))).T + rng.normal(size=3) * 100


@pytest.fixture
def scans(tmp_path, face):
    "Sixty scans of three modes as PLY files in metres, each somewhere in space"
    rng = np.random.default_rng(1)
    a, folder = rng.normal(size=(60, 3)), tmp_path / "scans"
    folder.mkdir()
    x = face.x + np.tensordot(a, face.basis, 1)
    for i in range(60):
        trimesh.Trimesh(turned(x[i], rng) / 1000, face.t, process=False).export(
            folder / f"s{i:02d}.ply", vertex_normal=False
        )
    (folder / "readme.txt").write_text("not a mesh")
    return types.SimpleNamespace(folder=folder, x=x, a=a)


def pairwise(x):
    return np.linalg.norm(x[..., ::5, None, :] - x[..., None, ::5, :], axis=-1)


def test_scans(scans, face):
    model, alpha_id, labels, *_ = read_scans(scans.folder, 3, units="m", name="ours", licence="consent")
    assert (model.name, model.licence, model.units, labels) == ("ours", "consent", "mm", {})
    # sizes survive, in mm, whatever the pose was
    assert np.allclose(pairwise(model.shape(alpha_id).numpy()), pairwise(scans.x), atol=0.3)
    assert np.allclose(alpha_id.mean(0), 0, atol=1e-3) and np.allclose(alpha_id.std(0), 1, atol=1e-3)
    assert np.allclose(model.coefficients(model.shape(alpha_id)), alpha_id, atol=1e-2)
    assert (
        np.array_equal(model.triangles, face.t)
        and (model.variance_ratio.diff() < 0).all()
        and model.variance_ratio.sum() > 0.995
    )
    again, beta, *_ = read_scans(scans.folder, 3, units="m")
    assert torch.equal(again.basis, model.basis) and torch.equal(alpha_id, beta)


@pytest.mark.parametrize("suffix", ["obj", "off", "ply"])
def test_scans_without_alignment_are_an_ordinary_pca(tmp_path, face, scans, suffix):
    folder = tmp_path / "fixed"
    folder.mkdir()
    for i, x in enumerate(scans.x):
        (folder / f"s{i:02d}.{suffix}").write_bytes(exported(x, face.t, suffix))
    model, alpha_id, *_ = read_scans(folder, 2, align=False)
    X = (scans.x - scans.x.mean(0)).reshape(60, -1)
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    oracle = (s[:2] / 59**0.5)[:, None] * Vt[:2]
    sign = np.sign((oracle * model.basis.flatten(1).numpy()).sum(1))[:, None]
    assert np.allclose(model.basis.flatten(1), sign * oracle, atol=2e-3) and np.allclose(
        model.mean, scans.x.mean(0), atol=2e-3
    )
    assert np.allclose(model.variance_ratio, s[:2] ** 2 / (s**2).sum(), atol=1e-5)
    assert np.allclose(alpha_id, X @ Vt[:2].T * sign.T / (s[:2] / 59**0.5), atol=1e-3)


def exported(x, t, suffix):
    data = trimesh.Trimesh(x, t, process=False).export(file_type=suffix)
    return data if isinstance(data, bytes) else data.encode()


def test_scans_many_blocks(tmp_path):
    "More scans than a block holds: the streamed components are those of a full SVD"
    x, t = surface(8, 8)
    rng = np.random.default_rng(2)
    V, sd = np.linalg.qr(rng.normal(size=(len(x) * 3, 30)))[0], 50 * 0.8 ** np.arange(30)
    X = (x.reshape(-1) + (rng.normal(size=(700, 30)) * sd) @ V.T).reshape(-1, len(x), 3)
    for i, s in enumerate(X):
        (tmp_path / f"s{i:03d}.off").write_text(
            f"OFF\n{len(x)} {len(t)} 0\n"
            + "\n".join("{:.6f} {:.6f} {:.6f}".format(*p) for p in s)
            + "\n"
            + "\n".join("3 {} {} {}".format(*f) for f in t)
            + "\n"
        )
    model, alpha_id, *_ = read_scans(tmp_path, 10, align=False)
    C = (X - X.mean(0)).reshape(700, -1)
    s, Vt = np.linalg.svd(C, full_matrices=False)[1:]
    assert np.allclose(model.basis.flatten(1).norm(dim=1), s[:10] / 699**0.5, rtol=1e-4)
    assert (np.abs((model.basis.flatten(1).numpy() / (s[:10] / 699**0.5)[:, None] * Vt[:10]).sum(1)) > 0.9999).all()
    assert np.allclose(model.variance_ratio, s[:10] ** 2 / (s**2).sum(), atol=1e-4)


def test_scans_say_what_they_are(scans, face):
    "<folder>.json and <folder>.labels.csv beside the folder; parameters go first"
    beside, marks = scans.folder.parent / "scans.json", {f"ibug_{i:02d}": face.marks[k] for k, i in IBUG.items()}
    beside.write_text(json.dumps({"name": "clinic", "licence": "consent", "units": "m", "landmarks": marks}))
    (scans.folder.parent / "scans.labels.csv").write_text(
        "file,age\n" + "".join(f"s{i:02d}.ply,{i}\n" for i in range(60))
    )
    model, _, labels, *_ = read_scans(scans.folder)
    assert (model.name, model.licence, model.landmarks) == ("clinic", "consent", marks | face.marks) and labels["age"][
        7
    ] == 7
    assert read_scans(str(scans.folder) + "/../scans/", 2)[0].name == "clinic"
    model = read_scans(scans.folder, 2, name="ours", licence="none")[0]
    assert (model.name, model.licence) == ("ours", "none")
    with pytest.raises(ValueError, match="scans: the outer corners of the eyes are 0.0[89].* apart.*multiply by 1000"):
        read_scans(scans.folder, 2, units="mm")
    (scans.folder.parent / "scans.labels.csv").write_text("file,age\ns00.ply,1\n")
    with pytest.raises(ValueError, match="scans.labels.csv: no row for mesh 's01.ply' and 58 more"):
        read_scans(scans.folder, 2)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"unit": "m"}, "'unit' is not known; expected are any of name, licence, units, landmarks"),
        ({"name": 3}, "'name' is 3, expected text"),
        ([1], "expected an object with any of"),
        ({"landmarks": [1]}, r"'landmarks' is \[1\], expected an object"),
        ({"landmarks": {"chin": 168}}, "'chin' is 168, expected a vertex from 0 to 167"),
        ({"licence": None}, "'licence' is None"),
    ],
)
def test_scans_say_what_is_not_understood(scans, said, message):
    (scans.folder.parent / "scans.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=f"scans.json: {message}"):
        read_scans(scans.folder, 2, units="m")


def test_scans_units_of_the_file(scans):
    (scans.folder.parent / "scans.json").write_text('{"units": "inch"}')
    with pytest.raises(ValueError, match="units: expected one of mm, cm, m, um, got 'inch'"):
        read_scans(scans.folder, 2)


def test_scans_of_low_rank(tmp_path, face):
    "Fewer modes than scans: what is there is kept, and it is exact."
    rng = np.random.default_rng(0)
    x = face.x + np.tensordot(rng.normal(size=(6, 2)), face.basis[:2], 1)
    for i in range(6):
        (tmp_path / f"{i}.ply").write_bytes(exported(x[i], face.t, "ply"))
    for M in (160, 6, 5, 3):
        model, alpha_id, *_ = read_scans(tmp_path, M, align=False)
        assert len(model.basis) == 2 and alpha_id.shape == (6, 2)
        assert model.variance_ratio.sum() == pytest.approx(1, abs=1e-4)
        assert np.allclose(model.shape(alpha_id), x, atol=1e-3)
    assert len(read_scans(tmp_path, 1, align=False)[0].basis) == 1


SPOILED = {
    "s7.obj: the outer corners of the eyes are 0.0.* apart, .* metres. multiply by 1000": lambda x: x / 1000,
    "s7.obj: the outer corners of the eyes are 3.* apart, .* inches. multiply by 25.4": lambda x: x / 25.4,
    "s7.obj: expected a face of the size of the others, got one [23][0-9]% larger": lambda x: 1.3 * x,
    "s7.obj: expected the handedness of the other scans, got a mirror image": lambda x: x * [-1, 1, 1],
    r"s7.obj: vertex 90 .counted from 0.: expected near its place": lambda x: x + 300 * np.eye(len(x))[90][:, None],
}


@pytest.fixture
def twelve(tmp_path, face):
    "A folder of twelve scans with landmarks, each somewhere in space, and the function that writes one."
    rng, folder = np.random.default_rng(3), tmp_path / "twelve"
    folder.mkdir()
    x = face.x + np.tensordot(rng.normal(size=(12, 3)), face.basis, 1)
    write = lambda name, x: (folder / name).write_bytes(exported(x, face.t, Path(name).suffix[1:]))
    for i in range(12):
        write(f"s{i}.obj", turned(x[i], rng))
    (tmp_path / "twelve.json").write_text(json.dumps({"landmarks": face.marks}))
    return types.SimpleNamespace(folder=folder, x=x, write=write, rng=rng)


@pytest.mark.parametrize("message", SPOILED)
def test_every_scan_is_checked_not_their_mean(twelve, message):
    twelve.write("s7.obj", turned(SPOILED[message](twelve.x[7]), twelve.rng))
    with pytest.raises(ValueError, match=message):
        read_scans(twelve.folder)


@pytest.mark.parametrize("name", ["s3 (1).obj", "s3.ply", "Ada.off"])
def test_a_person_is_in_a_folder_of_scans_once(twelve, name):
    read_scans(twelve.folder)
    twelve.write(name, turned(twelve.x[3], twelve.rng).round(2))
    with pytest.raises(ValueError, match="expected different faces, got one twice") as error:
        read_scans(twelve.folder)
    assert name in str(error.value) and "s3.obj" in str(error.value)


def test_a_small_face_is_named_in_a_warning(twelve):
    twelve.write("s7.obj", 0.75 * twelve.x[7])
    with pytest.warns(UserWarning, match="s7.obj: 2[0-9]% smaller than the median"):
        read_scans(twelve.folder)


def test_scans_of_many_components(tmp_path, face):
    "The default is capped by the number of scans, all of which the model can hold"
    rng = np.random.default_rng(0)
    for i in range(5):
        (tmp_path / f"{i}.off").write_bytes(exported(face.x + rng.normal(size=face.x.shape), face.t, "off"))
    model, alpha_id, *_ = read_scans(tmp_path)
    assert len(model.basis) == 4 and alpha_id.shape == (5, 4)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "s07.ply",
            lambda x, t: exported(x[:-1], t[(t < len(x) - 1).all(1)], "ply"),
            "s07.ply: 167 vertices, s00.ply has 168",
        ),
        (
            "s07.ply",
            lambda x, t: exported(np.where(x == x.max(), np.nan, x), t, "ply"),
            "s07.ply: vertex .* vertices are not finite",
        ),
        ("s07.ply", lambda x, t: exported(x, t[:, ::-1], "ply"), "s07.ply: other triangles than s00.ply"),
        ("s07.ply", lambda x, t: exported(x, t, "ply")[:900], "s07.ply"),
        ("s07.ply", lambda x, t: b"", "s07.ply: line 1: expected ply"),
        ("s07.ply", lambda x, t: b"\x00\x01 not a mesh", "s07.ply: line 1: expected ply"),
        ("t.obj", lambda x, t: b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "t.obj: has no faces"),
        (
            "t.obj",
            lambda x, t: b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n",
            "t.obj: line 4: expected vertices 0 to 2",
        ),
        ("t.obj", lambda x, t: b"v 0 0 zero\nf 1 2 3\n", "t.obj: line 1: expected a number"),
        ("t.obj", lambda x, t: b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf a b c\n", "t.obj: line 4: expected a corner"),
        ("t.obj", lambda x, t: b"", "t.obj: has no vertices"),
    ],
)
def test_scans_name_the_bad_file(scans, face, name, damage, message):
    (scans.folder / name).write_bytes(damage(scans.x[7] / 1000, face.t))
    with pytest.raises(ValueError, match=message):
        read_scans(scans.folder, 2, units="m")


def test_scans_keep_the_file_order_of_vertices(tmp_path, face):
    "As OBJ that counts backwards, with colours on some vertices, and as PLY with texture coordinates per corner."
    rng, (x, t) = np.random.default_rng(0), (face.x, face.t)
    for i in range(3):
        y = x + rng.normal(size=x.shape)
        lines = [f"v {a} {b} {c}" + " 0.8 0.6 0.5" * (k % 3 == 0) for k, (a, b, c) in enumerate(y.tolist())]
        lines += [f"f {a} {b} {c}" for a, b, c in (t - len(x)).tolist()]
        (tmp_path / f"{i}.obj").write_text("# C:\\scans\\\n" + "\n".join(lines) + "\n")
        head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(y)}\nproperty float x\nproperty float y\n"
        head += f"property float z\nelement face {len(t)}\nproperty list uchar int vertex_indices\n"
        head += "property list uchar float texcoord\nend_header\n"
        kind = [("n", "u1"), ("t", "<i4", (3,)), ("m", "u1"), ("uv", "<f4", (6,))]
        faces = np.array([(3, tuple(row), 6, tuple(rng.random(6))) for row in t.tolist()], kind)
        (tmp_path / f"{i}.ply").write_bytes(head.encode() + y.astype("<f4").tobytes() + faces.tobytes())
    for kind in ("obj", "ply"):
        (tmp_path / kind).mkdir()
        for path in tmp_path.glob(f"[0-9].{kind}"):
            path.rename(tmp_path / kind / path.name)
        (tmp_path / kind / "._0.obj").write_bytes(bytes(100))
    models = [read_scans(tmp_path / kind, align=False)[0] for kind in ("obj", "ply")]
    for model in models:
        assert np.array_equal(model.triangles.numpy(), t) and np.abs(model.mean.numpy() - x).max() < 5


def test_scans_arguments(scans, tmp_path):
    with pytest.raises(ValueError, match="expected two or more meshes and n_components of 1 or more, got 60 and 0"):
        read_scans(scans.folder, 0)
    with pytest.raises(ValueError, match="units: expected one of mm, cm, m, um, got 'inch'"):
        read_scans(scans.folder, 2, units="inch")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_scans(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").touch()
    for read in (read_scans, scan_files):
        with pytest.raises(FileNotFoundError, match="empty: no .obj, .ply or .off in it"):
            read(tmp_path / "empty")
    assert 3 <= len(read_scans(scans.folder, 60, units="m")[0].basis) < 60


def test_labels(scans, tmp_path):
    names = [f"s{i:02d}.ply" for i in range(60)]
    csv = tmp_path / "labels.csv"
    csv.write_text(
        "age,file,weight\n" + "".join(f"{20 + i},{n},{i / 60}\n" for i, n in reversed(list(enumerate(names))))
    )
    labels = read_scans(scans.folder, 2, csv, units="m")[2]
    assert (
        set(labels) == {"age", "weight"}
        and np.array_equal(labels["age"], 20 + np.arange(60))
        and labels["age"].dtype == np.float32
    )
    text = csv.read_text()
    for change, message in (
        (("29,s09.ply,0.15\n", ""), "labels.csv: no row for mesh 's09.ply'"),
        (("s09", "s77"), "labels.csv: no mesh for row 's77.ply'"),
        (("29,s09", "old,s09"), "labels.csv: row 's09.ply', column 'age': expected a finite number, got 'old'"),
        (("s09", "s08"), "labels.csv: a file has several rows"),
        (("file", "name"), "labels.csv: expected a header with a column 'file'"),
        (("29,s09.ply,0.15", "29,s09.ply"), "row 's09.ply', column 'weight': expected a finite number, got None"),
        (("29,s09", "nan,s09"), "row 's09.ply', column 'age': expected a finite number, got 'nan'"),
        (("29,s09", "-inf,s09"), "column 'age': .* got '-inf'"),
        (("29,s09", "1e300,s09"), "column 'age': .* got '1e300'"),
        (("29,s09", ",s09"), "column 'age': .* got None"),
        (("29,s09.ply,0.15", "29,s09.ply,0,15"), "labels.csv: line 52: expected 3 cells, got 4"),
    ):
        assert change[0] in text
        csv.write_text(text.replace(*change))
        with pytest.raises(ValueError, match=message):
            read_labels(csv, names)


def test_labels_as_excel_saves_them(tmp_path):
    (tmp_path / "labels.csv").write_bytes("file,age\r\nä.ply,30\r\n".encode("utf-8-sig"))
    assert read_labels(tmp_path / "labels.csv", ["ä.ply"])["age"].tolist() == [30]
    (tmp_path / "labels.csv").write_bytes("file,age\r\nä.ply,30\r\n".encode("latin1"))
    with pytest.raises(ValueError, match="labels.csv: not a CSV file"):
        read_labels(tmp_path / "labels.csv", ["ä.ply"])


def test_labels_match_names_in_either_unicode_form(tmp_path):
    (tmp_path / "labels.csv").write_text("file,age\nZo\u00eb.ply,30\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.csv", ["Zoe\u0308.ply"])["age"].tolist() == [30]


# ---- one door -------------------------------------------------------------------------------------------------------
def test_read_face_model(tmp_path, monkeypatch, face):
    bfm_2009(tmp_path / "01_MorphableModel.mat", face)
    (tmp_path / "SFM").mkdir()
    (tmp_path / "SFM" / "sfm_shape_3448.bin").write_bytes(cereal(face, 1))
    (tmp_path / "FLAME2020").mkdir()
    (tmp_path / "FLAME2020" / "generic_model.pkl").write_bytes(pickle.dumps(flame(face)))
    monkeypatch.setenv("MRL_DATA", str(tmp_path))
    for name, title in (
        ("bfm", "BFM 2009 (face)"),
        ("sfm", "Surrey Face Model"),
        ("flame", "FLAME generic_model (face)"),
    ):
        same(read_face_model(name), face)
        assert read_face_model(name).name == title
    bfm_2017(tmp_path / "model2019_face12.h5", face)
    assert read_face_model("bfm").name == "BFM model2019_face12 (face)"  # the owner's own cut goes first
    save_morphable_model(tmp_path / "m.safetensors", read_face_model("sfm"))
    same(read_face_model(str(tmp_path / "m.safetensors")), face)
    save_morphable_model(tmp_path / "m.safetensors", replace(read_face_model("sfm"), units="cm"))
    with pytest.raises(ValueError, match="m.safetensors: units are 'cm', expected 'mm'"):
        read_face_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", FACE_MODELS)
def test_absent_models_say_where_to_get_them(tmp_path, name):
    with pytest.raises(FileNotFoundError) as e:
        read_face_model(name, tmp_path)
    m = FACE_MODELS[name]
    for part in (str(tmp_path), m.title, m.home, m.licence, "MRL_DATA", *m.files):
        assert part in str(e.value)


def test_unknown_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="lsfm: no such file; expected one of bfm, flame, ict, sfm, or a path"):
        read_face_model("lsfm")
    (tmp_path / "face.fbx").touch()
    with pytest.raises(ValueError, match="face.fbx: no reader for .fbx"):
        read_face_model(tmp_path / "face.fbx")
    assert (
        is_scan_folder(tmp_path)
        and not is_scan_folder(tmp_path / "face.fbx")
        and not is_scan_folder(tmp_path / "nowhere")
    )
    with pytest.raises(ValueError, match="neither ICT-FaceKit's folder .*; a folder of scans is read by read_scans"):
        read_face_model(tmp_path)
    (tmp_path / "FaceXModel").mkdir()
    assert not is_scan_folder(tmp_path) and not is_scan_folder(tmp_path / "FaceXModel")
    for path in (tmp_path, tmp_path / "FaceXModel"):
        with pytest.raises(
            FileNotFoundError, match="FaceXModel: expected generic_neutral_mesh.obj and identity000.obj.."
        ):
            read_face_model(path)


def test_owners_licences_are_for_owners_files(tmp_path, face):
    "A file that is not called as the owner calls it is somebody else's"
    unknown = "unknown: see its owner"
    for name, write, read, licence in (
        (
            "sfm_shape_3448.bin",
            lambda p: p.write_bytes(cereal(face, 1)),
            read_sfm,
            "Surrey Face Model licence, non-commercial",
        ),
        ("myown.bin", lambda p: p.write_bytes(cereal(face, 1)), read_sfm, unknown),
        ("sfm_mine.bin", lambda p: p.write_bytes(cereal(face, 1)), read_sfm, unknown),
        ("my_statismo.h5", lambda p: bfm_2017(p, face), read_bfm, unknown),
        (
            "model2019_bfm.h5",
            lambda p: bfm_2017(p, face),
            read_bfm,
            "Basel Face Model licence, non-commercial research",
        ),
        ("flame2023_Open.pkl", lambda p: p.write_bytes(pickle.dumps(flame(face))), read_flame, "CC BY 4.0"),
        (
            "flame2023.pkl",
            lambda p: p.write_bytes(pickle.dumps(flame(face))),
            read_flame,
            "FLAME licence, non-commercial research",
        ),
        ("other.pkl", lambda p: p.write_bytes(pickle.dumps(flame(face))), read_flame, unknown),
    ):
        write(tmp_path / name)
        model = read(tmp_path / name)
        assert model.licence == licence
        assert any(k in model.name for k in ("Surrey", "BFM", "FLAME")) == (licence != unknown)


def test_large_models_are_thinned_and_say_so(tmp_path):
    x, t = surface(110, 110)
    f = types.SimpleNamespace(x=x, t=t, V=np.eye(3 * len(x), 1), sd=np.array([3.0]))
    (tmp_path / "sfm_large.bin").write_bytes(cereal(f, 1))
    model = read_face_model(tmp_path / "sfm_large.bin")
    assert (
        5000 < len(model.mean) <= 10_000
        and model.name == f"eos model sfm_large, thinned from 12100 to {len(model.mean)} vertices"
    )
    assert len(read_face_model(tmp_path / "sfm_large.bin", max_vertices=None).mean) == 12100


def test_landmark_file_beside_the_model(tmp_path, face):
    path = tmp_path / "model2019_face12.h5"
    bfm_2017(path, face)
    other = path.with_name("model2019_face12.h5.landmarks.json")
    other.write_text(json.dumps({"mouth_right": face.marks["mouth_right"], "chin": 5}))
    model = read_bfm(path)
    assert (
        model.landmarks["chin"] == 5
        and model.landmarks["mouth_right"] == face.marks["mouth_right"]
        and model.landmarks["nose_tip"] == face.marks["nose_tip"]
    )
    other.write_text(json.dumps({f"ibug_{i:02d}": face.marks[k] for k, i in IBUG.items()}))
    model = read_bfm(path)
    assert {k: model.landmarks[k] for k in LANDMARKS} == face.marks  # names by number give the nine names, too
    for text, message in (
        ('{"chin": -1}', "'chin' is -1, expected a vertex from 0 to 167"),
        ('{"chin": 168}', "'chin' is 168"),
        ('{"chin": "7"}', "'chin' is '7'"),
        ('{"chin": true}', "'chin' is True"),
        ('{"chin": 1.0}', "'chin' is 1.0"),
        ("[1]", "an object"),
        ("{", "not a JSON file"),
    ):
        other.write_text(text)
        with pytest.raises(ValueError, match=f"model2019_face12.h5.landmarks.json: .*{message}"):
            read_bfm(path)
    bfm_2017(tmp_path / "model2019_bfm.h5", face)
    (tmp_path / "model2019_bfm.h5.landmarks.json").write_text('{"crown": 167}')
    with pytest.raises(ValueError, match=r"landmarks.json: \['crown'\] lie outside the face region"):
        read_bfm(tmp_path / "model2019_bfm.h5")


def test_landmark_lists():
    "Complete, without repetition, inside their meshes; the noses are those of second, independent sources"
    assert _BFM_2009_IBUG[30] == 8319  # eos, share/ibug_to_bfm.txt, and the model's own MPEG-4 points
    assert _FLAME_IBUG[30] == 3564  # the last point of the nose ridge in another list
    assert len(set(_BFM_2009_IBUG)) == len(set(_FLAME_IBUG)) == 68 and len(set(_SFM_IBUG.values())) == len(_SFM_IBUG)
    assert max(_BFM_2009_IBUG) < 53490 and max(_FLAME_IBUG) < 3931 and max(_SFM_IBUG.values()) < 3448


@pytest.mark.parametrize("read", [read_bfm, read_flame, read_sfm])
def test_missing_files(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="nowhere.bin: no such file"):
        read(tmp_path / "nowhere.bin")


def test_import_is_light():
    heavy = ("h5py", "scipy", "trimesh", "eos", "plotly", "nbdev")
    code = f"import sys, mrl.faces.sources; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"
