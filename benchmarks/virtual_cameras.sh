#!/usr/bin/env bash
# Every run behind nbs/02_losses/04_where_cameras_stand.ipynb: results/virtual_cameras/<kind>-<seed>/. Complete runs are skipped, killed ones continue.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { # kind, then parameters of nbs/train.ipynb
  local name="virtual_cameras/$1-$seed"; shift
  mkdir -p "results/$name"
  papermill nbs/train.ipynb "results/$name/train.ipynb" -p run "$name" -p seed "$seed" -p steps 1000 "$@"
}

for seed in ${SEEDS:-0 1}; do
  run true       -p loss reprojection
  run true+batch -p loss mrl
  run uniform    -p loss mrl -p cameras uniform
  run batch      -p loss mrl -p cameras batch
  run within60   -p loss mrl -p cameras uniform -p max_angle 60
  run within30   -p loss mrl -p cameras uniform -p max_angle 30
  run alignment  -p loss geometric_alignment
  run multi      -p loss multi_term
done
