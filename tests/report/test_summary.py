"""The summary of a run: 2 kB of JSON at most, whatever the run was."""

import json
import math
import sys

from hypothesis import given
from hypothesis import strategies as st

from lr_callbacks.report.history import History
from lr_callbacks.report.summary import command, summary, written
from lr_callbacks.tracking.journal import OVERRIDES

numbers = st.floats(allow_nan=True, allow_infinity=True)
losses = st.lists(numbers, min_size=1, max_size=30)
rows = st.fixed_dictionaries(
    {"action": st.sampled_from(["roll back", "compare"]), "condition": st.just("diverging")},
    optional={"outcome": st.sampled_from(["recovered to a worse level", ""])},
)


@given(
    losses, st.dictionaries(st.text(max_size=300), losses, max_size=30),
    st.lists(rows, max_size=60), st.text(max_size=500), st.text(max_size=3000),
)  # fmt: skip
def test_any_run_is_summed_up_in_two_kilobytes_of_strict_json(loss, rates, decided, name, line):
    series = {"train/loss": list(enumerate(loss))}
    series |= {f"lr/{optimizer}": list(enumerate(values)) for optimizer, values in rates.items()}
    decisions = list(enumerate(decided))
    run = History({"run_name": name, "command": line}, series, decisions, 0, 1000)
    said = written(summary(run, "recovered to a worse level"))
    assert len(said.encode()) <= 2000
    told = json.loads(said, parse_constant=lambda word: 1 / 0)  # NaN is no JSON
    assert (told["decided"], told["steps"]) == (len(decided), len(loss))
    assert told["verdict"] == "recovered to a worse level"
    known = {step for step, _ in decisions}
    assert all(row["step"] in known for row in told["decisions"])
    last = loss[-1]
    assert told["loss"]["last"] == (float(f"{last:.6g}") if math.isfinite(last) else None)


def test_the_first_and_the_last_of_many_decisions_are_told():
    row = {"action": "roll back", "condition": "diverging", "outcome": "weights harmed"}
    run = History({}, {"train/loss": [(0, 1.0)]}, [(t, row) for t in range(500)], 0, 0)
    told = summary(run, "diverged")
    steps = [row["step"] for row in told["decisions"]]
    assert (steps[0], steps[-1], told["decided"]) == (0, 499, 500)
    assert 6 <= len(steps) < 500


def test_the_command_of_a_job_of_a_sweep_is_the_one_that_trains_it_alone():
    tags = {OVERRIDES: json.dumps(["optimizer.lr=0.1", "callbacks=[guard,alerts]"])}
    run = History({"command": "lr-train -m x"}, {}, [], 0, 0, tags=tags)
    assert command(run) == "lr-train optimizer.lr=0.1 'callbacks=[guard,alerts]'"
    assert command(run._replace(tags={})) == "lr-train -m x"


def test_no_secret_of_the_command_line_is_recorded(uri, monkeypatch):
    from lr_callbacks import JournaledMLFlowLogger
    from lr_callbacks.report.history import history

    words = ["train.py", "+api_token=abc", "urls=[slack://abc/d]", "uri=http://me:abc@host/x"]
    monkeypatch.setattr(sys, "argv", words)
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    assert "abc" not in logger.journal_path.read_text()
    assert "uri=http://…@host/x" in command(history(logger.journal_path))
