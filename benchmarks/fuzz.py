"""Change files at random and read them: the right content, or a ValueError that names the file.

    python benchmarks/fuzz.py [obj ply off csv json transforms ljson labels lines picture] [--seconds 60] [--seed 0]

Whole bytes, words and lines of small files are changed, removed, repeated, exchanged and taken from other files. What a
reader of meshes accepts is compared with a second reader, in this file, that is slow and knows no more than the
format's description. Other readers may only return or raise an error with the path in it. `--out` gets one file with
all counts, commit and seed; inputs that fail go to a folder beside it.
"""

import argparse
import io
import json
import random
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image

from mrl.data.photographs import read_cameras, read_photographs
from mrl.faces.population import load_population
from mrl.faces.sources.scans import read_labels
from mrl.io.files import read_json, read_lines, write_json
from mrl.io.meshes import read_polygons
from mrl.io.pictures import read_picture
from mrl.io.tables import read_csv, read_numbers
from mrl.scans.micc import _read_ljson
from mrl.training.run import commit

V = "v 0 0 0\nv 10 0 0 0.5 0.5 0.5\nv 0 10 0\nv 99 99 -99\nv 0 0 10.5\nv 1e-3 2 -3 1\n"
XYZ = "0 0 0\n10 0 0\n0 10 0\n99 99 -99\n0 0 10.5\n1e-3 2 -3\n"
HEAD = "ply\nformat {} 1.0\ncomment c\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
FACES = "element face 3\nproperty list uchar int vertex_indices\n"
BINARY = np.array(XYZ.split(), np.float64)
LISTS = b"".join(bytes([len(f)]) + np.array(f, "<i4").tobytes() for f in ([0, 1, 2], [0, 2, 4, 5], [3, 1, 0]))
FRAME = {"file_path": "0.png", "scan": 7, "fl_x": 600, "transform_matrix": np.diag([1.0, 1, 1, 1]).tolist()}
POINTS = {"groups": {"LJSON": {"landmarks": {"points": [[i, 2.5, -3] for i in range(68)]}}}}
SEEDS = {
    "obj": [
        f"# a\nmtllib a.mtl\no b\n{V}vt 0 0\nvn 0 0 1\ns off\nusemtl c\nf 1/1 3 2//1\nf 1 2 4 5\nf 6/1/1 2 3\n",
        f"{V}f -6 -5 -4\nf -1/1 -2/1 -3/1\n".replace("\n", "\r\n"),
        f"g d \\\n e\n{V}f 1 2 \\\n 3\nl 1 2\np 1\n",
    ],
    "ply": [
        HEAD.format("ascii") + FACES + "end_header\n" + XYZ + "3 0 1 2\n4 0 2 4 5\n3 3 1 0\n",
        (HEAD.format("binary_little_endian") + FACES + "end_header\n").encode()
        + BINARY.astype("<f4").tobytes()
        + LISTS,
        (HEAD.format("binary_big_endian").replace("float", "double") + "end_header\n").encode()
        + BINARY.astype(">f8").tobytes(),
    ],
    "off": [f"OFF\n# c\n6 2 0\n{XYZ}3 0 1 2\n4 0 2 4 5 200 0 0\n", f"OFF 6 1 0\n{XYZ}\n3 0 1 2\n"],
    "csv": [
        "step,loss,rate\n1,2.5,1e-3\n2,,0\n",
        "sep=;\nfile;age\na.obj;30\nb.obj;31\n",
        '\ufefffile\tage\r\n"a b"\t3\r\n',
    ],
    "json": ['{"frames": [1, {"a": null, "b": [true, 2.5e3, "x"]}], "n": 7}\n'],
    "transforms": [json.dumps({"w": 300, "h": 200, "frames": [FRAME, FRAME | {"file_path": "1.png"}]}, indent=1)],
    "ljson": [json.dumps(POINTS, indent=1)],
    "labels": ["file,age,weight\na.obj,30,70.5\nb.obj,31,60\n"],
    "lines": ["S1/selfie/a.jpg\n\nS2/neutral/b.jpg\r\n"],
    "picture": [],
}
WORDS = [
    *(
        b"nan",
        b"-inf",
        b"1e999",
        b"-0",
        b"1_0",
        b"0x1p3",
        b"1.#IND",
        b"1,5",
        b"+1",
        b"99999999999999999999",
        b"-7",
        b"0",
    ),
    *(b"\\\n", b"#", b"//", b"/", b"\xef\xbb\xbf", b"\0", b"\x1a", b"\r", b"\n", b" ", b'"', b";", b"null", b"true"),
    *(
        b"f",
        b"v",
        b"vt",
        b"end_header",
        b"element face 9",
        b"property list int int a",
        b"comment",
        b"NaN",
        b"{",
        b"]",
        b"-1",
    ),
]


def pictures(folder):
    "Return small pictures in the formats that people have, with EXIF."
    exif, found = Image.Exif(), []
    exif.update({0x0112: 6, 0x010F: "maker"})
    exif.get_ifd(0x8769).update({0xA405: 26, 0xA002: 9, 0xA003: 6})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8))
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "JPEG2000", "MPO", "TGA", "ICO"):
        file = io.BytesIO()
        image.save(file, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP", "MPO") else {}))
        found.append(file.getvalue())
    return found


def change(data, others, rng):
    "Return bytes after one change."
    if not data:
        return rng.choice(others)
    kind, at = rng.randrange(7), rng.randrange(len(data))
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + rng.choice(WORDS) + data[at + rng.randrange(4) :]
    if kind == 2:
        return data[:at]
    if kind == 3:
        other = rng.choice(others)
        return data[:at] + other[rng.randrange(len(other)) :]
    unit = rng.choice([rb"(\s+)", rb"([\r\n]+)", rb"([,;{}\[\]:])"])
    parts = re.split(unit, data)
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    if kind == 4:
        parts[i] = rng.choice(WORDS)
    elif kind == 5:
        parts[i], parts[j] = parts[j], parts[i]
    else:
        parts.insert(i, parts[j])
    return b"".join(parts)


def numbers(words):
    return [float(w) for w in words]


def slow_obj(data):
    "Return vertices and faces of an OBJ file without continued lines, or None."
    if b"\\" in data:
        return None
    x, faces = [], []
    for line in re.split(rb"\r\n|\r|\n", data.replace(b"\xef\xbb\xbf", b"")):
        words = re.sub(rb"(^|\s)#.*", b"", line, flags=re.S).split()
        if words and words[0] == b"v":
            x.append(numbers(words[1:4]))
        elif words and words[0] == b"f":
            corners = [int(w.split(b"/")[0]) for w in words[1:]]
            faces.append([c - 1 if c > 0 else len(x) + c for c in corners])
    return x, faces


def slow_off(data):
    "Return vertices and faces of an OFF file that has nothing but them, or None."
    words = re.sub(rb"(^|\s)#[^\r\n]*", rb"\1", data.replace(b"\xef\xbb\xbf", b"")).split()[1:]
    n, m, rest, faces = int(words[0]), int(words[1]), words[3:], []
    x, rest = numbers(rest[: 3 * n]), rest[3 * n :]
    for _ in range(m):
        faces.append([int(w) for w in rest[1 : 1 + int(rest[0])]])
        rest = rest[1 + len(faces[-1]) :]
    return None if rest else (np.reshape(x, (-1, 3)).tolist(), faces)


def agrees(kind, data, mesh):
    "Return whether a second reader reads the same, where it can say so."
    try:
        found = {"obj": slow_obj, "off": slow_off}.get(kind, lambda data: None)(data)
    except (ValueError, IndexError):
        return kind != "obj"
    if found is None:
        return True
    x, faces = found
    cuts = np.split(mesh.corners, np.cumsum(mesh.sizes)[:-1])
    return np.array_equal(np.array(x), mesh.vertices) and [c.tolist() for c in cuts] == faces


def read_mesh(kind, path):
    mesh = read_polygons(path)
    sound = np.isfinite(mesh.vertices).all() and (mesh.sizes > 2).all() and mesh.sizes.sum() == len(mesh.corners)
    assert sound and mesh.corners.min() >= 0 and mesh.corners.max() < len(mesh.vertices), "no mesh"
    assert agrees(kind, path.read_bytes(), mesh), "another mesh than the slow reader's"


def read_tables(path):
    read_csv(path)
    read_numbers(path, {"file": str})


READERS = {
    "obj": lambda path: read_mesh("obj", path),
    "ply": lambda path: read_mesh("ply", path),
    "off": lambda path: read_mesh("off", path),
    "csv": read_tables,
    "json": lambda path: read_json(path, ["frames"]),
    "transforms": lambda path: (read_cameras(path), read_photographs(path, POPULATION)),
    "ljson": _read_ljson,
    "labels": lambda path: read_labels(path, ["a.obj", "b.obj"]),
    "lines": read_lines,
    "picture": read_picture,
}
POPULATION = load_population()


def campaign(kind, seconds, seed, folder, keep):
    "Return the counts of one kind of file, and what failed."
    rng = random.Random(f"{kind} {seed}")
    seeds = [s.encode() if isinstance(s, str) else s for s in SEEDS[kind] or pictures(folder)]
    path = folder / f"a.{'json' if kind == 'transforms' else kind}"
    counts, failures, end = Counter(), {}, time.process_time() + seconds
    for name in ("0.png", "1.png"):
        Image.new("RGB", (300, 200)).save(folder / name)
    while time.process_time() < end:
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            data = change(data, seeds, rng)
        path.write_bytes(data)
        counts["trials"] += 1
        try:
            READERS[kind](path)
            counts["read"] += 1
        except (ValueError, OSError) as e:
            counts["refused"] += 1
            said = (
                "" if str(path) in str(e) and type(e) in (ValueError, FileNotFoundError) else f"{type(e).__name__}: {e}"
            )
        except Exception as e:
            said = f"{type(e).__name__}: {e}"
        else:
            said = ""
        if said:
            counts["failures"] += 1
            where = keep / f"{kind}-{counts['failures']}{path.suffix}"
            if len(failures) < 20 and re.sub(r"\d+", "0", said) not in failures:
                failures[re.sub(r"\d+", "0", said)] = said
                keep.mkdir(parents=True, exist_ok=True)
                where.write_bytes(data)
    return {k: counts[k] for k in ("trials", "read", "refused", "failures")} | {"said": list(failures.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="kind", help=", ".join(SEEDS))
    parser.add_argument("--seconds", type=float, default=60, help="of processor time for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults" / "fuzz.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {"commit": commit(), "seed": args.seed, "cpu_s_of_each_kind": args.seconds, "kinds": {}}
    with tempfile.TemporaryDirectory(prefix="mrl fuzz ä ") as folder:
        for kind in args.kinds or SEEDS:
            keep = Path(tempfile.gettempdir()) / "mrl-fuzz-failures"
            found["kinds"][kind] = campaign(kind, args.seconds, args.seed, Path(folder), keep)
            print(kind, found["kinds"][kind], flush=True)
            write_json(args.out, found)
    sys.exit(any(k["failures"] for k in found["kinds"].values()))


if __name__ == "__main__":
    main()
