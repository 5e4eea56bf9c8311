"""Compare two runs of one benchmark: what got slower, or faster, beyond noise.

Machines drift: by far the most of what moves a figure from run to run is the machine. So every figure is taken relative
to the matrix products that the same round of the same run measured, with one thread and with all; what is left is ours.
Where others took a core, the two tell different stories of the machine: only what both tell is a change.

A figure counts as changed when it is more than `TOLERANCE` slower or faster even by a cautious estimate: a one-sided
Mann-Whitney test of its rounds against the old ones, moved by the tolerance. The test assumes no distribution. Over all
figures of a comparison together, an unchanged program is reported in at most 5 % of comparisons (Holm's correction).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import mannwhitneyu, norm

from segue.bench.results import BUSY_SHARE, CONFIDENCE, Change, Comparison, Figure, Results
from segue.errors import ConfigError
from segue.serving.predictions import Doubles

TOLERANCE = 1.1  # Times the time: what a machine gives or takes between two runs, its products taken out.
Pair = tuple[Figure, Figure]  # The old one, the new one.
LEAST_ROUNDS = 7  # With fewer, no change of one figure among many could be told from noise.
CEILINGS, PRODUCT = "ceilings", "matrix product"
RELATIVE = ("share", "times")  # Units of figures that are others in disguise.


def compare(new: Results, old: Results) -> Comparison:
    """Return what changed between two runs of one benchmark.

    Raises:
        ConfigError: they are of different benchmarks, or have no figures in common.
    """
    if new.kind != old.kind:
        raise ConfigError(f"expected two runs of one benchmark, found one of {old.kind!r} and one of {new.kind!r}")
    before = {one.key: one for one in old.figures}
    pairs = [
        (before[one.key], one)
        for one in new.figures
        if one.group != CEILINGS
        and one.unit not in RELATIVE
        and one.key in before
        and _is_comparable(one)
        and _is_comparable(before[one.key])
    ]
    if not pairs:
        raise ConfigError(
            f"expected figures in common with the older run, of at least {LEAST_ROUNDS} rounds each; found none: "
            "measure both with the same options"
        )
    controls: list[Pair | None] = [
        (then, now) for now in new.select(CEILINGS, PRODUCT) for then in old.figures if then.key == now.key
    ] or [None]
    samples = [[_logs(pair, control) for control in controls] for pair in pairs]
    slower = _holm([max(_p_value(then, now) for then, now in some) for some in samples])
    faster = _holm([max(_p_value(now, then) for then, now in some) for some in samples])
    changes = [
        min((_change(*pair, *sample) for sample in some), key=lambda one: abs(math.log(one.times_slower)))
        for pair, some, is_slower, is_faster in zip(pairs, samples, slower, faster, strict=True)
        if is_slower or is_faster
    ]
    notes = []
    disturbed = [one for one in (old, new) if one.others_share is not None and one.others_share > BUSY_SHARE]
    if disturbed:
        shares = " and ".join(f"{one.others_share:.0%}" for one in disturbed)
        notes.append(
            f"Other processes used {shares} of the machine: what changed may be theirs, and no verdict is given."
        )
    if new.machine != old.machine:
        notes.append(
            f"The older run was on another machine: {old.machine}. Only what it did beside its ceilings counts."
        )
    return Comparison(
        old.origin, len(pairs), tuple(sorted(changes, key=lambda one: -one.times_slower)), tuple(notes), not disturbed
    )


def _is_comparable(figure: Figure) -> bool:
    return len(figure.rounds) >= LEAST_ROUNDS and min(figure.rounds) > 0


def _logs(pair: Pair, products: Pair | None) -> tuple[Doubles, Doubles]:
    """Return the logs of the old and the new times of each round, over those of the machine's products."""
    old, new = (_times(figure) for figure in pair)
    if products is None:
        return old, new
    controls = [_times(product) for product in products]
    if [len(one) for one in controls] != [len(old), len(new)]:  # Not of the same rounds: of the run as a whole.
        controls = [np.median(one, keepdims=True) for one in controls]
    return old - controls[0], new - controls[1]


def _times(figure: Figure) -> Doubles:
    times: Doubles = np.log(figure.rounds) * (1 if figure.better == "lower" else -1)
    return times


def _p_value(then: Doubles, now: Doubles) -> float:
    """Return the p-value of "it takes at most `TOLERANCE` times as long as it did"."""
    return float(mannwhitneyu(now - math.log(TOLERANCE), then, alternative="greater").pvalue)


def _holm(p_values: Sequence[float]) -> list[bool]:
    """Tell which hypotheses fall, with 5 % in all for one that should not (Holm 1979)."""
    found = [False] * len(p_values)
    for place, at in enumerate(np.argsort(p_values)):
        if p_values[at] > (1 - CONFIDENCE) / 2 / (len(p_values) - place):  # Half for slower, half for faster.
            break
        found[at] = True
    return found


def _change(old: Figure, new: Figure, then: Doubles, now: Doubles) -> Change:
    """Describe a change by the median of the differences of every new round from every old one (Hodges and Lehmann).

    The interval is the one that belongs to the Mann-Whitney test, by its normal approximation.
    """
    differences, n, m = np.sort(np.subtract.outer(now, then).ravel()), len(now), len(then)
    k = int(n * m / 2 - norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(n * m * (n + m + 1) / 12))
    low, middle, high = np.exp([differences[max(k, 0)], np.median(differences), differences[n * m - 1 - max(k, 0)]])
    return Change(f"{new.group}: {new.title}", new.unit, old.value, new.value, float(middle), float(low), float(high))
