# make train            set everything up, render faces, train with the Multiview Reprojection Loss; leaves out.ipynb and results/
# make data             render the deck's 50,000 images at 128 px (about a quarter of an hour on two cores)
# make test             set everything up, run every test
# make lab              open the notebooks
# make study            the runs behind nbs/study.ipynb (many hours on two cores; continues where it was), and the notebook drawn from them
# make figures          redraw figures/, the README's pictures and pages to open in a browser, from results/
# make export           after editing a notebook: clean it and export mrl/
# make virtual-cameras  the runs behind nbs/02_losses/03_where_cameras_stand.ipynb (an hour on two cores; continues where it was)
# All create .venv. PYTHON chooses the interpreter (3.10-3.12); PARAMS goes to papermill: make train PARAMS="-p loss reprojection"

PYTHON ?= python3
PARAMS ?=
BIN := .venv/bin

.PHONY: data train test lab export figures study virtual-cameras

train: .venv/ready
	$(BIN)/papermill nbs/train.ipynb out.ipynb -p loss mrl $(PARAMS)

data: .venv/ready
	$(BIN)/papermill nbs/build_data.ipynb out.ipynb $(PARAMS)

test: .venv/ready
	rm -rf .venv/before && mkdir .venv/before && cp -r nbs mrl .venv/before
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export
	diff -rq -x __pycache__ -x .ipynb_checkpoints .venv/before/nbs nbs && diff -rq -x __pycache__ .venv/before/mrl mrl || \
	  { echo "notebooks and mrl/ were not clean and in step; they are now: look at the change and commit it"; exit 1; }
	$(BIN)/nbdev_test --n_workers 2
	$(BIN)/python -m pytest -q tests

lab: .venv/ready
	$(BIN)/jupyter lab nbs

study: .venv/ready
	$(BIN)/papermill nbs/study.ipynb out.ipynb -p run True $(PARAMS)

figures: .venv/ready
	$(BIN)/papermill nbs/figures.ipynb out.ipynb
	$(BIN)/papermill nbs/pose_robustness.ipynb out.ipynb -p gallery figures
	$(BIN)/papermill nbs/face_diversity.ipynb out.ipynb -p gallery figures

export: .venv/ready
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

virtual-cameras: .venv/ready
	PATH=$(BIN):$$PATH ./benchmarks/virtual_cameras.sh

.venv/ready: settings.ini setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --editable .
	touch $@
