"""Selection of teachers: the best, then those that gain beyond chance; by what they say of songs they never saw."""

import numpy as np
import pytest

from segue.data.splits import Splits
from segue.training.fit.selection import as_measured, select

SONGS, CLASSES = 600, 4
LABELS = np.random.default_rng(0).integers(CLASSES, size=SONGS)
ALIKE = np.ones(SONGS)


def says(seed: int, signal: float, spread: float = 1.0) -> np.ndarray:
    """Return logits that are right as often as the signal is strong, wrong on their own songs."""
    noise = np.random.default_rng([1, seed]).normal(size=(SONGS, CLASSES))
    logits: np.ndarray = spread * (signal * np.eye(CLASSES)[LABELS] + noise)
    return logits.astype(np.float32)


def test_teachers_that_are_wrong_on_different_songs_are_joined() -> None:
    found = select([says(0, 0.9), says(1, 1.1), says(2, 1.0)], LABELS, ALIKE)
    assert found.members[0] == 1
    assert set(found.members) == {0, 1, 2}
    assert all(reason.startswith("kept") for reason in found.reasons)


def test_a_teacher_that_says_the_same_again_or_knows_nothing_is_left_out() -> None:
    good, other = says(0, 1.2), says(1, 1.0)
    found = select([good, good * 3, says(2, 0.0), other], LABELS, ALIKE)
    assert sorted(found.members) == [0, 3] or sorted(found.members) == [1, 3]
    assert sum(reason.startswith("left out") for reason in found.reasons) == 2
    assert found.reasons[2].startswith("left out")


@pytest.mark.parametrize("seed", range(20))
def test_a_member_that_pays_by_chance_alone_is_seldom_kept(seed: int) -> None:
    """Of teachers that know nothing, one is kept if it gains a standard error: about one of six, before temperature."""
    found = select([says(seed, 1.5), says(100 + seed, 0.0)], LABELS, ALIKE)
    assert found.members == (0,)


def test_how_sure_a_teacher_is_does_not_count_but_how_right() -> None:
    assert select([says(0, 1.0, spread=0.2), says(1, 1.4, spread=8.0)], LABELS, ALIKE).members[0] == 1


def test_songs_count_as_they_weigh() -> None:
    """A teacher that is good at one class alone is the best where only that class counts."""
    weights = (LABELS == 2).astype(float)
    narrow = says(0, 0.2)
    narrow[LABELS == 2, 2] += 2
    assert select([says(1, 1.0), narrow], LABELS, weights).members[0] == 1
    assert select([says(1, 1.0), narrow], LABELS, ALIKE).members[0] == 0


def test_training_songs_count_as_their_classes_do_among_the_songs_that_measure() -> None:
    labels = np.array([0] * 60 + [1] * 20 + [-1] * 5 + [0] * 5 + [1] * 5)
    rows = np.arange(len(labels))
    splits = Splits(train=rows[:80], validation=rows[85:85], calibration=rows[85:], test=rows[:0])
    weights = as_measured(labels, splits)
    assert weights[:60].sum() == pytest.approx(weights[60:].sum())
    nothing = Splits(train=rows[:80], validation=rows[:0], calibration=rows[:0], test=rows[:0])
    assert as_measured(labels, nothing).tolist() == [1.0] * 80
