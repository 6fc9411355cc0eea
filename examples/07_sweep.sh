#!/bin/sh
# Learn to sweep: two optimizers by two schedules by three rates, in two processes; one parent run
# and twelve children in MLflow, a table, and 07_sweep.png: final loss against initial rate.
# `sh examples/07_sweep.sh [FOLDER [RATES]]`; lr-train is looked up on the PATH.
set -eu
mkdir -p "${1:-.}"
cd "${1:-.}"
lr-train -m optimizer=sgd,adamw schedule=constant,cosine optimizer.lr="${2:-0.001,0.01,0.1}" \
  hydra/launcher=joblib trainer.max_steps=200 trainer.enable_progress_bar=false
lr-callbacks compare last --output 07_sweep.png
