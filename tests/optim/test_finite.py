"""Whether numbers are finite is judged exactly, however they add up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lr_callbacks.optim.finite import finite_on_host

LARGEST = {kind: torch.finfo(kind).max for kind in (torch.float16, torch.bfloat16, torch.float32)}


@given(st.lists(st.floats(width=32), max_size=40))
def test_a_tensor_is_finite_where_all_its_numbers_are(values):
    tensor = torch.tensor(values, dtype=torch.float32)
    assert finite_on_host(tensor) == bool(tensor.isfinite().all())


@pytest.mark.parametrize("kind", LARGEST)
def test_a_sum_that_overflows_is_no_fault(kind):
    assert finite_on_host(torch.full((64,), LARGEST[kind], dtype=kind))


@pytest.mark.parametrize("kind", [*LARGEST, torch.float64, torch.complex64])
@pytest.mark.parametrize("bad", [["nan"], ["inf"], ["-inf"], ["inf", "-inf"]], ids=str)
def test_one_bad_number_among_many_is_seen(kind, bad):
    tensor = torch.zeros(4099, dtype=kind)
    assert finite_on_host(tensor)
    for place, value in enumerate(bad):
        tensor[17 + 4000 * place] = float(value)
    assert not finite_on_host(tensor)
