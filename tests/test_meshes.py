"Hard tests of mrl.io.meshes: no vertex shifted, every word of a file accounted for, every fault named with its line."

import re

import igl
import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrl.io.meshes import read_mesh, read_polygons, write_mesh

X = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [99, 99, 99], [0, 0, 10.5], [1e-3, 2, -3]])
T = np.array([[0, 2, 1], [0, 1, 4], [1, 2, 4], [2, 0, 4], [5, 1, 2]])
V = "".join(f"v {a} {b} {c}\n" for a, b, c in X)


def faces(form):
    return "".join("f " + " ".join(form.format(v=i + 1, n=i - len(X), k=7 * i + 1) for i in t) + "\n" for t in T)


@pytest.mark.parametrize(
    "text",
    [
        V + faces("{v}"),
        V + "vt 0 0\n" * 50 + faces("{v}/{k}"),
        V + "vn 0 0 1\n" * 50 + faces("{v}//{k}"),
        V + faces("{v}/{k}/{k}"),
        V + faces("{n}"),
        V + faces("{n}/{n}/{n}"),
        "# comment\nmtllib nowhere.mtl\no head\n"
        + V.replace("\n", " # a point\n")
        + "usemtl skin\ns off\n"
        + faces("{v}"),
        V.replace("\n", "\r\n") + faces("{v}/{k}").replace("\n", "\r\n"),
        re.sub(r"\n", " 0.5 0.25 1\n", V) + faces("{v}"),
        "  " + V.replace("\nv ", "\n \tv\t") + faces("{v} "),
        V + faces("{v}").replace("f 1 3 2", "f 1 \\\n3 2").rstrip("\n"),
        V.replace("10.5", "1.05E+01") + "l 1 2\np 1\ng a b\n" + faces("{v}"),
    ],
)
def test_obj_as_programs_write_it(tmp_path, text):
    (tmp_path / "a.obj").write_bytes(text.encode())
    mesh = read_mesh(tmp_path / "a.obj")
    assert np.array_equal(mesh.vertices, X) and np.array_equal(mesh.triangles, T)
    assert mesh.vertices.dtype == np.float64 and mesh.triangles.dtype == np.int64 and mesh.path == tmp_path / "a.obj"


def test_negative_numbers_count_from_their_line(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 0 0 1\nf -4 -3 -1\nf 1 2 4\n")
    assert read_mesh(tmp_path / "a.obj").triangles.tolist() == [[0, 1, 2], [0, 1, 3], [0, 1, 3]]


def ply(form, vertex="float x\nfloat y\nfloat z", lists="uchar int vertex_indices", x=X, t=T, extra=b""):
    "A PLY file written without libraries."
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    kinds = {"float": "f4", "double": "f8", "uchar": "u1"}
    names = [line.split() for line in vertex.split("\n")]
    head = f"ply\nformat {form} 1.0\ncomment x\nelement vertex {len(x)}\n" + "".join(
        f"property {line}\n" for line in vertex.split("\n")
    )
    head += (
        f"element face {len(t)}\n" + "".join(f"property list {line}\n" for line in lists.split("\n")) + "end_header\n"
    )
    columns = {"x": x[:, 0], "y": x[:, 1], "z": x[:, 2]}
    n, kind = {"uchar": "u1", "int": "i4", "uint": "u4"}, [line.split() for line in lists.split("\n")]
    values = [[t[i] if "vertex" in name else [0.5] * 6 for _, _, name in kind] for i in range(len(t))]
    if form == "ascii":
        body = "".join(
            " ".join(str(columns.get(k, np.full(len(x), 7))[i]) for _, k in names) + "\n" for i in range(len(x))
        )
        return (
            head + body + "".join(" ".join(f"{len(v)} " + " ".join(map(str, v)) for v in row) + "\n" for row in values)
        ).encode()
    body = b"".join(
        np.array(columns.get(k, np.full(len(x), 7))[i], order + kinds[c]).tobytes()
        for i in range(len(x))
        for c, k in names
    )
    for row in values:
        for v, (length, item, _) in zip(row, kind):
            body += np.array(len(v), order + n[length]).tobytes() + np.array(v, order + {**n, **kinds}[item]).tobytes()
    return head.encode() + body + extra


LISTS = "uchar int vertex_indices\nuchar float texcoord"


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("vertex", ["float x\nfloat y\nfloat z", "uchar red\ndouble z\ndouble y\ndouble x\nfloat nx"])
@pytest.mark.parametrize(
    "lists",
    [
        "uchar int vertex_indices",
        "int uint vertex_index\nuchar float texcoord",
        "uchar float texcoord\nuchar int vertex_indices",
    ],
)
def test_ply_as_programs_write_it(tmp_path, form, vertex, lists):
    (tmp_path / "a.ply").write_bytes(ply(form, vertex, lists))
    mesh = read_mesh(tmp_path / "a.ply")
    assert np.allclose(mesh.vertices, X, rtol=1e-6) and np.array_equal(mesh.triangles, T)


def test_two_libraries_agree(tmp_path):
    "A textured scan, some vertices in no triangle: libigl reads the OBJ, trimesh writes the others."
    rng, path = np.random.default_rng(0), tmp_path / "scan.obj"
    x, t = rng.normal(0, 50, (5000, 3)), rng.integers(0, 4900, (9000, 3))
    uv, picture = rng.random((5000, 2)), rng.integers(0, 255, (128, 128, 3), np.uint8)
    write_mesh(path, x, t, texture=(uv[::-1], 4999 - t, picture), decimals=4)
    mesh = read_mesh(path)
    assert np.abs(mesh.vertices - x).max() <= 0.5001e-4 and np.array_equal(mesh.triangles, t)
    x, _, _, t, _, _ = igl.readOBJ(str(path))
    assert np.array_equal(mesh.vertices, x[:, :3]) and np.array_equal(mesh.triangles, t)
    assert len(np.unique(mesh.triangles)) < len(mesh.vertices)
    other = trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False)
    for name, options in {"b.ply": {}, "a.ply": {"encoding": "ascii"}, "a.off": {}}.items():
        other.export(tmp_path / name, **options)
        again = read_mesh(tmp_path / name)
        assert np.abs(again.vertices - mesh.vertices).max() < 1e-4 and np.array_equal(again.triangles, mesh.triangles)
    texture = trimesh.load(path, process=False).visual
    assert texture.material.image.size == (128, 128) and np.ptp(texture.uv, axis=0).min() > 0.8


@pytest.mark.parametrize("text", ["OFF\n# c\n\n6 5 0\n{x}{t}", "OFF 6 5 0\n{x}{t}", "COFF\n6 5 9\n{c}{t}"])
def test_off(tmp_path, text):
    x = "".join(f"{a} {b} {c}\n" for a, b, c in X)
    (tmp_path / "a.off").write_text(
        text.format(x=x, c=x.replace("\n", " 255 0 0 255\n"), t="".join(f"3 {a} {b} {c} 200 0 0\n" for a, b, c in T))
    )
    mesh = read_mesh(tmp_path / "a.off")
    assert np.array_equal(mesh.vertices, X) and np.array_equal(mesh.triangles, T)


QUAD, PENTAGON = [0, 1, 2, 4], [0, 1, 2, 4, 5]
SIZES = "expected 3 corners, got {} ({} of {} faces); triangulate the mesh, since a surface through 4 points is not"
NOT_FINITE = "1 of 6 vertices are not finite (NaN or infinite)"


@pytest.mark.parametrize(
    "name, data, expected",
    [
        ("a.obj", V, "has no faces; a surface is expected, not points"),
        ("a.obj", "", "has no vertices"),
        ("a.obj", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "line 1: expected a keyword of polygons in OBJ"),
        ("a.obj", bytes(500), "line 1: expected a keyword of polygons in OBJ"),
        ("a.obj", V + "f 1 2 3 5\n", "line 7: " + SIZES.format(4, 1, 1)),
        (
            "a.obj",
            V + "f 1 2 3 5 6\nf 1 2\nf 1 2 3\n",
            "line 8: expected 3 or more corners, got 2; is the file cut off",
        ),
        ("a.obj", V + "f\n", "line 7: expected 3 or more corners, got 0"),
        ("a.obj", V + "f 1 2 7\n", "line 7: expected vertices 0 to 5 (counted from 0), got 6"),
        ("a.obj", V + "f 1 2 3\nf 1 2 -9\n", "line 8: expected vertices 0 to 5 (counted from 0), got -3"),
        ("a.obj", V + "f 0 1 2\n", "line 7: expected a corner as vertex, vertex/texture"),
        ("a.obj", V + "f 1 2 3\n\nf 1 2 x\n", "line 9: expected a corner"),
        ("a.obj", V + "f 1/1 2/2 3/3f 4/4 5/5 6/6\n", "got '3/3f'"),
        ("a.obj", V + "f 1 2 99999999999999999999\n", "got '99999999999999999999'"),
        ("a.obj", V + "f 1 2 3 f 1 2 4\n", "line 7: expected a corner"),
        (
            "a.obj",
            V.replace("10.5", "NaN") + "f 1 2 3\n",
            "line 5: expected finite coordinates, got [0.0, 0.0, nan]; " + NOT_FINITE,
        ),
        ("a.obj", V.replace("10.5", "inf") + "f 1 2 3\n", NOT_FINITE),
        ("a.obj", V.replace("10.5", "1e999") + "f 1 2 3\n", NOT_FINITE),
        (
            "a.obj",
            V.replace("10.5", "-1.#IND00") + "f 1 2 3\n",
            "line 5: expected finite coordinates, got [0.0, 0.0, nan]; " + NOT_FINITE,
        ),
        ("a.obj", V.replace("10.5", "1.#QNAN") + "f 1 2 3\n", NOT_FINITE),
        ("a.obj", V.replace("10.5", "-nan(ind)") + "f 1 2 3\n", NOT_FINITE),
        (
            "a.obj",
            V.replace("10.5", "10,5") + "f 1 2 3\n",
            "line 5: expected a number, got '10,5'; write decimal points",
        ),
        ("a.obj", V.replace("10.5", "1_0.5") + "f 1 2 3\n", "line 5: expected a number, got '1_0.5'"),
        ("a.obj", V.replace("10.5", "10.5 1 x") + "f 1 2 3\n", "line 5: expected x y z, a weight or a colour, got 5"),
        ("a.obj", V.replace("10.5", "10.5 1 1 x") + "f 1 2 3\n", "line 5: expected a number, got 'x'"),
        ("a.obj", V + "v 1 2\nf 1 2 3\n", "line 7: expected x y z, a weight or a colour, got 2 numbers"),
        ("a.obj", V.replace("\nv 0.0 0.0 10.5", "v 0.0 0.0 10.5") + "f 1 2 3\n", "line 4: "),
        ("a.obj", V.replace("\nv 0.0 0.0 10.5", " v 0.0 0.0 10.5") + "f 1 2 3\n", "line 4: "),
        (
            "a.obj",
            V.replace("v 0.0 0.0 10.5", "vertex 0.0 0.0 10.5") + "f 1 2 3\n",
            "line 5: expected a keyword of polygons in OBJ",
        ),
        ("a.obj", V + "f 1 2 3\nsurf 0 1 0 1 1 2 3\n", "got 'surf'; 1 of 8 lines are not understood"),
        ("a.obj", V + "f 1 2 3 \\\n", "line 7: expected another line after the backslash, got none"),
        ("a.obj", (V + "f 1 2 3\n").encode("utf-16"), "got UTF-16; save it as UTF-8"),
        ("a.ply", b"solid", "line 1: expected ply"),
        ("a.ply", ply("ascii", t=[QUAD, *T]), "line 17: " + SIZES.format(4, 1, 6)),
        ("a.ply", ply("ascii", t=[*T, QUAD]), "line 22: " + SIZES.format(4, 1, 6)),
        ("a.ply", ply("binary_little_endian", t=[QUAD] * 9), "face 0: " + SIZES.format(4, 9, 9)),
        ("a.ply", ply("binary_little_endian", t=[*T, PENTAGON, *T]), "face 5: " + SIZES.format(5, 1, 11)),
        ("a.ply", ply("binary_big_endian", t=[*T, QUAD], lists=LISTS), "face 5: " + SIZES.format(4, 1, 6)),
        ("a.ply", ply("binary_little_endian")[:-5], "face 4: expected vertex_indices, got the end of the file"),
        ("a.ply", ply("binary_little_endian")[:200], "expected 6 rows of vertex, at least 72 bytes, got"),
        ("a.ply", ply("binary_little_endian") + b"abc", "got 3 more; is it damaged?"),
        ("a.ply", ply("ascii")[:-30], "expected 5 rows of face, got"),
        ("a.ply", ply("ascii") + b"1 2 3\n", "line 22: expected the end of the file, got 1 rows more than announced"),
        ("a.ply", ply("ascii").replace(b"\n3 0 2 1", b" 3 0 2 1"), "line 16: expected x, y, z of vertex, got 7 words"),
        ("a.ply", ply("ascii", t=[[0, 1, 6]]), "line 17: expected vertices 0 to 5 (counted from 0), got 6"),
        ("a.ply", ply("ascii", t=[[0, 1, 1.5]]), "expected whole numbers as vertices of face, got fractions"),
        ("a.ply", ply("ascii", x=X * [[np.nan], [1], [1], [1], [1], [1]]), "line 11: expected finite coordinates"),
        ("a.ply", ply("binary_little_endian", t=[]), "has no faces"),
        ("a.ply", ply("binary_little_endian", x=X * [[np.nan], [1], [1], [1], [1], [1]]), "vertex 0: expected finite"),
        ("a.ply", ply("ascii").replace(b"float z", b"float w"), "expected x, y and z of each vertex, got x, y, w"),
        ("a.ply", ply("ascii").replace(b"float z", b"float x"), "line 7: expected a header of PLY"),
        (
            "a.ply",
            ply("ascii").replace(b"float z", b"half z"),
            "line 7: expected a header of PLY, got 'property half z'",
        ),
        ("a.ply", ply("ascii").replace(b"ascii", b"zip"), "line 2: expected a header of PLY"),
        ("a.ply", ply("ascii").replace(b"vertex 6", b"vertex -6"), "line 4: expected a header of PLY"),
        (
            "a.ply",
            ply("binary_little_endian").replace(b"vertex 6", b"vertex 999999999999"),
            "expected 999999999999 rows of",
        ),
        ("a.ply", ply("ascii").partition(b"end_header")[0], "expected end_header"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2 0\n", "line 6: " + SIZES.format(4, 1, 1)),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n", "expected 3 vertices and 1 faces as announced, got 3 lines"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 x\n0 1 0\n3 0 1 2\n", "line 4: expected a number, got 'x'"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -2\n", "line 6: expected a whole number, got '-2'"),
        ("a.off", b"OFF BINARY\n", "line 1: expected OFF, COFF, NOFF or STOFF as text"),
        ("a.off", b"", "line 1: expected OFF, COFF, NOFF or STOFF as text"),
        ("a.stl", b"solid", ".stl, expected a mesh as .obj, .ply or .off"),
    ],
)
def test_a_faulty_mesh_is_named(tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ValueError) as e:
        read_mesh(tmp_path / name)
    assert str(e.value).startswith(f"{tmp_path / name}: ") and expected in str(e.value)


def test_no_such_mesh(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.obj: no such file"):
        read_mesh(tmp_path / "a.obj")


# ---- what programs write and readers get wrong


def mesh_of(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_mesh(path)


@pytest.mark.parametrize(
    "text",
    [
        "# C:\\scans\\\n" + V + faces("{v}"),
        V.replace("\nv 0.0 10", " # C:\\scans\\\nv 0.0 10") + faces("{v}"),
        "mtllib C:\\scans\\\ng C:\\a\\\nusemtl b\\\n" + V + "o C:\\\n" + faces("{v}"),
        "g head \\\n  face\n" + V + faces("{v}"),
        V.replace("v 0.0 0.0 10.5", "v 0 \\\n 0 \\  \n\t10.5") + faces("{v}"),
        "\ufeff" + V + faces("{v}"),
        V.replace("v 0.0 0.0 10.5", "\ufeffv 0.0 0.0 10.5") + faces("{v}"),
        (V + faces("{v}")).replace("\n", "\r"),
        (V + faces("{v}/{k}")).replace("\n", "\r\n\r\n"),
        V.replace("10.5", "10.5 0.8 0.6 0.5") + faces("{v}"),
        V.replace("10.5", "10.5 1.0") + faces("{v}"),
        V + faces("{v}").replace("\n", " # a face\n").replace("f 1", "f\t 1"),
        V + "\n\n" + faces("{v}/") + "#",
    ],
)
def test_obj_keeps_every_vertex(tmp_path, text):
    "Comments that end in a backslash, names that do, byte order marks, line ends, some vertices coloured."
    mesh = mesh_of(tmp_path / "a.obj", text)
    assert np.array_equal(mesh.vertices, X) and np.array_equal(mesh.triangles, T)


def test_numbers_are_counted_by_line(tmp_path):
    "Two of six vertices have colours, which makes 24 numbers, or 8 vertices of 3."
    lines = V.splitlines()
    text = "\n".join(line + " 0.8 0.6 0.5" if i % 3 == 0 else line for i, line in enumerate(lines)) + "\n"
    assert np.array_equal(mesh_of(tmp_path / "a.obj", text + faces("{v}")).vertices, X)


def test_polygons_are_read_and_refused(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text(V + "f 1 2 3 5\nf -1/1 -2//7 -3/2/2\nf 1 2 3 5 6\n")
    polygons = read_polygons(path)
    assert polygons.sizes.tolist() == [4, 3, 5] and polygons.corners.tolist() == [0, 1, 2, 4, 5, 4, 3, 0, 1, 2, 4, 5]
    fans = [[0, 1, 2], [0, 2, 4], [5, 4, 3], [0, 1, 2], [0, 2, 4], [0, 4, 5]]
    assert polygons.triangles().tolist() == fans
    assert polygons.triangles(np.array([False, True, True])).tolist() == fans[2:]
    with pytest.raises(ValueError, match=r"line 7: expected 3 corners, got 4 \(2 of 3 faces\)"):
        read_mesh(path)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_polygons_in_ply(tmp_path, form):
    "Lists of different lengths, texture coordinates per corner among them."
    (tmp_path / "a.ply").write_bytes(ply(form, t=[QUAD, *T.tolist(), PENTAGON], lists=LISTS))
    polygons = read_polygons(tmp_path / "a.ply")
    assert polygons.sizes.tolist() == [4, 3, 3, 3, 3, 3, 5] and np.allclose(polygons.vertices, X, rtol=1e-6)
    assert polygons.corners.tolist() == [*QUAD, *T.ravel().tolist(), *PENTAGON]


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"])
def test_ply_line_ends(tmp_path, form, end):
    "Also with comments and blank lines in the header, and a coordinate whose first byte is a line feed."
    x = X.copy()
    x[0, 0] = np.frombuffer(b"\n\r\n\x41", "<f4")[0]
    head, mark, body = ply(form, x=x).partition(b"end_header\n")
    head = head.replace(b"comment x\n", b"comment end_header\nobj_info a\n\n").replace(b"\n", end)
    body = body.replace(b"\n", end + end) if form == "ascii" else body
    mesh = mesh_of(tmp_path / "a.ply", head + b"end_header" + end + (end if form == "ascii" else b"") + body)
    assert np.allclose(mesh.vertices, x, rtol=1e-6) and np.array_equal(mesh.triangles, T)


def test_triangle_strips(tmp_path):
    strips = [0, 1, 2, 4, -1, 5, 4, 3, 3, 0, 1]
    head = "ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    text = head + V.replace("v ", "") + f"{len(strips)} {' '.join(map(str, strips))}\n"
    triangles = mesh_of(tmp_path / "a.ply", text).triangles.tolist()
    assert triangles == [[0, 1, 2], [2, 1, 4], [5, 4, 3], [0, 3, 1]]


def test_faces_are_read_once_for_scans_in_correspondence(tmp_path):
    a = mesh_of(tmp_path / "a.obj", V + faces("{v}"))
    a.triangles[:] = 0
    assert np.array_equal(mesh_of(tmp_path / "b.obj", V + faces("{v}")).triangles, T)


# ---- bytes changed at random

SMALL = {
    "a.obj": (V + faces("{v}/{k}") + "# end\n").encode(),
    "n.obj": (V + faces("{n}")).encode(),
    "a.ply": ply("ascii", lists=LISTS),
    "l.ply": ply("binary_little_endian", t=[*T.tolist(), QUAD]),
    "b.ply": ply("binary_big_endian"),
    "a.off": b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
}
BYTES = st.one_of(
    st.binary(max_size=3), st.sampled_from([b"\\\n", b"#", b"nan", b"-", b"/", b" 9", b"\n", b"1e999", b"\xef\xbb\xbf"])
)


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(sorted(SMALL)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), BYTES), min_size=1, max_size=4),
)
def test_any_file_is_a_mesh_or_a_named_fault(tmp_path, name, changes):
    data = SMALL[name]
    for place, removed, added in changes:
        at = int(place * len(data))
        data = data[:at] + added + data[at + removed :]
    try:
        mesh = mesh_of(tmp_path / name, data)
    except ValueError as e:
        assert str(e).startswith(f"{tmp_path / name}: ")
    else:
        assert np.isfinite(mesh.vertices).all() and mesh.triangles.shape[1] == 3
        assert mesh.triangles.min() >= 0 and mesh.triangles.max() < len(mesh.vertices)
