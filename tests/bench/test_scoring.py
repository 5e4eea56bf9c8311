"""The figures of the scorer: what is wanted of them, and what a catalogue of 10^9 songs takes by them."""

import pytest

from segue.bench.results import Figure, Watch, results
from segue.bench.scoring import TARGETS, ScoringBenchmark, Target
from segue.machine import usable_cores

RATES = {
    "student only, 1,000,000 songs": 50_000.0,
    "cascade, 1,000,000 songs": 10_000.0,
    "teacher in process": 4_000.0,
    "fallback rate of the cascade": 20.0,
    "size of a song, Arrow": 12_000.0,
    "size of a song, Parquet": 9_000.0,
    "size of an answer": 20.0,
}


@pytest.mark.parametrize(
    ("target", "value", "reached"),
    [(Target(least=0.9), 0.9, True), (Target(least=0.9), 0.89, False), (Target(most=600), 601, False)],
)
def test_a_target_is_a_bound(target: Target, value: float, reached: bool) -> None:
    assert target.is_reached_by(value) == reached


def test_a_billion_songs_are_sized_by_the_rates() -> None:
    with Watch() as watch:
        pass
    figures = [Figure.of("scoring", name, "", [value], better="higher") for name, value in RATES.items()]
    figures += [Figure.of("scoring targets", name, "times", [1.0], better="higher") for name in TARGETS]
    shown = str(ScoringBenchmark(results("bench", "a command", figures, watch)))
    hours = 1e9 / 50_000 / 3600
    dollars = hours * usable_cores() * 0.05 / 1000
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if "student only " in line]
    assert ["student only", f"{hours:.0f}", f"{hours / 24:.1f}", f"{dollars:.3f}"] in rows
    assert "12.0 TB in Arrow, 9.0 TB in Parquet; answers to write: 20 GB" in shown
