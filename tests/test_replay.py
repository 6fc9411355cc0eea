"""``lr-callbacks replay`` on a CSV file, a journal and an MLflow run."""

import math
import subprocess
import sys

import pytest
from mlflow.tracking import MlflowClient

from lr_callbacks.cli import main
from lr_callbacks.detectors import Spike
from lr_callbacks.policies import Guard, Hold
from lr_callbacks.replay import build
from lr_callbacks.tracking.curve import Point, load
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
    assert said[0].split() == ["step", "condition", "action", "loss", "scale", "reason"]
    assert said[1].split()[:3] == ["600", "spiking", "cut"]
    assert said[-1] == f"120 losses, {len(said) - 2} decisions; figure: {figure}"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_settings_choose_policy_and_detectors(curve, tmp_path, capsys):
    figure = str(tmp_path / "figure.png")
    main(["replay", str(curve), "policy=hold", "detectors=spike", "--output", figure])
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:-1]] == ["observe"]
    main(["replay", str(curve), "detectors=progress", "--output", figure])
    assert "120 losses, 0 decisions" in capsys.readouterr().out


def test_settings_build_a_controller():
    controller = build(["policy=hold", "policy.quiet=9", "detectors=[spike]", "spike.width=21"])
    assert controller.policy == Hold(quiet=9)
    assert controller.detectors == {"spike": Spike(width=21)}
    assert build(["policy.exhausted=floor"]).policy == Guard(exhausted="floor")
    assert list(build([]).detectors) == ["spike", "drift", "oscillation", "progress"]


def test_a_journal_is_read_with_its_scheduled_rates(journal):
    points = load(str(journal))
    assert [p.loss for p in points] == LOSSES
    assert points[59] == Point(59, LOSSES[59], 0.05)
    assert points[60] == Point(60, LOSSES[60], 0.1)


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
        (["{curve}", "detectors=spikes"], "`detectors` must be among spike, drift"),
        (["{curve}", "spike.widht=9"], "unknown setting `spike.widht`; did you mean `width`."),
        (["{curve}", "spike.width=x"], "`spike.width` must be a number, got 'x'."),
        (["{curve}", "spike.width=3"], "`width` must be at least 8 losses, got 3."),
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
