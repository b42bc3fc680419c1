"H3DS through its authors' package, or a stand-in for it."

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population
from mrl.io.meshes import Mesh, write_mesh
from mrl.scans.evaluation import evaluate
from mrl.scans.h3ds import eye_corner, h3ds_protocol, read_h3ds
from mrl.scans.methods import mean_face
from mrl.scans.protocols import compare, named_face


@pytest.fixture(scope="module")
def population():
    return load_population()


H3DS_MARKS = {
    "right_eye": "right_eye_inner",
    "left_eye": "left_eye_inner",
    "nose_tip": "nose_tip",
    "nose_base": "nose_base",
    "right_lips": "mouth_right",
    "left_lips": "mouth_left",
}


@pytest.fixture
def h3ds_folder(tmp_path, population):
    "Write a look-alike of an unpacked H3DS: two of three scenes of its own configuration, heads of our population."
    for k, scene in enumerate(("1b2a8613401e42a8", "3b5a2eb92a501d54")):
        x, folder = population.faces(k), tmp_path / "data" / scene
        write_mesh(folder / "full_head.obj", x, population.face_triangles)
        (folder / "landmarks.txt").write_text(
            "".join(f"{theirs} {population.landmarks[ours]}\n" for theirs, ours in H3DS_MARKS.items())
        )
    (tmp_path / "config.toml").write_text(
        "version = 0.4\n[scenes]\n"
        + "".join(
            f"[scenes.{s}]\ntags = ['x']\nviews = 1\n[scenes.{s}.default_views_configs]\n1 = [0]\n"
            for s in ("1b2a8613401e42a8", "3b5a2eb92a501d54", "5ae021f2805c0854")
        )
    )
    return tmp_path


def fake_h3ds(monkeypatch):
    "The part of the package's interface that we use, for machines without it."

    class H3DS:
        def __init__(self, path, config_path=None, config_id="config_v2"):
            self.helper = types.SimpleNamespace(
                scene_mesh=lambda s: f"{path}/{s}/full_head.obj", scene_landmarks=lambda s: f"{path}/{s}/landmarks.txt"
            )
            self.names = (
                re.findall(r"\[scenes\.(\w+)\]", Path(config_path).read_text()) if config_path else ["1b2a8613401e42a8"]
            )

        def scenes(self):
            return self.names

        def load_landmarks(self, scene):
            return {
                k: int(i)
                for k, i in (line.split() for line in Path(self.helper.scene_landmarks(scene)).read_text().splitlines())
            }

    for name, module in (("h3ds", types.ModuleType("h3ds")), ("h3ds.dataset", types.SimpleNamespace(H3DS=H3DS))):
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("package", ["theirs", "stand-in"])
def test_h3ds(h3ds_folder, population, monkeypatch, package):
    if package == "theirs":
        pytest.importorskip("h3ds.dataset", reason="the package h3ds is not installed (it is optional)")
    else:
        fake_h3ds(monkeypatch)
    config = h3ds_folder / "config.toml"
    with pytest.warns(UserWarning, match="1 of 3 scenes of H3DS .* are missing"):
        cases = read_h3ds(h3ds_folder / "data", config)
    assert [c.name for c in cases] == ["1b2a8613401e42a8", "3b5a2eb92a501d54"] and eye_corner(cases) == "inner"
    for k, case in enumerate(cases):
        x, marks = population.faces(k), case.scan().landmarks
        assert np.abs(case.scan().surface.vertices - x).max() < 1e-4 and set(marks) == set(H3DS_MARKS.values()) | {
            "lips_central"
        }
        assert all(np.abs(marks[ours] - x[population.landmarks[ours]]).max() < 1e-4 for ours in H3DS_MARKS.values())
    with pytest.raises(FileNotFoundError, match="none of the 3 scenes of H3DS"):
        read_h3ds(h3ds_folder / "nowhere", config)


def test_outer_corners_of_the_eyes_are_noticed(h3ds_folder, population, monkeypatch):
    fake_h3ds(monkeypatch)
    file = h3ds_folder / "data" / "3b5a2eb92a501d54" / "landmarks.txt"
    inner, outer = (
        f"right_eye {population.landmarks[f'right_eye_{k}']}\nleft_eye {population.landmarks[f'left_eye_{k}']}\n"
        for k in ("inner", "outer")
    )
    file.write_text(file.read_text().replace(inner, outer))
    with pytest.warns(UserWarning):
        case = read_h3ds(h3ds_folder / "data", h3ds_folder / "config.toml")[1]
    assert eye_corner([case]) == "outer"
    x = population.faces(1).astype(float)
    face = named_face(Mesh(x, population.face_triangles, "own"), {k: x[i] for k, i in population.landmarks.items()})
    assert compare(h3ds_protocol("outer"), face, case.scan()).error < 1e-3


@pytest.mark.parametrize(
    "scale, text, message",
    [
        (1, "nose_tip 999999\n", "right_eye, left_eye, nose_base, right_lips, left_lips are missing"),
        (0.001, None, "the eyes are 0.0.* apart, expected 20 to 50 mm"),
        (1, "", "are missing"),
    ],
)
def test_a_bad_scene_is_a_row(h3ds_folder, population, monkeypatch, scale, text, message):
    fake_h3ds(monkeypatch)
    folder = h3ds_folder / "data" / "3b5a2eb92a501d54"
    write_mesh(folder / "full_head.obj", scale * population.faces(1), population.face_triangles)
    if text is not None:
        (folder / "landmarks.txt").write_text(text)
    with pytest.warns(UserWarning):
        cases = read_h3ds(h3ds_folder / "data", h3ds_folder / "config.toml")
    good, bad = evaluate(
        cases, [h3ds_protocol()], {"mean face": mean_face(morphable_model_of(population, np.arange(20), 4))}
    )
    assert (
        good["error"] > 0
        and bad["error"] is None
        and re.search(message, bad["problem"])
        and "3b5a2eb92a501d54" in bad["problem"]
    )


def test_against_the_authors_evaluator(h3ds_folder, population, monkeypatch):
    "The same faces through evaluate_scene, on the ball of 95 mm."
    h3ds = pytest.importorskip("h3ds.dataset", reason="the package h3ds is not installed (it is optional)")
    import trimesh

    monkeypatch.setattr(np, "int", int, raising=False)  # which the package still asks for
    folder, x = h3ds_folder / "data" / "3b5a2eb92a501d54", population.faces(1)
    fine = trimesh.Trimesh(x, population.face_triangles, process=False).subdivide()
    write_mesh(folder / "full_head.obj", np.asarray(fine.vertices), np.asarray(fine.faces))
    near = np.flatnonzero(np.linalg.norm(fine.vertices - x[population.landmarks["nose_tip"]], axis=1) <= 95)
    (folder / "regions").mkdir()
    for region in ("face", "face_sphere"):
        (folder / "regions" / f"{region}.txt").write_text("\n".join(map(str, near)))
    data, mesh = h3ds.H3DS(str(h3ds_folder / "data"), config_path=str(h3ds_folder / "config.toml")), h3ds.Mesh()
    y = population.faces(7).astype(float)
    # they measure to vertices
    own = trimesh.Trimesh(y, population.face_triangles, process=False).subdivide().subdivide()
    mesh.vertices, mesh.faces = np.asarray(own.vertices), np.asarray(own.faces)
    theirs = data.evaluate_scene(
        folder.name, mesh, {k: population.landmarks[v] for k, v in H3DS_MARKS.items()}, "face_sphere"
    )[0].mean()
    face = named_face(Mesh(mesh.vertices, mesh.faces, "own"), {k: y[i] for k, i in population.landmarks.items()})
    with pytest.warns(UserWarning):
        case = read_h3ds(h3ds_folder / "data", h3ds_folder / "config.toml")[1]
    ours = compare(h3ds_protocol(), face, case.scan()).error
    print(theirs, ours)
    assert ours == pytest.approx(theirs, rel=0.05)


def test_h3ds_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h3ds", None)
    monkeypatch.delitem(sys.modules, "h3ds.dataset", raising=False)
    with pytest.raises(ImportError, match="pip install h3ds"):
        read_h3ds(tmp_path)
