"""``lr-callbacks explain``: what happened around a step, from a journal and from MLflow alike."""

import json
import math

import pytest
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport
from lr_callbacks.cli import main
from lr_callbacks.tracking.journal import Journal


class Flooded(Regression):
    """Its targets are a thousand times too large for three steps, and once not finite."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        factor = 1000.0 if 60 <= self.seen < 63 else math.nan if self.seen == 100 else 1.0
        self.seen += 1
        return (self.model(x) - factor * y).pow(2).mean()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run with two troubles, and its logger."""
    folder = tmp_path_factory.mktemp("explained")
    uri = f"sqlite:///{folder}/mlflow.db"
    logger = JournaledMLFlowLogger("e", "the run", tracking_uri=uri)
    callbacks = [AdaptiveLearningRate(log_gradients=True), RunReport()]
    trainer(callbacks, logger, max_steps=140, max_epochs=-1).fit(Flooded(), loader())
    return folder, logger


@pytest.fixture
def ask(trained, monkeypatch, capsys):
    """Ask in the folder of the run; returns the exit code, what is printed, what is an error."""
    monkeypatch.chdir(trained[0])

    def asked(*arguments):
        code = main(["explain", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return asked


def test_the_first_alarm_of_the_newest_run_is_explained_in_sentences(ask):
    code, said, _ = ask("last")
    assert code == 0
    head, around, _, *lines = said.splitlines()
    assert head == "the run: recovered, 140 steps"
    assert around == "around step 60, the first alarm (steps 35 to 85):"
    told = "\n".join(line for line in lines if line.startswith("- "))
    assert "- Before, the loss lay between " in told
    assert "- The loss rose " in told
    assert "- The gradient norm of SGD rose " in told
    assert "- Step 60, watch: loss " in told
    assert "Outcome: recovered." in told
    assert "- Steps 60, 61 and 62 were scaled down" in told or "- Steps 60 to 62 were" in told
    rows = {line.split()[0]: line.split() for line in lines if line[:1].isdigit()}
    assert list(rows) == [str(step) for step in range(52, 69)]
    assert "clipped" in " ".join(rows["61"])
    assert "other decisions at 100" in said


def test_a_step_that_is_asked_for_is_explained(ask):
    code, said, _ = ask("the run", "--around", "100")
    assert code == 0
    assert "around step 100, as asked (steps 75 to 125):" in said
    assert "- The loss was not finite at step 100." in said
    assert "- Step 100 was skipped, as loss or gradients were not finite." in said


@pytest.mark.parametrize("around", [None, "0", "61", "139"])
def test_mlflow_tells_the_same_as_the_journal(trained, ask, around):
    chosen = ["--json", *(["--around", around] if around else [])]
    code, here, _ = ask(str(trained[1].journal_path), *chosen)
    there = ask(trained[1].run_id, "--tracking-uri", trained[1].tracking_uri, *chosen)
    assert (code, there[0]) == (0, 0)
    here, there = json.loads(here), json.loads(there[1])
    extremes = {"train/loss_min", "train/loss_max", "health/nonfinite"}
    here["series"] = {n: v for n, v in here["series"].items() if n not in extremes}
    assert here["series"].keys() == there["series"].keys()
    for mine, others in zip(here.pop("decisions"), there.pop("decisions"), strict=True):
        assert {n: str(mine[n]) for n in others if n != "loss"} == {
            n: str(v) for n, v in others.items() if n != "loss"
        }
    assert sorted(here.pop("told")) == sorted(there.pop("told"))
    assert here == there


def test_an_id_that_a_journal_knows_needs_no_store(trained, ask):
    code, said, _ = ask(trained[1].run_id, "--around", "100")
    assert (code, said.startswith("the run: ")) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nobody"], "There is no run 'nobody' under "),
        (
            ["last", "--around", "140"],
            "`--around` must be a step of the run, got 140; it made the ",
        ),
        (["0" * 32], "MLflow: Run with id=0"),
        (["mlflow.db"], "mlflow.db is not a journal."),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(ask, arguments, told):
    code, said, error = ask(*arguments)
    assert (code, said) == (1, "")
    assert told in error
    assert error.count("\n") == 1


def test_a_run_without_losses_or_trouble_is_told_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    journal = Journal(tmp_path, {"run_name": "short"})
    assert main(["explain", "last"]) == 1
    assert "the run has no losses yet." in capsys.readouterr().err
    journal.append({"m": {"train/loss": 2.0, "lr/SGD": 0.1}, "s": 0})
    journal.close()
    assert main(["explain", "last"]) == 0
    said = capsys.readouterr().out
    assert "around step 0, the end; there was no alarm and no decision (steps 0 to 0):" in said
    assert said.splitlines()[-1].split() == ["0", "2", "0.1"]
