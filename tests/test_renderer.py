"""The renderer against brute force, trimesh and geometry: rays, masks, shadows, determinism, bad input."""

import hashlib
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from mrl.faces.population import load_population
from mrl.geometry.camera import crop_intrinsics, project
from mrl.render.appearance import EFFECTS, sample_appearance, switch_off
from mrl.render.renderer import Renderer
from mrl.render.scene import Scene, pixel_centres, pixel_rays

SIZE = 48
FRONTAL = Rotation.from_matrix(np.diag([1.0, -1, -1]))
LABELS = dict(gender=1.0, age=30.0, african=0.2, asian=0.3, caucasian=0.5)
PLAIN = dict(exposure=1, gamma=1, blur=0, noise=0, quality=0)  # a film that does nothing
BALD = dict(top=0, sides=0, hairline=0, fringe=0, length=0, wave=0, curl=0, comb=0)
DARK = [0, 0, 0]


@pytest.fixture(scope="module")
def population():
    return load_population()


@pytest.fixture(scope="module")
def renderer(population):
    return Renderer(population)


def view(yaw=0, pitch=0, roll=0, distance=600.0, focal=100.0, centre=(SIZE / 2, SIZE / 2)):
    "K, q, t of a camera on a sphere around the origin, looking at it."
    camera = Rotation.from_euler("YXZ", [yaw, pitch, roll], degrees=True) * FRONTAL
    K = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], float)
    return K, camera.as_quat(scalar_first=True), -distance * camera.as_matrix()[:, 2]


VIEWS = [
    view(),
    view(40, -20, 15),
    view(-60, 25, -10, centre=(3.5, 44.25)),
    view(170, 5, 3, distance=450, centre=(-4, 30)),
    view(20, 10, 180),
]


def moller_trumbore(vertices, triangles, origin, direction):
    "First hit of every ray, float64, all triangles: index or -1, depth."
    a, b, c = (vertices[triangles[:, i]].astype(np.float64) for i in range(3))
    index, depth = np.full(len(direction), -1), np.full(len(direction), np.inf)
    for i, d in enumerate(direction.astype(np.float64)):
        h = np.cross(d, c - a)
        det = ((b - a) * h).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - a
            u, k = (s * h).sum(1) / det, np.cross(s, b - a)
            v, z = (k @ d) / det, (k * (c - a)).sum(1) / det
        z = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (z > 0), z, np.inf)
        if np.isfinite(z.min()):
            index[i], depth[i] = z.argmin(), z.min()
    return index, depth


def camera_rays(K, q, t, size):
    "Return origin and directions, one unit of depth long, of rays: points that K [R|t]^-1 sends to the pixel centres."
    i, j = np.mgrid[:size, :size] + 0.5
    homogeneous = np.stack([j, i, np.ones_like(i)], -1).reshape(-1, 3)
    return t, Rotation.from_quat(q, scalar_first=True).apply(np.linalg.solve(K, homogeneous.T).T)


@pytest.mark.parametrize("camera", VIEWS)
def test_cast_against_brute_force(renderer, population, camera):
    vertices = population.heads(11)
    triangle, weights, depth = renderer.cast(vertices, *camera, SIZE)
    assert triangle.shape == depth.shape == (SIZE, SIZE) and weights.shape == (SIZE, SIZE, 3)
    some = np.arange(0, SIZE * SIZE, 5)
    origin, rays = camera_rays(*camera, SIZE)
    expected, z = moller_trumbore(vertices, population.triangles, origin, rays[some])
    ours, depth = triangle.ravel()[some], depth.ravel()[some]
    assert (expected >= 0).sum() > 40
    assert ((ours < 0) != (expected < 0)).mean() < 0.01  # rays that graze the silhouette may go either way
    both = (ours >= 0) & (expected >= 0)
    assert (ours == expected)[both].mean() > 0.98 and np.median(np.abs(depth - z)[both]) < 0.01
    assert (np.abs(depth - z)[both & (ours == expected)] < 0.05).all()


@pytest.mark.parametrize("camera", VIEWS)
def test_cast_against_trimesh(renderer, population, camera):
    vertices = population.heads(12)
    mesh = trimesh.Trimesh(vertices, population.triangles, process=False)
    origin, rays = camera_rays(*camera, SIZE)
    expected = (
        trimesh.ray.ray_pyembree.RayMeshIntersector(mesh)
        .intersects_first(np.tile(origin, (SIZE * SIZE, 1)), rays)
        .reshape(SIZE, SIZE)
    )
    assert (renderer.cast(vertices, *camera, SIZE)[0] == expected).mean() > 0.995


@pytest.mark.parametrize("camera", VIEWS)
def test_hits_project_to_their_pixels(renderer, population, camera):
    vertices = population.heads(13)
    triangle, weights, depth = renderer.cast(vertices, *camera, SIZE)
    seen = triangle >= 0
    X = np.einsum("nij,ni->nj", vertices[population.triangles[triangle[seen]]].astype(np.float64), weights[seen])
    u = project(*(torch.as_tensor(np.asarray(x, np.float64)) for x in (X, *camera))).numpy()
    assert np.abs(u - pixel_centres(SIZE)[seen.ravel()]).max() < 0.01
    K, q, t = camera
    assert np.abs(Rotation.from_quat(q, scalar_first=True).inv().apply(X - t)[:, 2] - depth[seen]).max() < 0.02


def test_barycentric_weights(renderer, population):
    triangle, weights, _ = renderer.cast(population.mean, *view(), SIZE)
    inside = weights[triangle >= 0]
    assert np.abs(inside.sum(1) - 1).max() < 1e-5 and inside.min() > -1e-4 and inside.max() < 1 + 1e-4


def test_a_crop_is_a_shift_of_K(renderer, population):
    K, q, t = view(30, 10, 5, focal=150, centre=(40, 40))
    whole = renderer.cast(population.mean, K, q, t, 80)
    cropped = crop_intrinsics(torch.as_tensor(K), 17, 23).numpy()
    part = renderer.cast(population.mean, cropped, q, t, SIZE)
    assert (part[0] == whole[0][23 : 23 + SIZE, 17 : 17 + SIZE]).mean() > 0.995


def test_a_quaternion_has_no_length_and_no_sign(renderer, population):
    K, q, t = view(30, 10, 5)
    reference = renderer.cast(population.mean, K, q, t, SIZE)[0]
    for other in (-q, 3 * q):
        assert (renderer.cast(population.mean, K, other, t, SIZE)[0] == reference).mean() > 0.999


@pytest.mark.parametrize(
    "radius, distance, centre", [(50, 300, (32, 32)), (100, 250, (32, 32)), (80, 900, (20.25, 40.75))]
)
def test_silhouette_of_a_sphere(radius, distance, centre):
    ball = trimesh.creation.icosphere(5, radius=radius)
    focal = 0.3 * 64 * np.sqrt(distance**2 - radius**2) / radius
    K, q, t = view(33, -12, 40, distance=distance, focal=focal, centre=centre)
    R = Rotation.from_quat(q, scalar_first=True).as_matrix()
    mask = Scene(ball.vertices, ball.faces).cast(t, pixel_rays(pixel_centres(64), K, R))[0].reshape(64, 64) >= 0
    i, j = np.nonzero(mask)
    inside = (j.min() > 0) & (i.max() < 63)
    assert inside and abs(np.sqrt(mask.sum() / np.pi) - 0.3 * 64) < 0.25
    assert np.allclose([j.mean() + 0.5, i.mean() + 0.5], centre, atol=0.15)


def test_occlusion_of_a_sphere():
    ball = trimesh.creation.icosphere(4, radius=10)
    scene = Scene(ball.vertices, ball.faces)
    rng = np.random.default_rng(0)
    start = rng.normal(size=(500, 3))
    start *= (rng.uniform(12, 40, 500) / np.linalg.norm(start, axis=1))[:, None]
    direction = rng.normal(size=(500, 3))
    along = (start * direction).sum(1) / np.linalg.norm(direction, axis=1)
    near = np.sqrt((start**2).sum(1) - along**2)
    clear = np.abs(near - 10) > 0.2  # the icosphere is a little inside the sphere
    assert (scene.occluded(start, direction) == ((near < 10) & (along < 0)))[clear].all()


def picture(renderer, population, seed=0, size=SIZE, camera=None, **changes):
    rng = np.random.default_rng(seed)
    appearance = sample_appearance(rng, LABELS).changed(**changes)
    return renderer.image(population.heads(seed), *(camera or view(20, -8, 4)), appearance, size, rng)


def digest(seed):
    population = load_population()
    return hashlib.sha256(picture(Renderer(population), population, seed).tobytes()).hexdigest()


def test_same_seed_same_bytes_in_another_process(renderer, population):
    here = [hashlib.sha256(picture(renderer, population, seed).tobytes()).hexdigest() for seed in (3, 4)]
    assert here[0] != here[1]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(digest, (3, 4)) == here


@pytest.mark.parametrize("size", [8, 33, 64, 128])
def test_sizes(renderer, population, size):
    image = picture(renderer, population, size=size, camera=view(focal=2.2 * size, centre=(size / 2, size / 2)))
    assert image.shape == (size, size, 3) and image.dtype == np.uint8 and image.std() > 5


def test_every_kind_of_person(renderer, population):
    "No combination of styles fails; pictures are exposed and differ."
    images = []
    for i in range(60):
        rng = np.random.default_rng(i)
        african, asian, caucasian = rng.dirichlet([0.3] * 3)
        labels = dict(gender=i % 2, age=rng.uniform(18, 80), african=african, asian=asian, caucasian=caucasian)
        images.append(
            renderer.image(
                population.heads(i),
                *view(*rng.uniform([-60, -25, -15], [60, 25, 15])),
                sample_appearance(rng, labels),
                32,
                rng,
            )
        )
    levels = np.stack(images).reshape(60, -1).astype(float)
    assert levels.mean(1).min() > 8 and levels.mean(1).max() < 248 and levels.std(1).min() > 8
    assert len({x.tobytes() for x in images}) == 60


def test_views_without_a_face(renderer, population):
    "Nothing but background; the back of the head; a camera that touches the nose."
    away = view()[0], Rotation.identity().as_quat(scalar_first=True), np.array([0.0, 0, 600])
    for camera in (away, view(180), view(distance=140)):
        assert picture(renderer, population, camera=camera).shape == (SIZE, SIZE, 3)
    assert (renderer.cast(population.mean, *away, SIZE)[0] == -1).all()


def test_world_frame_does_not_matter_to_the_torso_and_hair(renderer, population):
    "Moving the head and the camera together leaves the picture as it was."
    rng = np.random.default_rng(1)
    hair = BALD | dict(top=12, sides=12, length=120, wave=0.6)
    appearance = sample_appearance(rng, LABELS).changed(hair=hair)
    K, q, t = view(25, -5)
    move = np.array([3.0, -20, 11])
    x = population.heads(5)
    here, there = (
        renderer.image(x + d, K, q, t + d, appearance, 64, np.random.default_rng(0)).astype(int)
        for d in (0 * move, move)
    )
    assert np.abs(here - there).mean() < 1.5 and (np.abs(here - there) > 30).mean() < 0.02


def test_the_lit_side_is_brighter(renderer, population):
    "Light from the camera's left brightens the left half of a frontal face, and so on; shadows darken, never brighten."
    rng = np.random.default_rng(0)
    appearance = sample_appearance(rng, LABELS).changed(
        light=dict(ambient=np.zeros((4, 3)), irradiance=[[1.5] * 3, DARK, DARK], shadow=1, softness=0.06),
        glasses=dict(worn=False),
        hair=BALD,
        beard=dict(density=0, stubble=0),
        film=PLAIN,
        skin=dict(gloss=0),
        seed=1,
    )
    mask = renderer.cast(population.mean, *view(), SIZE)[0] >= 0
    images = {}
    for name, light in (("left", [-0.9, 0, -0.44]), ("right", [0.9, 0, -0.44])):
        lit = appearance.changed(light=dict(directions=[light] * 3))
        images[name] = renderer.image(population.mean, *view(), lit, SIZE, rng).mean(-1) * mask
    half = np.arange(SIZE) < SIZE // 2
    assert images["left"][:, half].sum() > 2 * images["left"][:, ~half].sum()
    assert images["right"][:, ~half].sum() > 2 * images["right"][:, half].sum()


def test_picture_and_mask_agree(renderer, population):
    "Without light, what is black in the picture's upper half is the mask of `cast`, up to the pixels on the edge."
    black = dict(
        light=dict(ambient=np.zeros((4, 3)), irradiance=np.zeros((3, 3))),
        background=3,
        glasses=dict(worn=False),
        hair=BALD,
        film=PLAIN,
    )
    K, q, t = view(30, 5, 8, focal=190, centre=(21.5, 8.25))
    mask = renderer.cast(population.heads(0), K, q, t, SIZE)[0] >= 0
    image = picture(renderer, population, camera=(K, q, t), **black).mean(-1)
    assert (image[mask] < 60).mean() > 0.95
    rows = np.arange(SIZE) < 24
    assert ((image < 20) & ~mask)[rows].sum() <= 0.02 * mask[rows].sum()


BAD = [
    ("vertices", lambda v: v[:-1], r"vertices: expected shape \(\d+, 3\)"),
    (
        "vertices",
        lambda v: np.where(np.arange(v.size).reshape(v.shape) == 5, np.nan, v),
        "vertices: expected finite values, got 1",
    ),
    ("K", lambda K: K[:2], r"K: expected shape \(3, 3\)"),
    ("K", lambda K: K + np.inf, "K: expected finite"),
    ("K", lambda K: 0 * K, "K: expected focal lengths"),
    ("q", lambda q: q[:3], r"q: expected shape \(4,\)"),
    ("q", lambda q: 0 * q, "q"),
    ("t", lambda t: t[None], r"t: expected shape \(3,\), got \(1, 3\)"),
    ("t", lambda t: t + np.nan, "t: expected finite"),
    ("size", lambda s: 7, "size: expected an integer of at least 8, got 7"),
    ("size", lambda s: 64.0, "size: expected an integer"),
]


@pytest.mark.parametrize("name, change, message", BAD)
@pytest.mark.parametrize("method", ["cast", "image"])
def test_bad_input_is_named(renderer, population, method, name, change, message):
    K, q, t = view()
    arguments = dict(vertices=population.mean, K=K, q=q, t=t, size=SIZE)
    arguments[name] = change(arguments[name])
    if method == "image":
        arguments |= dict(appearance=sample_appearance(np.random.default_rng(0), LABELS), rng=np.random.default_rng(0))
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        getattr(renderer, method)(**arguments)


LENSES = dict(half_width=24, half_height=18, power=2.2, taper=0.1, tint=[0.3, 0.3, 0.3])
PERSON = dict(
    glasses=LENSES | dict(worn=True, tube=1.2, half_bridge=9.5, tilt=0.1),
    beard=dict(density=0.8, stubble=0.4),
    hair=BALD | dict(top=12, sides=9, wave=0.6, comb=0.5, scalp=0.8),
    gaze=dict(yaw=0.3, pitch=-0.1, contact=0),
    lashes=0.85,
    film=dict(exposure=1.3, gamma=0.9, blur=0.6, noise=0.02, quality=40),
)


@pytest.fixture(scope="module")
def whole(renderer, population):
    "Pictures that show every effect, and each without one of them."

    def take(seed, names=(), **changes):
        rng = np.random.default_rng(seed)
        a = switch_off(sample_appearance(rng, LABELS | dict(gender=0)).changed(**PERSON).changed(**changes), names)
        camera = view(25 - 10 * seed, -5, 3, focal=230, centre=(48, 40))
        return renderer.image(population.heads(seed), *camera, a, 96, np.random.default_rng(9)).astype(int)

    return take


@pytest.mark.parametrize("name", EFFECTS)
def test_every_switch_changes_pictures(whole, name):
    assert all((whole(seed) != whole(seed, [name])).mean() > 0.002 for seed in range(3))
    assert (whole(0, [name]) == whole(0, [name, name])).all()


LOCAL = {
    "brows": (0.04, 0.12),
    "lashes": (0.002, 0.05),
    "gaze": (0.001, 0.04),
    "beard": (0.02, 0.35),
    "glasses": (0.02, 0.25),
    "background": (0.1, 0.7),
}


@pytest.mark.parametrize("name", LOCAL)
def test_local_effects_leave_the_rest_as_it_was(whole, renderer, population, name):
    "Without lens blur and JPEG, all but a part of the picture keeps its bytes, and so does the noise."
    for seed in range(3):
        changes = dict(film=PLAIN | dict(exposure=1.1, noise=0.02))
        changes |= dict(glasses=dict(worn=False)) if name in ("brows", "lashes", "gaze", "beard") else {}
        changes |= dict(hair=BALD | dict(scalp=0)) if name == "glasses" else {}
        names = ["shadows"]
        differs = (whole(seed, names, **changes) != whole(seed, [*names, name], **changes)).any(-1)
        low, high = LOCAL[name]
        assert low / 3 < differs.mean() < high


def test_glasses_change_pixels_around_the_eyes_only(whole):
    differs = (whole(0, ["shadows"], film=PLAIN) != whole(0, ["shadows", "glasses"], film=PLAIN)).any(-1)
    rows, _ = np.nonzero(differs)
    assert np.ptp(rows) < 40 and differs.sum() > 300


def test_film_switches_are_what_they_say(whole):
    "Without blur, noise, JPEG and exposure, the picture is the one that a plain film gives."
    assert (whole(0, ["blur", "noise", "jpeg", "film"]) == whole(0, film=PLAIN)).all()
    plain = whole(0, film=PLAIN)
    assert np.abs(whole(0, film=PLAIN | dict(noise=0.02)) - plain).mean() > 2
    sharp = lambda x: np.abs(np.diff(x, axis=1)).mean()
    assert sharp(whole(0, film=PLAIN | dict(blur=1.5))) < 0.8 * sharp(plain)
    assert whole(0, film=PLAIN | dict(exposure=1.5)).mean() > 1.1 * plain.mean()


def test_shadows_only_darken(whole):
    light = dict(directions=[[0.66, -0.5, -0.56]] * 3, irradiance=[[1.2] * 3, DARK, DARK])
    changes = dict(film=PLAIN, light=light)
    shadowed, lit = whole(0, **changes), whole(0, ["shadows"], **changes)
    assert (shadowed - lit).max() <= 1 and (shadowed - lit).min() < -20


def test_lights_add_up(whole):
    "Two lights without shadows are brighter than either of them."
    lights = dict(directions=[[0.7, 0, -0.714], [-0.7, 0, -0.714], [0, 0, -1]], ambient=np.zeros((4, 3)))
    take = lambda *rgb: whole(0, ["shadows"], light=lights | dict(irradiance=np.outer(rgb, np.ones(3))), film=PLAIN)
    one, other, both = take(1, 0, 0), take(0, 1, 0), take(1, 1, 0)
    assert (both >= np.maximum(one, other) - 1).mean() > 0.999 and both.mean() > 1.05 * one.mean()


def test_a_population_without_skins_or_labels_is_rendered(population, tmp_path):
    "Skins come from the repository when the population has none beside it; labels that it lacks are drawn."
    elsewhere = replace(population, path=tmp_path / "other.safetensors", labels={})
    image = Renderer(elsewhere).image(
        population.mean, *view(), sample_appearance(np.random.default_rng(0), {}), SIZE, np.random.default_rng(0)
    )
    assert (
        image
        == Renderer(population).image(
            population.mean, *view(), sample_appearance(np.random.default_rng(0), {}), SIZE, np.random.default_rng(0)
        )
    ).all()


def test_a_finer_head_with_its_own_texture_rows(population):
    "Each triangle cut into four, every corner with a texture row of its own: the same pictures but for rounding."
    mean, triangles = population.mean, population.triangles
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    unique, number = np.unique(edges, axis=0, return_inverse=True)
    middle = len(mean) + number.reshape(-1, 3)

    def four(corner, middle):
        (a, b, c), (ab, bc, ca) = corner.T, middle.T
        return np.concatenate([np.stack(x, 1) for x in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])

    uv = population.uv[population.uv_triangles]
    corners = np.concatenate([uv, (uv + uv[:, [1, 2, 0]]) / 2], 1)
    rows = 6 * np.arange(len(triangles))[:, None] + np.arange(3)
    fine = replace(
        population,
        mean=np.concatenate([mean, mean[unique].mean(1)]),
        triangles=four(triangles, middle),
        uv=corners.reshape(-1, 2).astype(np.float32),
        uv_triangles=four(rows, rows + 3),
        part=np.tile(population.part, 4),
        basis=None,
        coefficients=None,
    )
    coarse, finer, a = Renderer(population), Renderer(fine), sample_appearance(np.random.default_rng(2), LABELS)
    pictures = [
        r.image(r.head.vertices, *view(), a, SIZE, np.random.default_rng(0)).astype(int) for r in (coarse, finer)
    ]
    assert len(fine.triangles) > 30_000 and np.abs(pictures[0] - pictures[1]).mean() < 1.5


def test_missing_skins_are_named(population, tmp_path):
    with pytest.raises(FileNotFoundError, match="young_african_male"):
        Renderer(population, tmp_path)
