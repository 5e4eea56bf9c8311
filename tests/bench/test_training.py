"""What training costs: the figures fit together and reach the page, whatever the machine."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from segue.bench import training, training_memory
from segue.errors import ConfigError


def page_for(command: str, path: Path) -> Path:
    path.write_text(f"# A page\n\n<!-- written by `{command}`, do not edit -->\n<!-- end -->\n")
    return path


@pytest.mark.slow
def test_both_loops_learn_the_same_and_the_figures_fit_together(tmp_path: Path) -> None:
    page = page_for(training.COMMAND, tmp_path / "page.md")
    (one,) = training.training(threads=(1,), rounds=1, results=tmp_path / "speed.json", page=page).measured
    assert one.compared_steps == 20
    assert one.largest_difference < 1e-4
    assert one.ratio == pytest.approx(one.songs_per_s / one.plain_songs_per_s)
    assert json.loads((tmp_path / "speed.json").read_text())["measured"] == [asdict(one)]
    assert f"{one.ratio:.2f}" in page.read_text()


@pytest.mark.slow
def test_the_memory_of_training_is_measured(tmp_path: Path) -> None:
    page = page_for(training_memory.COMMAND, tmp_path / "page.md")
    (held,) = training_memory.training_memory((200,), tmp_path / "memory.json", page).held
    assert held.songs == 200
    assert held.table_bytes > 200 * 120 * 25 * 4
    assert held.peak_bytes > 50e6  # Torch alone holds more.
    assert f"{held.peak_bytes / 1e6:.0f}" in page.read_text()


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads: expected at least one number, found none"):
        training.training(threads=())
    with pytest.raises(ConfigError, match="songs: expected at least one size, found none"):
        training_memory.training_memory(())
