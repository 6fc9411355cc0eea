"""A run's status is that of its own end, whatever went wrong before it or around it."""

import code
import contextlib
import io
import os
import signal
import sys
import textwrap

import preloaded
import pytest
from recorded import only_run
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport


class Breaking(Regression):
    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def training_step(self, batch, batch_idx):
        if self.error is not None and self.global_step == 5:
            raise self.error
        return super().training_step(batch, batch_idx)


def fit(uri, error=None):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    callbacks = [AdaptiveLearningRate(), RunReport()]
    try:
        trainer(callbacks, logger).fit(Breaking(error), loader())
    except (RuntimeError, SystemExit):
        assert error is not None
    return logger


def status(logger):
    logger._recording.close()
    return only_run(logger.tracking_uri).info.status


@pytest.fixture
def cells(monkeypatch):
    """Cells as of a notebook, which keeps the last exception for the rest of its session."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        monkeypatch.setattr(sys, name, None, raising=False)
    interpreter = code.InteractiveInterpreter({"fit": fit, "Logger": JournaledMLFlowLogger})

    def run(source, **names):
        interpreter.locals |= names
        with contextlib.redirect_stderr(io.StringIO()):
            interpreter.runcode(compile(textwrap.dedent(source), "cell", "exec"))
        return interpreter.locals

    return run


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "RuntimeError('x')"])
def test_what_an_earlier_cell_raised_says_nothing_about_a_later_training(uri, cells, error):
    cells(f"raise {error}")
    assert isinstance(sys.last_value, BaseException)
    assert status(cells("logger = fit(uri)", uri=uri)["logger"]) == "FINISHED"


@pytest.mark.parametrize(
    ("error", "own"), [("KeyboardInterrupt", "KILLED"), ("RuntimeError('x')", "FAILED")]
)
def test_a_run_that_nobody_ended_has_the_status_of_what_broke_off_its_own_cell(
    uri, cells, error, own
):
    cells("raise ValueError")
    begun = "logger = Logger('e', tracking_uri=uri); logger.log_metrics({'a': 1.0}, 0)"
    cells(f"{begun}; raise {error}", uri=uri)
    assert status(cells("")["logger"]) == own


def test_a_run_that_went_on_after_an_error_was_not_ended_by_it(uri, cells):
    cells("logger = Logger('e', tracking_uri=uri); logger.log_metrics({'a': 1.0}, 0)", uri=uri)
    cells("raise KeyboardInterrupt")
    cells("logger.log_metrics({'a': 2.0}, 1)")
    assert status(cells("")["logger"]) == "FINISHED"


@pytest.mark.parametrize("before", [KeyboardInterrupt(), RuntimeError("first"), SystemExit(1)])
@pytest.mark.parametrize(
    ("error", "own"),
    [(None, "FINISHED"), (RuntimeError("second"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_training_within_the_handling_of_an_error_has_a_status_of_its_own(
    uri, before, error, own
):
    try:
        raise before
    except BaseException:
        assert status(fit(uri, error)) == own


def test_a_status_given_by_hand_within_the_handling_of_an_interruption_is_that_status(uri):
    for given, kept in (("failed", "FAILED"), ("success", "FINISHED")):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            logger = JournaledMLFlowLogger("e", tracking_uri=uri, run_id=None)
            logger.log_metrics({"a": 1.0}, 0)
            logger.finalize(given)
            client, run = logger.experiment, logger.run_id
            assert client.get_run(run).info.status == kept


def test_what_is_said_of_a_failed_training_afterwards_makes_no_success_of_it(uri):
    logger = fit(uri, RuntimeError("x"))
    logger.log_tags({"note": "tried again with half the rate"})
    assert status(logger) == "FAILED"


SCRIPT = """
    import os, signal, sys
    from lr_callbacks import JournaledMLFlowLogger
    logger = JournaledMLFlowLogger("e", tracking_uri=sys.argv[1], drain_timeout=120)
    logger.log_metrics({"a": 1.0}, 0)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize(
    ("end", "kept"),
    [
        ("", "FINISHED"),
        ("1 / 0", "FAILED"),
        ("signal.signal(signal.SIGINT, signal.default_int_handler); "
         "os.kill(os.getpid(), signal.SIGINT)", "KILLED"),
    ],
    ids=["end", "error", "interruption"],
)  # fmt: skip
def test_a_script_that_ends_without_a_word_gives_its_run_the_status_of_its_end(
    uri, tmp_path, end, kept
):
    script = f"{textwrap.dedent(SCRIPT)}{end}\n"
    done = preloaded.run("-c", script, uri, cwd=tmp_path, timeout=300)
    assert (done.returncode == 0) == (kept == "FINISHED")
    assert done.returncode in (0, 1, -signal.SIGINT)
    assert only_run(uri).info.status == kept
