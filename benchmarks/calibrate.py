"""Measure a network's errors on rendered people whom it has not seen, for the refinement of photographs.

    python benchmarks/calibrate.py                    # the network that ships; prints the record
    python benchmarks/calibrate.py --run NAME --write # also calibration.json in the folder of the run

MRL_DATA names the folder that holds ICT-FaceKit's FaceXModel. `--scanned ""` leaves its faces out.
About three minutes on a core. Notebook nbs/08_photo/09_uncertainty.ipynb says what is measured.
"""

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import json

from mrl.io.files import write_json, write_sums
from mrl.photo.uncertainty import calibrate
from mrl.training.run import RUN_FILES, Run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="photo", help="folder in results/, or a path")
    parser.add_argument("--scanned", default="ict", help="face model made from scans; empty: the generator alone")
    parser.add_argument("--write", action="store_true", help="write calibration.json beside the network")
    args = parser.parse_args()
    run = Run.load(args.run)
    record = calibrate(run, scanned=args.scanned)
    print(json.dumps(record | {"identity_sd": record["identity_sd"][:10]}, indent=1))
    if args.write:
        write_json(run.folder / "calibration.json", record)
        write_sums(run.folder, RUN_FILES)
