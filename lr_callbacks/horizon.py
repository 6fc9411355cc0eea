"""How many optimizer steps a training will take, as far as anybody knows."""

import math
from typing import Any

#: Steps, or epochs, over which a schedule runs where those of the training are not known.
UNBOUNDED = 1000


def estimated_steps(trainer: Any) -> float:
    """Return the optimizer steps of a Lightning Trainer's whole training.

    Infinite where they are not known: without a limit, with a limit of time only, or over a stream
    without a length, of which Lightning says -1, its ``max_steps``. Of a stream that begins anew,
    they follow from the epochs that have passed.
    """
    steps = float(trainer.estimated_stepping_batches)
    steps = steps if steps > 0 else math.inf
    passed, limit = trainer.current_epoch, trainer.max_epochs
    if passed and limit is not None and limit > 0 and trainer.num_training_batches == math.inf:
        made = trainer.fit_loop.epoch_loop._batches_that_stepped
        return min(steps, float(math.ceil(made / passed * limit)))
    return steps


def estimated_epochs(trainer: Any) -> float:
    """Return the epochs of a Lightning Trainer's whole training, infinite where not known."""
    limit = trainer.max_epochs
    longest: float = limit if limit is not None and limit > 0 else math.inf
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    steps = estimated_steps(trainer)
    if not (0 < batches < math.inf and steps < math.inf):
        return longest
    return min(longest, float(math.ceil(steps / math.ceil(batches))))


def planned(length: float) -> int:
    """Return the length that a schedule is planned for: one that is known, else `UNBOUNDED`.

    >>> planned(400), planned(-1), planned(math.inf)
    (400, 1000, 1000)
    """
    return int(length) if 1 <= length < math.inf else UNBOUNDED
