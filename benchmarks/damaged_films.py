"""Change one bit of a film and read it: what is noticed of a damaged frame, for each codec.

    python benchmarks/damaged_films.py [--films 200] [--seed 0]

A film of a moving texture is written by OpenCV for each codec, and one bit of its frames is changed. A film counts as
`unchanged` if no frame that is read differs from the frame of the same number by more than 24 grey levels, and as
`withheld` if frames are left out and a warning names them. It is `handed_out` if a frame is read that differs, with or
without a warning about others. `--out` gets the counts, commit and seed.
"""

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mrl.io.files import write_json
from mrl.io.films import read_film_frames
from mrl.training.run import commit

FRAMES = 40
CODECS = {"mp4v": "a.mp4", "XVID": "a.avi", "MPG1": "a.mpg", "MJPG": "b.avi", "VP80": "a.webm", "VP90": "b.webm"}


def write_film(path, codec):
    "Write a film of a texture that moves by two pixels per frame."
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (200, 260, 3), np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (160, 120))
    for n in range(FRAMES):
        film.write(np.ascontiguousarray(texture[n : n + 120, 2 * n : 2 * n + 160]))
    film.release()


def outcome(path, whole):
    "Return what becomes of a film: unchanged, withheld, handed_out."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            frames = read_film_frames(path, FRAMES)
        except ValueError:
            return "withheld"
    if any(np.abs(image.astype(int) - whole[n]).max() > 24 for n, image in frames):
        return "handed_out"
    return "withheld" if len(said) else "unchanged"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=200, help="of each codec")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults" / "films.json")
    args = parser.parse_args()
    found = {"commit": commit(), "seed": args.seed, "opencv": cv2.__version__, "films": args.films, "codecs": {}}
    with tempfile.TemporaryDirectory(prefix="mrl-films-") as folder:
        for codec, name in CODECS.items():
            rng, path = np.random.default_rng(args.seed), Path(folder) / name
            write_film(path, codec)
            whole, data = dict(read_film_frames(path, FRAMES)), path.read_bytes()
            counts = Counter(unchanged=0, withheld=0, handed_out=0)
            for _ in range(args.films):
                changed = bytearray(data)
                at = rng.integers(1200, int(0.95 * len(data)) - 1500)  # within the frames, not in header or index
                changed[at] ^= 1 << rng.integers(8)
                path.write_bytes(changed)
                counts[outcome(path, whole)] += 1
            found["codecs"][codec] = dict(counts)
            print(codec, dict(counts), flush=True)
    write_json(args.out, found)


if __name__ == "__main__":
    main()
