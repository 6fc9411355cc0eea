"""The bundled models: what they map to what, and what they refuse."""

import pytest
import torch

from lr_callbacks.zoo import models


@pytest.mark.parametrize("make", [models.linear, models.mlp, models.deep])
def test_a_model_of_numbers_maps_any_shape_to_its_outputs(make):
    assert make((2, 3), 5)(torch.randn(4, 2, 3)).shape == (4, 5)


@pytest.mark.parametrize("make", [models.Transformer, models.Recurrent])
def test_a_model_of_text_answers_for_each_character_and_sees_none_after_it(make):
    torch.manual_seed(0)
    model = make((6,), 9, 9).eval()
    x = torch.randint(9, (2, 6))
    changed = x.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 9
    out, other = model(x), model(changed)
    assert out.shape == (2, 6, 9)
    torch.testing.assert_close(out[:, :-1], other[:, :-1])
    assert not torch.equal(out[:, -1], other[:, -1])


def test_the_deep_model_has_no_normalisation_and_keeps_its_signal_at_any_depth():
    torch.manual_seed(0)
    model = models.deep((10,), 64, width=64, blocks=64)
    assert not any("Norm" in type(part).__name__ for part in model.modules())
    out = model(torch.randn(256, 10))
    assert 0.01 < out.std() < 10


def test_a_perceptron_without_biases_is_made_of_matrices():
    assert all(p.ndim == 2 for p in models.mlp((4,), 2, bias=False).parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.mlp((4,), 2, width=0), "`model.width` must be at least 1, got 0"),
        (lambda: models.deep((4,), 2, blocks=0), "`model.blocks` must be at least 1, got 0"),
        (lambda: models.Recurrent((4,), 2, 2, depth=0), "`model.depth` must be at least 1"),
        (lambda: models.Transformer((4,), 2, 2, width=6, heads=4), "`model.heads` must be a div"),
        (lambda: models.Recurrent((4,), 2), "model `recurrent` needs text"),
        (lambda: models.deep((4,), 2, 9), "model `deep` needs numbers"),
        (lambda: models.cnn((4,), 2), "model `cnn` needs images"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
