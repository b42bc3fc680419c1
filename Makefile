# make train            set everything up, render faces, train with the Multiview Reprojection Loss; leaves out.ipynb and results/
# make test             set everything up, run every test
# make lab              open the notebooks
# make export           after editing a notebook: clean it and export mrl/
# make virtual-cameras  the runs behind nbs/11_virtual_cameras.ipynb (about an hour and a half on two cores; continues where it was)
# All create .venv. PYTHON chooses the interpreter (3.10-3.12); PARAMS goes to papermill: make train PARAMS="-p loss reprojection"

PYTHON ?= python3
PARAMS ?= -p loss mrl
BIN := .venv/bin

.PHONY: train test lab export virtual-cameras

train: .venv/ready
	$(BIN)/papermill nbs/train.ipynb out.ipynb $(PARAMS)

test: .venv/ready
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export
	git diff --exit-code -- nbs mrl || { echo "notebooks and mrl/ are not in step: run make export and commit"; exit 1; }
	$(BIN)/nbdev_test --n_workers 2
	$(BIN)/python -m pytest -q tests

lab: .venv/ready
	$(BIN)/jupyter lab nbs

export: .venv/ready
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

virtual-cameras: .venv/ready
	PATH=$(BIN):$$PATH ./benchmarks/virtual_cameras.sh

.venv/ready: settings.ini setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@
