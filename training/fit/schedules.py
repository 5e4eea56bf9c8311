"""The learning rate, step by step: a function of the step alone, so that a resumed run needs no state for it."""

from math import cos, pi
from typing import Literal

Schedule = Literal["one-cycle", "cyclic", "constant"]

# Of one cycle: where it starts and ends below its peak, and the share of the steps in which it rises.
START, END, RISING = 1 / 25, 1 / 25e4, 0.3


def one_cycle(step: int, n_steps: int, peak: float) -> float:
    """Return the rate at `step` of `n_steps`: up to `peak` and down to nearly nothing, both as half a cosine.

    Smith and Topin, *Super-Convergence*, 2018.
    """
    turn, last = RISING * n_steps - 1, n_steps - 1
    if step <= turn:
        return _half_cosine(START * peak, peak, step / max(turn, 1e-9))
    return _half_cosine(peak, END * peak, (step - turn) / max(last - turn, 1e-9))


def cyclic(step: int, half_cycle_steps: float, least: float, peak: float) -> float:
    """Return the rate at `step`: from `least` to `peak` in `half_cycle_steps` steps, back in as many, and again.

    Smith, *Cyclical Learning Rates for Training Neural Networks*, WACV 2017, where they are eta_min, eta_max and n_s.
    """
    place = step % (2 * half_cycle_steps) / half_cycle_steps
    return least + (peak - least) * (1 - abs(1 - place))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * share)) / 2
