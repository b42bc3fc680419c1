"""What is drawn at random, and its switches."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from mrl.render.appearance import EFFECTS, sample_appearance, switch_off

LABELS = dict(gender=1.0, age=30.0, african=0.2, asian=0.3, caucasian=0.5)


def numbers(record, prefix=""):
    "Every number of a record: {'film.noise': value}."
    found = {}
    for f in fields(record):
        value = getattr(record, f.name)
        found |= numbers(value, f"{prefix}{f.name}.") if is_dataclass(value) else {prefix + f.name: value}
    return found


def differing(a, b):
    "Names of the numbers in which two appearances differ."
    return {name for name, value in numbers(a).items() if not np.array_equal(value, numbers(b)[name])}


def test_sampled_appearances_stay_in_their_ranges():
    for i in range(400):
        rng = np.random.default_rng(i)
        african, asian, caucasian = rng.dirichlet([0.3] * 3)
        labels = dict(gender=i % 2, age=18 + i % 63, african=african, asian=asian, caucasian=caucasian)
        a = sample_appearance(rng, labels)
        assert all(np.isfinite(value).all() for value in numbers(a).values())
        assert abs(a.skin.weights.sum() - 1) < 1e-5 and a.skin.weights.min() >= 0
        assert np.abs(np.linalg.norm(a.light.directions, axis=1) - 1).max() < 1e-5
        colours = a.skin.tone, a.iris, a.hair.colour, a.clothes.colour, a.glasses.colour, a.light.ambient[0]
        assert min(x.min() for x in (*colours, a.light.irradiance)) >= 0
        assert min(a.hair.top, a.hair.sides, a.hair.length, a.hair.wave) >= 0 and a.hair.curl in (0, 1)
        assert 0 <= a.skin.lips <= 0.8 and 0.1 <= a.skin.gloss <= 0.5 and 8 <= a.skin.shininess <= 30
        assert 0 <= a.hair.scalp <= 1 and 0 < a.film.blur < 1.8 and 0.5 < a.lashes <= 0.85
        assert max(a.beard.density, a.beard.stubble) == 0 if i % 2 else a.skin.lips == 0
        assert (np.diff(a.light.irradiance.sum(1)) <= 0).all() and a.light.irradiance[0].sum() > 0
        assert 0 < a.glasses.tint.min() <= a.glasses.tint.max() <= 1
        assert a.film.quality == 0 or 30 <= a.film.quality < 96


def test_labels_shift_the_odds():
    draw = lambda n=600, **changes: [sample_appearance(np.random.default_rng(i), LABELS | changes) for i in range(n)]
    young, old = draw(age=25), draw(age=75)
    share = lambda people: np.mean([a.glasses.worn for a in people])
    assert 0.05 < share(young) < 0.16 < 0.2 < share(old) < 0.34
    aged = lambda people: sum(a.skin.weights.reshape(3, 3, 2)[2].sum() for a in people)
    assert aged(old) > 20 * aged(young)


@pytest.mark.parametrize(
    "missing", [("gender",), ("age",), ("asian",), ("gender", "age", "african", "asian", "caucasian")]
)
def test_labels_that_are_missing_are_drawn(missing):
    labels = {k: v for k, v in LABELS.items() if k not in missing}
    people = [sample_appearance(np.random.default_rng(i), labels) for i in range(300)]
    assert people[3] == sample_appearance(np.random.default_rng(3), labels)
    skins = np.sum([a.skin.weights for a in people], 0).reshape(3, 3, 2)
    assert (skins.sum((0, 1)) > 80).all() if "gender" in missing else skins[..., 0].sum() == 0
    assert (skins.sum((0, 2)) > 40).all() if "asian" in missing else True
    assert (skins.sum((1, 2)) > 25).all() if "age" in missing else skins[2].sum() < 1


def test_a_changed_copy_differs_in_what_was_changed_only():
    a = sample_appearance(np.random.default_rng(0), LABELS)
    b = a.changed(hair=dict(length=33), film=dict(noise=0.5, quality=7), lashes=0.1)
    assert differing(a, b) == {"hair.length", "film.noise", "film.quality", "lashes"} and a != b
    assert a.changed(film=b.film).film == b.film and a.changed() == a
    with pytest.raises(TypeError, match="fringes"):
        a.changed(hair=dict(fringes=1))


def test_appearances_cannot_be_written_to():
    weights = np.full(18, 1 / 18, np.float32)
    a = sample_appearance(np.random.default_rng(0), LABELS).changed(skin=dict(weights=weights))
    with pytest.raises(AttributeError):
        a.film.noise = 0
    with pytest.raises(ValueError, match="read-only"):
        a.skin.weights[0] = 1
    weights[0] = 1  # the caller's array stays the caller's
    assert a.skin.weights[0] == np.float32(1 / 18)


TOUCHED = {
    "skins": {"skin.weights", "skin.tone", "skin.lips", "skin.gloss", "skin.shininess"},
    "irises": {"iris"},
    "clothes": {"clothes.colour", "clothes.collar", "clothes.neckline"},
    "brows": {"brows.density"},
    "lashes": {"lashes"},
    "gaze": {"gaze.yaw", "gaze.pitch", "gaze.contact"},
    "hair": {"hair.top", "hair.scalp"},
    "beard": {"beard.density", "beard.stubble"},
    "glasses": {"glasses.worn"},
    "shadows": {"light.shadow"},
    "light": {"light.directions", "light.irradiance", "light.ambient"},
    "background": {"background"},
    "blur": {"film.blur"},
    "noise": {"film.noise"},
    "jpeg": {"film.quality"},
    "film": {"film.exposure", "film.gamma"},
}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_switch_touches_its_own_numbers_only(name):
    people = [sample_appearance(np.random.default_rng(i), LABELS | dict(gender=i % 2)) for i in range(60)]
    changes = [differing(a, switch_off(a, [name])) for a in people]
    assert set.union(*changes) == TOUCHED[name]


def test_switches_commute_and_unknown_ones_are_named():
    a = sample_appearance(np.random.default_rng(0), LABELS)
    assert set(TOUCHED) == set(EFFECTS) and switch_off(a, []) == a
    assert switch_off(a, EFFECTS) == switch_off(a, list(EFFECTS)[::-1])
    with pytest.raises(ValueError, match="effects: expected some of skins, .*; got 'beards'"):
        switch_off(a, ["hair", "beards"])
