"""Every scheduler of torch, by its name."""

import torch
from torch.optim import lr_scheduler as schedules

SCHEDULES = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda t: 0.95),
    "StepLR": lambda o: schedules.StepLR(o, 5, 0.5),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [4, 9], 0.3),
    "ConstantLR": lambda o: schedules.ConstantLR(o, 0.3, 6),
    "LinearLR": lambda o: schedules.LinearLR(o, 0.1, 1.0, 8),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.93),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 15, 2.0),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 12, 1e-3),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 4, 2, 1e-4),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.1, 4, mode="exp_range", gamma=0.98),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.5, 20),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=1, min_lr=0.02),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, 1.0, 5), schedules.CosineAnnealingLR(o, 12)], [5]
    ),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o, 0.5, 3), schedules.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=6),
}
