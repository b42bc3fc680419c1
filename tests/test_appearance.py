"""What is drawn at random, its switches, and the shapes and paint that come of it."""

from dataclasses import fields, replace

import numpy as np
import pytest
import trimesh
from scipy.ndimage import map_coordinates
from scipy.spatial import ConvexHull

from mrl.render.appearance import EFFECTS, background, sample_appearance, smooth, switch_off
from mrl.render.surfaces import (
    RIM,
    SIDES,
    fit_sphere,
    glasses_triangles,
    glasses_vertices,
    lens_planes,
    rim_points,
    skin_at,
)

LABELS = dict(gender=1.0, age=30.0, african=0.2, asian=0.3, caucasian=0.5)


def equal(a, b, but=()):
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in but)


def test_sampled_appearances_stay_in_their_ranges():
    for i in range(400):
        rng = np.random.default_rng(i)
        african, asian, caucasian = rng.dirichlet([0.3] * 3)
        a = sample_appearance(
            rng, dict(gender=i % 2, age=18 + i % 63, african=african, asian=asian, caucasian=caucasian)
        )
        assert all(np.isfinite(getattr(a, f.name)).all() for f in fields(a))
        assert (
            abs(a.skin.sum() - 1) < 1e-5
            and a.skin.min() >= 0
            and np.abs(np.linalg.norm(a.light, axis=1) - 1).max() < 1e-5
        )
        assert (
            min(
                a.tone.min(),
                a.key.min(),
                a.ambient[0].min(),
                a.iris.min(),
                a.hair_colour.min(),
                a.cloth[:3].min(),
                a.hair[:2].min(),
                a.hair[4:7].min(),
            )
            >= 0
        )
        assert (
            0 <= a.lips <= 0.8
            and 0.1 <= a.gloss[0] <= 0.5
            and 8 <= a.gloss[1] <= 30
            and 0 <= a.scalp <= 1
            and 0 < a.film[2] < 1.8
        )
        assert a.beard.max() == 0 if i % 2 else a.lips == 0
        assert (np.diff(a.key.sum(1)) <= 0).all() and a.key[0].sum() > 0
        assert 0 < a.lens.min() <= a.lens.max() <= 1 and (a.film[4] == 0 or 30 <= a.film[4] < 96)


def test_labels_shift_the_odds():
    draw = lambda n=600, **changes: [sample_appearance(np.random.default_rng(i), LABELS | changes) for i in range(n)]
    young, old = draw(age=25), draw(age=75)
    share = lambda people: np.mean([a.glasses[0] for a in people])
    assert 0.05 < share(young) < 0.16 < 0.2 < share(old) < 0.34
    assert sum(a.skin.reshape(3, 3, 2)[2].sum() for a in old) > 20 * sum(
        a.skin.reshape(3, 3, 2)[2].sum() for a in young
    )


@pytest.mark.parametrize(
    "missing", [("gender",), ("age",), ("asian",), ("gender", "age", "african", "asian", "caucasian")]
)
def test_labels_that_are_missing_are_drawn(missing):
    labels = {k: v for k, v in LABELS.items() if k not in missing}
    people = [sample_appearance(np.random.default_rng(i), labels) for i in range(300)]
    assert equal(people[3], sample_appearance(np.random.default_rng(3), labels))
    skins = np.sum([a.skin for a in people], 0).reshape(3, 3, 2)
    assert (skins.sum((0, 1)) > 80).all() if "gender" in missing else skins[..., 0].sum() == 0
    assert (skins.sum((0, 2)) > 40).all() if "asian" in missing else True
    assert (skins.sum((1, 2)) > 25).all() if "age" in missing else skins[2].sum() < 1


FIELDS = {
    "skins": {"skin", "tone", "lips", "gloss"},
    "irises": {"iris"},
    "clothes": {"cloth"},
    "brows": {"brow"},
    "lashes": {"lash"},
    "gaze": {"gaze"},
    "hair": {"hair", "scalp"},
    "beard": {"beard"},
    "glasses": {"glasses"},
    "shadows": {"shadow"},
    "light": {"light", "key", "ambient"},
    "background": {"background"},
    "blur": {"film"},
    "noise": {"film"},
    "jpeg": {"film"},
    "film": {"film"},
}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_switch_touches_its_own_fields_only(name):
    people = [sample_appearance(np.random.default_rng(i), LABELS | dict(gender=i % 2)) for i in range(60)]
    kept = [a.film.copy() for a in people]
    off = [switch_off(a, [name]) for a in people]
    assert all(equal(a, b, FIELDS[name]) for a, b in zip(people, off)) and not all(
        equal(a, b) for a, b in zip(people, off)
    )
    assert all(np.array_equal(a.film, film) for a, film in zip(people, kept))  # the argument stays as it was
    if FIELDS[name] == {"film"}:
        assert all((a.film != b.film).sum() <= 2 for a, b in zip(people, off))


def test_switches_commute_and_unknown_ones_are_named():
    a = sample_appearance(np.random.default_rng(0), LABELS)
    assert set(FIELDS) == set(EFFECTS) and equal(switch_off(a, []), a)
    assert equal(switch_off(a, EFFECTS), switch_off(a, list(EFFECTS)[::-1]))
    with pytest.raises(ValueError, match="effects: expected some of skins, .*; got 'beards'"):
        switch_off(a, ["hair", "beards"])


class Chart:
    "Random skins with nothing painted."

    size = (13, 17)
    skins = np.random.default_rng(0).random((18, 13 * 17, 3), dtype=np.float32)
    marks = np.tile(np.float32([[99], [0], [0], [0], [0], [99], [0]]), 13 * 17)


def test_texture_lookup_is_scipys():
    rng = np.random.default_rng(1)
    a = replace(sample_appearance(rng, LABELS), tone=[1, 1, 1])
    uv = rng.uniform(0.05, 0.95, (300, 2)).astype(np.float32)
    skin = np.einsum("k,knc->nc", a.skin, Chart.skins).reshape(*Chart.size, 3)
    at = [uv[:, 1] * 13 - 0.5, uv[:, 0] * 17 - 0.5]
    reference = np.stack([map_coordinates(skin[..., c], at, order=1) for c in range(3)], 1)
    assert np.abs(skin_at(Chart, a, uv)[:, :3] - reference).max() < 1e-5
    assert np.isfinite(skin_at(Chart, a, np.float32([[0, 0], [1, 1], [-3, 9]]))).all()


def wearer(i=0):
    a = sample_appearance(np.random.default_rng(i), LABELS)
    eyes = np.array([[31.0, 0, 60], [-31, 0, 60]])
    front = np.array(
        [[0, 4, 86], [9, -12, 84], [-9, -12, 84], [30, 20, 85], [-30, 20, 85], [34, -22, 75], [-34, -22, 75]], float
    )
    temples = np.array([[s * x, 4, z] for s in (1, -1) for x, z in ((60, 50), (70, 20), (76, -10))], float)
    return replace(a, glasses=[1, *a.glasses[1:]]), eyes, np.concatenate([front, temples])


@pytest.mark.parametrize("seed", range(8))
def test_glasses_are_closed_tubes_that_face_outwards(seed):
    a, eyes, pins = wearer(seed)
    vertices, triangles = glasses_vertices(eyes, pins, a), glasses_triangles(0)
    assert triangles.max() == len(vertices) - 1 and triangles.min() == 0
    rim = trimesh.Trimesh(
        vertices[: RIM * SIDES], triangles[: 2 * (RIM - 1) * (SIDES - 1)], process=True, merge_tex=True
    )
    sides, tube = SIDES - 1, a.glasses[5]
    area = sides / 2 * np.sin(2 * np.pi / sides) * tube**2  # of the tube's section
    line = rim_points(a, np.linspace(0, 2 * np.pi, 2000))
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    assert rim.volume == pytest.approx(area * length, rel=0.12)  # Pappus; a negative volume would be inside out
    mirror = vertices[: RIM * SIDES].reshape(RIM, SIDES, 3).mean(1) * [-1, 1, 1]
    other = vertices[RIM * SIDES : 2 * RIM * SIDES].reshape(RIM, SIDES, 3).mean(1)
    assert np.abs(np.sort(mirror[:-1], 0) - np.sort(other[:-1], 0)).max() < tube  # left and right are mirror images


def test_lenses_lie_in_front_of_the_eyes_and_follow_them():
    a, eyes, pins = wearer()
    centres, axes = lens_planes(eyes, pins[:7], a)
    assert np.abs(axes @ axes.swapaxes(1, 2) - np.eye(3)).max() < 1e-5 and np.linalg.det(axes) == pytest.approx(
        1, abs=1e-5
    )
    assert (centres[:, 2] > eyes[:, 2] + 20).all() and centres[0, 0] > 0 > centres[1, 0] and axes[:, 2, 2].min() > 0.9
    turn = np.array(
        [[np.cos(0.4), 0, np.sin(0.4)], [0, 1, 0], [-np.sin(0.4), 0, np.cos(0.4)]]
    )  # about the vertical axis
    moved, turned = lens_planes(eyes @ turn.T + [5, -7, 9], pins[:7] @ turn.T + [5, -7, 9], a)
    assert np.abs(moved - (centres @ turn.T + [5, -7, 9])).max() < 1e-3 and np.abs(turned - axes @ turn.T).max() < 1e-5


@pytest.mark.parametrize("power, area", [(2, np.pi), (1, 2), (60, 4)])
def test_rims_are_superellipses(power, area):
    a = wearer()[0]
    a = replace(a, glasses=[1, 25, 20, power, 0, 1, 9, 0.1])
    hull = ConvexHull(rim_points(a, np.linspace(0, 2 * np.pi, 4000)))
    assert hull.volume == pytest.approx(area * 25 * 20, rel=0.02)  # volume is area in the plane


def test_backgrounds():
    assert (background(-1, 33) == background(-1, 33)[0, 0]).all() and background(-1, 33).std() == 0
    images = [background(i, 40) for i in range(80)]
    assert all(x.shape == (40, 40, 3) and x.dtype == np.float32 and x.min() > 0 and x.max() < 3.01 for x in images)
    assert np.array_equal(images[7], background(7, 40)) and len({x.tobytes() for x in images}) == 80


def test_spheres_and_steps():
    ball = trimesh.creation.icosphere(3, radius=12)
    cap = ball.vertices[ball.vertices[:, 2] > 4] + [3, 4, 5]
    centre, radius = fit_sphere(cap.astype(np.float32))
    assert np.abs(centre - [3, 4, 5]).max() < 1e-3 and radius == pytest.approx(12, abs=1e-3)
    assert smooth(1, 2, np.array([0, 1, 1.5, 2, 3])).tolist() == [0, 0, 0.5, 1, 1] and smooth(
        2, 1, 1.25
    ) == pytest.approx(0.84375)
