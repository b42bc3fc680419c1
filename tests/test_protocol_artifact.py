"The kept studies of protocols, recomputed with other code; estimators on faces that no model of the project made."

import re

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from mrl.faces.population import load_population
from mrl.geometry.surface import Surface
from mrl.io.files import ROOT, read_json
from mrl.scans.agreement import agreement, of_networks, plausible, resolution
from mrl.scans.estimators import all_estimators
from mrl.scans.known_faces import KnownPerson
from mrl.scans.protocol_study import load_protocol_study, measure_person

STUDIES = ("first", "ict")


def kept(name):
    "Return the arrays of a study's measured people, and what they are of, without mrl's reader."
    folder = ROOT / "results/protocols" / name
    arrays = load_file(folder / "errors.safetensors")
    done = np.isfinite(arrays["true"][:, 0, 0])
    return {k: v[done].astype(np.float64) for k, v in arrays.items()}, read_json(folder / "config.json", ["config"])


def pearson(arrays, about, estimator, rows):
    "Return the correlation of methods by a loop and SciPy; people with a refused reconstruction are left out."
    k, means = about["estimators"].index(estimator), []
    people = [p for p in range(len(arrays["true"])) if not np.isnan(arrays["errors"][p, rows, k]).any()]
    for r in rows:
        error = sum(arrays["errors"][p, r, k] for p in people) / len(people)
        means.append((error, sum(arrays["true"][p, r, 0] for p in people) / len(people)))
    return stats.pearsonr(*zip(*means))[0]


@pytest.mark.parametrize("name", STUDIES)
def test_correlations_by_other_code(name):
    "SciPy, from the arrays of the file, gives the numbers that the page shows."
    arrays, about = kept(name)
    study = load_protocol_study(name).finished()
    likely, every = plausible(study), np.ones(len(about["reconstructions"]), bool)
    for estimator in ("now", "deng2019", "warped"):
        for rows in (likely, every):
            ours = agreement(study, estimator, rows, draws=20)
            theirs = pearson(arrays, about, estimator, np.flatnonzero(rows))
            assert ours.methods["pearson"][0] == pytest.approx(theirs, abs=1e-6)
            e, t = study.column(estimator)[:, rows], study.true[:, rows, 0]
            whole = np.isfinite(e).all(1)
            expected = stats.spearmanr(e[whole].mean(0), t[whole].mean(0))[0]
            assert ours.methods["spearman"][0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", STUDIES)
def test_files_are_small_and_whole(name):
    "Fewer than 3 MB; as many people as it says; one clean commit; no number below zero."
    folder = ROOT / "results/protocols" / name
    arrays, about = kept(name)
    assert sum(p.stat().st_size for p in folder.iterdir()) < 3e6
    assert len(arrays["true"]) == about["people_measured"] >= 3
    assert all(re.fullmatch("[0-9a-f]{40}", c) for c in about["commits"])
    assert np.nanmin(arrays["errors"]) >= 0 and set(about["estimators"]) <= set(all_estimators())


def test_the_readme_quotes_the_study():
    "Its line on protocols has the numbers of the file."
    study = load_protocol_study("first").finished()
    line = next(s for s in (ROOT / "README.md").read_text().splitlines() if "nbs/protocols.ipynb" in s)
    names = [e for e in study.about["estimators"] if all_estimators()[e].group == "published"]
    assert f"{len(study.true)} people and {plausible(study).sum()} methods" in line
    assert f"the {of_networks(study).sum()} predictions of networks alone" in line
    for rows in (plausible(study), of_networks(study)):
        found = [agreement(study, e, rows, draws=20).methods["pearson"][0] for e in (*names, "warped")]
        assert f"{min(found[:-1]):.3f} to {max(found[:-1]):.3f}" in line and f"{found[-1]:.3f}" in line


def egg(directions):
    "Return points (n, 3), mm, of an egg with a nose, in given directions (n, 3)."
    x = directions * [82, 105, 75]
    nose = 22 * np.exp(-((x[:, 0] / 11) ** 2) - ((x[:, 1] - 4) / 14) ** 2) * (x[:, 2] > 0)
    return x + np.outer(nose, [0, 0, 1])


@pytest.fixture(scope="module")
def stranger():
    "A face from a sphere, with landmarks where a mean face has them from the front; the scan has another mesh."
    import trimesh
    from scipy.spatial.transform import Rotation

    ball = trimesh.creation.icosphere(subdivisions=5)
    front = ball.triangles_center[:, 2] > -0.1
    x, triangles = egg(np.asarray(ball.vertices)), np.asarray(ball.faces)[front]
    turned = egg(ball.vertices @ Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix())
    scan = Surface.welded(turned, ball.faces[turned[ball.faces].mean(1)[:, 2] > -5])
    population = load_population()
    mean = population.mean[population.face_vertices]
    tip, used = mean[population.landmarks["nose_tip"]], np.unique(triangles)
    found = {}  # vertex of the mean face -> vertex of the egg
    for row in sorted(set(population.landmarks.values())):
        off = np.linalg.norm(x[used, :2] - (mean[row] - tip)[:2], axis=1)
        off[np.searchsorted(used, np.array(list(found.values()), int))] = np.inf  # each vertex is one landmark at most
        found[row] = int(used[off.argmin()])
    rows = {name: found[row] for name, row in population.landmarks.items()}
    return KnownPerson(0, x, triangles.astype(np.int64), rows, scan)


@pytest.mark.slow
def test_a_face_of_another_making(stranger):
    "The same face has no error; a larger one has one only without a scale; a longer nose costs the nose most."
    x = stranger.x
    near = np.exp(-((np.linalg.norm(x[:, :2], axis=1) / 20) ** 4)) * (x[:, 2] > 0)
    faces = {"same": x, "larger": 1.05 * x, "nose": x + np.outer(6 * near, [0, 0, 1])}
    names = ("ramon2019", "now", "realy", "51 landmarks, clicks 0 mm", "warped, clicks 0 mm")
    known = {name: all_estimators()[name] for name in names}
    found = measure_person(stranger, faces, known, x, dict.fromkeys(faces, 1.0))
    errors = {k: dict(zip(names, row)) for k, row in zip(faces, found["errors"])}
    assert found["true"][0].max() < 1e-9 and found["true"][1, 0] > 1 and found["true"][1, 1] < 1e-9
    assert max(errors["same"].values()) < 0.4
    assert errors["larger"]["now"] < 0.4 and errors["larger"]["realy"] < 0.4 and errors["larger"]["ramon2019"] > 0.4
    assert errors["larger"]["warped, clicks 0 mm"] == pytest.approx(found["true"][1, 0], rel=0.25)
    assert all(errors["nose"][name] > errors["same"][name] for name in names)
    assert found["true_regions"][2].argmax() == 0


def test_resolution_of_the_truth_itself():
    "The true error as its own estimator has slope 1 and no floor."
    study = load_protocol_study("first").finished()
    t = study.true[:, plausible(study), 0]
    r = resolution(t, t)
    assert r.slope == pytest.approx(1) and r.floor == pytest.approx(0, abs=1e-9) and r.spread > 0
