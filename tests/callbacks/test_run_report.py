"""The report of a run: a table for the person, a figure and a verdict in MLflow."""

import csv
import gzip
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from trainers import Regression, Script, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Hold, JournaledMLFlowLogger, RunReport, Search
from lr_callbacks.callbacks.run_address import command
from lr_callbacks.cli import main
from lr_callbacks.core import Condition, Decision
from lr_callbacks.report.alarms import first_alarm, tried
from lr_callbacks.report.history import History, whole
from lr_callbacks.report.summary import summary
from lr_callbacks.verdict import ALARMS

TROUBLE = Decision(scale=0.5, condition=Condition.SPIKING, reason="spike (9.1 > 6.7)")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def logger(uri, tmp_path):
    return JournaledMLFlowLogger("e", tracking_uri=uri, journal_dir=str(tmp_path / "journals"))


def fit(logger, script, module=None, **settings):
    callbacks = [AdaptiveLearningRate(script), RunReport()]
    trainer(callbacks, logger, **settings).fit(module or Regression(), loader())
    return MlflowClient(logger.tracking_uri).get_run(logger.run_id)


def artifacts(logger, folder="report"):
    client = MlflowClient(logger.tracking_uri)
    return {a.path for a in client.list_artifacts(logger.run_id, folder)}


def test_a_run_with_trouble_explains_itself_in_mlflow_and_on_the_terminal(logger, capsys):
    run = fit(logger, Script(s5=TROUBLE), max_steps=40)
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert tags["lr_callbacks.verdict"] == "recovered"
    assert tags["lr_callbacks.decisions"] == "1 × spiking: cut"
    assert tags["lr_callbacks.first_alarm"] == "step 5: spike (9.1 > 6.7)"
    assert "step 5: spike (9.1 > 6.7)" in tags["mlflow.note.content"]
    page = f"#/experiments/{logger.experiment_id}/runs/{logger.run_id}"
    for path in ("report/figure.html", "report/decisions.md"):
        link = f"[{path}]({page}/artifacts/{path}?workflowType=machine_learning)"
        assert link in tags["mlflow.note.content"]
    assert tags["mlflow.note.content"].count("\n") == 4  # five lines
    names = (
        "decisions.csv",
        "decisions.md",
        "figure.html",
        "figure.png",
        "journal.jsonl.gz",
        "summary.json",
    )
    assert artifacts(logger) == {f"report/{name}" for name in names}
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "TensorDataset"
    assert json.loads(data.dataset.profile) == {"num_rows": 32}
    said = capsys.readouterr().out
    assert "1 × spiking: cut" in said
    assert f"/runs/{logger.run_id}" in said
    assert "mlflow ui --backend-store-uri sqlite:///" in said


def test_a_program_learns_of_a_run_from_two_kilobytes_of_json_and_from_the_same_tag(logger):
    run = fit(logger, Script(s5=TROUBLE), max_steps=40)
    client = MlflowClient(logger.tracking_uri)
    path = Path(client.download_artifacts(logger.run_id, "report/summary.json"))
    told = json.loads(path.read_text())
    assert run.data.tags["lr_callbacks.summary"] == path.read_text().strip()
    assert (told["verdict"], told["steps"], told["decided"]) == ("recovered", 40, 1)
    assert told["decisions"] == [{"step": 5, "action": "cut", "condition": "spiking"}]
    losses = {m.step: m.value for m in client.get_metric_history(logger.run_id, "train/loss")}
    assert told["loss"]["last"] == pytest.approx(losses[39], rel=1e-5)
    assert told["loss"]["highest"] == pytest.approx(max(losses.values()), rel=1e-5)
    assert told["rates"]["SGD"] == {
        "first": 0.05, "last": 0.025, "lowest": 0.025, "highest": 0.05, "scale": 0.5,
    }  # fmt: skip
    assert Path(sys.argv[0]).name in told["command"]


def test_the_decisions_table_holds_what_was_decided(logger):
    fit(logger, Script(s5=TROUBLE), max_steps=12)
    client = MlflowClient(logger.tracking_uri)
    path = client.download_artifacts(logger.run_id, "report/decisions.csv")
    with open(path) as file:
        (row,) = csv.DictReader(file)
    assert (row["step"], row["condition"], row["action"]) == ("5", "spiking", "cut")
    assert (row["scale"], row["seen"], row["done"]) == ("0.5", "", "spike (9.1 > 6.7)")


def test_a_run_that_decides_at_every_step_has_a_report_of_bounded_size(logger):
    script = Script(**{f"s{step}": TROUBLE for step in range(700)})
    fit(logger, script, max_steps=700, max_epochs=-1)
    client, sizes = MlflowClient(logger.tracking_uri), {}
    for info in client.list_artifacts(logger.run_id, "report"):
        sizes[Path(info.path).name] = info.file_size
    with open(client.download_artifacts(logger.run_id, "report/decisions.csv")) as file:
        assert len(list(csv.DictReader(file))) == 700
    (name,) = (name for name in sizes if name.endswith(".html"))
    page = Path(client.download_artifacts(logger.run_id, f"report/{name}")).read_text()
    assert page.count('"action"') <= 500 + 5  # decisions, and the name of the column
    assert all(size < 500_000 for size in sizes.values())


ALARM = Decision(
    condition=Condition.SPIKING, seen="loss 9", done="watching the next losses", mode="watch",
    expected="back at 1", reason="loss 9; watching the next losses",
)  # fmt: skip
BACK = Decision(seen="it is back", done="nothing changes", reason="it is back; nothing changes")


def test_the_decisions_table_tells_what_came_of_each(logger):
    back = BACK._replace(outcome="recovered", settles=5, mode="cruise")
    run = fit(logger, Script(s5=ALARM, s8=back), max_steps=12)
    client = MlflowClient(logger.tracking_uri)
    with open(client.download_artifacts(logger.run_id, "report/decisions.csv")) as file:
        head, alarm, last = csv.reader(file)
    assert ",".join(head) == ("step,mode,action,seen,done,expected,outcome,loss,scale,condition")
    told = ["5", "watch", "watch", "loss 9", "watching the next losses", "back at 1", "recovered"]
    assert alarm[:7] == told
    assert last[:7] == ["8", "cruise", "observe", "it is back", "nothing changes", "", ""]
    table = Path(client.download_artifacts(logger.run_id, "report/decisions.md")).read_text()
    assert f"| {' | '.join(told)} |" in table
    first = "step 5: loss 9; watching the next losses → recovered"
    assert run.data.tags["lr_callbacks.first_alarm"] == first
    assert f"First alarm: {first}." in run.data.tags["mlflow.note.content"]


def test_a_decision_without_an_alarm_is_no_first_alarm_in_the_note_the_digest_and_the_explanation(
    logger, capsys
):
    calm = Decision(scale=0.5, reason="half the rate")
    tags = fit(logger, Script(s5=calm), max_steps=12).data.tags
    assert "lr_callbacks.first_alarm" not in tags
    assert "There was no alarm." in tags["mlflow.note.content"]
    assert tags["lr_callbacks.decisions"] == "1 × no alarm: cut"
    assert "1 × no alarm: cut" in capsys.readouterr().out
    assert main(["explain", str(logger.journal_path)]) == 0
    assert "around step 5, the first decision; there was no alarm" in capsys.readouterr().out


def test_an_alarm_after_other_decisions_is_the_first_alarm(logger):
    calm = Decision(scale=0.5, reason="half the rate")
    tags = fit(logger, Script(s3=calm, s5=TROUBLE), max_steps=12).data.tags
    assert tags["lr_callbacks.first_alarm"] == "step 5: spike (9.1 > 6.7)"


def test_what_a_search_provokes_is_neither_an_alarm_nor_a_rate_of_the_training(logger, capsys):
    module = Regression(lambda parameters: torch.optim.SGD(parameters, lr=20.0, momentum=0.9))
    callbacks = [AdaptiveLearningRate(Search()), RunReport()]
    made = trainer(callbacks, logger, max_steps=300, max_epochs=-1)
    made.fit(module, loader())
    run = whole(logger.journal_path)
    ((first, last),) = tried(run.decisions)
    assert any(row["condition"] in ALARMS for step, row in run.decisions if step <= last)
    rates = dict(run.series["lr/SGD"])
    own = [rate for step, rate in rates.items() if step > last]
    told = summary(run, run.verdict)["rates"]["SGD"]
    assert (told["first"], told["last"]) == (20.0, pytest.approx(rates[299], rel=1e-5))
    assert told["lowest"] == pytest.approx(min(own), rel=1e-5)
    assert told["highest"] == pytest.approx(max(own), rel=1e-5)
    tags = MlflowClient(logger.tracking_uri).get_run(logger.run_id).data.tags
    assert tags["lr_callbacks.verdict"] == "healthy"
    assert "lr_callbacks.first_alarm" not in tags
    assert "There was no alarm." in tags["mlflow.note.content"]
    probed = [rate for step, rate in rates.items() if first < step <= last]
    span = f"{min(probed):.3g} to {max(probed):.3g}"
    said = f"The search tried rates of {span} in steps {first} to {last}."
    assert said in tags["mlflow.note.content"]
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{min(own):.3g} to {max(own):.3g}" in printed


def test_an_alarm_after_a_search_is_the_first_alarm():
    back = {"condition": "stable", "action": "roll back", "mode": "ramp"}
    jump = {"condition": "spiking", "action": "compare", "mode": "trials"}
    found = {"condition": "stable", "action": "roll back", "mode": "cruise"}
    alarm = {"condition": "spiking", "action": "watch", "mode": "watch"}
    rows = [(0, back), (9, jump), (30, found)]
    assert tried([*rows, (70, alarm)]) == [(0, 30)]
    assert tried(rows[:2]) == [(0, math.inf)]
    assert first_alarm([*rows, (70, alarm)]) == (70, alarm)
    assert first_alarm(rows) is None
    assert first_alarm([(9, {**jump, "mode": ""})]) == (9, {**jump, "mode": ""})  # of no search
    run = History({}, {"train/loss": [(t, 1.0) for t in range(99)]}, rows, 0, 1)
    assert run.verdict == "healthy"
    assert run._replace(decisions=[*rows, (70, alarm)]).verdict == "recovered"


def test_the_journal_among_the_artifacts_holds_every_step(logger):
    fit(logger, Script(), max_steps=12)
    client = MlflowClient(logger.tracking_uri)
    with gzip.open(client.download_artifacts(logger.run_id, "report/journal.jsonl.gz")) as file:
        rows = [json.loads(line) for line in file]
    assert [r["s"] for r in rows if "train/loss" in r.get("m", {})] == list(range(12))


def test_a_run_that_breaks_is_reported_too(logger):
    class Breaks(Regression):
        def training_step(self, batch, batch_idx):
            if self.global_step == 20:
                raise RuntimeError("boom")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="boom"):
        fit(logger, Script(), Breaks(), max_steps=40)
    run = MlflowClient(logger.tracking_uri).get_run(logger.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["lr_callbacks.verdict"] == "healthy"
    assert "report/figure.png" in artifacts(logger)


def test_a_run_without_a_journal_or_without_steps_is_left_alone(logger, tmp_path):
    trainer([AdaptiveLearningRate(), RunReport()]).fit(Regression(), loader())
    trainer([RunReport()], logger, max_steps=0).fit(Regression(), loader())
    assert not list(tmp_path.rglob("figure.png"))


def test_a_report_that_fails_is_told_and_the_training_ends_well(logger):
    trainer_ = trainer([AdaptiveLearningRate(), RunReport()], logger)
    module = Regression()

    def block(*_):
        logger.journal_path.with_suffix("").with_suffix(".report").write_text("in the way")

    module.on_train_end = block
    with pytest.warns(UserWarning, match="The report of the run could not be made"):
        trainer_.fit(module, loader())
    assert MlflowClient(logger.tracking_uri).get_run(logger.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("losses", "conditions", "said"),
    [
        ([1.0, 0.5, 0.4], [], "healthy"),
        ([1.0, 0.5, 0.4], ["stalled"], "healthy"),
        ([1.0, 9.0, 0.4] + [0.4] * 12, ["spiking"], "recovered"),
        ([1.0, 0.9, 1.1, 1.05], [], "healthy"),
        ([2.0**step for step in range(20)], [], "diverged"),
        ([1.0] + [1e6] * 30, ["diverging"], "diverged"),
        ([1.0, 0.5, float("nan")], ["nonfinite"], "diverged"),
        ([float("nan")], [], "diverged"),
    ],
)
def test_the_verdict_says_how_a_run_went(losses, conditions, said):
    decisions = [(0, {"condition": condition}) for condition in conditions]
    run = History({}, {"train/loss": list(enumerate(losses))}, decisions, 0, 1)
    assert run.verdict == said


def test_a_loss_that_is_followed_by_its_name_is_the_one_told(logger):
    class Two(Regression):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return {"loss": loss, "other": loss.detach() * 0 + 7.5}

    callbacks = [AdaptiveLearningRate(Script(s5=TROUBLE), monitor="other"), RunReport()]
    trainer(callbacks, logger, max_steps=12).fit(Two(), loader())
    tags = MlflowClient(logger.tracking_uri).get_run(logger.run_id).data.tags
    assert "**recovered** after 12 steps" in tags["mlflow.note.content"]
    assert "Loss from 7.5 to 7.5." in tags["mlflow.note.content"]
    assert "report/figure.png" in artifacts(logger)


def test_a_run_that_is_gone_on_with_by_its_id_says_that_it_began_before(logger, uri, tmp_path):
    module = Regression()
    first = trainer([AdaptiveLearningRate(Hold())], logger, max_steps=8)
    first.fit(module, loader())
    first.save_checkpoint(tmp_path / "eight.ckpt")
    more = JournaledMLFlowLogger(
        "e", tracking_uri=uri, run_id=logger.run_id, journal_dir=str(tmp_path / "elsewhere")
    )
    again = trainer([AdaptiveLearningRate(Hold()), RunReport()], more, max_steps=12)
    again.fit(module, loader(), ckpt_path=tmp_path / "eight.ckpt")
    note = MlflowClient(uri).get_run(logger.run_id).data.tags["mlflow.note.content"]
    assert "after 4 steps" in note
    assert "from step 8 on; what came before is in no journal here" in note


@pytest.mark.parametrize("activated", [True, False])
def test_the_command_that_is_told_works_from_here(activated, monkeypatch, tmp_path):
    own = Path(sys.executable).parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{own}:/usr/bin" if activated else "/nowhere")
    assert command("mlflow") == ("mlflow" if activated else str(own / "mlflow"))
    monkeypatch.chdir(own.parent)
    assert command("mlflow") == ("mlflow" if activated else f"{own.name}/mlflow")
