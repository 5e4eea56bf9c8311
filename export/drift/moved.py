"""Tests for drift: whether anything about the songs has moved, beyond chance and by enough to matter.

Every value is compared by the two-sample Kolmogorov-Smirnov test, the share of every genre and the fallback rate by
Fisher's exact test. All are exact, and Holm's correction keeps the chance of any false alarm at the level of the tests,
however many there are (Holm, *Scandinavian Journal of Statistics* 6, 1979).

That chance is one over references as well as songs. But a bundle has one reference, and all later songs are compared
with it: where it was drawn unluckily, the same value alarms again and again. What a user wants is a rate of alarms for
*this* bundle. By Markov's inequality tests at the level `alarms * (1 - confidence)` give it: at most `1 - confidence`
of all references can have a rate above `alarms`. (Of control charts, where a first phase estimates what a second one
watches, this is known as guaranteed conditional performance: Albers and Kallenberg, *Metrika* 59, 2004.)

With many songs every difference is beyond chance, so each must be large as well: the effect is the largest gap between
two distribution functions, the share of songs that would have to change genre, the difference of two rates. All are
shares from 0 to 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from segue.errors import ConfigError
from segue.export.drift.reference import VALUES, Reference

GENRES, FALLBACK = "genres", "fallback rate"


@dataclass(frozen=True)
class DriftRules:
    """When songs count as drifted."""

    alarms: float = 0.05  # Most of the tables of the same kind that may raise an alarm, as a share ...
    confidence: float = 0.95  # ... with this confidence over the draw of the bundle's reference, which they all meet.
    least_gap: float = 0.1  # Least gap between distribution functions, or share of songs of another genre, to matter.
    least_rate: float = 0.05  # Least difference in the fallback rate to matter.

    def __post_init__(self) -> None:
        """Refuse rules that would always or never alarm."""
        for name in ("alarms", "confidence", "least_gap", "least_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a share between 0 and 1, found {getattr(self, name)}")

    @property
    def alpha(self) -> float:
        """The level of all tests together: the chance of a false alarm over references and songs."""
        return self.alarms * (1 - self.confidence)


@dataclass(frozen=True)
class Moved:
    """How much one thing about the songs has moved."""

    what: str
    effect: float  # A share, 0..1.
    p_value: float  # Corrected for the number of tests.
    before: float  # Median of the reference; or the fallback rate; NaN for the genres.
    now: float
    drifted: bool


def moved(reference: Reference, songs: Reference, rules: DriftRules) -> tuple[Moved, ...]:
    """Compare songs with a reference; the largest effects first."""
    found: list[tuple[str, float, float, float, float, float]] = []  # what, effect, p, before, now, least effect
    for column, name in enumerate(VALUES):
        before, now = reference.values[:, column], songs.values[:, column]
        test: Any = stats.ks_2samp(before, now, method="auto")
        middle = float(np.median(before)), float(np.median(now))
        found.append((name, float(test.statistic), float(test.pvalue), *middle, rules.least_gap))
    found.append((GENRES, *_genres(reference, songs), float("nan"), float("nan"), rules.least_gap))
    rates = reference.fell_back / reference.songs, songs.fell_back / songs.songs
    p_value = _fisher(reference.fell_back, reference.songs, songs.fell_back, songs.songs)
    found.append((FALLBACK, abs(rates[1] - rates[0]), p_value, *rates, rules.least_rate))
    corrected = holm([one[2] for one in found])
    return tuple(
        sorted(
            (
                Moved(what, effect, p_value, before, now, p_value <= rules.alpha and effect >= least)
                for (what, effect, _, before, now, least), p_value in zip(found, corrected, strict=True)
            ),
            key=lambda one: (-one.drifted, -one.effect),
        )
    )


def _genres(reference: Reference, songs: Reference) -> tuple[float, float]:
    """Return the share of songs that would have to change genre, and how likely so many are by chance."""
    counts = [(int(before), int(now)) for before, now in zip(reference.genres, songs.genres, strict=True)]
    counts = [pair for pair in counts if any(pair)]
    effect = sum(abs(before / reference.songs - now / songs.songs) for before, now in counts) / 2
    p_values = [_fisher(before, reference.songs, now, songs.songs) for before, now in counts]
    return effect, min(1.0, len(counts) * min(p_values))


def _fisher(before: int, of: int, now: int, of_now: int) -> float:
    """Return the p-value of `before` of `of` songs beside `now` of `of_now`, by Fisher's exact test."""
    return float(stats.fisher_exact([[before, of - before], [now, of_now - now]]).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method, in the order given."""
    order = np.argsort(p_values)
    steps = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(one) for one in corrected]
