"""What touches optimizers and weights: rates, steps, snapshots. Needs torch alone."""
