"""Schedules of the learning rate against torch's, step by step."""

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from segue.training.fit.loop import LoopConfig
from segue.training.fit.schedules import cyclic, one_cycle


def rates(optimiser: SGD, schedule: LRScheduler, n_steps: int) -> list[float]:
    """Return the rate at each step of a schedule of torch."""
    found = []
    for step in range(n_steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if step < n_steps - 1:
            schedule.step()
    return found


@pytest.fixture
def optimiser() -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(("n_steps", "peak"), [(10, 4e-3), (97, 1.0), (1000, 2e-3)])
def test_one_cycle_is_that_of_torch(optimiser: SGD, n_steps: int, peak: float) -> None:
    expected = rates(optimiser, OneCycleLR(optimiser, max_lr=peak, total_steps=n_steps, cycle_momentum=False), n_steps)
    assert [one_cycle(step, n_steps, peak) for step in range(n_steps)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("half", "least", "peak"), [(5, 1e-5, 1e-3), (40, 0.0, 0.1)])
def test_cycles_are_those_of_torch(optimiser: SGD, half: int, least: float, peak: float) -> None:
    schedule = CyclicLR(optimiser, base_lr=least, max_lr=peak, step_size_up=half, cycle_momentum=False)
    expected = rates(optimiser, schedule, 5 * half)
    assert [cyclic(step, half, least, peak) for step in range(5 * half)] == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_one_cycle_of_a_few_steps_stays_between_nothing_and_its_peak(n_steps: int) -> None:
    assert all(0 < one_cycle(step, n_steps, 1.0) <= 1 for step in range(n_steps))


def test_a_loop_goes_by_the_schedule_it_was_given() -> None:
    steps = range(0, 1000, 100)
    constant = LoopConfig(schedule="constant", learning_rate=0.5)
    assert {constant.rate(step, 1000) for step in steps} == {0.5}
    cycles = LoopConfig(schedule="cyclic", learning_rate=0.5, least_rate=0.1, half_cycle_steps=200)
    assert [cycles.rate(step, 1000) for step in steps] == pytest.approx([0.1, 0.3, 0.5, 0.3] * 2 + [0.1, 0.3])
    one = LoopConfig(learning_rate=0.5)
    assert [one.rate(step, 1000) for step in steps] == [one_cycle(step, 1000, 0.5) for step in steps]
