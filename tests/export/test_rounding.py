"""What rounding costs: counted song by song, with an interval that covers, and a reason where it is too much."""

import re

import numpy as np
import pytest

from segue.data.song import Floats
from segue.export.rounding import compare_rounded, lost_points_between, why_not_rounded
from segue.serving.bundle.manifest import Rounding


class Says:
    """A model that says the class written in a song's first number."""

    def __init__(self, change: dict[int, int], per_mate: float = 0.0) -> None:
        self._change, self._per_mate = change, per_mate

    def logits(self, windows: Floats) -> Floats:
        classes = [self._change.get(int(one), int(one) % 3) for one in windows[:, 0, 0]]
        return (np.eye(3)[classes] + self._per_mate * len(windows)).astype(np.float32)


def test_songs_lost_and_won_are_counted() -> None:
    windows = np.zeros((100, 120, 25), dtype=np.float32)
    windows[:, 0, 0] = np.arange(100)
    labels = np.arange(100) % 3
    labels[90:] = (labels[90:] + 1) % 3  # The exact model errs on the last ten.
    change = {3: 1, 6: 2, 9: 1, 90: int(labels[90]), 91: int(labels[91] + 1) % 3}  # Three lost, one won, one as wrong.
    found = compare_rounded(Says({}), Says(change), windows, labels)
    assert (found.songs, found.batch_difference) == (100, 0)
    assert found.agreement == pytest.approx(0.95)
    assert found.lost_points == pytest.approx(2)
    low, high = found.lost_points_between
    assert low < 2 < high


def test_a_batch_that_changes_a_song_is_noticed() -> None:
    windows = np.zeros((80, 120, 25), dtype=np.float32)
    found = compare_rounded(Says({}), Says({}, per_mate=1e-3), windows, np.zeros(80, dtype=np.int64))
    assert found.batch_difference == pytest.approx(0.015, abs=1e-6)  # Alone, and with 15 others.


def test_the_interval_covers_the_true_loss() -> None:
    rng = np.random.default_rng(0)
    for lost, won, songs in ((0.02, 0.01, 200), (0.05, 0.05, 100), (0.003, 0.001, 1000)):
        draws = rng.multinomial(songs, [lost, won, 1 - lost - won], size=4000)
        bounds = np.array([lost_points_between(int(a), int(b), songs) for a, b, _ in draws])
        covered = (bounds[:, 0] <= 100 * (lost - won)) & (100 * (lost - won) <= bounds[:, 1])
        assert covered.mean() > 0.94


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Rounding(200, 0.99, 0.5, (-1.0, 2.0), 0.01), None),
        (Rounding(200, 0.99, -3.0, (-5.0, -1.0), 0.0), None),
        (
            Rounding(200, 0.9, 1.5, (-0.2, 3.2), 0.0),
            r"costs 1.5 points of accuracy \(-0.2 to 3.2\) on 200 validation songs; it may cost 0.5",
        ),
        (Rounding(200, 0.98, 0.0, (-2.0, 2.0), 0.0), None),
        (
            Rounding(200, 0.975, 0.0, (-2.0, 2.0), 0.0),
            "the same genre as in fp32 for 97.5% of 200 validation songs; it must be for 98.0%",
        ),
        (Rounding(200, 1.0, 0.0, (0.0, 0.0), 0.02), "change a song's logits by 0.02; they may by 0.01"),
        (Rounding(200, 0.9, float("nan"), (0.0, 0.0), 0.0), "costs nan points"),
    ],
)
def test_what_costs_too_much_is_not_shipped(found: Rounding, reason: str | None) -> None:
    said = why_not_rounded(found, most_points=0.5, least_agreement=0.98)
    assert said is None if reason is None else re.search(reason, str(said))
