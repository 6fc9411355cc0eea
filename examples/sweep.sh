#!/bin/sh
# Two optimizers by two schedules, in two processes; one parent run and four children in MLflow.
# `sh examples/sweep.sh [FOLDER OF lr-train]`; without it lr-train is looked up on the PATH.
set -eu
"${1:+$1/}lr-train" -m optimizer=sgd,adamw schedule=constant,cosine hydra/launcher=joblib \
  trainer.enable_progress_bar=false
