"""Sweeps: resumed, compared, searched by Optuna; a job that raises or diverges ends nothing."""

import json
import math
import os

import preloaded
import pytest
from mlflow.tracking import MlflowClient

from lr_callbacks.cli import main
from lr_callbacks.report.compare import compare
from lr_callbacks.report.sweep import Job, figure

QUIET = ["trainer=debug", "trainer.enable_progress_bar=false", "test=false", "data.batch_size=256"]
RATES = ["optimizer=sgd", "callbacks=none,guard", "optimizer.lr=0.1,1e30"]
SEARCH = [
    "hparams_search=optuna", "hydra.sweeper.n_trials=4", "optimizer=sgd", "logger=none",
    "hydra.sweeper.sampler.n_startup_trials=4", "callbacks=none",
    "hydra.sweeper.params={optimizer.lr: 'choice(-1, 0.1, 1e30)'}",
]  # fmt: skip

RUNNER = """
import os, sys
from lr_callbacks.app.train import main
for arguments in {sweeps!r}:
    sys.argv = ["lr-train", *arguments]
    os.environ.pop("HYDRA_FULL_ERROR", None)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    print("ANSWER", repr(code), flush=True)
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep; the same with one rate more, resumed; a search. One process for all."""
    folder = tmp_path_factory.mktemp("swept")
    sweeps = [
        ["-m", *RATES, *QUIET],
        ["-m", *RATES[:-1], RATES[-1] + ",-1,1", *QUIET, "skip_finished=true"],
        [*SEARCH, *QUIET],
    ]
    told = preloaded.run(
        "-c",
        RUNNER.format(sweeps=sweeps),
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"},
    )
    answers = [line[7:] for line in told.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == 3, told.stderr
    return folder, answers, told


@pytest.fixture(scope="module")
def store(swept):
    return f"sqlite:///{swept[0]}/mlflow.db"


def test_a_sweep_with_a_job_that_diverges_is_finished(swept):
    assert swept[1][0] == "0"


def test_a_resumed_sweep_runs_only_what_is_not_finished(swept, store):
    _, answers, told = swept
    assert "`optimizer.lr` must be a positive finite number, got -1.0." in answers[1]
    client = MlflowClient(store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "lr_callbacks"]
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if r.data.tags.get("lr_callbacks.sweep") == "parent"]
    children = [r for r in runs if r not in parents]
    assert [p.info.status for p in parents] == ["FAILED", "FINISHED"]
    assert len(children) == 8
    # All are shown under the newest parent, also those that ran under the first.
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parents[0].info.run_id}
    assert sorted(c.info.status for c in children) == ["FAILED"] * 2 + ["FINISHED"] * 6
    assert told.stdout.count("already FINISHED in MLflow, not run again") == 4
    failed = {k: v for k, v in parents[0].data.tags.items() if "failed_job" in k}
    assert failed
    for name, said in failed.items():
        assert name.startswith("lr_callbacks.failed_job.")
        assert "optimizer.lr=-1" in said
    assert "Traceback" not in told.stderr


def test_a_search_outlives_trials_that_raise_or_diverge(swept):
    folder, answers, told = swept
    assert answers[2] == "0", told.stderr
    (found,) = folder.rglob("optimization_results.yaml")
    said = found.read_text()
    assert "optimizer.lr: 0.1" in said
    value = float(said.split("best_value:")[1].split()[0])
    assert 0 < value < 10


def test_the_jobs_of_a_sweep_are_compared_method_by_method(store):
    jobs = compare(store, "last", "val/loss")
    assert [job.method for job in jobs] == ["callbacks=guard"] * 4 + ["callbacks=none"] * 4
    assert [job.rate for job in jobs[4:]] == [-1, 0.1, 1, 1e30]
    (lost,) = [job for job in jobs if (job.method, job.rate) == ("callbacks=none", 1e30)]
    assert lost.verdict == "diverged"
    assert not lost.final < 1e3
    drawn = figure(jobs, "val/loss").axes[0]
    assert [text.get_text() for text in drawn.get_legend().get_texts()] == [
        "callbacks=guard",
        "callbacks=none",
    ]


def test_a_sweep_leaves_its_figure_with_its_parent(store):
    client = MlflowClient(store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "lr_callbacks"]
    parents = client.search_runs([experiment.experiment_id], "tags.`lr_callbacks.sweep` = 'parent'")
    for parent in parents:
        names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
        assert {"children.md", "sweep.png"} <= names


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 1.0)])
def test_a_sweep_of_very_many_jobs_has_two_hundred_marks(rates):
    jobs = [
        Job(f"m{i % 3}", rates[i % len(rates)], "0", math.nan if i % 7 == 0 else 1.0, "", "", "")
        for i in range(2000)
    ]
    lines = figure(jobs, "val/loss").axes[0].lines
    marked = [line for line in lines if line.get_alpha() or line.get_marker() == "x"]
    assert 150 <= len(marked) <= 200
    assert {line.get_marker() for line in lines} >= {"x", "o", "s", "v"}


def test_the_names_of_many_methods_have_room(tmp_path):
    jobs = [Job(f"optimizer=o{i}, schedule=cosine", 0.1, "0", 1.0, "", "", "") for i in range(54)]
    figure(jobs, "val/loss").savefig(tmp_path / "compare.png")  # matplotlib would warn


def test_a_comparison_is_plain_text_in_a_pipe_and_json_where_asked(swept, capsys, monkeypatch):
    monkeypatch.chdir(swept[0])
    assert main(["compare", "last"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["method", "rate", "seed", "val/loss", "verdict", "status", "run_id"]
    assert len(rows) == 9
    assert rows[-1] == "figure: compare.png"
    assert (swept[0] / "compare.png").stat().st_size > 10_000
    assert main(["compare", "last", "--json", "--metric", "train/loss"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["status"] for row in said} == {"FAILED", "FINISHED"}
    assert all(row["final"] is None or math.isfinite(row["final"]) for row in said)


@pytest.mark.parametrize(
    ("limits", "jobs", "told"),
    [
        ([], 8, []),
        (["--at-most", "inf"], 8, ["is FAILED"] * 2 + ["diverged"]),
        (["--at-most", "-1"], 8, ["is FAILED"] * 2 + ["more than -1"] * 5 + ["diverged"]),
        (["--at-least", "0"], 8, ["is FAILED"] * 2 + ["diverged"]),
        (["--at-least", "0", "--metric", "nothing"], 0, ["No job has the metric 'nothing'"]),
    ],
)
def test_a_limit_makes_the_exit_code_tell_whether_every_job_is_within(
    swept, limits, jobs, told, capsys, monkeypatch
):
    monkeypatch.chdir(swept[0])
    assert main(["compare", "last", *limits]) == int(bool(told))
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == (jobs + 2 if jobs else 0)
    lines = said.err.splitlines()
    assert len(lines) == len(told)
    for words in told:
        assert any(words in line for line in lines)


def test_a_limit_that_is_no_number_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as end:
        main(["compare", "last", "--at-most", "nan"])
    assert end.value.code == 2
    assert "argument --at-most: must be a number, got 'nan'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "There is no sweep 'nothing'; the newest are 'sweep "),
        (["last", "--metric", "bogus"], "No job has the metric 'bogus'; there are "),
        (["last", "--output", "/proc/no/figure.png"], "/proc/no/figure.png"),
        (["last", "--uri", "http://127.0.0.1:9"], "refused"),
        (["last", "/"], "There is no mlflow.db in /; give its folder or --uri."),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    swept, arguments, message, capsys, monkeypatch
):
    monkeypatch.chdir(swept[0])
    assert main(["compare", *arguments]) == 1
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
