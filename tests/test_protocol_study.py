"Faces whose error is known, estimators of it, and the study that measures them."

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mrl.faces.morphable import morphable_model_of
from mrl.faces.population import load_population, split_identities
from mrl.scans.estimators import CLICK, Workbench, all_estimators, estimate
from mrl.scans.known_faces import as_face, face_regions, known_person, slid, smooth_field
from mrl.scans.protocol_study import StudyConfig, measure_person, study_material
from mrl.scans.protocols import compare


@pytest.fixture(scope="module")
def population():
    return load_population()


@pytest.fixture(scope="module")
def person(population):
    return known_person(population, split_identities(len(population))["test"][3], seed=1, spacing=4.0)


@pytest.fixture(scope="module")
def bench(person, population):
    return Workbench(person, population.mean[population.face_vertices].astype(np.float64))


def test_true_error_by_other_code(person):
    "SciPy's weighted rotation, and the definition, give the same number; a motion of the prediction changes nothing."
    x_hat = person.x + smooth_field(np.random.default_rng(0), person.x, 3.0)
    rows = person.weights > 0
    x, y, w = person.x[rows], x_hat[rows], person.weights[rows]
    x, y = x - np.average(x, axis=0, weights=w), y - np.average(y, axis=0, weights=w)
    rotation, _ = Rotation.align_vectors(x, y, w)
    expected = np.average(np.linalg.norm(rotation.apply(y) - x, axis=1), weights=w)
    turned = x_hat @ Rotation.from_euler("xyz", [20, 40, -30], degrees=True).as_matrix() + [5, 80, -300]
    assert person.error(x_hat).rigid == pytest.approx(expected, abs=1e-6)
    assert person.error(turned).rigid == pytest.approx(expected, abs=1e-6)


def test_scan_is_of_the_person(person):
    "The scan lies on the true face within its noise, and has other vertices."
    tip = person.x[person.landmarks["nose_tip"]]
    near = person.surface.vertices[np.linalg.norm(person.surface.vertices - tip, axis=1) < 40]
    d = person.truth.closest(near)[0]
    assert len(near) > 100 and np.median(d) < 0.4 and d.min() > 0


def test_clicks_grow_with_noise(person):
    "The same annotator's error at every size; landmarks stay on the scan."
    exact, one, five = (np.stack(list(person.scan(n).landmarks.values())) for n in (0, 1, 5))
    off = [np.linalg.norm(marks - exact, axis=1).mean() for marks in (one, five)]
    assert 0.5 < off[0] < 3 and off[0] < off[1] < 9
    assert person.surface.closest(five)[0].max() < 1e-6


@pytest.mark.parametrize("name", ["genova2018", "ganfit2019"])
def test_published_estimators_are_the_protocols(name, person, bench):
    "An estimator gives the number of `compare`, with the global scale where a protocol has one."
    face = as_face(person, bench.template, "mean")
    estimator = all_estimators()[name]
    bench.aligned.clear()
    theirs = compare(estimator.protocol, face, bench.scan(CLICK), 0, 1.02 if name == "genova2018" else 1.0)
    assert estimate(bench, estimator, face, 1.02).error == pytest.approx(theirs.error, abs=1e-9)


def test_closest_points_do_not_see_sliding(person, bench):
    "Vertices that slide along the surface: a warp by landmarks sees a third or more of it, closest points do not."
    x_hat = slid(np.random.default_rng(2), person.truth)
    face, known = as_face(person, x_hat, "slid"), all_estimators()
    bench.aligned.clear()
    true = person.error(x_hat).rigid
    assert true > 1
    assert estimate(bench, known["known alignment"], face).error < true / 2
    assert estimate(bench, known["warped, clicks 0 mm"], face).error > true / 3


@pytest.mark.parametrize("name", ["realy", "regions"])
def test_regions_are_aligned_one_by_one(name, person, bench):
    "A face at another size has no error but the scan's noise; a long nose costs cheeks and forehead nothing."
    estimator = all_estimators()[name]
    tip = person.x[person.landmarks["nose_tip"]]
    near = np.exp(-((np.linalg.norm(person.x - tip, axis=1) / 25) ** 4))
    faces = {"perfect": person.x, "larger": 1.1 * person.x, "nose": person.x + np.outer(5 * near, [0, 0, 1])}
    found = {}
    for k, x in faces.items():
        bench.aligned.clear()
        found[k] = estimate(bench, estimator, as_face(person, x, k))
    assert found["perfect"].error < 0.35
    assert found["larger"].error == pytest.approx(found["perfect"].error, abs=0.02)
    excess = found["nose"].regions - found["perfect"].regions
    assert excess[0] > 0.4 and excess[0] > 2 * excess[1] and np.abs(excess[2:]).max() < 0.05
    assert found["nose"].error == pytest.approx(found["nose"].regions.mean())


def test_realy_sees_what_closest_points_do_not(person, bench):
    "The nose's vertices slid along the surface: partners from deformed regions are farther than closest points."
    face, known = as_face(person, slid(np.random.default_rng(3), person.truth, rms=6.0), "slid"), all_estimators()
    bench.aligned.clear()
    assert estimate(bench, known["realy"], face).error > estimate(bench, known["regions"], face).error


def test_regions_without_the_pogonion(person):
    "A face model of another owner has no such landmark; the region of the mouth is nearly the same."
    marks = {k: v for k, v in person.landmarks.items() if k != "pogonion"}
    with_it, without = (face_regions(person.x, m) for m in (person.landmarks, marks))
    assert (with_it == without).mean() > 0.97 and (without == 1).sum() > 50


def test_refused_reconstructions_are_nan(person, bench):
    "A mesh that no protocol accepts costs its own numbers only."
    known = {k: all_estimators()[k] for k in ("51 landmarks", "warped")}
    faces = {"flat": person.x * [1, 1, 0.01] * 3, "perfect": person.x}
    found = measure_person(person, faces, known, bench.template, dict.fromkeys(faces, 1.0))
    assert np.isnan(found["errors"][0, 0]) and np.isfinite(found["errors"][1]).all()
    assert np.isfinite(found["true"]).all()


def test_material_takes_kept_predictions():
    "The study's networks are the kept ones, of test people; the model is that of their training."
    material = study_material(StudyConfig(people=2, estimators="now"))
    assert len(material.networks) == 8 and len(material.identities) == 2
    test = split_identities(len(material.population))["test"]
    assert np.isin(material.identities, test).all() and not np.isin(material.others, material.identities[:1]).all()
    few = morphable_model_of(material.population, test[:30], 10)
    assert len(few.basis) == 10
