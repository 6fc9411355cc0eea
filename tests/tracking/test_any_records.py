"""No record blocks a journal or ends a training, whatever it holds."""

import enum
import json
import logging
import os

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from recorded import journals, only_run, series
from torch.utils.data import DataLoader
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport
from lr_callbacks.cli import main
from lr_callbacks.tracking.conversion import plain, text
from lr_callbacks.tracking.journal import Journal, read
from lr_callbacks.tracking.outbox import Outbox

NOT_UTF8 = os.fsdecode(b"caf\xe9.txt")


class Colour(enum.Enum):
    RED = 1


class Mute:
    """Something that cannot say what it is."""

    def __repr__(self):
        raise RuntimeError("no")


def holding_itself():
    made = {"lr": 0.1}
    made["again"] = made
    return made


def send_all(journal):
    outbox = Outbox(journal.path, journal.header)
    while outbox.send():
        continue
    return outbox


@pytest.mark.parametrize(
    "params",
    [
        {"weights": dict(zip(np.unique([0, 1, 1]), [0.7, 0.3], strict=True))},
        {Colour.RED: 1, "palette": {Colour.RED: 0.5}},
        {("a", 1): 1, "sizes": {(3, 3): 8}},
        {None: 1, 2.5: {b"raw": 1, frozenset({1}): 2}},
        {"file": NOT_UTF8, NOT_UTF8: "name", "zero": "a\0b"},
        {"array": np.arange(3), "tensor": torch.ones(2), "number": np.float32(0.5)},
        {"mute": Mute(), "sets": {1, 2}},
        holding_itself(),
    ],
    ids=["numpy", "enum", "tuple", "none", "no_utf8", "arrays", "mute", "cycle"],
)
def test_hyperparameters_with_keys_and_values_of_any_type_end_no_training(uri, params):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    module = Regression()
    fit = trainer([AdaptiveLearningRate(), RunReport()], logger)
    logger.log_hyperparams(params)
    logger.log_hyperparams({"after": 1})
    fit.fit(module, loader())
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert len(series(uri, run.info.run_id, "train/loss")) == 12
    assert run.data.params["after"] == "1"
    assert len(run.data.params) > 1
    assert not list(journals(logger.journal_dir)[0].parent.glob("*.rejected"))


def test_the_configuration_file_keeps_numbers_of_numpy_as_numbers(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    logger.log_hyperparams({"lr": np.float64(0.5), "weights": {np.int64(3): torch.tensor(2)}})
    logger.finalize("success")
    path = MlflowClient(uri).download_artifacts(only_run(uri).info.run_id, "config.yaml")
    with open(path) as file:
        assert yaml.safe_load(file) == {"lr": 0.5, "weights": {"3": 2}}


def test_a_metric_that_is_no_number_is_reported_once_and_the_others_arrive(uri, caplog):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    odd = {"none": None, "many": torch.ones(3), "complex": 1j, "huge": 10**400, "text": "x"}
    for step in (np.int64(0), torch.tensor(1), 2.0):
        logger.log_metrics({"a": np.float32(0.5), 7: torch.tensor(2.0), NOT_UTF8: 1, **odd}, step)
    logger.finalize("success")
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert series(uri, run.info.run_id, "a") == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert series(uri, run.info.run_id, "7") == [(0, 2.0), (1, 2.0), (2, 2.0)]
    assert sum("Discarding" in r.message for r in caplog.records) == len(odd)


def test_tags_and_names_of_any_text_arrive(uri):
    logger = JournaledMLFlowLogger(
        f"experiment {NOT_UTF8}", f"run {NOT_UTF8}", tracking_uri=uri, tags={NOT_UTF8: 1, 5: "five"}
    )
    logger.log_tags({np.int64(3): NOT_UTF8, "good": 1, "bad[name]": 2})
    logger.finalize("success")
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == r"run caf\udce9.txt"
    tags = run.data.tags
    assert (tags["3"], tags["good"], tags["5"]) == (r"caf\udce9.txt", "1", "five")


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.text(max_size=8), st.text(st.characters(), max_size=20), max_size=5))
@example({"\udc00": "\ud800", "\0": "\0"})
def test_parameters_and_tags_of_any_text_cost_no_point(uri, tmp_path_factory, held):
    about = {"uri": uri, "experiment": "e", "artifacts": None, "run_name": "n", "tags": held}
    folder = tmp_path_factory.mktemp("j")
    journal = Journal(folder, {**about, "run": folder.name})
    journal.append({"p": held}, {"g": held}, {"m": {"a": 1.0}, "s": 0}, {"end": "FINISHED"})
    outbox = send_all(journal)
    assert not outbox.waiting()
    assert series(uri, outbox.run_id, "a") == [(0, 1.0)]
    assert MlflowClient(uri).get_run(outbox.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    "record",
    [
        {"m": {"a": 2.0}, "s": 2**70},  # the database takes no such number
        {"m": {"a": "no number"}, "s": 1},
        {"m": ["a", 1.0], "s": 1},
        {"m": {"a": 2.0}, "s": "one"},
        {"i": {"name": "no size"}},
        {"a": ["too short"]},
        {"end": "NO SUCH STATUS"},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_stored_is_set_aside_and_reported_once(
    uri, tmp_path, caplog, record
):
    about = {"uri": uri, "experiment": "e", "artifacts": None, "run_name": "n", "tags": {}}
    journal = Journal(tmp_path / "journals", {**about, "run": "identity"})
    for step in range(40):
        journal.append({"m": {"loss": float(step)}, "s": step})
        if step == 20:
            journal.append(dict(record))
    journal.append({"end": "FINISHED"})
    with caplog.at_level(logging.WARNING):
        assert main(["sync", str(tmp_path)]) == 0
    run = only_run(uri)
    assert series(uri, run.info.run_id, "loss") == [(t, float(t)) for t in range(40)]
    assert run.info.status == "FINISHED"
    assert run.data.tags["lr_callbacks.refused"] == "1"
    (aside,) = journal.path.with_suffix(".rejected").read_text().splitlines()
    assert json.loads(aside)["error"]
    assert sum("refuses a record" in r.message for r in caplog.records) == 1


@pytest.mark.parametrize(
    "ack", ["", "[1, 2]", "{}", '{"ended": false}', '{"offset": "x"}', '{"offset": 1e9}', "null"]
)
def test_an_acknowledgement_of_any_content_costs_nothing(uri, tmp_path, ack, capsys):
    made = []
    for name in ("one", "two"):
        about = {"uri": uri, "experiment": "e", "artifacts": None, "run_name": name, "tags": {}}
        journal = Journal(tmp_path / "journals", {**about, "run": name})
        journal.append({"m": {"a": 1.0}, "s": 0}, {"end": "FINISHED"})
        made.append(journal)
    made[0].path.with_suffix(".ack").write_text(ack)
    assert main(["sync", str(tmp_path)]) == 0
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert [(run.info.status, run.data.metrics) for run in runs] == [("FINISHED", {"a": 1.0})] * 2


def test_a_journal_whose_first_line_lacks_something_fails_alone(uri, tmp_path, capsys):
    folder = tmp_path / "journals"
    Journal(folder, {"run": "no address"}).append({"m": {"a": 1.0}, "s": 0})
    about = {"uri": uri, "experiment": "e", "artifacts": None, "run_name": "n", "tags": {}}
    Journal(folder, {**about, "run": "good"}).append({"m": {"a": 1.0}, "s": 0}, {"end": "FAILED"})
    assert main(["sync", str(tmp_path)]) == 1
    assert "its first line does not tell 'uri'" in capsys.readouterr().out
    assert only_run(uri).data.metrics == {"a": 1.0}


def test_a_journal_takes_records_of_any_kind(tmp_path):
    journal = Journal(tmp_path, {"run": "r", "tags": {np.int64(1): Mute()}})
    journal.append({"s": 0, "d": {Colour.RED: holding_itself(), "mute": Mute()}})
    first, second = (line.record for line in read(journal.path))
    assert first["tags"] == {"1": "<Mute>"}
    assert second["d"]["mute"] == "<Mute>"


class Unsized(torch.utils.data.Dataset):
    """A data set of which Lightning learns the length by the sampler alone."""

    tensors = ("no", "tensors")

    def __getitem__(self, index):
        return loader().dataset[index]

    def __len__(self):
        raise NotImplementedError


def test_a_data_set_that_cannot_be_described_ends_no_training(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    data = DataLoader(Unsized(), batch_size=8, sampler=range(32))
    trainer([AdaptiveLearningRate(), RunReport()], logger).fit(Regression(), data)
    assert only_run(uri).info.status == "FINISHED"


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.sets(st.text()))
)
def test_what_is_made_plain_is_json_and_encodes(value):
    json.dumps(plain(value)).encode()
    text(value).encode()
