"""Change files at random and read them: the right content, or a ValueError that names the file.

    python benchmarks/fuzz.py [obj ply off csv ...] [--seconds 60] [--seed 0]

Whole bytes, words and lines of small files are changed, removed, repeated, exchanged and taken from other files. What a
reader of meshes accepts is compared with a second reader, in this file, that is slow and knows no more than the
format's description. Other readers may only return or raise an error with the path in it. `--out` gets one file with
all counts, commit and seed; inputs that fail go to the folder `mrl-fuzz-failures` of the system's temporary folder.
"""

import argparse
import io
import json
import pickle
import random
import re
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import h5py
import scipy.io
import torch
from PIL import Image

from mrl.data.photographs import read_cameras, read_photographs
from mrl.faces.morphable import MorphableModel, load_morphable_model, save_morphable_model
from mrl.faces.population import load_population
from mrl.faces.sources.bfm import read_bfm
from mrl.faces.sources.flame import read_flame
from mrl.faces.sources.ict import read_ict
from mrl.faces.sources.scans import read_labels, read_scans
from mrl.faces.sources.sfm import read_sfm
from mrl.io.files import read_json, read_lines, write_json
from mrl.io.films import read_film_frames
from mrl.io.meshes import read_polygons, write_mesh
from mrl.io.pictures import read_picture
from mrl.io.tables import read_csv, read_numbers
from mrl.photo.evaluation import read_annotations
from mrl.photo.files import _now_lines
from mrl.photo.refinement import Calibration
from mrl.scans.methods import read_face
from mrl.scans.micc import _read_ljson, read_micc
from mrl.scans.protocol_files import read_protocol
from mrl.training.run import commit

V = "v 0 0 0\nv 10 0 0 0.5 0.5 0.5\nv 0 10 0\nv 99 99 -99\nv 0 0 10.5\nv 1e-3 2 -3 1\n"
XYZ = "0 0 0\n10 0 0\n0 10 0\n99 99 -99\n0 0 10.5\n1e-3 2 -3\n"
HEAD = "ply\nformat {} 1.0\ncomment c\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
FACES = "element face 3\nproperty list uchar int vertex_indices\n"
BINARY = np.array(XYZ.split(), np.float64)
LISTS = b"".join(bytes([len(f)]) + np.array(f, "<i4").tobytes() for f in ([0, 1, 2], [0, 2, 4, 5], [3, 1, 0]))
FRAME = {"file_path": "0.png", "scan": 7, "fl_x": 600, "transform_matrix": np.diag([1.0, 1, 1, 1]).tolist()}
CASE = {"frame": "cases/subject_1/frame0007.jpg", "correspondences": "cases/subject_1/correspondences.txt"}
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
    "cameras": ["image,scan,fx,qw,qx,qy,qz,tx,ty,tz\n0.png,7,600,0,1,0,0,0,0,600\n1.png,7,600,0,1,0,0,0,0,500\n"],
    "points": [json.dumps({"right_eye_inner": [-15, 30, 0.5], "left_eye_inner": 1, "nose_base": 2, "lips_central": 3})],
    "marks": [json.dumps({"nose_tip": 0, "chin": 11, "ibug_36": 3}, indent=1)],
    "about": [json.dumps({"name": "A", "licence": "B", "units": "mm", "landmarks": {"nose_tip": 1}}, indent=1)],
    "correspondences": ["right_eye_lacrimal 1\nleft_eye_lacrimal 2\nnose_base 3\n\nlips_central 4\r\n"],
    "annotations": [json.dumps({"cases": [CASE, CASE | {"frame": "cases/subject_2/frame12.png"}]}, indent=1)],
    "pictures": [json.dumps({"0.png": [{"landmarks": [[i, 2.5] for i in range(68)], "box": [1, 2, 90, 80]}]})],
    "protocol": [
        json.dumps({"name": "mine", "base": "now", "radius": 90, "landmarks": ["nose_tip", "chin", "ibug_36"]}),
        json.dumps({"name": "mine", "videos": ["Indoor-Cooperative"], "frames": None, "exceptions": [[3, 80.5]]}),
    ],
    "calibration": [json.dumps({"identity_sd": [0.9, 0.5, 0.7], "distance_factor": 1.25})],
    "mapping": ["# a\n[landmark_mappings]\n37 = 3\n9 13\n[contour_landmarks]\nright = [1, 2]\n"],
    "indices": [json.dumps({"idx_to_landmark_verts": list(range(20)), "face_area": [1]})],
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


def face():
    "Return the mean (20, 3) mm, three modes (3, 20, 3) and the triangles of a face model."
    rng = np.random.default_rng(0)
    x = np.r_[[(-15, 30, 0), (15, 30, 0), (0, -10, 12), (0, -32, 8), (0, 0, 30)], rng.normal(0, 50, (15, 3))]
    return x, rng.normal(0, 2, (3, 20, 3)), rng.permuted([range(20)] * 12, axis=1)[:, :3]


def pickles(folder):
    "Return files in FLAME's format."
    x, modes, t = face()
    arrays = {"v_template": x / 1000, "shapedirs": np.moveaxis(modes, 0, -1) / 1000, "f": t.astype(np.uint32)}
    return [pickle.dumps(arrays | {"bs_type": "lrotmin"}, protocol) for protocol in (0, 2, 4)]


def zips(folder):
    "Return files in FLAME's format, as NumPy writes them."
    file = io.BytesIO()
    np.savez(file, **pickle.loads(pickles(folder)[0]))
    return [file.getvalue()]


def matlab(folder):
    "Return files in the format of the Basel Face Model of 2009."
    x, modes, t = face()
    fields = dict(shapeMU=x.reshape(-1, 1) * 1e3, shapePC=modes.reshape(3, -1).T / 10, shapeEV=np.full((3, 1), 1e4))
    found = []
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(file, fields | {"tl": t + 1.0}, do_compression=compressed)
        found.append(file.getvalue())
    return found


def statismo(folder):
    "Return files in the format of the Basel Face Models of 2017 and 2019."
    x, modes, t = face()
    marks = [{"id": "center.nose.tip", "coordinates": x[0].tolist()}]
    with h5py.File(folder / "seed.h5", "w") as f:
        f["shape/model/mean"], f["shape/model/pcaBasis"] = x.ravel(), modes.reshape(3, -1).T / 10
        f["shape/model/pcaVariance"], f["shape/representer/cells"] = np.full(3, 100.0), t.T
        f["metadata/landmarks/json"] = json.dumps(marks)
    return [(folder / "seed.h5").read_bytes()]


def cereal(folder):
    "Return files in the format of eos, version 1 and 3."
    x, modes, t = face()
    matrix = lambda m: struct.pack("<ii", *m.shape) + m.T.astype("<f4").tobytes()
    parts = matrix(x.reshape(-1, 1)), matrix(modes.reshape(3, -1).T / 10), matrix(np.full((3, 1), 100.0))
    shape = b"".join(parts) + struct.pack("<Q", len(t)) + t.astype("<i4").tobytes()
    marks = b"\0" + struct.pack("<Q", 1) + struct.pack("<Q", 2) + b"37" + struct.pack("<i", 3)
    return [struct.pack("<I", 1) + shape, struct.pack("<I", 3) + 2 * shape + b"\1" + marks + struct.pack("<Q", 0)]


def tensors(folder):
    "Return a morphable model as it is written here."
    x, modes, t = face()
    numbers = (torch.from_numpy(v).float() for v in (x, modes, np.full(3, 1 / 3)))
    mean, basis, ratio = numbers
    model = MorphableModel(mean, basis, torch.from_numpy(t), ratio, {"nose_tip": 1}, "A", "B")
    save_morphable_model(folder / "seed.safetensors", model)
    return [(folder / "seed.safetensors").read_bytes()]


def films(folder):
    "Return a film of three JPEG pictures."
    file = io.BytesIO()
    for i in range(3):
        Image.new("RGB", (32, 24), (80 * i, 9, 99)).save(file, "JPEG")
    return [file.getvalue()]


SEEDS |= {
    "picture": pictures, "pickle": pickles, "zip": zips, "matlab": matlab, "statismo": statismo, "cereal": cereal,
    "tensors": tensors, "film": films,
}  # fmt: skip


def furnish(folder):
    "Write the files that readers expect beside the one that is changed."
    x, modes, t = face()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (300, 200)).save(folder / name)
    for i in range(4):
        write_mesh(folder / "scans" / f"{i}.obj", x + modes[i % 3] * (i + 1), t)
        write_mesh(folder / "ict" / ("generic_neutral_mesh.obj" if i == 0 else f"identity00{i}.obj"), x / 10 + i, t)
        (folder / "micc" / f"subject_{i + 1}" / "Model" / "frontal1" / "obj").mkdir(parents=True)
        (folder / "micc" / "cases" / f"subject_{i + 1}").mkdir(parents=True)
    for name, make in (("a.pkl", pickles), ("mapped/a.bin", cereal)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(make(folder)[0])
    write_mesh(folder / "a.obj", x, t)
    write_json(folder / "micc" / "annotations.json", {"cases": [CASE]})


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
        n = int(rest[0])
        faces.append([int(w) for w in rest[1 : 1 + n]])
        if len(faces[-1]) < n:  # a colour was taken for a number of corners
            return None
        rest = rest[1 + n :]
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


def read_annotated(path):
    "Read the authors' annotation of MICC: only what cannot be used at all is an error, the rest is listed."
    problems = read_micc(
        path.parents[0 if path.suffix == ".json" else 2], path.parents[0 if path.suffix == ".json" else 2]
    )[1]
    assert all(row["file"] and row["problem"] for row in problems), problems


READERS = {  # kind -> name of the file that is changed, function of its path
    "obj": ("mesh.obj", lambda path: read_mesh("obj", path)),
    "ply": ("mesh.ply", lambda path: read_mesh("ply", path)),
    "off": ("mesh.off", lambda path: read_mesh("off", path)),
    "csv": ("table.csv", read_tables),
    "json": ("any.json", lambda path: read_json(path, ["frames"])),
    "transforms": ("transforms.json", lambda path: (read_cameras(path), read_photographs(path, POPULATION))),
    "cameras": ("images.csv", lambda path: (read_cameras(path), read_photographs(path, POPULATION))),
    "ljson": ("points.ljson", _read_ljson),
    "labels": ("labels.csv", lambda path: read_labels(path, ["a.obj", "b.obj"])),
    "lines": ("list.txt", lambda path: (read_lines(path), _now_lines(path))),
    "picture": ("picture", read_picture),
    "film": ("film.mjpg", lambda path: read_film_frames(path, 2)),
    "points": ("a.landmarks.json", lambda path: read_face(path.with_name("a.obj"))),
    "marks": ("a.pkl.landmarks.json", lambda path: read_flame(path.with_name("a.pkl"))),
    "about": ("scans.json", lambda path: read_scans(path.with_name("scans"), 2)),
    "correspondences": ("micc/cases/subject_1/correspondences.txt", read_annotated),
    "annotations": ("micc/annotations.json", read_annotated),
    "pictures": ("landmarks.json", lambda path: read_annotations(path.parent)),
    "protocol": ("protocol.json", read_protocol),
    "calibration": ("calibration.json", lambda path: Calibration.read(path.parent)),
    "mapping": ("mapped/ibug_to_sfm.txt", lambda path: read_sfm(path.with_name("a.bin"))),
    "indices": ("ict/vertex_indices.json", lambda path: read_ict(path.parent, "all")),
    "pickle": ("flame.pkl", read_flame),
    "zip": ("flame.npz", read_flame),
    "matlab": ("bfm.mat", read_bfm),
    "statismo": ("bfm.h5", read_bfm),
    "cereal": ("sfm.bin", read_sfm),
    "tensors": ("own.safetensors", load_morphable_model),
}
POPULATION = load_population()


def campaign(kind, seconds, seed, folder, keep):
    "Return the counts of one kind of file, and what failed."
    rng, (name, read), seeds = random.Random(f"{kind} {seed}"), READERS[kind], SEEDS[kind]
    seeds = [s.encode() if isinstance(s, str) else s for s in (seeds(folder) if callable(seeds) else seeds)]
    path = folder / name
    counts, failures, end = Counter(), {}, time.process_time() + seconds
    while time.process_time() < end:
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            data = change(data, seeds, rng)
        path.write_bytes(data)
        counts["trials"] += 1
        said = ""
        try:
            read(path)
            counts["read"] += 1
        except (ValueError, OSError) as e:
            counts["refused"] += 1
            named = type(e) in (ValueError, FileNotFoundError) and str(path) in str(e)
            said = "" if named else f"{type(e).__name__}: {e}"
        except Exception as e:
            said = f"{type(e).__name__}: {e}"
        if said:
            counts["failures"] += 1
            where = keep / f"{kind}-{counts['failures']}-{path.name}"
            if len(failures) < 20 and re.sub(r"\d+", "0", said) not in failures:
                failures[re.sub(r"\d+", "0", said)] = said
                keep.mkdir(parents=True, exist_ok=True)
                where.write_bytes(data)
    path.unlink(missing_ok=True)  # it is no part of what other readers read
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
        furnish(Path(folder))
        for kind in args.kinds or SEEDS:
            keep = Path(tempfile.gettempdir()) / "mrl-fuzz-failures"
            found["kinds"][kind] = campaign(kind, args.seconds, args.seed, Path(folder), keep)
            print(kind, found["kinds"][kind], flush=True)
            write_json(args.out, found)
    sys.exit(any(k["failures"] for k in found["kinds"].values()))


if __name__ == "__main__":
    main()
