"""Fitting a network: the loop, what it is fed, losses, optimisers, schedules, checkpoints."""
