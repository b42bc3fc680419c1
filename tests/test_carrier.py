"Faces of other models in a head: masks, sealed eyes, whole heads, other sizes and frames; the files they become."

import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation
from test_sources import bfm_2009, cereal, flame, ict  # noqa: F401 (a fixture)

from mrl.faces.carrier import build_population, into_head_frame, population_file, put_into_head, wrap
from mrl.faces.landmarks import LANDMARKS
from mrl.faces.morphable import fit_morphable_model, morphable_model_of, save_morphable_model
from mrl.faces.population import load_population, split_identities
from mrl.faces.sources import read_face_model
from mrl.io.files import ROOT, read_json, write_json
from mrl.render.renderer import Renderer


@pytest.fixture(scope="module")
def own():
    return load_population()


@pytest.fixture(scope="module")
def face(own):
    return morphable_model_of(own, split_identities(len(own))["train"][::8], 12)


def cut(model, keep, scale=1.0):
    "A part of a model, its vertices in another order."
    order = np.random.default_rng(0).permutation(np.flatnonzero(keep))
    row = np.full(len(model.mean), -1)
    row[order] = np.arange(len(order))
    triangles = row[model.triangles.numpy()]
    triangles = torch.from_numpy(triangles[(triangles >= 0).all(1)])
    return replace(
        model,
        mean=model.mean[order] * scale,
        basis=model.basis[:, order] * scale,
        triangles=triangles,
        landmarks={k: int(row[i]) for k, i in model.landmarks.items() if row[i] >= 0},
    )


def seal(model):
    "The model with its eyes and lips closed by fans of triangles."
    edges = model.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).numpy()
    ways = {tuple(e) for e in edges}
    follow = {b: a for a, b in ways if (b, a) not in ways}  # round the holes, against their triangles
    fans = []
    while follow:
        start, loop = next(iter(follow)), []
        i = start
        while i in follow:
            loop.append(i)
            i = follow.pop(i)
        if len(loop) < 60:
            fans += [[loop[0], loop[k], loop[k + 1]] for k in range(1, len(loop) - 1)]
    return replace(model, triangles=torch.cat([model.triangles, torch.tensor(fans)]))


def whole_head(own):
    skin = np.unique(own.triangles[own.part == 0])
    row = np.full(len(own.mean), -1)
    row[skin] = np.arange(len(skin))
    marks = {k: int(row[own.face_vertices[i]]) for k, i in own.landmarks.items()}
    return fit_morphable_model(
        torch.from_numpy(own.heads(np.arange(0, 600))[:, skin]),
        12,
        torch.from_numpy(row[own.triangles[own.part == 0]]),
        landmarks=marks,
    )


def small(model):
    return (model.mean[:, 0].abs() < 50).numpy() & (model.mean[:, 1] < 45).numpy() & (model.mean[:, 1] > -125).numpy()


MODELS = {
    "face": lambda own, face: face,
    "reordered part, 12 % larger": lambda own, face: cut(face, small(face), 1.12),
    "10 % smaller": lambda own, face: cut(face, face.mean[:, 1].numpy() < 70, 0.9),
    "sealed eyes": lambda own, face: seal(face),
    "head": lambda own, face: whole_head(own),
}


@pytest.fixture(scope="module", params=MODELS)
def example(request, tmp_path_factory, own, face):
    "A model and its population of ten."
    model = replace(MODELS[request.param](own, face), name=request.param, licence="CC0-1.0")
    return model, build_population(tmp_path_factory.mktemp("p") / "p.safetensors", model, coefficients=np.eye(12)[:10])


@pytest.mark.slow
def test_heads_carry_exactly_the_models_faces(own, example):
    model, population = example
    np.testing.assert_allclose(
        population.faces(np.arange(10)), into_head_frame(model, own).shape(torch.eye(12)[:10]).numpy(), atol=1e-3
    )
    assert (population.name, population.licence, population.own_basis) == (model.name, "CC0-1.0", False)
    assert set(population.part) == {0, 1, 2, 3, 4}
    assert np.isfinite(population.heads(np.arange(10))).all()


def test_what_is_seen_of_the_face_is_the_model(own, example):
    "In a frontal picture nearly all pixels inside the face belong to the model; the eyes are the carrier's."
    _, population = example
    size, V = 160, len(own.mean)
    K, q, t = np.array([[400.0, 0, 80], [0, 400, 80], [0, 0, 1]]), np.array([0.0, 1, 0, 0]), np.array([0.0, 0, 600])
    hit, _, _ = Renderer(population, ROOT / "data/skins").cast(population.heads(0), K, q, t, size)
    corners = population.triangles[np.maximum(hit, 0)]
    of_model, part = (corners >= V).all(-1) & (hit >= 0), np.where(hit < 0, 9, population.part[hit])
    x = population.faces(0)
    u, v = (np.round(80 + 400 * s * x[:, i] / (600 - x[:, 2]) - 0.5).astype(int) for i, s in ((0, 1), (1, -1)))
    marks = {k: (v[i], u[i]) for k, i in population.landmarks.items()}
    cheek = tuple((np.array(marks["nose_base"]) + np.array(marks["left_eye_outer"])) // 2)
    assert of_model[cheek] and of_model[marks["nose_tip"]]
    middle = np.s_[
        marks["right_eye_outer"][0] + 8 : marks["mouth_left"][0] - 4, marks["mouth_right"][1] : marks["mouth_left"][1]
    ]
    assert of_model[middle].mean() > 0.97
    for side, code in (("left", 1), ("right", 2)):
        a, b = np.array(marks[f"{side}_eye_inner"]), np.array(marks[f"{side}_eye_outer"])
        assert part[tuple((a + b) // 2)] == code  # an eyeball looks out between the lids


def test_the_frame_of_a_model_does_not_matter(own, face):
    R = torch.from_numpy(Rotation.random(random_state=3).as_matrix())
    other = replace(
        face,
        mean=(face.mean.double() @ R.T + torch.tensor([3e3, -200, 70])).float(),
        basis=(face.basis.double() @ R.T).float(),
    )
    a, b = into_head_frame(face, own), into_head_frame(other, own)
    torch.testing.assert_close(a.mean, b.mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(a.basis, b.basis, atol=2e-3, rtol=0)


@pytest.mark.slow
def test_wrapping_keeps_the_skull_where_the_model_ends(own, face):
    moved = into_head_frame(cut(face, small(face)), own)
    wrapped = wrap(own, moved)
    back = own.mean[:, 2] < -60
    apart = np.linalg.norm(wrapped.vertices[back] - own.mean[back], axis=1)
    assert apart.max() < 15  # mm; the mask ends 100 mm before it
    assert np.linalg.norm(wrapped.weights @ moved.mean.numpy() - wrapped.vertices[wrapped.on], axis=1).mean() < 0.5


def test_the_head_follows_linearly(tmp_path, own, face):
    p = build_population(
        tmp_path / "p.safetensors",
        face,
        coefficients=np.stack([np.zeros(12), np.eye(12)[0], 3 * np.eye(12)[0]] + [np.zeros(12)] * 7),
    )
    none, one, three = p.heads([0, 1, 2])
    np.testing.assert_allclose(three - none, 3 * (one - none), atol=1e-3)
    moved = np.linalg.norm(one - none, axis=1)
    # harmonic: no carried vertex moves farther than the face
    assert moved[: len(own.mean)].max() <= moved[len(own.mean) :].max() + 1e-3


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda m: replace(m, landmarks={k: v for k, v in m.landmarks.items() if k != "nose_tip"}),
            "landmarks nose_tip are missing",
        ),
        (
            lambda m: replace(
                m,
                landmarks={
                    k: m.landmarks[k.replace("left", "X").replace("right", "left").replace("X", "right")]
                    for k in m.landmarks
                },
            ),
            "do not fit a face",
        ),
        (lambda m: replace(m, mean=m.mean / 10, basis=m.basis / 10), "do not fit a face"),
        (lambda m: replace(m, mean=m.mean * torch.tensor([-1.0, 1, 1])), "do not fit a face"),
    ],
)
def test_models_that_are_no_faces(own, face, change, message):
    with pytest.raises(ValueError, match=message):
        put_into_head(change(face), own)


# ---- from an owner's file to a trained network ----------------------------------------------------------------------
TINY = dict(
    n_images=160, image_size=32, n_components=64, width=0.06, steps=3, batch_size=16, eval_every=3, device="cpu"
)


@pytest.fixture
def owned(face):
    "Our face model as the writers of test_sources take it"
    x, basis = face.mean.double().numpy(), face.basis.double().numpy()
    sd = np.linalg.norm(basis, axis=(1, 2))
    return SimpleNamespace(
        x=x,
        t=face.triangles.numpy(),
        V=(basis / sd[:, None, None]).reshape(len(sd), -1).T,
        sd=sd,
        N=len(x),
        marks=face.landmarks,
        basis=basis,
    )


def write_models(folder, owned, own):
    "One file of each owner's format, and a folder of thirty scans; the names a user would give to `face_model`"
    bfm_2009(folder / "01_MorphableModel.mat", owned)
    (folder / "generic_model.pkl").write_bytes(pickle.dumps(flame(owned), protocol=2))
    (folder / "sfm_shape_3448.bin").write_bytes(cereal(owned, 4))
    for name in ("01_MorphableModel.mat", "generic_model.pkl", "sfm_shape_3448.bin"):
        write_json(folder / f"{name}.landmarks.json", owned.marks)
    save_morphable_model(folder / "mine.safetensors", morphable_model_of(own, np.arange(100), 5))
    (folder / "scans").mkdir()
    for i in range(30):
        trimesh.Trimesh(own.faces(i) / 10, own.face_triangles, process=False).export(folder / "scans" / f"{i}.ply")
    write_json(folder / "scans.json", {"units": "cm", "licence": "ours", "landmarks": own.landmarks})
    return ["bfm", "flame", "sfm", str(folder / "mine.safetensors"), str(folder / "scans")]


@pytest.mark.slow
def test_every_owners_file_trains_a_network(tmp_path, monkeypatch, owned, own):
    models = write_models(tmp_path, owned, own)
    code = f"""if True:
        from mrl import Run, TrainConfig, train
        for m in {models!r}:
            Run.load(train(TrainConfig(face_model=m, **{TINY!r}), progress=False))
    """
    monkeypatch.setenv("MRL_DATA", str(tmp_path))
    monkeypatch.setenv("MRL_HOME", str(tmp_path / "home"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    results = {p.parent.name: read_json(p) for p in (tmp_path / "home/results").glob("*/config.json")}
    assert set(results) == {"mrl-bfm-0", "mrl-flame-0", "mrl-sfm-0", "mrl-mine-0", "mrl-scans-0"}
    assert {k: v["face_model"]["licence"] for k, v in results.items() if k in ("mrl-scans-0", "mrl-mine-0")} == {
        "mrl-scans-0": "ours",
        "mrl-mine-0": own.licence,
    }
    assert (
        "FLAME" in results["mrl-flame-0"]["face_model"]["licence"]
        and results["mrl-sfm-0"]["face_model"]["units"] == "mm"
    )
    for name in results:
        floor = read_json(tmp_path / "home/results" / name / "metrics.json")["test_controls"]["model floor"]["shape"][
            "mean"
        ]
        assert floor < (2 if name == "mrl-scans-0" else 0.05)  # mm: the owner's modes span the owner's faces


@pytest.mark.slow
def test_a_changed_model_is_another_population(tmp_path, face):
    save_morphable_model(tmp_path / "a[1].safetensors", replace(face, name="first"))
    first = population_file(str(tmp_path / "a[1].safetensors"), tmp_path / "p")
    assert (
        population_file(str(tmp_path / "a[1].safetensors"), tmp_path / "p") == first
        and load_population(first).name == "first"
    )
    save_morphable_model(tmp_path / "a[1].safetensors", replace(face, name="second"))
    second = population_file(str(tmp_path / "a[1].safetensors"), tmp_path / "p")
    assert second != first and load_population(second).name == "second"
    (tmp_path / "a[1].safetensors.landmarks.json").write_text("{}")
    assert population_file(str(tmp_path / "a[1].safetensors"), tmp_path / "p") not in (first, second)


@pytest.mark.slow
def test_a_population_without_its_model(tmp_path, monkeypatch, face):
    monkeypatch.setenv("MRL_DATA", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="ICT-FaceKit"):
        population_file("ict", tmp_path)
    build_population(tmp_path / "ict-custom-0123456789ab.safetensors", face)
    with pytest.raises(FileNotFoundError, match="ICT-FaceKit"):
        population_file("ict", tmp_path)
    made = build_population(tmp_path / "ict-0123456789ab.safetensors", face).path
    assert population_file("ict", tmp_path) == made


def test_a_bad_population_is_not_left_behind(tmp_path, face):
    with pytest.raises(ValueError, match="label.age holds numbers that are not finite"):
        build_population(
            tmp_path / "p.safetensors", face, coefficients=np.zeros((12, 12)), labels={"age": np.full(12, np.nan)}
        )
    with pytest.raises(ValueError, match="5 identities; 10 or more are needed"):
        build_population(tmp_path / "p.safetensors", face, coefficients=np.zeros((5, 12)))
    assert not list(tmp_path.iterdir())


def test_ict(tmp_path, ict):  # noqa: F811
    "The real model, where it is: its faces, in millimetres, carried."
    people = load_population(population_file(str(ict), tmp_path))
    assert (len(people), people.n_face_vertices, people.licence) == (
        6000,
        9409,
        "MIT",
    ) and "ibug_30" in people.landmarks
    x = people.faces(np.arange(200))
    eyes = np.linalg.norm(x[:, people.landmarks["left_eye_outer"]] - x[:, people.landmarks["right_eye_outer"]], axis=-1)
    assert 80 < eyes.mean() < 100 and 1 < eyes.std() < 6
    model = morphable_model_of(people, np.arange(100), 100)
    torch.testing.assert_close(
        model.coefficients(torch.from_numpy(x)), torch.from_numpy(people.coefficients[:200]), atol=0.02, rtol=0
    )


def test_our_landmarks_are_those_of_ict(own, ict):  # noqa: F811
    "Our mean face, bent onto ICT-FaceKit's, has its landmarks where ICT's are; the 68 points within a vertex or two."
    model = into_head_frame(read_face_model(ict), own)
    wrapped = wrap(own, model)
    x, at = wrapped.vertices[own.face_vertices], model.mean.double().numpy()
    off = {k: np.linalg.norm(x[v] - at[model.landmarks[k]]) for k, v in own.landmarks.items() if k != "pogonion"}
    assert max(off[k] for k in LANDMARKS) < 1.5  # mm
    assert len(off) == 68 + 9 and max(off.values()) < 9 and np.median(list(off.values())) < 1.5
