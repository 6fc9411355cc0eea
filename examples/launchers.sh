#!/bin/sh
# A sweep of four jobs with each launcher and with Optuna: one job raises, one diverges, two are well.
# `sh examples/launchers.sh FOLDER_OF_LR_TRAIN [LAUNCHER ...]`; each sweep gets a folder of its own.
set -u
bin=$(cd "$1" && pwd)
shift
export RAY_AUTH_MODE=disabled OMP_NUM_THREADS=1
jobs="optimizer=sgd optimizer.lr=-1,0.1,1,1e30"
settings="trainer=debug trainer.enable_progress_bar=false callbacks=none test=false"
for launcher in "${@:-joblib submitit_local ray optuna}"; do
  for one in $launcher; do
    mkdir -p "$one" && cd "$one" || exit 1
    if [ "$one" = optuna ]; then
      "$bin/lr-train" hparams_search=optuna $settings optimizer=sgd hydra.sweeper.n_trials=4 \
        "hydra.sweeper.params={optimizer.lr: 'choice(-1, 0.1, 1, 1e30)'}" \
        hydra.sweeper.sampler.n_startup_trials=4 > log.txt 2>&1
    else
      "$bin/lr-train" -m $jobs $settings hydra/launcher="$one" > log.txt 2>&1
    fi
    echo "$one: exit code $?, $(tail -n 1 log.txt)"
    "$bin/lr-callbacks" compare last
    cd ..
  done
done
