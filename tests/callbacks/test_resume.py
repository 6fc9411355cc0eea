"""Resuming: train 2N steps = train N, save, load in a new process, train N."""

import textwrap
from pathlib import Path

import preloaded
import pytest
import torch
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold

SCRIPT = """
    import sys, warnings
    warnings.simplefilter("ignore")
    sys.path[:0] = sys.argv[4:]
    from trainers import loader, trainer
    from test_resume import parts

    epochs, load, save = int(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
    module, callback = parts()
    module.seen = 40 if load else 0
    fit = trainer([callback], max_epochs=epochs, max_steps=-1)
    fit.fit(module, loader(), ckpt_path=load)
    fit.save_checkpoint(save)
"""


class Jumpy(Regression):
    """One loss far above the noise, which the guard answers with a cut."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * 200 if self.seen == 30 else loss


def parts():
    def optimizer(parameters):
        return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)

    def schedule(made):
        return torch.optim.lr_scheduler.CosineAnnealingLR(made, 100)

    module = Jumpy(optimizer, schedule, poison=[33])
    return module, AdaptiveLearningRate(Guard(quiet=5, snapshot_every=5))


def run(tmp_path, epochs, load, save):
    saved, here = str(tmp_path / save), Path(__file__).parent
    words = ["-c", textwrap.dedent(SCRIPT), epochs, load, saved, here, here.parent]
    result = preloaded.run(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    return saved, result.stdout + result.stderr


def test_training_2n_steps_is_training_n_resuming_in_a_new_process_and_training_n(tmp_path):
    straight, said = run(tmp_path, 20, "", "straight.ckpt")
    assert "step 29: loss" in said  # an alarm before N
    assert "step 33: non-finite loss" in said or "those give" in said  # and its outcome
    half, said = run(tmp_path, 10, "", "half.ckpt")
    assert "step 29: loss" in said
    resumed, _ = run(tmp_path, 20, half, "resumed.ckpt")
    a, b = (torch.load(p, weights_only=True) for p in (straight, resumed))
    for name in a["state_dict"]:
        assert torch.equal(a["state_dict"][name], b["state_dict"][name]), name
    assert str(a["optimizer_states"]) == str(b["optimizer_states"])
    assert a["lr_schedulers"] == b["lr_schedulers"]
    mine = [
        next(v for k, v in c["callbacks"].items() if k.startswith("AdaptiveLearningRate"))
        for c in (a, b)
    ]
    assert str(mine[0]["decision"]) == str(mine[1]["decision"])
    assert str(mine[0]["controller"]["detectors"]) == str(mine[1]["controller"]["detectors"])


def test_a_checkpoint_holds_scheduled_rates_and_the_state_the_scale(tmp_path):
    module, callback = parts()
    fit = trainer([callback], max_steps=40)
    fit.fit(module, loader())
    plain, _ = parts()
    plain.poison = set()
    twin = trainer([], max_steps=40)
    twin.fit(plain, loader())
    saved = [c._checkpoint_connector.dump_checkpoint() for c in (fit, twin)]
    rates = [c["optimizer_states"][0]["param_groups"][0]["lr"] for c in saved]
    assert rates[0] == rates[1]


def test_a_changed_configuration_wins_with_one_warning(tmp_path):
    path = tmp_path / "a.ckpt"
    fit = trainer([AdaptiveLearningRate(Guard())], max_steps=4)
    fit.fit(Regression(), loader())
    fit.save_checkpoint(path)
    kept = Kept()
    with pytest.warns(UserWarning, match="configured differently") as told:
        trainer([AdaptiveLearningRate(Hold())], kept, max_steps=8).fit(
            Regression(), loader(), ckpt_path=path
        )
    assert len([w for w in told if "configured differently" in str(w.message)]) == 1
    assert [step for step, _ in kept.series("train/loss")] == [4, 5, 6, 7]


def test_a_state_of_another_format_is_refused_in_words():
    with pytest.raises(ValueError, match="state of format 99"):
        AdaptiveLearningRate().load_state_dict({"format": 99})
