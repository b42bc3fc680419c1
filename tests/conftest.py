"What several test files share."

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("mrl", derandomize=True, deadline=None, max_examples=30, database=None)  # the same every time
settings.load_profile("mrl")


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
