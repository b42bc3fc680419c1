"The population of faces: topology, landmarks, labels, splits, and files that are not what they should be."

import numpy as np
import pytest
import torch
import trimesh
from safetensors.numpy import load_file

from mrl.faces.landmarks import LANDMARKS
from mrl.faces.population import LABELS, load_population, split_identities
from mrl.io.files import load_tensors, save_tensors


@pytest.fixture(scope="module")
def population():
    return load_population()


def edge_uses(triangles):
    "How many triangles use each edge, and in how many directions"
    directed = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    return np.unique(np.sort(directed, 1), axis=0, return_counts=True)[1], np.unique(
        directed, axis=0, return_counts=True
    )[1]


@pytest.mark.parametrize("triangles, n", [("triangles", "mean"), ("face_triangles", "face_vertices")])
def test_meshes_are_manifold_and_consistently_wound(population, triangles, n):
    triangles, n = getattr(population, triangles), len(getattr(population, n))
    uses, directed = edge_uses(triangles)
    assert uses.max() == 2 and directed.max() == 1
    assert np.array_equal(np.unique(triangles), np.arange(n))  # no vertex unused, none missing
    assert (triangles[:, [0, 1, 2]] != triangles[:, [1, 2, 0]]).all()


def test_no_vertex_joins_two_fans(population):
    t = population.face_triangles
    for v in np.unique(t):
        fan = t[(t == v).any(1)]
        opposite = np.array([r[r != v] for r in fan])
        ends, count = np.unique(opposite, return_counts=True)
        assert count.max() <= 2 and (count == 1).sum() in (0, 2), f"vertex {v}"


def test_face_is_one_surface_with_four_rims(population):
    mesh = trimesh.Trimesh(population.mean[population.face_vertices], population.face_triangles, process=False)
    assert mesh.body_count == 1
    assert len(mesh.outline().entities) == 4  # outline, two eyes, lips
    assert mesh.euler_number == 2 - 4


def test_face_is_part_of_the_head(population):
    assert population.n_face_vertices >= 2000
    assert len(np.unique(population.face_vertices)) == population.n_face_vertices
    head = {tuple(sorted(t)) for t in population.triangles[population.part == 0].tolist()}
    face = population.face_vertices[population.face_triangles]
    assert all(tuple(sorted(t)) in head for t in face.tolist())
    assert {tuple(t) for t in np.sort(face, 1).tolist()} <= head


def test_face_and_eyes_look_forward(population):
    m, t = population.mean, population.triangles
    normal = np.cross(m[t[:, 1]] - m[t[:, 0]], m[t[:, 2]] - m[t[:, 0]])
    assert normal[np.isin(population.part, (1, 2))].mean(0)[2] > 0
    face = m[population.face_vertices][population.face_triangles]
    assert np.cross(face[:, 1] - face[:, 0], face[:, 2] - face[:, 0]).sum(0)[2] > 0


def test_landmarks(population):
    assert set(population.landmarks) == {*LANDMARKS, "pogonion", *(f"ibug_{i:02d}" for i in range(68))}
    for x in [population.mean[population.face_vertices], *population.faces(np.arange(0, len(population), 50))]:
        p = {k: x[population.landmarks[k]] for k in LANDMARKS}
        right_to_left = ["right_eye_outer", "right_eye_inner", "nose_tip", "left_eye_inner", "left_eye_outer"]
        assert (np.diff([p[k][0] for k in right_to_left]) > 5).all()
        assert p["mouth_right"][0] < p["chin"][0] < p["mouth_left"][0]
        assert (
            np.diff([p[k][1] for k in ("left_eye_inner", "nose_tip", "nose_base", "mouth_left", "chin")]) < -3
        ).all()
        assert max(p, key=lambda k: p[k][2]) == "nose_tip"


def test_mean_face_is_symmetric(population):
    x = population.mean[population.face_vertices]
    mirrored = x * [-1, 1, 1]
    distance = np.linalg.norm(mirrored[:, None, :] - x[None], axis=-1).min(1)
    assert distance.max() < 0.5
    for k in LANDMARKS:
        other = k.replace("left", "R").replace("right", "left").replace("R", "right")
        assert np.linalg.norm(mirrored[population.landmarks[k]] - x[population.landmarks[other]]) < 0.5


def test_frame(population):
    eyes = [population.mean[np.unique(population.triangles[population.part == i])].mean(0) for i in (1, 2)]
    assert eyes[0][0] > 0 > eyes[1][0]  # part 1 is the subject's left
    assert np.allclose((eyes[0] + eyes[1]) / 2, [0, 0, 66], atol=8) and abs(eyes[0][1] - eyes[1][1]) < 0.2


def test_faces_are_aligned_rigidly(population):
    "No rotation and no shift brings a face nearer to the mean: the orthogonal Procrustes solution is the identity."
    from scipy.spatial.transform import Rotation

    mean = population.mean[population.face_vertices].astype(float)
    for x in population.faces(np.arange(0, len(population), 200)).astype(float):
        assert np.linalg.norm(x.mean(0) - mean.mean(0)) < 0.1
        R, _ = Rotation.align_vectors(mean - mean.mean(0), x - x.mean(0))
        assert np.degrees(R.magnitude()) < 0.1


def test_texture_coordinates(population):
    assert (population.uv >= 0).all() and (population.uv <= 1).all()
    assert np.array_equal(np.unique(population.uv_triangles), np.arange(len(population.uv)))
    skin = np.unique(population.uv_triangles[population.part == 0])
    assert not np.isin(np.unique(population.uv_triangles[np.isin(population.part, (1, 2))]), skin).any()
    area = population.uv[population.uv_triangles]
    assert np.linalg.det(area[:, 1:] - area[:, :1])[
        population.part < 3
    ].all()  # no triangle without area in the texture


def test_eye_charts_are_centred_on_the_gaze(population):
    for part in (1, 2):
        at = population.part == part
        corner, uv = population.mean[population.triangles[at]], population.uv[population.uv_triangles[at]]
        foremost = corner[..., 2] > corner[..., 2].max() - 0.5
        assert np.linalg.norm(uv[foremost] - 0.5, axis=-1).max() < 0.2
        side = corner[..., 0] - corner[..., 0].mean()
        assert np.corrcoef(side.ravel(), uv[..., 0].ravel())[0, 1] > 0.9  # u to the subject's left
        assert np.corrcoef(corner[..., 1].ravel(), uv[..., 1].ravel())[0, 1] < -0.9  # v down


def test_labels(population):
    assert set(population.labels) == set(LABELS)
    L, S = population.labels, len(population)
    assert S >= 1000 and all(v.shape == (S,) and v.dtype == np.float32 for v in L.values())
    assert 18 <= L["age"].min() < 20 and 78 < L["age"].max() <= 80
    assert all(L[k].min() >= 0 and L[k].max() <= 1 for k in LABELS if k != "age")
    assert np.allclose(L["african"] + L["asian"] + L["caucasian"], 1, atol=1e-5)
    assert ((L["gender"] < 0.3) | (L["gender"] > 0.7)).mean() > 0.8
    near, mixed = (
        (np.max([L[k] for k in LABELS[-3:]], axis=0) > 0.8),
        (np.max([L[k] for k in LABELS[-3:]], axis=0) < 0.6),
    )
    assert near.mean() > 0.25 and mixed.mean() > 0.15


def test_labels_show_in_the_shape(population):
    "Gender and age labels belong to their heads: each can be read from the coefficients by linear regression."
    c = np.column_stack([population.coefficients.astype(float), np.ones(len(population))])
    for k in ("gender", "age", "weight"):
        y = population.labels[k].astype(float)
        fit = c[::2] @ np.linalg.lstsq(c[1::2], y[1::2], rcond=None)[0]
        assert np.corrcoef(fit, y[::2])[0, 1] > 0.8, k


def test_heads_against_the_file(population):
    d = load_file(population.path)
    i = [0, 17, len(population) - 1]
    expected = d["mean"] + np.einsum("nr,rvc->nvc", d["coefficients"][i].astype(float), d["basis"].astype(float))
    assert np.allclose(population.heads(i), expected, atol=1e-4)
    assert np.allclose(population.faces(i), expected[:, d["face_vertices"]], atol=1e-4)
    assert population.heads(i).dtype == np.float32
    assert np.array_equal(population.heads(np.arange(40))[17], population.heads(17))
    assert np.array_equal(population.heads(np.array([[17]]))[0, 0], population.heads(17))


def test_mean_is_the_mean(population):
    assert np.abs(population.coefficients.astype(float).mean(0)).max() < 0.05
    assert np.allclose(population.coefficients.astype(float).std(0), 1, atol=0.02)


def test_faces_differ_but_not_wildly(population):
    x = population.faces(np.arange(0, len(population), 10))
    rms = np.sqrt(((x - population.mean[population.face_vertices]) ** 2).sum(-1).mean(1))
    assert rms.min() > 1 and 2.5 < rms.mean() < 5 and rms.max() < 12


def test_split():
    a, b = split_identities(6000, seed=3), split_identities(6000, seed=3)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert [len(a[k]) for k in ("train", "val", "test")] == [4800, 600, 600]
    assert np.array_equal(np.sort(np.concatenate(list(a.values()))), np.arange(6000))
    assert all(v.dtype == np.int64 and (np.diff(v) > 0).all() for v in a.values())
    assert split_identities(6000)["test"][:5].tolist() == [7, 26, 38, 43, 82]
    with pytest.raises(ValueError, match="n: expected 10 identities or more, got 3"):
        split_identities(3)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors: no such file"):
        load_population(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 1000, 1_000_000, -1])
def test_truncated_file(tmp_path, population, cut):
    (tmp_path / "faces.safetensors").write_bytes(population.path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="faces.safetensors: truncated"):
        load_population(tmp_path / "faces.safetensors")


def test_foreign_files(tmp_path):
    save_tensors(tmp_path / "model.safetensors", {"mean": torch.zeros(3)}, "mrl.morphable")
    with pytest.raises(ValueError, match="model.safetensors: a mrl.faces file is expected, this is mrl.morphable"):
        load_population(tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("not a population, but long enough to have a header")
    with pytest.raises(ValueError, match="notes.txt"):
        load_population(tmp_path / "notes.txt")


def without(name):
    return lambda d, a: d.pop(name)


def edited(name, f):
    def change(d, a):
        d[name] = f(d[name].clone())

    return change


def about(name, value):
    return lambda d, a: a.update({name: value})


def nan(x):
    x[3] = float("nan")
    return x


def beyond(x):
    x[0] = 10**6
    return x


@pytest.mark.parametrize(
    "change, message",
    [
        (without("basis"), "tensors missing: basis"),
        (edited("label.age", lambda x: x[:-1]), r"label.age has shape \(5999,\), expected \(S\)"),
        (edited("coefficients", lambda x: x[:, :-1]), "coefficients has shape"),
        (edited("mean", lambda x: x[:, :2]), "mean has shape"),
        (edited("part", lambda x: x[1:]), "part has shape"),
        (edited("mean", nan), "mean holds numbers that are not finite"),
        (edited("triangles", beyond), "triangles names rows 0 to 1000000, expected 0 to"),
        (edited("face_vertices", lambda x: x - 1 - x.min()), "face_vertices names rows -1"),
        (about("units", "cm"), "units are 'cm', expected 'mm'"),
        (about("landmarks", {"chin": 0}), "landmarks right_eye_outer, .*, mouth_left are missing"),
        (about("identities", ["one", "two"]), "2 identities are named, expected 6000"),
        (lambda d, a: a["landmarks"].update(chin=99999), "'chin' is 99999, expected a vertex from 0 to"),
        (lambda d, a: a.pop("licence"), "metadata lack"),
    ],
)
def test_damaged_contents(tmp_path, population, change, message):
    tensors, metadata = load_tensors(population.path, "mrl.faces")
    change(tensors, metadata)
    save_tensors(tmp_path / "faces.safetensors", tensors, "mrl.faces", metadata)
    with pytest.raises(ValueError, match="faces.safetensors: .*" + message):
        load_population(tmp_path / "faces.safetensors")


def test_skins_fit_the_texture_coordinates(population):
    from PIL import Image

    paths = sorted((population.path.parent / "skins").glob("*.jpg"))
    assert len(paths) == 18
    assert {tuple(p.stem.split("_")) for p in paths} == {
        (a, e, g)
        for a in ("young", "middleage", "old")
        for e in ("african", "asian", "caucasian")
        for g in ("female", "male")
    }
    assert {Image.open(p).size for p in paths} == {(192, 512)}
    assert sum(p.stat().st_size for p in paths) < 3e6
