"""Scoring a catalogue: `segue score`, from a table on disk to answers on disk, beside the models alone in process."""

from itertools import count
from pathlib import Path

import pytest

from segue.bench.suites.conftest import Measure
from segue.data.table import SongTable
from segue.serving.batch.dial import Mode
from segue.serving.batch.score import score
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade

MODES: tuple[Mode, ...] = ("fast", "balanced")
SONGS_AT_A_TIME = 1024


@pytest.mark.parametrize("mode", MODES)
def test_score(measure: Measure, bundle: Path, table: SongTable, space: Path, mode: Mode) -> None:
    """The verb."""
    number = count()

    def run() -> None:
        score(bundle, (str(table.path),), space / f"scored-{mode}-{next(number)}", mode=mode)

    measure(f"scoring, {mode}", run, len(table), by="segue score", least=3)


@pytest.mark.parametrize("mode", MODES)
def test_in_process(measure: Measure, bundle: Path, table: SongTable, mode: Mode) -> None:
    """The baseline: songs in memory, answers forgotten."""
    cascade = open_cascade(load_bundle(bundle))
    parts = [table.songs(rows) for rows in table.spans(SONGS_AT_A_TIME)]

    def run() -> None:
        for songs in parts:
            if mode == "fast":
                cascade.student.predict(songs)
            else:
                cascade.answer(songs)

    measure(f"scoring, {mode}", run, len(table), by="models in process", least=3)
