"What several test files share."

import os
from collections import Counter
from pathlib import Path

import pytest
from execution import EXECUTED, execute
from hypothesis import settings

from mrl.io.processes import sole_owner

# Notebooks that tests execute draw no pictures of their figures, 3 s each, unless a test deletes this variable.
os.environ["IN_TEST"] = "1"
settings.register_profile("mrl", derandomize=True, deadline=None, max_examples=30, database=None)  # the same every time
settings.load_profile("mrl")


def pytest_collection_modifyitems(items):
    "Begin with the files that have most slow tests, so that no worker is left alone with one at the end."
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def optional_data():
    "A function that returns the first of some files or folders in the folder MRL_DATA, or skips the test."

    def find(*names, source):  # source: where one gets the data
        folder = os.environ.get("MRL_DATA")
        if not folder:
            pytest.skip(f"MRL_DATA names no folder of optional data; {' or '.join(names)}: see {source}")
        found = [Path(folder).expanduser() / name for name in names if (Path(folder).expanduser() / name).exists()]
        if not found:
            pytest.skip(f"MRL_DATA={folder} has no {' or '.join(names)}: see {source}")
        return found[0]

    return find


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    "A folder that the workers of pytest share."
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def datasets(shared):
    "A folder for data sets that tests only read: what several of them need is rendered once, whoever is first."
    (shared / "datasets").mkdir(exist_ok=True)
    return shared / "datasets"


@pytest.fixture(scope="session")
def executed(shared, datasets):
    "A function that returns the home of a notebook of EXECUTED, with out.ipynb, which is executed once for all tests."

    def find(name):
        home = shared / "executed" / name
        home.mkdir(parents=True, exist_ok=True)
        with sole_owner(shared / "executed" / f"{name}.lock"):  # the other worker waits
            if not (home / "out.ipynb").exists():
                (home / "datasets").symlink_to(datasets)
                execute(name, home, *EXECUTED[name])
        return home

    return find
