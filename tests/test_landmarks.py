"The table of landmarks, and what is refused by name."

import numpy as np
import pytest

from mrl.faces.landmarks import (
    EYE_DISTANCE,
    IBUG,
    LANDMARKS,
    NOW_LANDMARKS,
    TABLE,
    check_eye_distance,
    check_landmarks,
    ibug_landmarks,
    likely_factor,
    named_points,
)


def test_the_table():
    assert len(set(LANDMARKS)) == len(set(IBUG.values())) == len(TABLE) == 9
    assert all(0 <= i < 68 for i in IBUG.values()) and set(NOW_LANDMARKS) < set(LANDMARKS)
    for landmark in TABLE:
        assert landmark.side == next((s for s in ("right", "left") if s in landmark.name), "middle")
    points = np.random.default_rng(0).normal(size=(68, 3))
    named = named_points(points)
    assert set(named) == {*LANDMARKS, "lips_central"}
    assert all((named[k] == points[i]).all() for k, i in IBUG.items())


def test_names_follow_from_numbers():
    vertices = {i: 100 + i for i in range(68)}
    landmarks = ibug_landmarks(vertices)
    assert len(landmarks) == 68 + 9 and landmarks["chin"] == landmarks["ibug_08"] == 108
    numbered = {k: v for k, v in landmarks.items() if k.startswith("ibug")}
    assert check_landmarks("a", numbered, 200, LANDMARKS) == landmarks
    assert check_landmarks("a", numbered | {"chin": 3}, 200)["chin"] == 3  # a name that is given goes first


@pytest.mark.parametrize("vertex", [-1, 10, "7", True, 1.0, None])
def test_entries_that_name_no_vertex(vertex):
    with pytest.raises(ValueError, match=f"a.json: 'chin' is {vertex!r}, expected a vertex from 0 to 9"):
        check_landmarks("a.json", {"nose_tip": 1, "chin": vertex}, 10)


@pytest.mark.parametrize("corners", EYE_DISTANCE)
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e-2, 0.1, 1, 10, 100, 1e3, 1e6])
def test_units_by_the_eyes(corners, unit):
    "Any adult's eyes in any usual unit: only millimetres pass, and the factor that is named is the right one"
    low, high = EYE_DISTANCE[corners]
    for apart in np.linspace(low * 1.01, high * 0.99, 5):
        side = np.array([apart / 2 * unit, 3 * unit, 0])
        points = {f"right_eye_{corners}": side * [-1, 1, 1], f"left_eye_{corners}": side}
        if unit == 1:
            check_eye_distance("a.obj", points, corners)
            continue
        with pytest.raises(ValueError, match="a.obj: the .* corners of the eyes are .* apart") as e:
            check_eye_distance("a.obj", points, corners)
        assert str(e.value).endswith(f"multiply by {1 / unit:g}")


def test_no_unit_explains_it():
    assert likely_factor(0, (60, 150)) == likely_factor(300, (60, 150)) == likely_factor(np.nan, (60, 150)) == ""
