"Pictures with one thing changed, and the errors that are kept of them."

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mrl.data.configuration import DataConfig
from mrl.data.dataset import FaceImages
from mrl.data.rendered import renderer_of
from mrl.faces.population import load_population, people_where, split_identities
from mrl.io.files import ROOT, load_tensors, save_tensors
from mrl.io.tables import write_csv
from mrl.study.diversity import balanced, groups_of, in_order, left_out_effect
from mrl.study.sweeps import (
    PEOPLE,
    POSES,
    SCENE,
    SPOILT,
    YAW_AND_PITCH,
    Sweep,
    build_sweeps,
    changed_cameras,
    drawn_appearance,
    held_out,
    load_errors,
    measure_sweeps,
    predict_changed,
    render_changed,
    save_errors,
    sweep_run,
    sweep_runs,
    trained_range,
)
from mrl.training.metrics import METRICS

CONFIG = DataConfig(size=32)
ALL = POSES | YAW_AND_PITCH | SPOILT | PEOPLE


@pytest.fixture(scope="module")
def population():
    return load_population()


def picture(population, change, person, config=CONFIG):
    x = torch.as_tensor(population.faces([person])).double()
    q, t, K = (v[0] for v in changed_cameras(config, change, [person], x))
    return render_changed(config, change, {"identity": person, "q": q, "t": t, "K": K}).astype(float)


@pytest.mark.parametrize("name", [n for n in ALL if n != "yaw and pitch"])
def test_every_value_changes_the_picture_and_what_is_neutral_does_not(population, name):
    sweep = ALL[name]
    pictures = [picture(population, dict(zip(sweep.changes, v)), 17) for v in sweep.values]
    assert all(np.abs(a - b).mean() > 0.01 for a, b in zip(pictures, pictures[1:]))
    again = picture(population, dict(zip(sweep.changes, sweep.values[0])), 17)
    assert (again == pictures[0]).all()
    if name in SPOILT:
        same = {"occlusion": 0, "low light": 0, "low resolution": 100, "shifted crop": 0, "crop size": 100}.get(name)
        if same is not None:
            assert (picture(population, {sweep.changes[0]: float(same)}, 17) == picture(population, {}, 17)).all()


def test_only_the_head_turns(population):
    "Distance and room stay: the upper corners of the picture, which no head reaches, are those of the frontal one."
    x = torch.as_tensor(population.faces([17])).double()
    frames = {v: changed_cameras(CONFIG, {"yaw": v}, [17], x) for v in (-40.0, 0.0, 40.0)}
    for _q, t, _K in frames.values():
        assert abs(t.norm() - 750) < 1e-6
    a, b = (picture(population, {"yaw": v}, 17)[:2, [0, -1]] for v in (0.0, 10.0))
    assert np.abs(a - b).max() <= 12  # the crop's corner of a background out of focus, with its own noise


def test_a_person_does_not_depend_on_who_else_is_there(population):
    both, alone = [17, 21], [21]
    x = torch.as_tensor(population.faces(both)).double()
    for change in ({"yaw": 30.0}, {"covered": 20.0}, {"view": 2.0}, {"shift": 10.0}):
        for a, b in zip(changed_cameras(CONFIG, change, both, x), changed_cameras(CONFIG, change, alone, x[1:])):
            assert torch.allclose(a[1:], b, atol=1e-9)


def test_a_view_is_the_same_camera_for_everybody(population):
    x = torch.as_tensor(population.faces([3, 5, 9])).double()
    q, t, _ = changed_cameras(CONFIG, {"view": 4.0}, [3, 5, 9], x)
    assert torch.equal(q[0], q[2]) and torch.equal(t[0], t[1])
    assert not torch.equal(t, changed_cameras(CONFIG, {"view": 3.0}, [3, 5, 9], x)[1])


def test_a_view_is_the_same_scene_for_everybody(population):
    "What hair takes from a generator depends on who wears it; light, film and the rest must not."
    test = split_identities(len(population))["test"][:60]
    labels = [{k: v[p] for k, v in population.labels.items()} for p in test]
    for view in range(8):
        drawn = [drawn_appearance(CONFIG, {"view": view}, own, p) for own, p in zip(labels, test)]
        for field in SCENE:
            assert all(getattr(a, field) == getattr(drawn[0][0], field) for a, _ in drawn), field
        assert len({rng.random() for _, rng in drawn}) == 1 and len({a.hair.hairline for a, _ in drawn}) > 30
    a, b = (drawn_appearance(CONFIG, {"view": v}, labels[0], test[0])[0] for v in (0, 1))
    assert a.skin == b.skin and a.hair == b.hair and a.light != b.light


def test_cover_has_the_area_it_says(population):
    bare, covered = (picture(population, {"covered": v}, 17, replace(CONFIG, size=96)) for v in (0.0, 30.0))
    assert abs((bare != covered).any(-1).mean() - 0.3) < 0.02


def test_low_light_halves_light_stop_by_stop(population):
    _, renderer = renderer_of("anny")
    a, b = (picture(population, {"stops": v}, 17).mean() for v in (-4.0, -5.0))
    assert 1.3 < a / b < 2.2  # of sRGB values, near the linear part of the curve


def test_trained_ranges():
    config = DataConfig(size=64, yaw=30.0, jitter=0.1)
    assert (
        trained_range("yaw", config) == (-30, 30)
        and trained_range("shifted crop", config) == (0, 10)
        and trained_range("occlusion", config) is None
    )
    assert trained_range("blur", config) == pytest.approx((0.390625, 2.65625))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    sweeps = {
        "yaw": Sweep("Yaw (deg)", ("yaw",), ((-60.0,), (0.0,), (60.0,))),
        "views": Sweep("View", ("view",), ((0.0,), (1.0,))),
    }
    return (
        sweeps,
        tmp_path_factory.mktemp("home"),
        lambda population: {"yaw": held_out(population, 3), "views": held_out(population, 2)},
    )


@pytest.mark.slow
def test_jobs_and_interruptions_change_nothing(tiny, tmp_path, population):
    sweeps, _, choose = tiny
    one, two = (
        build_sweeps(tmp_path / str(jobs), CONFIG, sweeps, choose(population), jobs, progress=False) for jobs in (1, 2)
    )
    a, b = (FaceImages(f, "all").__getitems__(list(range(13)))["image"] for f in (one, two))
    assert torch.equal(a, b)
    (one / "images-0000.npy").write_bytes(b"")
    build_sweeps(one, CONFIG, sweeps, choose(population), 1, progress=False)
    assert torch.equal(FaceImages(one, "all").__getitems__([0, 12])["image"], a[[0, 12]])


def test_errors_of_a_run_are_measured_once(tiny):
    sweeps, home, choose = tiny
    run = "study/long/mrl-0"
    tensors, about = sweep_run(run, "once", sweeps, choose, controls=True, home=home, progress=False)
    assert (
        tensors["yaw"].shape == (3, 3, len(METRICS))
        and tensors["coefficients.true"].shape[0] == 2
        and "coefficients.yaw" not in tensors
    )
    assert (
        about["config"]["loss"] == "mrl"
        and about["commit"]
        and len(about["data"]) == 64
        and about["people"]["yaw"] == sorted(about["people"]["yaw"])
    )
    rotation = list(METRICS).index("camera_rotation")
    assert tensors["mean face, true pose.yaw"][..., rotation].max() < 0.1
    (dataset,) = (home / "datasets").glob("once-*")
    dataset.rename(home / "away")  # the pictures are not needed any more
    again, _ = sweep_run(run, "once", sweeps, choose, home=home, progress=False)
    assert (again["yaw"] == tensors["yaw"]).all() and not list((home / "datasets").glob("once-*"))


def test_what_cannot_be_drawn_is_named_and_the_rest_is(tiny, tmp_path):
    "A run that is not there, errors of another face model, of other people, of a damaged file, of another kind."
    sweeps, home, choose = tiny
    kept = home / "results" / "once"
    tensors, metadata = load_tensors(ROOT / "data" / "faces.safetensors", "mrl.faces")
    save_tensors(tmp_path / "heads.safetensors", tensors, "mrl.faces", metadata | {"name": "other heads"})
    _, about = sweep_run("study/long/mrl-0", "once", sweeps, choose, home=home, progress=False)
    errors = {name: torch.zeros(len(s.values), len(about["people"][name]), len(METRICS)) for name, s in sweeps.items()}
    other = about | {
        "run": "other-0",
        "config": about["config"] | {"face_model": str(tmp_path / "heads.safetensors")},
        "face_model": "other heads",
        "population": "of others",
    }
    save_errors(kept / "other-0.safetensors", errors, other)
    save_errors(kept / "few-0.safetensors", errors, about | {"people": {k: v[:1] for k, v in about["people"].items()}})
    (kept / "cut-0.safetensors").write_bytes(b"nothing")
    save_tensors(kept / "wrong-0.safetensors", {"a": torch.zeros(1)}, "mrl.morphable")
    found, problems = sweep_runs(
        ["nobody-0", "study/long/mrl-0", "other-0", "few-0", "cut-0", "wrong-0"],
        "once",
        sweeps,
        choose,
        home=home,
        progress=False,
    )
    assert list(found) == ["study/long/mrl"]
    assert "run nobody-0: no config.json in" in problems["nobody-0"]
    assert "other-0 is of other heads with other population than study/long/mrl-0 (anny heads)" in problems["other-0"]
    assert "few-0: its errors are of other people or values than asked, and it has no checkpoint" in problems["few-0"]
    assert (
        "cut-0.safetensors: truncated" in problems["cut-0"] and "a mrl.sweeps file is expected" in problems["wrong-0"]
    )


def test_a_run_anywhere(tiny, tmp_path):
    sweeps, home, choose = tiny
    shutil.copytree(ROOT / "results/study/long/mrl-0", tmp_path / "mine-0")
    found, problems = sweep_runs([str(tmp_path / "mine-0")], "anywhere", sweeps, choose, home=home, progress=False)
    assert not problems and found[str(tmp_path / "mine")][0]["yaw"].shape == (1, 3, 3, len(METRICS))
    assert list((home / "results" / "anywhere").rglob("mine-0.safetensors")) and not list(
        tmp_path.glob("*.safetensors")
    )


def test_other_people_are_measured_again(tiny):
    sweeps, home, choose = tiny
    fewer = lambda population: {k: v[:1] for k, v in choose(population).items()}
    tensors, about = sweep_run("study/long/mrl-0", "again", sweeps, choose, home=home, progress=False)
    other, about_other = sweep_run("study/long/mrl-0", "again", sweeps, fewer, home=home, progress=False)
    assert (
        other["yaw"].shape[1] == 1
        and np.allclose(other["yaw"][:, 0], tensors["yaw"][:, 0], rtol=1e-2, atol=1e-2)
        and about_other["people"] != about["people"]
    )


def test_a_run_without_a_checkpoint_says_so(tiny, tmp_path):
    sweeps, _, choose = tiny
    with pytest.raises(FileNotFoundError, match="run study/long/mrl-1: neither a checkpoint .* nor errors"):
        sweep_run("study/long/mrl-1", "nothing", sweeps, choose, home=tmp_path, progress=False)


def test_predictions_are_those_that_were_measured(tiny, population):
    "`predict_changed`, for pictures, sees what `measure_sweeps`, for numbers, saw."
    from mrl.training.run import Run

    sweeps, home, choose = tiny
    run = Run.load("study/long/mrl-0")
    folder = build_sweeps(home / "check", replace(CONFIG, size=64), sweeps, choose(population), 1, progress=False)
    errors, coefficients, _ = measure_sweeps(run, FaceImages(folder, "all"), sweeps)
    out, x, _, _ = predict_changed(run, {"yaw": 60.0}, choose(population)["yaw"])
    shape = (out.x_hat - x).norm(dim=-1).mean(-1)
    assert torch.allclose(shape, errors["yaw"][2, :, list(METRICS).index("shape")], atol=1e-3)
    assert torch.allclose(out.alpha_id_hat[:, :10], coefficients["yaw"][2], atol=1e-3)


def test_errors_survive_half_precision(tmp_path):
    values = torch.tensor([[0.001234, 1.234, 432.1, 36000.0, 0.0, 5.0]])[None]
    save_errors(tmp_path / "e.safetensors", {"yaw": values}, {})
    assert np.allclose(load_errors(tmp_path / "e.safetensors")[0]["yaw"], values, rtol=1e-3)


def test_balanced_populations_are_balanced_in_pairs(population):
    people = balanced(population, 4)
    axes = groups_of(population, people)
    assert len(people) == len(set(people)) == 4 * 36 and set(people) <= set(split_identities(len(population))["test"])
    for a in axes:
        for b in axes:
            if a != b:
                assert {int(((axes[a] == g) & (axes[b] == h)).sum()) for g in in_order(a) for h in in_order(b)} == {
                    len(people) // len(in_order(a)) // len(in_order(b))
                }


def test_left_out_effect(population, tmp_path):
    "Runs with errors that are known: without the group everybody is worse by 1, the group by 3."
    test = split_identities(len(population))["test"]
    old = people_where(population, "age>55")[test]
    rng = np.random.default_rng(0)
    for seed in range(2):
        base = rng.uniform(1, 2, len(test))
        for name, errors in (("all", base), ("without", base + 1 + 2 * old)):
            (tmp_path / f"{name}-{seed}").mkdir()
            write_csv(
                tmp_path / f"{name}-{seed}" / "faces.csv",
                [
                    {"split": "test", "identity": p, "images": 8, **dict.fromkeys(METRICS, e)}
                    for p, e in zip(test.tolist(), errors.tolist())
                ],
            )
    folders = [[tmp_path / f"{name}-{seed}" for seed in range(2)] for name in ("all", "without")]
    effect = left_out_effect(*folders, population, "age>55", "shape")
    assert [effect[k][0] for k in ("group", "others", "difference")] == pytest.approx([3, 1, 2])
    assert effect["difference"][1] <= 2 <= effect["difference"][2] + 1e-9


def test_the_kept_errors_hold(population):
    "What pose_robustness.ipynb and face_diversity.ipynb say in short, from the errors that are kept."

    def kept(name, loss):
        found = [load_errors(p) for p in sorted((ROOT / "results" / name).glob(f"{loss}-[0-9].safetensors"))]
        return {k: np.stack([t[k] for t, _ in found if k in t]) for k in found[0][0]}, found[0][1]

    px, deg = (list(METRICS).index(k) for k in ("reprojection", "camera_rotation"))
    losses = [
        f"study/long/{loss}"
        for loss in ("mrl", "mrl-disentangled-3-log", "camera-alpha1000-beta1-gamma0", "alpha1-beta0.001-gamma0")
    ]
    rotation, moved = {}, {}
    for loss in losses:
        tensors, about = kept("pose_robustness", loss)
        for name, edge in (("yaw", 60), ("pitch", 25), ("roll", 15)):
            x, median = POSES[name].x, np.median(tensors[name], (0, 2))
            assert 1 <= (median[np.abs(x) <= edge].max(0) / median[x == 0][0])[[px, deg]].max() < 2
        covered = np.median(tensors["occlusion"][..., px], (0, 2))
        assert covered[list(SPOILT["occlusion"].x).index(20)] > 2 * covered[0]
        rotation[loss] = [
            np.median(tensors[name][:, list(POSES[name].x).index(v), :, deg])
            for name, v in (
                ("yaw", -80),
                ("yaw", -70),
                ("yaw", 70),
                ("yaw", 80),
                ("pitch", 30),
                ("pitch", 35),
                ("pitch", 40),
            )
        ]
        tensors, about = kept("face_diversity", loss)
        tone = tensors["skin tone"].mean((0, 2))
        assert 1.1 < (tone[5] / tone[2])[px] < 1.35 and 1.1 < (tone[5] / tone[2])[deg] < 1.4
        ancestry, true = (
            groups_of(population, np.array(about["people"]["views"]))["ancestry"],
            tensors["coefficients.true"][0],
        )
        way = true[ancestry == "african"].mean(0) - true[ancestry == "caucasian"].mean(0)
        told = (tensors["coefficients.skin tone"] @ way / (way @ way)).mean((0, 2))
        moved[loss] = told[5] - told[1]
    assert all((np.array(rotation[losses[0]]) < rotation[other]).all() for other in losses[1:])
    assert 0.55 < max(moved.values()) < 0.75 and abs(moved[losses[0]]) < 0.1
    for loss in ("mrl", "mrl-disentangled-3-log"):
        without = sorted((ROOT / "results" / "left_out" / "african").glob(f"{loss}-[0-9]"))
        effect = left_out_effect(
            [ROOT / "results" / "study" / "long" / p.name for p in without],
            without,
            population,
            "african>0.5",
            "reprojection",
        )
        assert 0.27 < effect["group"][0] / effect["group before"][0] < 0.42
