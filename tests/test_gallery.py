"What a gallery of figures writes, and what it leaves alone."

from pathlib import Path

import pytest

from mrl.io.files import read_json
from mrl.show.plots import present


class Figure:
    "A stand-in for Plotly's: pictures take seconds to draw."

    def show(self):
        pass

    def write_image(self, path, format):
        Path(path).write_bytes(b"picture")

    def write_html(self, path, **options):
        Path(path).write_text("page")


def test_a_figure_is_written_again(tmp_path):
    for _ in range(2):
        present(Figure(), "errors", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["errors.html", "errors.png", "gallery.json", "index.html"]
    assert read_json(tmp_path / "gallery.json") == {"written": ["errors.html", "errors.png", "index.html"]}


@pytest.mark.parametrize("name", ["errors.png", "errors.html", "index.html"])
def test_somebody_elses_file_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name}: expected no file, or one that a figure was written to"):
        present(Figure(), "errors", tmp_path)
    assert (tmp_path / name).read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == [name]


def test_pictures_of_the_repository_may_be_drawn_again():
    folder = Path(__file__).parent.parent / "figures"
    assert {p.name for p in folder.glob("*.png")} <= set(read_json(folder / "gallery.json")["written"])
