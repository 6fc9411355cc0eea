"""Beside MLflow's own autologging, which would make a second run, one sentence says what to do."""

from pathlib import Path

import preloaded
import pytest

# In a process of its own: autologging patches Lightning's Trainer for good.
SCRIPT = """
import sys
import mlflow
from trainers import Regression, loader, trainer
from lr_callbacks import JournaledMLFlowLogger

uri, how = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.pytorch.autolog(log_models=False, checkpoint=False)
given = mlflow.start_run().info.run_id if how == "shared" else None
logger = JournaledMLFlowLogger("Default", tracking_uri=uri, run_id=given, journal_dir="journals")
trainer([], logger, max_steps=2).fit(Regression(), loader())
mlflow.end_run()
if how == "enabled":  # what the sentence says helps
    mlflow.pytorch.autolog(disable=True)
    more = JournaledMLFlowLogger("Default", tracking_uri=uri, journal_dir="journals")
    trainer([], more, max_steps=2).fit(Regression(), loader())
print("runs:", len(mlflow.search_runs(search_all_experiments=True)))
"""


@pytest.mark.parametrize(("how", "runs", "warned"), [("enabled", 3, 1), ("shared", 1, 0)])
def test_autologging_is_warned_of_where_it_makes_a_second_run(uri, tmp_path, how, runs, warned):
    told = preloaded.run(
        "-c", SCRIPT, uri, how,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "HOME": str(tmp_path)},
        cwd=tmp_path,
        timeout=300,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert f"runs: {runs}" in told.stdout
    assert told.stderr.count("call mlflow.pytorch.autolog(disable=True) before `fit`") == warned
