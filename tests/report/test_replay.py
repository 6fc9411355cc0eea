"""``lr-callbacks replay`` on a CSV file, a journal and an MLflow run."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport
from lr_callbacks.cli import main
from lr_callbacks.detectors import Spike
from lr_callbacks.policies import Guard, Hold
from lr_callbacks.report.history import history
from lr_callbacks.report.load_curve import Point, load
from lr_callbacks.report.replay import build, replay
from lr_callbacks.report.replay import table as run_table
from lr_callbacks.tracking.journal import Journal

LOSSES = [1 + 0.01 * math.sin(t * t) + (8.0 if t in (60, 61) else 0.0) for t in range(120)]


@pytest.fixture
def curve(tmp_path):
    path = tmp_path / "losses.csv"
    rows = [f"{10 * t},{loss},0.1\n" for t, loss in enumerate(LOSSES)]
    path.write_text("step,loss,lr\n" + "".join(rows))
    return path


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path, {"experiment": "e"})
    for step, loss in enumerate(LOSSES):
        journal.append({"m": {"train/loss": loss, "lr/sgd": 0.05}, "s": step})
    journal.append({"m": {"scale/sgd": 0.5}, "s": 60})
    journal.close()
    return journal.path


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("e")).info.run_id
    for step, loss in enumerate([*LOSSES[:70], math.nan, math.inf]):
        client.log_metric(run, "train/loss", loss, step=step)
    return run, uri


def test_a_table_of_what_would_have_been_decided_and_a_figure(curve, tmp_path, capsys):
    figure = tmp_path / "figure.png"
    assert main(["replay", str(curve), "--output", str(figure)]) == 0
    said = capsys.readouterr().out.splitlines()
    columns = "step mode action seen done expected outcome loss scale condition"
    assert said[0].split() == columns.split()
    assert said[1].split()[:3] == ["600", "watch", "watch"]
    assert said[-1] == f"120 losses, {len(said) - 2} decisions; figure: {figure}"
    assert figure.read_bytes().startswith(b"\x89PNG")


RISES = {
    "for good": [1.0] * 100 + [9.0] * 100,
    "for a while": [1.0] * 100 + [9.0] * 5 + [1.0] * 95,
    "for as long as held weights would need": [1.0] * 100 + [9.0] * 4 + [1.0] * 96,
    "not finite": [1.0] * 100 + [math.nan] * 6 + [1.0] * 94,
    "not finite for good": [1.0] * 100 + [math.nan] * 100,
}


@pytest.mark.parametrize("rise", RISES)
def test_a_recorded_curve_does_not_say_what_older_weights_would_have_given(rise):
    noise = [0.01 * math.sin(t * t) for t in range(200)]
    losses = [level + n for level, n in zip(RISES[rise], noise, strict=True)]
    points = [Point(step, loss) for step, loss in enumerate(losses)]
    decisions = replay(build([]), points)
    rows = run_table(points, decisions)
    compared = [row["outcome"] for _, row in rows if row["action"] == "compare"]
    assert compared
    assert set(compared) == {"unknown: a recorded curve cannot answer"}
    assert {d.scale for d in decisions} == {1.0}  # nothing is known that would lower the rate
    assert not [row for _, row in rows if "those give" in row["seen"] + row["reason"]]
    known = {"", "still high", "recovered", compared[0]}
    assert {row["outcome"] for _, row in rows} <= known


def test_the_table_says_that_a_recorded_curve_cannot_answer(tmp_path, capsys):
    path = tmp_path / "losses.csv"
    path.write_text("loss\n" + "".join(f"{loss}\n" for loss in RISES["for good"][:108]))
    assert main(["replay", str(path), "--output", str(tmp_path / "a.png")]) == 0
    *_, compare, after, note, _ = capsys.readouterr().out.splitlines()
    assert "unknown: a recorded curve cannot answer" in compare
    assert "what the older weights give is unknown  going on as recorded" in after
    assert note.startswith("1 times older weights would have been held; what they give is unknown")


def test_settings_choose_policy_and_detectors(curve, tmp_path, capsys):
    figure = str(tmp_path / "figure.png")
    main(["replay", str(curve), "policy=hold", "detectors=spike", "--output", figure])
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:-1]] == ["observe"]
    main(["replay", str(curve), "detectors=progress", "--output", figure])
    assert "120 losses, 0 decisions" in capsys.readouterr().out


def test_settings_build_a_controller():
    controller = build(["policy=hold", "policy.quiet=9", "detectors=[spike]", "spike.arl=3000"])
    assert controller.policy == Hold(quiet=9)
    assert controller.detectors == {"spike": Spike(arl=3000)}
    assert build(["policy.exhausted=stop"]).policy == Guard(exhausted="stop")
    assert list(build([]).detectors) == ["spike", "start", "drift", "oscillation", "progress"]


def test_a_journal_is_read_with_its_scheduled_rates(journal):
    points = load(str(journal))
    assert [p.loss for p in points] == LOSSES
    assert points[59] == Point(59, LOSSES[59], 0.05)
    assert points[60] == Point(60, LOSSES[60], 0.1)


def test_last_is_the_newest_journal_here(journal, monkeypatch):
    monkeypatch.chdir(journal.parent)
    assert load("last") == load(str(journal))
    Path("last").write_text("step,loss\n0,1\n", encoding="utf-8")
    assert load("last") == [Point(0, 1.0)]


NAN = "nan"
TABLES = {
    "empty cells": ("step,loss,val\n0,1,\n1,,2\n1,3,\n2, ,\n2,4\n", [(0, 1), (1, 3), (2, 4)]),
    "a written nan": (f"step,loss\n0,1\n1,{NAN}\n2,inf\n", [(0, 1), (1, math.nan), (2, math.inf)]),
    "tensorboard": ("Wall time,Step,Value\n1.7e9,10,0.5\n1.7e9,20,0.25\n", [(10, 0.5), (20, 0.25)]),
    "wandb": (
        '"Step","sunny-1 - train/loss","sunny-1 - train/loss__MIN","sunny-1 - train/loss__MAX"\n'
        '"4","0.5","0.5","0.5"\n"9","0.25","0.2","0.3"\n',
        [(4, 0.5), (9, 0.25)],
    ),
    "wandb history": (
        "_step,_timestamp,train_loss,trainer/global_step\n0,1,0.5,49\n1,2,,49\n2,3,0.25,99\n",
        [(49, 0.5), (99, 0.25)],
    ),
    "by step and epoch": (
        "epoch,step,train_loss_epoch,train_loss_step\n0,0,,2\n0,1,,1\n0,1,1.5,\n",
        [(0, 2), (1, 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_other_programs_are_read_and_empty_cells_are_no_losses(tmp_path, kind):
    text, expected = TABLES[kind]
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert repr([(p.step, p.loss) for p in load(str(path))]) == repr(
        [(step, float(loss)) for step, loss in expected]
    )


def test_a_table_of_several_runs_asks_for_one(tmp_path):
    path = tmp_path / "wandb.csv"
    path.write_text('"Step","a - train/loss","b - train/loss"\n"0","1","2"\n')
    with pytest.raises(ValueError, match="several columns of losses, name one: 'a - train/loss', "):
        load(str(path))
    assert load(str(path), "b - train/loss") == [Point(0, 2.0)]


class Poisoned(Regression):
    """Overflows in the backward pass at some steps, where the loss itself is finite."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.global_step in (7, 9):
            loss = loss + 0 * (self.model.weight.sum() - self.model.weight.sum().detach()).sqrt()
        return loss


@pytest.mark.parametrize("kind", ["csv", "journal", "mlflow"])
def test_a_replay_of_what_the_callback_recorded_tells_what_was_decided(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    table = CSVLogger(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store = JournaledMLFlowLogger("e", tracking_uri=uri, drain_timeout=120)
    callback = AdaptiveLearningRate(Hold(), skip=True)
    callbacks = [callback, LearningRateMonitor("step")]
    made = trainer(callbacks, [table, store], max_steps=20, log_every_n_steps=1)
    made.fit(Poisoned(poison=[12]), loader())
    files = {
        "csv": f"{table.log_dir}/metrics.csv",
        "journal": str(store.journal_path),
        "mlflow": store.run_id,
    }
    points = load(files[kind], None, uri)
    assert [p.step for p in points] == list(range(20))
    assert [p.step for p in points if p.skipped] == [7, 9, 12]
    assert [p.rate for p in points] == pytest.approx([0.05] * 20)
    said = [(step, row["condition"]) for step, row in history(store.journal_path).decisions]
    rows = run_table(points, replay(build(["policy=hold"]), points))
    assert [(step, row["condition"]) for step, row in rows] == said
    assert said


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_a_resumed_run_is_replayed_once_without_what_was_trained_in_vain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for steps, ckpt in ((7, None), (12, "saved/at.ckpt")):
        logger = JournaledMLFlowLogger("e", drain_timeout=120)
        saves = ModelCheckpoint(tmp_path / "saved", "at", every_n_train_steps=4)
        callbacks = [AdaptiveLearningRate(), RunReport(), saves]
        made = trainer(callbacks, logger, max_steps=steps, enable_checkpointing=True)
        made.fit(Regression(), loader(), ckpt_path=ckpt)
        logger._recording.close()
    for curve in (str(logger.journal_path), logger.run_id):
        assert [p.step for p in load(curve)] == list(range(12))


def test_a_followed_value_is_what_is_replayed(tmp_path):
    journal = Journal(tmp_path, {"run": "r"})
    for step in range(5):
        journal.append({"m": {"watched/critic": float(step), "lr/sgd": 0.1}, "s": step})
    assert [p.loss for p in load(str(journal.path))] == [0, 1, 2, 3, 4]


def test_a_run_is_read_from_the_store_with_its_nonfinite_losses(stored, capsys):
    run, uri = stored
    points = load(run, tracking_uri=uri)
    assert [p.loss for p in points[:70]] == LOSSES[:70]
    assert math.isnan(points[70].loss)
    assert points[71].loss == math.inf
    assert main(["replay", run]) == 0  # the store in the present folder
    assert "non-finite loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("step,value\n0,1\n", "has no column 'loss'; it has 'step', 'value'"),
        ("step,loss\n0,one\n", "line 2: could not convert string to float: 'one'"),
        ("step,loss\n", "holds no losses"),
        ("", "has no column 'loss'; it has none"),
    ],
)
def test_a_file_without_losses_is_told_in_one_sentence(tmp_path, capsys, text, said):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert main(["replay", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_bytes_that_are_no_text_are_told_in_one_sentence(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert main(["replay", str(path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.csv"], "missing.csv is neither a file nor the id of an MLflow run."),
        (["."], ". is a folder; name a CSV file or a journal in it."),
        (["0" * 32], "there is no MLflow store mlflow.db; name one with --tracking-uri."),
        (["{curve}", "polcy=hold"], "unknown setting `polcy`; did you mean `policy`."),
        (["{curve}", "zzz=1"], "unknown setting `zzz`; known are policy, detectors, spike"),
        (["{curve}", "hold"], "'hold' must be KEY=VALUE, for instance policy=hold."),
        (["{curve}", "policy=none"], "`policy` must be among guard, hold"),
        (["{curve}", "detectors=spikes"], "`detectors` must be among spike, start, drift"),
        (
            ["{curve}", "oscillation.widht=9"],
            "unknown setting `oscillation.widht`; did you mean `width`.",
        ),
        (["{curve}", "spike.arl=x"], "`spike.arl` must be a number, got 'x'."),
        (["{curve}", "spike.arl=3"], "`arl` must be above 100 losses and finite, got 3."),
        (["{curve}", "--loss", "x"], "has no column 'x'; it has 'loss', 'lr', 'step'."),
        (["{curve}", "--output", "no/such/a.png"], "No such file or directory"),
    ],
)
def test_whatever_is_wrong_is_told_in_one_sentence(
    curve, tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["replay", *[a.format(curve=curve) for a in arguments]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lr-callbacks replay: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_metric_that_a_journal_or_a_run_lacks_is_told_with_those_it_has(journal, stored):
    with pytest.raises(ValueError, match=r"has no metric 'x'; it has 'lr/sgd', 'scale/sgd', "):
        load(str(journal), "x")
    run, uri = stored
    with pytest.raises(ValueError, match="has no metric 'x'; it has 'train/loss'"):
        load(run, "x", uri)
    with pytest.raises(ValueError, match=r"MLflow: .*not found"):
        load("0" * 32, None, uri)


def test_help_shows_examples():
    code = "from lr_callbacks.cli import main; main(['replay', '--help'])"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "lr-callbacks replay losses.csv policy=hold detectors=spike,drift" in said
