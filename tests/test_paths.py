"Every entrance takes ~ for the home folder, and makes no folder of that name."

import numpy as np
import pytest
from test_gallery import Figure

from mrl.data.configuration import DataConfig
from mrl.data.photographs import read_cameras
from mrl.data.store import open_dataset, verify_dataset
from mrl.faces.carrier import population_file
from mrl.faces.population import load_population
from mrl.faces.sources import find_face_model, read_face_model
from mrl.faces.sources.scans import read_scans, scan_files
from mrl.io.files import find_home, load_tensors, read_json, sha256, write_json
from mrl.io.films import read_film_frame
from mrl.io.meshes import read_mesh, write_mesh
from mrl.io.pictures import read_picture
from mrl.io.tables import read_csv, read_numbers, write_csv
from mrl.scans.methods import folder_predictions, read_face
from mrl.scans.micc import read_micc
from mrl.show.plots import present
from mrl.study.execution import load_study
from mrl.study.sweeps import load_errors
from mrl.training.run import Run, read_faces, read_history

READERS = {
    "cameras": read_cameras,
    "data set": open_dataset,
    "data set, checked": verify_dataset,
    "errors": load_errors,
    "face": lambda path: read_face(f"{path}.obj"),
    "face model": read_face_model,
    "faces": read_faces,
    "film": lambda path: read_film_frame(path, 1),
    "history": read_history,
    "numbers": read_numbers,
    "run": Run.load,
    "study": lambda path: load_study(results_dir=path),
    "find face model": lambda path: find_face_model("ict", path),
    "json": read_json,
    "mesh": lambda path: read_mesh(f"{path}.obj"),
    "micc": read_micc,
    "picture": read_picture,
    "population": load_population,
    "population of": population_file,
    "predictions": folder_predictions,
    "scan files": scan_files,
    "scans": read_scans,
    "sha256": sha256,
    "table": read_csv,
    "tensors": lambda path: load_tensors(path, "mrl.faces"),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.mark.parametrize("name", READERS)
def test_readers_look_in_the_home_folder(home, name):
    "What is not there is reported with the path that was looked for."
    with pytest.raises((FileNotFoundError, ValueError), match=f"{home}/none"):
        READERS[name]("~/none")


def test_writers_write_to_the_home_folder(home):
    write_json("~/a/b.json", {})
    write_csv("~/a/b.csv", [{"step": 1}])
    write_mesh("~/a/b.obj", np.eye(3), np.array([[0, 1, 2]]))
    assert sorted(p.name for p in (home / "a").iterdir()) == ["b.csv", "b.json", "b.obj"]
    assert not list((home.parent / "work").iterdir())


def test_a_gallery_is_in_the_home_folder(home):
    present(Figure(), "errors", "~/gallery")
    assert (home / "gallery/errors.html").exists() and not list((home.parent / "work").iterdir())


def test_the_home_of_results_is_expanded(home):
    assert find_home(home, "~/mrl home") == home / "mrl home"


def test_a_configuration_names_a_face_model_in_the_home_folder(home):
    assert DataConfig(face_model="~/scans").face_model == str(home / "scans")
