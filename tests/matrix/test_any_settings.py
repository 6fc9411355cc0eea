"""Whatever settings meet: Hypothesis draws a training, a stop and a resume, and looks for a breach.

``EXAMPLES=300`` in the environment draws as many.
"""

import math
import os

import pytest
import pytorch_lightning as pl
import torch
from cells import Model, Ran, Resumable, Script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as schedules
from trainers import loader

from lr_callbacks import AdaptiveLearningRate
from lr_callbacks.core import Decision

SCHEDULES = {
    "none": None,
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 30, 1e-3),
    "restarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 4),
    "one cycle": lambda o: schedules.OneCycleLR(o, 0.1, 100),
    "sequential": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, 1.0, 4), schedules.ExponentialLR(o, 0.9)], [4]
    ),
}
OPTIMIZERS = {
    "momentum": lambda g: torch.optim.SGD(g, lr=0.02, momentum=0.9),
    "AdamW": lambda g: torch.optim.AdamW(g, lr=0.01),
    "fused Adam": lambda g: torch.optim.Adam(g, lr=0.01, fused=True),
    "RMSprop": lambda g: torch.optim.RMSprop(g, lr=0.002),
}


@st.composite
def trainings(draw):
    batches = draw(st.integers(2, 7))
    accumulate = draw(st.integers(1, 4))
    per_epoch = math.ceil(batches / accumulate)
    steps = draw(st.integers(6, 14))
    stop = draw(st.integers(1, steps - 1))
    scales = draw(
        st.dictionaries(st.integers(0, steps), st.sampled_from([0.01, 0.5, 1.0, 3.0]), max_size=4)
    )
    save = draw(st.integers(0, steps - 2))
    optimizer = draw(st.sampled_from(sorted(OPTIMIZERS)))
    precision = draw(st.sampled_from(["32-true", "bf16-mixed"]))
    # Lightning itself refuses to clip what a fused optimizer unscales.
    clips = [None] if optimizer == "fused Adam" and precision != "32-true" else [None, 0.5]
    return {
        "batches": batches, "accumulate": accumulate, "per_epoch": per_epoch, "steps": steps,
        "stop": stop, "scales": scales, "save": save,
        "restore": draw(st.integers(save + 1, steps - 1)),
        "schedule": draw(st.sampled_from(sorted(SCHEDULES))),
        "interval": draw(st.sampled_from(["step", "epoch"])),
        "optimizer": optimizer,
        "groups": draw(st.integers(1, 2)),
        "clip": draw(st.sampled_from(clips)),
        "poison": draw(st.sets(st.integers(0, steps * accumulate), max_size=2)),
        "precision": precision,
    }  # fmt: skip


class Drawn(Model):
    def __init__(self, drawn, poison):
        def make(parameters):
            parameters = list(parameters)
            if drawn["groups"] == 1:
                return OPTIMIZERS[drawn["optimizer"]](parameters)
            first, rest = parameters[:1], parameters[1:]
            groups = [{"params": first, "lr": 0.004}, {"params": rest}]
            return OPTIMIZERS[drawn["optimizer"]](groups)

        super().__init__(make, SCHEDULES[drawn["schedule"]], {"interval": drawn["interval"]})
        self.poison = poison

    def training_step(self, batch, batch_idx):
        place = self.trainer.fit_loop.epoch_loop.total_batch_idx
        x, y = batch
        loss = super().training_step((x * float("nan") if place in self.poison else x, y), 0)
        self.last = float("nan") if place in self.poison else self.last
        return loss


class SaveAt(pl.Callback):
    """Writes a checkpoint where `ModelCheckpoint` would."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        epoch_loop = trainer.fit_loop.epoch_loop
        if trainer.global_step == self.step and not epoch_loop._should_accumulate():
            trainer.save_checkpoint(self.path)


def run(drawn, steps, *, mine=True, poison=(), ckpt_path=None, save=None):
    decisions = {s: Decision(scale=scale) for s, scale in drawn["scales"].items()}
    decisions[drawn["save"]] = decisions.get(drawn["save"], Decision())._replace(save="a")
    back = decisions.get(drawn["restore"], Decision())
    decisions[drawn["restore"]] = back._replace(restore="a", reason="drawn")
    policy = Script(**{f"s{step}": decision for step, decision in decisions.items()})
    callback = AdaptiveLearningRate(policy, checkpoint="always") if mine else None
    ran = Ran(
        Drawn(drawn, poison), Resumable(loader(8 * drawn["batches"], 8)), callback=callback,
        max_steps=steps, accumulate_grad_batches=drawn["accumulate"], ckpt_path=ckpt_path,
        gradient_clip_val=drawn["clip"], precision=drawn["precision"],
        others=[SaveAt(drawn["stop"], save)] if save else [],
    )  # fmt: skip
    ran.policy = policy
    return ran


def scales(drawn):
    """The scale of each step, and the one after; `Decision()` means 1."""
    named = {drawn["save"]: 1.0, drawn["restore"]: 1.0, **drawn["scales"]}
    scale, answer = 1.0, []
    for step in range(drawn["steps"] + 1):
        answer.append(scale)
        scale = named.get(step, scale)
    return answer


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using:RuntimeWarning")
@settings(
    max_examples=int(os.environ.get("EXAMPLES", "12")),
    deadline=None,
    derandomize="EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(drawn=trainings())
def test_no_training_breaks_a_promise(tmp_path_factory, drawn):
    steps, poison = drawn["steps"], drawn["poison"]
    twin = run(drawn, steps, mine=False)
    path = tmp_path_factory.mktemp("drawn") / "stop.ckpt"
    whole = run(drawn, steps, poison=poison, save=path)
    skipped = [o.step for o in whole.policy.observed if o.skipped]
    expected = [[r * scales(drawn)[t] for r in twin.watcher.rates[t]] for t in range(steps)]
    assert [pytest.approx(e, rel=1e-9) for e in expected] == whole.watcher.rates
    assert [o.step for o in whole.policy.observed] == list(range(steps))
    assert all(math.isnan(whole.policy.observed[t].loss) for t in skipped)
    if not poison:
        losses = [o.loss for o in whole.policy.observed]
        assert losses == [pytest.approx(loss, rel=1e-2) for loss in whole.watcher.losses]
        assert whole.last.after[drawn["restore"]] == whole.watcher.after[drawn["save"]]
    assert all(t.isfinite().all() for t in whole.module.state_dict().values())

    resumed = run(drawn, steps, poison=poison, ckpt_path=path)
    assert resumed.watcher.rates == whole.watcher.rates[drawn["stop"] :]
    assert repr(resumed.policy.observed) == repr(whole.policy.observed[drawn["stop"] :])
    assert resumed.end() == whole.end()
