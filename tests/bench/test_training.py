"""What training costs: both loops learn the same, and what is measured reaches the page."""

from pathlib import Path

import numpy as np
import pytest

from segue.bench import training_memory
from segue.bench.plain_training import Lesson, PlainLesson
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError


def page_for(command: str, path: Path) -> Path:
    path.write_text(f"# A page\n\n<!-- written by `{command}`, do not edit -->\n<!-- end -->\n")
    return path


def test_both_loops_learn_the_same(tmp_path: Path) -> None:
    synth(tmp_path / "songs.arrow", 100)
    songs = SongTable(tmp_path / "songs.arrow")
    rows = np.arange(100)
    ours, plain = Lesson(songs, rows), PlainLesson(songs, rows)
    ours.epoch()
    assert [len(batch) for batch in ours.feed.batches] == [50, 50]
    expected = plain.epoch(ours.feed.batches)
    found = [float(value) for value in ours.loss.values]
    assert len(found) == len(expected) == 60
    np.testing.assert_allclose(found[:20], expected[:20], atol=1e-4)


@pytest.mark.slow
def test_the_memory_of_training_is_measured(tmp_path: Path) -> None:
    page = page_for(training_memory.COMMAND, tmp_path / "page.md")
    (held,) = training_memory.training_memory((200,), tmp_path / "memory.json", page).held
    assert held.songs == 200
    assert held.table_bytes > 200 * 120 * 25 * 4
    assert held.peak_bytes > 50e6  # Torch alone holds more.
    assert f"{held.peak_bytes / 1e6:.0f}" in page.read_text()


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match="songs: expected at least one size, found none"):
        training_memory.training_memory(())
