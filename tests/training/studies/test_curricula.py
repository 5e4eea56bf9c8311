"""Curricula: levels against a plain loop, and a pace that follows the validation error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.studies.curricula import Curriculum, CurriculumFit, levels
from segue.training.studies.study import Bench


def plain_levels(cross_entropy: list[float], batch: int, curriculum: Curriculum) -> list[list[int]]:
    """Take songs from a pile, the easiest first or the hardest, `step` batches of them at a time."""
    pile = sorted(range(len(cross_entropy)), key=lambda song: cross_entropy[song], reverse=curriculum.reverse)
    found: list[list[int]] = []
    before: list[int] = []
    while pile:
        taken, pile = pile[: curriculum.step * batch], pile[curriculum.step * batch :]
        found.append([*before, *taken] if curriculum.keep else taken)
        before = [*before, *taken]
    return found


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize(("songs", "step", "batch"), [(40, 2, 5), (43, 1, 10), (9, 3, 5), (20, 4, 5)])
def test_levels_are_those_of_a_plain_loop(songs: int, step: int, batch: int, keep: bool, reverse: bool) -> None:
    hardness = np.random.default_rng(songs).permutation(songs).astype(np.float32)
    curriculum = Curriculum(step=step, keep=keep, reverse=reverse)
    found = levels(hardness, batch, curriculum)
    assert [level.tolist() for level in found] == plain_levels(hardness.tolist(), batch, curriculum)


def test_levels_by_hand_end_where_they_are_told_to() -> None:
    hardness = np.arange(10, dtype=np.float32)[::-1]
    found = levels(hardness, 2, Curriculum(by_hand=(0.5, 0.8, 1.0)))
    assert [level.tolist() for level in found] == [[9, 8, 7, 6, 5], [4, 3, 2], [1, 0]]


def test_a_curriculum_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="steps and repetitions of at least 1"):
        Curriculum(step=0)
    with pytest.raises(ConfigError, match="by_hand: expected rising shares"):
        Curriculum(by_hand=(0.5, 0.4))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    synth(tmp_path / "songs.arrow", 120, classes=3)
    (tmp_path / "kept").mkdir()
    return Bench(SongTable(tmp_path / "songs.arrow"), np.arange(80), np.arange(80, 120), tmp_path / "kept")


def test_the_next_level_comes_by_count_or_when_the_error_rises(bench: Bench) -> None:
    network = DenseConfig(hidden=(8,))
    loop = LoopConfig(epochs=3, batch_songs=10, schedule="constant", learning_rate=1e-2)
    by_count = CurriculumFit(network, loop, Curriculum(step=2, repetitions=3))
    assert len(by_count.run(bench, 0).epochs) == 4 * 3
    paced = replace(by_count, curriculum=Curriculum(step=2, advance="self-paced", most_repetitions=9))
    errors = [1 - epoch.validation_accuracy for epoch in paced.run(bench, 0).epochs]
    level, seen, times = 1, 0, 0
    for error, before in zip(errors, [np.inf, *errors], strict=False):
        times += 1
        seen += 1
        if (times > 1 and error > before) or times == 9:
            level, times = level + 1, 0
    assert seen == len(errors)
    assert level in (4, 5)
    assert times == 0 or level == 4


def test_songs_are_ordered_by_the_networks_own_cross_entropy(bench: Bench) -> None:
    loop = LoopConfig(epochs=20, batch_songs=20, learning_rate=1e-2, schedule="constant")
    hardness = CurriculumFit(DenseConfig(hidden=(16,)), loop, Curriculum()).cross_entropies(bench)
    assert hardness.shape == (80,)
    assert (hardness >= 0).all()
    assert np.median(hardness) < np.log(3)  # It has learnt most of them.
