"Statistics of agreement with the true error, and protocols from files."

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mrl.scans.agreement import (
    Resolution,
    advantage,
    agreement,
    conversion,
    misranked,
    of_networks,
    plausible,
    region_bias,
    resolution,
    usable,
)
from mrl.scans.protocol_files import find_protocols, read_protocol
from mrl.scans.protocol_study import Study
from mrl.scans.protocols import PROTOCOLS


@pytest.fixture
def study():
    "Twelve people and five reconstructions: one estimator follows the truth, one reverses it, one has a hole."
    rng = np.random.default_rng(0)
    true = np.array([1.0, 1.5, 2.0, 2.5, 3.0]) + rng.normal(0, 0.1, (12, 5))
    errors = np.stack([2 * true + 1, 4 - true, 2 * true + 1], -1) + rng.normal(0, 0.05, (12, 5, 3))
    errors[0, 0, 2] = np.nan
    regions = np.repeat(true[..., None, None] + 0.25, 3, 2) * np.ones(4)
    regions[..., 3] = np.nan
    names = ["mean face", "half way", "a-0, one picture", "slid", "bent"]
    about = {"reconstructions": names, "estimators": ["good", "bad", "holes"], "identities": list(range(12))}
    return Study(
        about, np.stack([true, 0.9 * true], -1), true[..., None] * np.ones(4), errors, regions, np.ones((12, 3))
    )


def test_agreement(study):
    "A follower correlates, a reverser does the opposite; intervals hold the estimate; holes cost one person."
    good, bad, holes = (agreement(study, name, draws=100) for name in ("good", "bad", "holes"))
    assert good.methods["pearson"][0] > 0.99 and good.misranked == 0 and good.faces[0] > 0.9
    assert bad.methods["kendall"][0] == -1 and bad.misranked == 1 and len(bad.pairs) == 10
    assert bad.resolution.difference(50) == np.inf
    assert good.people == 12 and holes.people == 11
    assert good.methods["pearson"][1] <= good.methods["pearson"][0] <= good.methods["pearson"][2]


def test_advantage(study):
    "A follower of the truth is ahead of a reverser by 2, and of itself by nothing; a hole costs one person."
    rows = np.ones(5, bool)
    assert advantage(study, "good", "bad", rows, draws=100)[0] == pytest.approx(2, abs=0.02)
    assert advantage(study, "good", "good", rows, draws=100) == pytest.approx((0, 0, 0))
    kept, a, b, t = slice(1, None), study.column("good"), study.column("holes"), study.true[..., 0]
    expected = [stats.pearsonr(e[kept].mean(0), t[kept].mean(0))[0] for e in (a, b)]
    assert advantage(study, "good", "holes", rows, draws=100)[0] == pytest.approx(expected[0] - expected[1])


def test_resolution_by_other_code(study):
    "Slope and spread by NumPy and a loop."
    e, t = study.column("good"), study.true[..., 0]
    r = resolution(e, t)
    assert r.slope == pytest.approx(np.polyfit(t.mean(0), e.mean(0), 1)[0])
    pairs = [np.std(e[:, i] - e[:, j], ddof=1) for i in range(5) for j in range(i)]
    assert r.spread == pytest.approx(np.median(pairs)) and r.widest == pytest.approx(max(pairs))
    made = Resolution(2.0, 0.5, 0.7, 0.0)
    assert made.difference(25) == pytest.approx(2.8016 * 0.5 / 5 / 2, rel=1e-3)
    assert made.difference(25, worst=True) == pytest.approx(2.8016 * 0.7 / 5 / 2, rel=1e-3)


def test_conversion_inverts(study):
    "From one to the other and back is the identity where both follow the truth."
    a, b = study.true[..., 0], study.column("good")
    there, back = conversion(a, b), conversion(b, a)
    assert there.slope * back.slope == pytest.approx(1, abs=0.01) and there.slopes[0] < 2.05
    assert there.r == pytest.approx(stats.pearsonr(a.mean(0), b.mean(0))[0])


def test_conversion_of_a_left_out_method(study):
    "The uncertainty is the error of a line that NumPy fits to the other methods."
    a, b = study.true[..., 0].mean(0), study.column("good").mean(0)
    off = []
    for k in range(len(a)):
        line = np.polyfit(np.delete(a, k), np.delete(b, k), 1)
        off.append(b[k] - np.polyval(line, a[k]))
    assert conversion(study.true[..., 0], study.column("good")).spread == pytest.approx(
        np.sqrt(np.mean(np.square(off)))
    )


def test_fits_to_the_scan_are_not_plausible(study):
    "Networks and mean faces fail as methods do; a fit to the scan that is measured does not."
    names = ["mean face", "half way", "a-0, one picture", "a-0, 8 pictures", "fit of 10", "fit of 64", "slid"]
    named = replace(study, about=study.about | {"reconstructions": names})
    assert plausible(named).tolist() == [True] * 4 + [False] * 3
    assert of_networks(named).tolist() == [False, False, True, True, False, False, False]


def test_region_bias(study):
    "The offset that was put in, and NaN where nothing is measured."
    bias = region_bias(study, "good", np.ones(5, bool))
    assert bias[:3] == pytest.approx([0.25] * 3) and np.isnan(bias[3])


def test_margin_and_too_few_people(study):
    "Pairs closer than the margin do not count; three people are needed."
    t = study.true[..., 0]
    assert misranked(-t, t, margin=10)[0] == 0
    with pytest.raises(ValueError, match="three or more people"):
        usable(np.full((5, 2), np.nan), t)


OURS = {"name": "ours", "base": "ramon2019", "radius": 70, "landmarks": ["nose_tip", "chin", "mouth_left"]}


def test_protocol_file(tmp_path):
    "A file is its base with the named fields changed; a file without a base has defaults."
    path = tmp_path / "ours.json"
    path.write_text(json.dumps(OURS))
    expected = replace(PROTOCOLS["ramon2019"], name="ours", radius=70.0, landmarks=tuple(OURS["landmarks"]))
    assert replace(read_protocol(path), source=expected.source) == expected
    assert "radius, landmarks changed" in read_protocol(path).source
    path.write_text(json.dumps({"name": "plain"}))
    assert read_protocol(path).icp == "plane" and read_protocol(path).radius == 95
    assert [p.name for p in find_protocols(f"{path}, now")] == ["plain", "now"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("radus", 3, "radus: no such field; did you mean radius"),
        ("radius", -1, "radius: expected a number above 0"),
        ("radius", True, "radius: expected a number above 0"),
        ("radius", float("nan"), "radius: expected a number above 0"),
        ("trim", 2, "trim: expected a number above 0 and at most 1"),
        ("frames", 0, "frames: expected null"),
        ("frames", 2.5, "frames: expected null"),
        ("landmarks", ["chin"], "landmarks: expected a list of 3 or more"),
        ("landmarks", "chin", "landmarks: expected a list"),
        ("landmarks", ["chin", "chin", "nose_tip"], "landmarks: expected different ones"),
        ("videos", ["film"], "videos: expected different ones of Indoor-Cooperative"),
        ("scans", [], "scans: expected a list of 1 or more"),
        ("exceptions", [28], "exceptions: expected a list of"),
        ("statistic", "mode", "statistic: expected one of"),
        ("statistic", 3, "statistic: expected text"),
        ("overlap", "yes", "overlap: expected true or false"),
        ("name", "now", "name: expected another name"),
        ("name", "", "name: expected a printable text"),
        ("base", "x", "base: expected one of"),
    ],
)
def test_protocol_file_names_file_and_field(tmp_path, field, value, message):
    path = tmp_path / "my.json"
    path.write_text(json.dumps(OURS | {field: value}))
    with pytest.raises(ValueError, match="my.json.*" + message):
        read_protocol(path)


def test_protocol_parameter(tmp_path):
    "Unknown words, a missing file, one protocol twice."
    with pytest.raises(ValueError, match="protocol: expected all"):
        find_protocols("magic")
    with pytest.raises(FileNotFoundError, match="none.json"):
        find_protocols(str(tmp_path / "none.json"))
    assert len(find_protocols("all")) == len(PROTOCOLS) and len(find_protocols("now,now")) == 1
