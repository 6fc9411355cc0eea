#!/bin/sh
# Learn to sweep beyond one process: four jobs with each launcher and with Optuna; one job raises, one
# diverges, two are well. Each gets a folder with its store, its table and 10_cluster.png.
# `sh examples/10_cluster.sh [FOLDER [LAUNCHER ...]]`, of basic, joblib, submitit_local, ray and
# optuna; lr-train is looked up on the PATH. On Slurm: `hydra/launcher=slurm` in the same place.
set -u
export RAY_AUTH_MODE=disabled OMP_NUM_THREADS=1
folder=${1:-.}
[ $# = 0 ] || shift
[ $# -gt 0 ] || set -- basic joblib submitit_local ray optuna
settings="optimizer=sgd trainer=debug trainer.enable_progress_bar=false callbacks=none test=false"
for launcher in "$@"; do
  (
    mkdir -p "$folder/$launcher" && cd "$folder/$launcher" || exit 1
    if [ "$launcher" = optuna ]; then
      set -- hparams_search=optuna hydra.sweeper.n_trials=4 hydra.sweeper.sampler.n_startup_trials=4 \
        "hydra.sweeper.params={optimizer.lr: 'choice(-1, 0.1, 1, 1e30)'}"
    else
      set -- -m hydra/launcher="$launcher" optimizer.lr=-1,0.1,1,1e30
    fi
    lr-train "$@" $settings > log.txt 2>&1
    echo "$launcher: exit code $?, $(tail -n 1 log.txt)"
    lr-callbacks compare last --output 10_cluster.png && echo "$PWD/10_cluster.png"
  )
done
