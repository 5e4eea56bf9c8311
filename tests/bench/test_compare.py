"""Two runs beside each other: an unchanged program is not reported, a planted slowdown is."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from segue.bench.compare import CEILINGS, PRODUCT, compare
from segue.bench.results import SLOWER, Figure, Results, Watch, results
from segue.errors import ConfigError

N_FIGURES = 20
Noise = Callable[[np.random.Generator, int], np.ndarray]


with Watch() as watch:
    pass
EMPTY = replace(results("bench", "segue bench", [], watch), others_share=0.0)


def steady(rng: np.random.Generator, rounds: int) -> np.ndarray:
    return rng.normal(0, 0.06, rounds)


def with_outliers(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Every tenth round is up to three times as slow, as where another process came and went."""
    return steady(rng, rounds) + rng.uniform(0, 1.1, rounds) * (rng.random(rounds) < 0.1)


def run(
    seed: int, *, noise: Noise, rounds: int = 15, slower: dict[int, float] | None = None, kind: str = "bench"
) -> Results:
    """Return a run of a machine that is up to 40 % slower or faster as a whole, and drifts while it measures."""
    rng = np.random.default_rng(seed)
    machine = rng.uniform(-0.4, 0.4) + np.cumsum(rng.normal(0, 0.03, rounds))
    times = [machine + rng.normal(0, 0.02) + noise(rng, rounds) for _ in range(N_FIGURES)]
    rates = [1000 / np.exp(one) / (slower or {}).get(at, 1.0) for at, one in enumerate(times)]
    figures = [
        Figure.of("models", "throughput", "songs/s", rate.tolist(), better="higher", model=at, threads=2)
        for at, rate in enumerate(rates)
    ]
    for threads in (1, 2):
        product = 100 * threads / np.exp(machine + rng.normal(0, 0.03, rounds))
        figures.append(Figure.of(CEILINGS, PRODUCT, "GFLOP/s", product.tolist(), better="higher", threads=threads))
    return replace(EMPTY, kind=kind, figures=tuple(figures))


@pytest.mark.parametrize("noise", [steady, with_outliers])
def test_an_unchanged_program_is_hardly_ever_reported(noise: Noise) -> None:
    reported = [bool(compare(run(2 * n, noise=noise), run(2 * n + 1, noise=noise)).changes) for n in range(10)]
    assert sum(reported) <= 2  # One in two such tests has one.


@pytest.mark.parametrize("times", [1.3, 1 / 1.3])
def test_a_planted_change_of_one_figure_is_found(times: float) -> None:
    found = []
    for seed in range(10):
        old = run(2 * seed, noise=steady)
        new = run(2 * seed + 1, noise=steady, slower={3: times})
        found.append(compare(new, old).changes)
    hits = [
        changes for changes in found if [one.figure for one in changes] == ["models: throughput, model 3, threads 2"]
    ]
    assert len(hits) >= 9
    estimates = [one.times_slower for (one,) in hits]
    assert np.median(estimates) == pytest.approx(times, rel=0.04)
    assert (
        np.mean([one.low <= times <= one.high for (one,) in hits]) > 0.65
    )  # The machine's own 2 % a run are not in it.


def test_a_slower_program_on_a_faster_machine_is_found() -> None:
    """Its figures are those of before; the matrix products give it away."""
    old = run(0, noise=steady)
    products = [one for one in old.figures if one.group == CEILINGS]
    faster = [replace(one, rounds=tuple(1.4 * rate for rate in one.rounds)) for one in products]
    new = replace(old, figures=(*(one for one in old.figures if one.group != CEILINGS), *faster))
    changes = compare(new, old).changes
    assert len(changes) == N_FIGURES
    assert all(one.times_slower == pytest.approx(1.4) and one.old == one.new for one in changes)


def faster_figures(run: Results, times: dict[int, float], product_times: dict[int, float]) -> Results:
    """Return a run with some models so many times as fast, and the products of so many threads."""

    def of(one: Figure) -> float:
        by, key = (product_times, "threads") if one.group == CEILINGS else (times, "model")
        return by.get(int(one.conditions[key]), 1.0)

    moved = [replace(one, rounds=tuple(of(one) * rate for rate in one.rounds)) for one in run.figures]
    return replace(run, figures=tuple(moved))


@pytest.mark.parametrize("busy_first", [True, False])
def test_a_core_that_others_took_is_no_change(busy_first: bool) -> None:
    """What runs on one core is as fast as before, what runs on both is twice as fast, or a bit less."""
    busy = run(0, noise=steady)
    idle = faster_figures(busy, {at: 1 + at / N_FIGURES for at in range(N_FIGURES)}, {2: 2.0})
    assert not compare(*((idle, busy) if busy_first else (busy, idle))).changes


def test_what_is_reported_is_told_and_sets_the_exit_code() -> None:
    old, slow, fast = (run(0, noise=steady, slower={0: times}) for times in (1.0, 1.5, 0.5))
    same = replace(old, comparison=compare(old, old))
    assert same.exit_code == 0
    assert str(same).endswith("Nothing is slower or faster beyond noise.")
    slower = replace(slow, comparison=compare(slow, old))
    assert slower.exit_code == SLOWER
    assert "models: throughput, model 0, threads 2: 1.50 times as slow (1." in str(slower)
    faster = replace(fast, comparison=compare(fast, old))
    assert faster.exit_code == 0
    assert "2.00 times as fast" in str(faster)


def test_a_busy_machine_gives_no_verdict() -> None:
    old, slow = (replace(run(0, noise=steady, slower={0: times}), others_share=0.01) for times in (1.0, 1.5))
    assert replace(slow, comparison=compare(slow, old)).exit_code == SLOWER
    for runs in ((replace(slow, others_share=0.3), old), (slow, replace(old, others_share=0.3))):
        found = compare(*runs)
        assert [one.figure for one in found.slower] == ["models: throughput, model 0, threads 2"]
        assert "Other processes used 30% of the machine" in str(found)
        assert replace(slow, comparison=found).exit_code == 0


def test_another_machine_is_told() -> None:
    old = run(0, noise=steady)
    new = replace(old, machine=replace(old.machine, processor="1 x Abacus"))
    assert old.machine.processor in "".join(compare(new, old).notes)


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="expected two runs of one benchmark, found one of 'bench' and one of 'study'"
    ):
        compare(run(0, noise=steady, kind="study"), run(1, noise=steady))
    with pytest.raises(ConfigError, match="of at least 7 rounds each; found none"):
        compare(run(0, noise=steady), run(1, noise=steady, rounds=6))
