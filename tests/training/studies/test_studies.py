"""Studies: every one runs, a killed one goes on without repeating a cell, and what it cannot run on is said."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student_t

from segue.data.song import Songs as Segments
from segue.data.synth import Difficulty, draw_genres, draw_songs, genre_name
from segue.data.table import SongBatch, write_table
from segue.errors import ConfigError, LabelError, SongError
from segue.training import study as verb
from segue.training.fit.journal import Epoch
from segue.training.studies.fits import LabelFit, objective
from segue.training.studies.own import read_study
from segue.training.studies.registry import STUDIES, load_study
from segue.training.studies.run_cells import Songs, run_cells
from segue.training.studies.study import Bench, Cell, Claim, Found, Outcome, Scale
from segue.training.studies.verdict import interval, verdict


def table_of(path: Path, songs: int, segments: int, *, artists: bool) -> Path:
    """Write synthetic songs of four genres, three by each artist."""
    genres = draw_genres(4, 0, Difficulty())
    values, labels = draw_songs(songs, genres, Difficulty(), np.random.default_rng(0), segments=segments)
    names: list[str | None] = [genre_name(label) for label in labels]
    groups: list[str | None] = [f"artist-{row // 3}" if artists else None for row in range(songs)]
    with write_table(path, "raw", [genre_name(label) for label in range(4)]) as table:
        table.write(SongBatch([f"song-{row}" for row in range(songs)], Segments.of(values), names, groups))
    return path


@pytest.fixture(scope="module")
def long_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_of(tmp_path_factory.mktemp("songs") / "long.arrow", 300, 250, artists=True)


@pytest.mark.long
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_quickly_to_a_page(name: str, long_songs: Path, tmp_path: Path) -> None:
    found = verb.study(name, long_songs, tmp_path, quick=True, jobs=1)
    assert isinstance(found, verb.Studied)
    for setting, outcome in found.found.each():
        assert 0 <= outcome.accuracy <= 1, setting
    page = (tmp_path / "study.html").read_text()
    assert all(text in page for text in ("the original found", "A quick run", "<svg", *list(found.found.outcomes)[:1]))
    assert json.loads((tmp_path / "study.json").read_text())["verdicts"] == found.verdicts
    again = verb.study(name, long_songs, tmp_path, quick=True, jobs=1)
    assert isinstance(again, verb.Studied)
    assert again.found.outcomes == found.found.outcomes  # The songs/s of each epoch too: nothing was run again.


def test_every_study_says_what_it_is_and_compares_settings_that_it_has() -> None:
    for name in STUDIES:
        study = load_study(name)
        cells = study.cells(Scale(seeds=2, n_classes=10, n_train=40_000))
        settings = {cell.setting for cell in cells}
        assert study.title
        assert study.varies
        assert study.fixed
        assert all({claim.ahead, claim.behind} <= settings for claim in study.claims), name
        assert len({(cell.setting, cell.seed) for cell in cells}) == len(cells)


@dataclass(frozen=True)
class Slow:
    """A cell that leaves a mark each time it runs, and takes a while."""

    marks: str
    seconds: float

    def run(self, bench: Bench, seed: int) -> Outcome:
        Path(self.marks, f"{seed}-{os.getpid()}-{time.time_ns()}").touch()
        time.sleep(self.seconds)
        return Outcome(seed / 10)


KILLED = """
import sys
from pathlib import Path
from tests.training.studies.test_studies import Slow
from segue.training.studies.run_cells import Songs, run_cells
from segue.training.studies.study import Cell
songs, out, marks, seconds = sys.argv[1:]
cells = [Cell("slow", seed, Slow(marks, 0.0 if seed < 2 else float(seconds))) for seed in range(4)]
run_cells(cells, Songs(Path(songs)), Path(out), 1)
"""


def test_a_killed_study_goes_on_without_repeating_a_cell(long_songs: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    command = [sys.executable, "-c", KILLED, str(long_songs), str(tmp_path / "out"), str(marks), "600"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3]) as running:
        while len(list(marks.iterdir())) < 3:
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
    cells = [Cell("slow", seed, Slow(str(marks), 0.0 if seed < 2 else 600.0)) for seed in range(4)]
    cells = [cells[0], cells[1], *(replace(cell, fit=Slow(str(marks), 0.0)) for cell in cells[2:])]
    outcomes = run_cells(cells, Songs(long_songs), tmp_path / "out", 1)
    assert [one.accuracy for one in outcomes["slow"]] == [0.0, 0.1, 0.2, 0.3]
    runs = [int(mark.name.split("-")[0]) for mark in marks.iterdir()]
    assert [runs.count(seed) for seed in range(4)] == [1, 1, 2, 1]  # The third was running when it was killed.


def test_cells_run_side_by_side_come_to_the_same(long_songs: Path, tmp_path: Path) -> None:
    study = load_study("noise")
    cells = study.cells(Scale(1, 4, 60, quick=True))[:3]
    songs = Songs(long_songs, most_train=60, most_validation=40)
    apart, together = (run_cells(cells, songs, tmp_path / str(jobs), jobs) for jobs in (1, 2))
    for setting, (one,) in apart.items():
        (other,) = together[setting]
        assert [epoch.validation_nll for epoch in one.epochs] == [epoch.validation_nll for epoch in other.epochs]


def test_a_cell_whose_settings_changed_is_run_again(long_songs: Path, tmp_path: Path) -> None:
    songs = Songs(long_songs)
    for seconds in (0.0, 0.001, 0.001):
        run_cells([Cell("slow", 0, Slow(str(tmp_path), seconds))], songs, tmp_path / "out", 1)
    assert len([mark for mark in tmp_path.iterdir() if mark.is_file()]) == 2


def found_of(**accuracies: list[float]) -> Found:
    outcomes = {name: [Outcome(value) for value in values] for name, values in accuracies.items()}
    return Found("mine", "songs.arrow", 100, 400, 0.25, Scale(3, 4, 100), outcomes)


def test_a_verdict_is_the_interval_of_paired_differences() -> None:
    better, worse = [0.61, 0.64, 0.60], [0.58, 0.60, 0.58]
    differences = 100 * (np.array(better) - worse)
    half = student_t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    found, claim = found_of(a=better, b=worse), Claim("a", "b", "A helps")
    assert verdict(found, claim) == (
        f"A helps: holds here. a is +3.0 points from b (95 %: {3 - half:+.1f} to {3 + half:+.1f}; 3 seeds)."
    )
    assert "does not hold here: it is the other way round" in verdict(found, Claim("b", "a", "B helps"))
    assert "cannot be told here" in verdict(found_of(a=[0.6, 0.5, 0.6], b=[0.5, 0.6, 0.5]), claim)
    assert "one seed, the interval is that of 400 songs" in verdict(found_of(a=[0.6], b=[0.59]), claim)
    one = interval(better)
    assert one.mean == pytest.approx(np.mean(better))
    assert one.low < one.mean < one.high
    assert verdict(found_of(a=[0.5]), claim) == "A helps: not run at this scale."


def test_the_objective_of_a_search_is_a_plain_sort() -> None:
    values = np.random.default_rng(0).random(40)
    epochs = [Epoch(at + 1, 1.0, None, float(value), 1.0, 1e-4, 1.0) for at, value in enumerate(values)]
    assert objective(epochs, "best") == values.max()
    assert objective(epochs, "last") == values[-1]
    assert objective(epochs, "best tenth") == pytest.approx(sorted(values)[-4:] @ np.full(4, 0.25))
    assert objective(epochs[:7], "best tenth") == values[:7].max()


def test_songs_that_are_too_short_or_without_artists_are_refused(tmp_path: Path) -> None:
    short = table_of(tmp_path / "short.arrow", 120, 130, artists=False)
    with pytest.raises(SongError, match=r"expected labelled songs of at least 240 segments for this study, found 0 of"):
        verb.study("whole-songs", short, tmp_path / "out", quick=True)
    with pytest.raises(LabelError, match=r"expected songs with a group \(the artist\)"):
        verb.study("real-songs", short, tmp_path / "out", quick=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing", "songs.arrow", "--out", "out"], "nothing: expected a study, or a TOML file of your own"),
        (["folds"], "expected NAME SONGS --out FOLDER, or --list"),
        (["folds", "songs.arrow", "--out", "out", "--seeds", "0"], "seeds: expected at least 1, found 0"),
        (["missing.toml", "songs.arrow", "--out", "out"], "missing.toml: expected a study, found no such file"),
    ],
)
def test_what_cannot_be_run_is_said(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(words) == 1
    assert told in capsys.readouterr().err


OWN = """
title = "Mine"
[network]
shape = "dense"
[loop]
epochs = 2
[varies]
"network.hidden" = [[8], [16]]
"loop.learning_rate" = [1e-3, 1]
"""


def test_an_own_study_runs_every_combination(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    cells = read_study(tmp_path / "own.toml").cells(Scale(2, 4, 100))
    assert len(cells) == 8
    fits = {cell.setting: cell.fit for cell in cells}
    fit = fits["hidden 16, learning_rate 1"]
    assert isinstance(fit, LabelFit)
    assert (fit.network.hidden, fit.loop.learning_rate, fit.loop.epochs) == ((16,), 1.0, 2)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title", "titel", "titel"),
        ('title = "Mine"', "", "expected a `title`, found none"),
        ('"dense"', '"round"', "network.shape: expected one of recurrent, convolutional, dense, found 'round'"),
        ("network.hidden", "network.hiden", "hiden"),
        ("network.hidden", "hidden", "varies: expected network.FIELD, loop.FIELD or labels.FIELD, found 'hidden'"),
        ("[[8], [16]]", "[]", "varies: expected at least one value of network.hidden, found none"),
        ("[[8], [16]]", "[[0]]", "hidden: expected at least 1 neuron a layer, found 0"),
        ("epochs = 2", 'epochs = "two"', "epochs"),
        ("epochs = 2", "epochs = 0", "epochs: expected at least 1, found 0"),
        ("[varies]", "[varies", "not a TOML file"),
    ],
)
def test_a_mistake_in_an_own_study_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace(old, new, 1))
    with pytest.raises(ConfigError, match=r"own\.toml: ") as refused:
        read_study(file)
    assert told in str(refused.value)
