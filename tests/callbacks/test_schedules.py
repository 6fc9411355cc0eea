"""Every scheduler of torch in a real Trainer, with cuts on the way."""

import pytest
import torch
from schedulers import SCHEDULES
from trainers import Kept, Regression, Script, loader, trainer

from lr_callbacks import AdaptiveLearningRate
from lr_callbacks.core import Decision

SCALES = Script(s3=Decision(scale=0.5), s7=Decision(scale=0.125), s15=Decision(scale=2.0))


def scale_at(step):
    return 1.0 if step <= 3 else 0.5 if step <= 7 else 0.125 if step <= 15 else 2.0


class Watched(Regression):
    """Logs a constant that a plateau schedule watches, so that both runs see the same."""

    def training_step(self, batch, batch_idx):
        self.log("watched", torch.tensor(1.0), on_step=True)
        return super().training_step(batch, batch_idx)


class Seen(list):
    """The rates that each step used, through an optimizer hook."""

    def __call__(self, optimizer, *_):
        self.append([float(group["lr"]) for group in optimizer.param_groups])


def rates(name, interval, callbacks, logger=None):
    seen = Seen()

    def optimizer(parameters):
        weight, bias = parameters
        groups = [{"params": [weight], "lr": 0.01}, {"params": [bias], "lr": 0.02}]
        made = torch.optim.SGD(groups, momentum=0.9)
        made.register_step_pre_hook(seen)
        return made

    module = Watched(optimizer, SCHEDULES[name], interval)
    if callbacks:  # seen after the scaler's own hook
        hook = callbacks[0].on_train_start

        def start(trainer, pl_module):
            hook(trainer, pl_module)
            seen.clear()
            trainer.optimizers[0].register_step_pre_hook(seen)

        callbacks[0].on_train_start = start
    trainer(callbacks, logger, max_steps=20).fit(module, loader())
    return seen[1::2] if callbacks else list(seen)


@pytest.mark.filterwarnings("ignore:.*using 'interval'. 'epoch'.*:RuntimeWarning")
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_applied_is_schedule_times_scale(name, interval):
    scheduled = rates(name, interval, [])
    kept = Kept()
    applied = rates(name, interval, [AdaptiveLearningRate(SCALES)], kept)
    assert len(applied) == len(scheduled) == 20
    for t in range(20):
        expected = [rate * scale_at(t) for rate in scheduled[t]]
        assert applied[t] == pytest.approx(expected, rel=1e-12)
        logged = [kept.values(f"lr/SGD/pg{g}")[t] for g in (1, 2)]
        assert logged == applied[t]
