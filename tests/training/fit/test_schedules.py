"""Schedules of the learning rate against torch's, step by step."""

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from segue.errors import ConfigError
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


@pytest.mark.parametrize(("songs", "batch", "k", "cycles"), [(4000, 100, 5, 2), (600, 50, 0.5, 3), (250, 5, 1.5, 1)])
def test_whole_cycles_of_k_epochs_are_those_of_the_study(songs: int, batch: int, k: float, cycles: int) -> None:
    """n_s = k n / batch corrections up, as many down, so many cycles: eta by the three reports' own formula."""
    loop = LoopConfig(
        schedule="cyclic", learning_rate=1e-1, least_rate=1e-5, batch_songs=batch, half_cycle_epochs=k, cycles=cycles
    )
    n_s = k * songs / batch
    assert loop.n_epochs == 2 * k * cycles
    n_steps = loop.n_epochs * songs // batch
    for t in range(n_steps):
        turn = t // (2 * n_s)  # l, the cycle.
        if 2 * turn * n_s <= t <= (2 * turn + 1) * n_s:
            expected = 1e-5 + (t - 2 * turn * n_s) / n_s * (1e-1 - 1e-5)
        else:
            expected = 1e-1 - (t - (2 * turn + 1) * n_s) / n_s * (1e-1 - 1e-5)
        assert loop.rate(t, n_steps) == pytest.approx(expected, rel=1e-9)


def test_cycles_that_are_no_whole_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match="cycles: expected the cyclic schedule and half_cycle_epochs"):
        LoopConfig(schedule="cyclic", learning_rate=1e-1, cycles=1, half_cycle_epochs=0.3)
    with pytest.raises(ConfigError, match="cycles: expected the cyclic schedule"):
        LoopConfig(cycles=2, half_cycle_epochs=1)
