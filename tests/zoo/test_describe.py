"""What is learnt of data of one's own, and refused where it cannot be learnt."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lr_callbacks.zoo.data import Bundled, Description, describe


class Own(pl.LightningDataModule):
    """Somebody's data; what further attributes it has is given."""

    def __init__(self, x, y, **attributes):
        super().__init__()
        self.x, self.y = x, y
        for name, value in attributes.items():
            setattr(self, name, value)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=4)


class Three(Own):
    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y, self.y), batch_size=4)


def test_bundled_data_describe_themselves():
    assert describe(Bundled("digits")) == Description((1, 8, 8), 10, "classification")


def test_numbers_as_targets_make_a_regression_of_their_width():
    assert describe(Own(torch.zeros(8, 3), torch.zeros(8, 2))) == Description((3,), 2, "regression")
    assert describe(Own(torch.zeros(8, 3), torch.zeros(8))).outputs == 1


def test_whole_numbers_as_targets_make_a_classification_whose_classes_are_told():
    data = Own(torch.zeros(8, 2, 2), torch.zeros(8, dtype=torch.long), num_classes=5)
    assert describe(data) == Description((2, 2), 5, "classification")


def test_attributes_go_before_what_the_batch_looks_like():
    data = Own(torch.zeros(8, 3), torch.zeros(8, 1), outputs=7, task="classification", shape=(9,))
    assert describe(data) == Description((9,), 7, "classification")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "`data` must be a LightningDataModule, got NoneType"),
        (Own(torch.zeros(8, 2), torch.zeros(8, dtype=torch.long)), "must tell its number of class"),
        (Three(torch.zeros(8, 2), torch.zeros(8)), "must be pairs of tensors"),
    ],
)
def test_data_that_do_not_tell_enough_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        describe(data)
