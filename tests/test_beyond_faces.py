"Objects other than faces: the hand's kinematics, the cup's symmetry, and the script that trains on them."

import importlib.util
import math
import os
import subprocess
import sys

import pytest
import torch

from mrl.geometry.camera import project
from mrl.io.files import ROOT, read_json

SCRIPT = ROOT / "benchmarks" / "beyond_faces.py"
spec = importlib.util.spec_from_file_location("beyond_faces", SCRIPT)
beyond = importlib.util.module_from_spec(spec)
sys.modules["beyond_faces"] = beyond
spec.loader.exec_module(beyond)
MIDDLE = 2  # finger


def bone_vertices(vertices, finger, joint):
    "Return the vertices of one bone."
    sphere, _, palm, _ = beyond.hand_template()
    start = len(palm) + (5 * joint + finger) * len(sphere)
    return vertices[..., start : start + len(sphere), :]


def test_straight_finger_reaches_as_far_as_its_bones():
    tip = bone_vertices(beyond.hand_vertices(torch.zeros(1, 6), torch.zeros(1, 3))[0], MIDDLE, 2)
    reach = beyond.KNUCKLES[MIDDLE, 1] + beyond.LENGTHS[MIDDLE].sum() + beyond.RADII[MIDDLE, 2]
    assert torch.isclose(tip[:, 1].max(), reach, atol=1e-3)
    assert tip[:, 0].mean().abs() - beyond.KNUCKLES[MIDDLE, 0].abs() < 1e-3


def test_curled_finger_points_out_of_the_palm():
    theta = torch.zeros(1, 6)
    theta[0, MIDDLE] = math.pi / 2  # of the first joint
    straight = beyond.hand_vertices(torch.zeros(1, 6), torch.zeros(1, 3))[0]
    curled = beyond.hand_vertices(theta, torch.zeros(1, 3))[0]
    first = bone_vertices(curled, MIDDLE, 0)
    assert torch.isclose(first[:, 2].max(), beyond.LENGTHS[MIDDLE, 0] + beyond.RADII[MIDDLE, 0], atol=1e-3)
    for joint in range(3):
        assert torch.equal(bone_vertices(curled, 0, joint), bone_vertices(straight, 0, joint))  # the thumb


def test_derivative_of_a_curl():
    "The tip of a straight finger moves along z, by the lever of every joint."
    top = bone_vertices(beyond.hand_vertices(torch.zeros(1, 6), torch.zeros(1, 3))[0], MIDDLE, 2)[:, 1].argmax()

    def tip(theta):
        return bone_vertices(beyond.hand_vertices(theta, torch.zeros(1, 3))[0], MIDDLE, 2)[top]

    J = torch.autograd.functional.jacobian(tip, torch.zeros(1, 6))[:, 0]
    levers = beyond.LENGTHS[MIDDLE] + torch.tensor([0, 0, beyond.RADII[MIDDLE, 2]])
    expected = (torch.tensor(beyond.BEND) * levers).sum()
    assert torch.allclose(J[:, MIDDLE], torch.stack([0 * expected, 0 * expected, expected]), atol=1e-2)
    assert not J[:, [0, 1, 3, 4]].any() and J[0, 5] != 0  # the other fingers' curls do not move it, the spread does


def test_distance_of_a_symmetric_pair_is_zero():
    x = beyond.cup_points()[None]
    turned = beyond.half_turn(x)
    assert beyond.closest_distance(turned, x) == 0  # ADD-S
    assert (turned - x).norm(dim=-1).mean() > 40  # ADD, mm


@pytest.mark.parametrize("name", beyond.THINGS)
def test_truth_has_no_error(name):
    q, t, K, parameters = beyond.labels_of(name, 4, 0)
    data = {"q": q, "t": t, "K": K, "parameters": parameters}
    if name == "room":
        data["x"] = torch.stack([torch.from_numpy(beyond.render(name, *v, 0)[1]) for v in zip(q, t, K, parameters)])
        assert (project(data["x"], K, q, t) - beyond.SIZE / 2).abs().max() < beyond.SIZE / 2  # seen by the image
    errors = beyond.errors_of(name, (beyond.true_points(name, data), q, t), data)
    assert max(v.max() for v in errors.values()) < 0.1


@pytest.mark.slow
def test_script_runs(tmp_path):
    losses = ["--losses", "log_mrl", "homography", "multi_term_tuned"]
    flags = ["--steps", "2", "--seeds", "0", "--images", "32", "4", "4", *losses, "--out"]
    env = os.environ | {"MRL_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, SCRIPT, *flags, tmp_path / "out"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {p.stem for p in (tmp_path / "out").glob("*.json")}
    runs = {f"{t}-{loss}-0" for t in beyond.THINGS for loss in ("log_mrl", "homography", "multi_term_tuned")}
    assert files == runs - {"hand-homography-0"} | {f"tuned-{t}" for t in beyond.THINGS}
    record = read_json(tmp_path / "out" / "hand-log_mrl-0.json", ["config", "commit", "data", "cpu_s", "test"])
    assert record["config"]["loss"] == "log_mrl" and len(record["examples"]["q"]) == 4
    tuned = read_json(tmp_path / "out" / "tuned-cup.json")
    best = min(tuned["tried"], key=lambda r: r["product"])
    chosen = read_json(tmp_path / "out" / "cup-multi_term_tuned-0.json")["config"]["alpha"]
    assert chosen == tuned["alpha"] == best["alpha"]
