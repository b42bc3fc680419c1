# All targets create .venv. PYTHON chooses the interpreter (3.10-3.12), PARAMS goes to papermill:
#   make train PARAMS="-p loss reprojection"

PYTHON ?= python3
PARAMS ?=
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
# modules are compiled when they are first imported: most never are
PIP_INSTALL := $(BIN)/pip install --no-compile -c constraints.txt
# each of two processes has one of two cores
ONE_THREAD := OMP_NUM_THREADS=1
.DEFAULT_GOAL := help

.PHONY: help train photo-network data check test lint drift lab export figures study virtual-cameras notebooks docs

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

train: .venv/ready  ## render faces, train with the Multiview Reprojection Loss; leaves out.ipynb and results/
	$(BIN)/papermill --no-progress-bar nbs/train.ipynb out.ipynb -p loss mrl $(PARAMS)

# hours on two cores; -p n_images, steps and image_size shorten it
PHOTO := -p run photo-network -p loss log_mrl -p setting photo -p augment mirror,photo -p encoder efficientnet_lite0 \
  -p weights imagenet -p image_size 128 -p n_images 60000 -p n_components 100 -p steps 16000 -p eval_every 500

photo-network: .venv/ready  ## render faces with expressions, train the network for photographs (hours; resumes)
	$(BIN)/pip install -q -c constraints.txt --editable ".[photo-train]"
	$(BIN)/papermill nbs/train.ipynb out.ipynb $(PHOTO) $(PARAMS)
	$(BIN)/python benchmarks/calibrate.py --run photo-network --write

data: .venv/ready  ## render 50,000 images at 128 px (about a quarter of an hour on two cores)
	$(BIN)/papermill --no-progress-bar nbs/build_data.ipynb out.ipynb $(PARAMS)

check: lint drift  ## format, lint, layers, notebooks in step with mrl/, and the fast tests (under four minutes)
	$(ONE_THREAD) $(PYTEST) -m "not slow" tests

test: lint drift  ## everything: what `check` does, every notebook of the library and every test
	$(ONE_THREAD) $(BIN)/nbdev_test --n_workers 2
	$(ONE_THREAD) $(PYTEST) tests

lint: .venv/ready-dev
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports

drift: .venv/ready-dev
	rm -rf .venv/before && mkdir .venv/before && cp -r nbs mrl .venv/before
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export
	diff -rq -x __pycache__ -x .ipynb_checkpoints .venv/before/nbs nbs && diff -rq -x __pycache__ .venv/before/mrl mrl || \
	  { echo "notebooks and mrl/ were not clean and in step; they are now: look at the change and commit it"; exit 1; }

lab: .venv/ready  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

notebooks: .venv/ready-dev  ## execute notebooks in place, two at a time: all, or NOTEBOOKS="nbs/study.ipynb ..."
	$(BIN)/python benchmarks/execute_notebooks.py -j 2 $(NOTEBOOKS)
	$(BIN)/nbdev_clean

export: .venv/ready-dev  ## after editing a notebook: format and clean it, write mrl/
	$(BIN)/ruff format . && $(BIN)/nbdev_clean && $(BIN)/nbdev_export

study: .venv/ready  ## the runs behind nbs/study.ipynb (many hours on two cores; resumes), and the notebook drawn from them
	$(BIN)/papermill --no-progress-bar nbs/study.ipynb out.ipynb -p run True $(PARAMS)

figures: .venv/ready  ## redraw figures/, the README's pictures and pages to open in a browser, from results/
	$(BIN)/papermill nbs/figures.ipynb out.ipynb
	$(BIN)/papermill nbs/pose_robustness.ipynb out.ipynb -p gallery figures
	$(BIN)/papermill nbs/face_diversity.ipynb out.ipynb -p gallery figures

docs: .venv/ready-dev  ## build the site from the notebooks and docstrings: _site/html/index.html
	$(BIN)/sphinx-build -q docs _site/html

virtual-cameras: .venv/ready  ## the runs behind nbs/02_losses/04_where_cameras_stand.ipynb (an hour on two cores; resumes)
	PATH=$(BIN):$$PATH ./benchmarks/virtual_cameras.sh

.venv/ready: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --editable .
	touch $@

.venv/ready-dev: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --editable '.[dev,docs]'
	touch .venv/ready $@
