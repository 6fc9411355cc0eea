"""Alerts reach a webhook, at most one in a while, and neither slow nor end a training."""

import copy
import os
import pickle
import signal
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import preloaded
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainers import Regression, Script, loader, trainer
from webhook import webhook

from lr_callbacks import AdaptiveLearningRate, Alerts, JournaledMLFlowLogger, RunReport
from lr_callbacks.callbacks.courier import Alert, Courier, Level, composed
from lr_callbacks.callbacks.run_address import at_hand
from lr_callbacks.core import Condition, Decision

ALARM = Decision(condition=Condition.SPIKING, reason="loss 9; watching the next losses")
BACK = Decision(scale=0.5, restore="start", reason="the weights were harmed; rolling back")
CALM = Decision(reason="the loss is back; nothing changes")
STOP = Decision(stop=True, reason="20 roll-backs are used up; stopping")


@pytest.fixture
def hook():
    with webhook() as running:
        yield running


@pytest.fixture
def begun():
    """Callbacks whose last message, which may wait for its minute, is given up as a test ends."""
    begun = []
    yield begun
    for alerts in begun:
        if alerts._courier.process is not None:
            alerts._courier.process.kill()


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("not within a minute")


def arrived(hook, count):
    wait_for(lambda: len(hook.messages) >= count)
    return hook.messages


def made(hook, begun, at="warning", pause=0.0):
    alerts = Alerts([hook.url], at=at)
    alerts._courier = Courier(alerts.urls, pause)
    begun.append(alerts)
    return alerts


def fit(alerts, script, logger=None, module=None, **settings):
    callbacks = [AdaptiveLearningRate(script, read_every=1), *([RunReport()] if logger else [])]
    run = trainer([*callbacks, alerts], logger, **settings)
    run.fit(module or Regression(), loader())
    return run


class Waits(Regression):
    """Goes on after some steps once the first message has arrived."""

    def __init__(self, hook, steps):
        super().__init__()
        self.hook, self.steps = hook, steps

    def on_train_batch_end(self, *_):
        if self.seen == self.steps:
            arrived(self.hook, 1)


def test_an_alarm_has_the_runs_name_the_sentence_loss_rate_and_link(hook, tmp_path, begun):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    logger = JournaledMLFlowLogger("e", "my run", tracking_uri=uri)
    logger.log_metrics({"a": 1.0}, 0)
    assert logger.run_id  # MLflow has answered
    fit(made(hook, begun), Script(s5=ALARM), logger, Waits(hook, 6))
    first, last = arrived(hook, 2)
    assert (first["title"], first["type"]) == ("my run: spiking", "warning")
    sentence, *place = first["message"].splitlines()
    assert sentence.startswith("step 5: loss ")
    assert "; loss 9; watching the next losses (loss " in sentence
    assert sentence.endswith(", rate 0.05)")
    assert place[0].endswith(f"ui --backend-store-uri {uri}")
    assert f"/#/experiments/{logger.experiment_id}/runs/{logger.run_id}" in place[1]
    assert (last["title"], last["type"]) == ("my run: ended", "success")
    assert last["message"].startswith("ended after 12 steps: recovered (loss ")


def test_where_a_run_is_found_is_told_without_waiting_for_mlflow(tmp_path):
    away = {"tracking_uri": "http://127.0.0.1:9", "drain_timeout": 0.0}
    logger = JournaledMLFlowLogger("e", journal_dir=str(tmp_path), **away)
    logger.log_metrics({"a": 1.0}, 0)
    assert at_hand(logger) == f"its journal: {logger.journal_path}"


def told(hook, alerts, script, **settings):
    """Everything that a training tells in the end, as one text."""
    fit(alerts, script, **settings)
    assert alerts._courier.process.wait(60) == 0
    return "\n".join(m["message"] for m in hook.messages)


def test_warnings_are_alarms_and_roll_backs_and_the_end_but_not_what_is_calm(hook, begun):
    said = told(hook, made(hook, begun), Script(s3=ALARM, s5=CALM, s7=BACK))
    assert "step 3: " in said
    assert "step 7: " in said
    assert "step 5: " not in said
    assert all(message["title"].startswith("Regression: ") for message in hook.messages)


def test_every_decision_is_told_where_that_is_asked_for(hook, begun):
    said = told(hook, made(hook, begun, "info"), Script(s5=CALM))
    assert "step 5: " in said


def test_only_a_stop_is_told_where_failures_are_asked_for(hook, begun):
    alerts = made(hook, begun, "failure")
    fit(alerts, Script(s3=ALARM, s5=STOP))
    (only,) = arrived(hook, 1)
    assert (only["title"], only["type"]) == ("Regression: stop", "failure")
    assert only["message"].startswith("step 5: ")


def test_a_training_that_fails_tells_why(hook, begun):
    class Breaks(Regression):
        def on_train_batch_end(self, *_):
            if self.seen == 6:
                raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fit(made(hook, begun, "failure"), Script(), module=Breaks())
    (only,) = arrived(hook, 1)
    assert only["title"] == "Breaks: failed"
    assert only["message"].startswith("failed after 6 steps: RuntimeError: boom (loss ")


def test_a_diverged_training_is_a_failure(hook, tmp_path, begun):
    logger = JournaledMLFlowLogger("e", "run", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    fit(made(hook, begun, "failure"), Script(), logger, Regression(poison=[11]))
    (only,) = arrived(hook, 1)
    assert (only["title"], only["type"]) == ("run: ended", "failure")
    assert "ended after 12 steps: diverged" in only["message"]


def test_what_comes_before_the_pause_is_over_is_summed_up_in_one_message(hook, begun):
    alerts = made(hook, begun, pause=1e6)
    many = {f"s{step}": (ALARM, BACK)[step % 5 == 0] for step in range(1, 200)}
    fit(alerts, Script(**many), module=Waits(hook, 2), max_steps=200, max_epochs=-1)
    (first,) = arrived(hook, 1)
    assert first["message"].startswith("step 1: ")
    assert alerts._courier.process.poll() is None  # it waits for its minute


def test_the_next_message_sums_up_and_none_is_lost(hook):
    courier = Courier([hook.url], pause=3.0)
    for number in range(300):
        courier.send(Alert(Level(number % 2), "spiking", f"step {number}", "run", "here"))
        if number == 0:
            arrived(hook, 1)
    courier.close()
    assert courier.process.wait(60) == 0
    assert [m["title"] for m in hook.messages] == ["run: spiking", "run: spiking and 298 more"]
    body = hook.messages[-1]["message"].splitlines()
    assert len(body) == 8
    assert (body[-2], body[-1]) == ("step 299", "here")
    assert "… in all" in body[2]


@given(st.lists(st.tuples(st.sampled_from(Level), st.text(max_size=900)), min_size=1, max_size=50),
       st.integers(0, 10**6))  # fmt: skip
def test_a_message_is_short_whatever_it_sums_up(alerts, lost):
    told = [Alert(level, "spiking", text, "run", "here") for level, text in alerts]
    message = composed(told, Counter(spiking=len(told) + lost))
    assert len(message["body"]) < 2000
    assert message["notify_type"] == max(level for level, _ in alerts).name.lower()


def test_the_title_tells_the_last_of_what_is_gravest():
    told = [("roll back", 1), ("ended", 1), ("observe", 0)]
    alerts = [Alert(Level(level), word, "text", "n" * 200, "") for word, level in told]
    title = composed(alerts, Counter(word for word, _ in told))["title"]
    assert title == f"{'n' * 80}: ended and 2 more"


def test_what_a_service_does_not_take_goes_with_the_next(hook, caplog):
    hook.mode = "fails once"
    courier = Courier([hook.url], pause=0.5)
    courier.send(Alert(Level.WARNING, "spiking", "step 1", "run", ""))
    arrived(hook, 2)
    courier.close()
    assert courier.process.wait(60) == 0
    assert [m["message"].splitlines()[0] for m in hook.messages] == ["step 1", "step 1"]
    assert caplog.text.count("An alert could not be sent, the next message has it again") == 1
    assert str(hook.server_port) not in caplog.text


def test_alerts_that_a_pipe_has_no_room_for_cost_the_training_no_time(hook, caplog):
    hook.mode = "hangs"
    courier = Courier([hook.url], pause=1e6)
    courier.send(Alert(Level.WARNING, "spiking", "first", "run", "here"))
    courier.process.send_signal(signal.SIGSTOP)  # it reads nothing

    def flood():
        for number in range(3000):
            courier.send(Alert(Level.WARNING, "spiking", f"{number}" * 99, "run", "here"))

    training = threading.Thread(target=flood, daemon=True)
    training.start()
    training.join(120)
    assert not training.is_alive()  # it would wait for ever
    assert sum("An alert could not be sent" in r.message for r in caplog.records) == 1
    courier.close()
    courier.process.kill()
    courier.process.wait(60)


def test_a_training_ends_at_once_and_well_whatever_the_service_does(hook, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import sys
        from trainers import Regression, Script, loader, trainer
        from lr_callbacks import AdaptiveLearningRate, Alerts
        from lr_callbacks.core import Condition, Decision
        alarm = Decision(condition=Condition.SPIKING, reason="alarm")
        for url in sys.argv[1:]:
            alerts, script = Alerts(url), Script(**{f"s{step}": alarm for step in range(12)})
            trainer([AdaptiveLearningRate(script), alerts]).fit(Regression(), loader())
            print("late", alerts._courier.process.pid)
    """)
    )
    tests = str(Path(__file__).parents[1])
    with webhook() as failing:
        hook.mode, failing.mode = "hangs", "fails"
        done = preloaded.run(
            program, hook.url, failing.url, "json://127.0.0.1:9", timeout=300,
            env={**os.environ, "PYTHONPATH": tests},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        late = [int(line.split()[1]) for line in done.stdout.splitlines() if line[:4] == "late"]
        assert len(late) == 3
        assert len(arrived(hook, 1)) == len(arrived(failing, 1)) == 1
        for process in late:  # what nobody takes is sent again after a minute
            os.kill(process, 9)


def test_a_callback_that_cannot_take_a_decision_is_left_out_and_the_training_goes_on():
    class Broken(Alerts):
        def hear_decision(self, *_):
            raise OSError("boom")

    with pytest.warns(UserWarning, match="Broken failed and gets no more"):
        run = fit(Broken("json://127.0.0.1:9", "failure"), Script(s3=ALARM, s5=ALARM))
    assert run.global_step == 12


def test_a_copy_tells_nothing_that_waits(hook, begun):
    alerts = made(hook, begun, pause=1e6)
    fit(alerts, Script(s3=ALARM))
    for copied in (copy.deepcopy(alerts), pickle.loads(pickle.dumps(alerts))):
        assert (copied.urls, copied.at) == (alerts.urls, alerts.at)
        assert copied._courier.process is None


@pytest.mark.parametrize(
    ("urls", "at", "message"),
    [
        (["json://h"], "loud", "`at` must be one of info, warning, failure, got 'loud'"),
        ([], "info", "`urls` must name a service, or the variable APPRISE_URLS; got none"),
        (["slak://secret/b"], "info", "got one of 'slak'://…; see https://appriseit.com"),
    ],
)
def test_what_cannot_be_alerted_is_refused_without_telling_tokens(urls, at, message, monkeypatch):
    monkeypatch.delenv("APPRISE_URLS", raising=False)
    with pytest.raises(ValueError, match="must") as refused:
        Alerts(urls, at=at)
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


def test_addresses_may_stand_in_the_environment(monkeypatch):
    monkeypatch.setenv("APPRISE_URLS", "json://a/x, json://b")
    assert Alerts().urls == ["json://a/x", "json://b"]


def test_a_missing_apprise_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ValueError, match=r"pip install 'lr-callbacks\[alerts\]'"):
        Alerts("json://a")
