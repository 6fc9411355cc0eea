"""Search in real Trainers: wrong rates, schedules, a checkpoint taken in the middle of a trial."""

import pytest
import torch
from pytorch_lightning import Callback
from torch.optim import lr_scheduler
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Search

STEPS = 300


class StopAt(Callback):
    """Ends a training early, its planned length unchanged."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= self.step


def optimizer(rate):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def cosine(made):
    return lr_scheduler.CosineAnnealingLR(made, STEPS)


def one_cycle(made):
    return lr_scheduler.OneCycleLR(made, made.param_groups[0]["lr"], total_steps=STEPS + 2)


def fit(rate, schedule=cosine, **settings):
    kept, module = Kept(), Regression(optimizer(rate), schedule)
    callback = AdaptiveLearningRate(Search())
    run = trainer([callback], kept, max_steps=STEPS, max_epochs=-1, **settings)
    return run, module, kept, callback


@pytest.mark.parametrize("rate", [2e-5, 2e-2, 20.0])
def test_a_rate_wrong_by_a_thousand_ends_where_the_right_one_does(rate):
    run, module, kept, _ = fit(rate)
    run.fit(module, loader(rows=256))
    assert sum(kept.values("train/loss")[-20:]) / 20 < 0.03  # the noise's variance is 0.01
    assert "range test" in kept.decisions[0][1]["reason"]


def test_probing_holds_the_rate_at_scale_times_initial_whatever_the_schedule_says():
    run, module, kept, callback = fit(0.02, schedule=one_cycle)
    run.fit(module, loader(rows=256))
    rates, scales = kept.values("lr/SGD"), dict(kept.series("scale/SGD"))
    scale = 1.0
    for step in range(1, 40):
        scale = scales.get(step, scale)
        assert rates[step] == pytest.approx(0.02 * scale)
    found = callback._memory.state.policy.probing.run
    assert max(rates[120:]) <= 0.02 * found.scale * 1.001  # the peak is the winner


@pytest.mark.parametrize("stop", [8, 24, 40])
def test_a_run_resumed_in_the_middle_of_the_search_goes_on_and_succeeds(tmp_path, stop):
    run, module, kept, callback = fit(20.0, limit_train_batches=8)
    run.callbacks.append(StopAt(stop))
    run.fit(module, loader(rows=256))
    phase = callback._memory.state.policy.probing.phase
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert phase in ("ramp", "trials")
    again, module, kept, callback = fit(20.0, limit_train_batches=8)
    again.fit(module, loader(rows=256), ckpt_path=tmp_path / "a.ckpt")
    assert callback._memory.state.policy.probing.phase == "run"
    assert sum(kept.values("train/loss")[-20:]) / 20 < 0.03


def test_never_more_than_four_snapshots_are_alive():
    run, module, _, callback = fit(20.0)
    alive = []
    module.on_train_batch_start = lambda *_: alive.append(len(callback._fit.snapshots.slots))
    run.fit(module, loader(rows=256))
    assert max(alive) <= 4
