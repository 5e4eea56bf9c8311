"""Searches: what is drawn is in its space, the same trials lead to the same next one, and the best comes out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segue.data.synth import synth
from segue.data.table import SongTable
from segue.training.fit.journal import Epoch
from segue.training.studies.search import Range, Search, Values, suggest
from segue.training.studies.study import Bench, Outcome, Trial

SPACE = {
    "keep": Range(0.4, 1.0), "neurons": Range(15, 500, whole=True), "decay": Range(1e-3, 10, log=True),
    "n": Range(choices=(2, 4, 60)),
}  # fmt: skip


@dataclass(frozen=True)
class Hill:
    """A figure that is largest at keep 0.7."""

    keep: float

    def run(self, bench: Bench, seed: int) -> Outcome:
        value = 1 - (self.keep - 0.7) ** 2
        return Outcome(value, [Epoch(1, 1.0, None, value, 1.0, 1e-4, 1.0)])


def hill(values: Values, settings: object) -> Hill:
    return Hill(values["keep"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    synth(tmp_path / "songs.arrow", 20, classes=2)
    return Bench(SongTable(tmp_path / "songs.arrow"), np.arange(10), np.arange(10, 20), tmp_path / "kept")


def test_what_is_drawn_is_in_its_space_and_follows_from_the_trials() -> None:
    trials: list[Trial] = []
    for _ in range(6):
        values = suggest(SPACE, trials, 3, seed=0)
        assert values == suggest(SPACE, trials, 3, seed=0)
        assert 0.4 <= values["keep"] <= 1
        assert values["neurons"] in range(15, 501)
        assert 1e-3 <= values["decay"] <= 10
        assert values["n"] in (2, 4, 60)
        trials.append(Trial(values, values["keep"], 0.0))
    assert suggest(SPACE, [], 3, seed=0) != suggest(SPACE, [], 3, seed=1)


def test_the_gaussian_process_finds_the_top_of_a_hill(bench: Bench) -> None:
    found = Search({"keep": Range(0.4, 1.0)}, hill, None, calls=12, starts=3, objective="best").run(bench, 0)
    assert len(found.trials) == 12
    assert abs(found.figures["best keep"] - 0.7) < 0.02
    assert found.accuracy == found.figures["objective"] == max(trial.objective for trial in found.trials)


def test_a_search_that_goes_on_is_the_search_that_never_stopped(bench: Bench) -> None:
    space = {"keep": Range(0.4, 1.0)}
    whole = Search(space, hill, None, calls=6, starts=2, objective="best").run(bench, 0)
    notes = sorted((bench.folder / "trials").glob("*.json"))
    assert len(notes) == 6
    for note in notes:
        if note.stem.endswith(("-4", "-5")):
            note.unlink()
    times = {note: note.stat().st_mtime_ns for note in (bench.folder / "trials").glob("*.json")}
    again = Search(space, hill, None, calls=6, starts=2, objective="best").run(bench, 0)
    assert again == whole
    assert all(note.stat().st_mtime_ns == before for note, before in times.items())
