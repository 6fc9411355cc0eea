"""Factories of optimizers."""

import pickle
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lr_callbacks.app.assemble import build_optimizer
from lr_callbacks.app.factories import OptimizerFactory

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "custom")


def chosen(option, **changed):
    """What a file of the group holds."""
    held = OmegaConf.load(CONF / f"{option}.yaml")
    held.pop("defaults")
    return OmegaConf.merge(held, changed)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_optimizer_factory_survives_pickling_and_builds(option):
    factory = pickle.loads(pickle.dumps(build_optimizer(chosen(option, lr=0.5))))
    (group,) = factory([nn.Parameter(torch.zeros(2, 2))]).param_groups
    assert group["lr"] == 0.5


def test_every_optimizer_of_torch_that_needs_no_closure_and_takes_dense_gradients_is_there():
    offered = {chosen(option)._target_ for option in OPTIONS}
    offered.add("torch.optim.Muon")  # in company
    there = {
        f"torch.optim.{name}"
        for name, found in vars(torch.optim).items()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    }
    assert there - offered == {f"torch.optim.{n}" for n in ("Optimizer", "LBFGS", "SparseAdam")}


@pytest.mark.parametrize(
    ("cls", "lr", "options", "message"),
    [
        ("SGD", 0.0, {}, "`optimizer.lr` must be a positive finite number, got 0.0"),
        ("SGD", "fast", {}, "`optimizer.lr` must be a positive finite number"),
        ("SGD", 0.1, {"beta": 1}, "optimizer SGD: .* unexpected keyword .*'beta'"),
        ("Adam", 0.1, {"betas": (1.5, 0.9)}, "optimizer Adam: Invalid beta"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(cls, lr, options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerFactory(getattr(torch.optim, cls), lr, options)


def test_an_optimizer_that_does_not_suit_the_parameters_is_refused_in_words():
    with pytest.raises(ValueError, match=r"optimizer SGD: .* non-leaf"):
        OptimizerFactory(torch.optim.SGD, 0.1)([2 * nn.Parameter(torch.zeros(2))])
