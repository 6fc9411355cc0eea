"""Losses and verdicts that lie on a device are read together."""

import torch
from trainers import trainer

from lr_callbacks.callbacks.step_loss import LossBlock, StepRecord


def test_verdicts_on_a_device_are_read_with_the_losses():
    block = LossBlock()
    flags = [False, torch.tensor(True), torch.tensor(False), True]
    for step, flag in enumerate(flags):
        loss = torch.tensor(0.5 + step)
        block.append(StepRecord(step, loss, {"SGD": torch.tensor(0.25)}, 1.0, flag))
    read = block.read(trainer([]))
    assert [m.loss for m in read] == [0.5, 1.5, 2.5, 3.5]
    assert [m.skipped for m in read] == [False, True, False, True]
    assert read[0].rates == {"SGD": 0.25}
    assert block.read(trainer([])) == []
