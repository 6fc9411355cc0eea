"""Factories of optimizers."""

import pickle

import pytest
import torch
from torch import nn

from lr_callbacks.app.build import OPTIMIZERS, optimizer


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_factory_survives_pickling_and_builds(kind):
    factory = pickle.loads(pickle.dumps(optimizer(kind, 0.5)))
    (group,) = factory([nn.Parameter(torch.zeros(2, 2))]).param_groups
    assert group["lr"] == 0.5


def test_every_optimizer_of_torch_that_needs_no_closure_and_takes_dense_gradients_is_there():
    known = {path for path in OPTIMIZERS.values() if path.startswith("torch")}
    known.add("torch.optim.Muon")  # in company
    held = {
        f"torch.optim.{name}"
        for name, found in vars(torch.optim).items()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    }
    assert held - known == {f"torch.optim.{n}" for n in ("Optimizer", "LBFGS", "SparseAdam")}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sdg", {"lr": 0.1}, "`optimizer.kind` must be one of"),
        ("sgd", {"lr": 0.0}, "`optimizer.lr` must be a positive finite number, got 0.0"),
        ("sgd", {"lr": "fast"}, "`optimizer.lr` must be a positive finite number"),
        ("sgd", {"lr": 0.1, "beta": 1}, "optimizer=sgd: .* unexpected keyword .*'beta'"),
        ("adam", {"lr": 0.1, "betas": (1.5, 0.9)}, "optimizer=adam: Invalid beta"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(kind, options, message):
    with pytest.raises(ValueError, match=message):
        optimizer(kind, **options)


def test_an_optimizer_that_does_not_suit_the_parameters_is_refused_in_words():
    with pytest.raises(ValueError, match=r"optimizer=sgd: .* non-leaf"):
        optimizer("sgd", 0.1)([2 * nn.Parameter(torch.zeros(2))])
