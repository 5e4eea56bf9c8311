"""Retraining with a champion: what is better is published, all else changes nothing and says why."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from segue.data.corrections import correct, read_corrections
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError, ReleaseError
from segue.export.drift.drift import drift
from segue.export.retrain.retrain import Retrained, main, retrain
from segue.export.retrain.suspects import sure_disagreement
from segue.serving.releases.lock import locked
from segue.serving.releases.store import ReleaseStore
from tests.support.catalogue import CATALOGUE_RECIPE, write_catalogue, write_songs


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a recipe and held-out songs."""
    monkeypatch.setenv("SPACE", str(tmp_path))
    (tmp_path / "recipe.toml").write_text(CATALOGUE_RECIPE)
    write_songs(tmp_path / "held-out.arrow", 1200, 999)
    return tmp_path


def week(catalogue: Path, *weeks: tuple[int, int, float]) -> Retrained:
    """Retrain on the songs of some weeks."""
    write_catalogue(catalogue / "songs.arrow", weeks)
    return retrain(catalogue / "recipe.toml")


@pytest.mark.slow
def test_shuffled_labels_are_rejected_twice_the_songs_published_and_an_equal_is_not_told_apart(
    catalogue: Path,
) -> None:
    store = ReleaseStore(catalogue / "releases")
    first = week(catalogue, (240, 1, 0))
    assert (first.exit_code, first.verdict) == (0, "published: the first release: there is no champion to beat")
    again = retrain(catalogue / "recipe.toml")
    assert (again.exit_code, again.verdict) == (0, "unchanged: the challenger is the champion")
    before = store.index()
    shuffled = week(catalogue, (240, 1, 0), (240, 2, 0.9))
    assert shuffled.exit_code == 3
    assert "Accuracy: -" in str(shuffled.verdict)
    assert (store.index().latest, store.index().releases) == (before.latest, before.releases)
    better = week(catalogue, (240, 1, 0), (600, 3, 0))
    assert better.exit_code == 0
    assert str(better.verdict).startswith("published: better: +")
    equal = week(catalogue, (240, 5, 0), (600, 6, 0))
    assert equal.exit_code == 3
    assert "beyond chance" in str(equal.verdict) or "too few" in str(equal.verdict)
    assert store.index().latest == better.published


@pytest.mark.slow
def test_a_month_in_the_life_of_a_catalogue(catalogue: Path) -> None:
    """Four weekly retrains with new songs; a bad label batch, a drift and a rollback on the way."""
    store = ReleaseStore(catalogue / "releases")
    weeks: list[tuple[int, int, float]] = [(240, 1, 0)]
    first = week(catalogue, *weeks)

    weeks.append((600, 2, 0))  # Week 2: new songs, and better for it.
    second = week(catalogue, *weeks)
    assert (first.exit_code, second.exit_code) == (0, 0)

    bad = week(catalogue, *weeks, (500, 3, 0.9))  # Week 3: somebody's labels are wrong. The champion stays ...
    assert (bad.exit_code, store.index().latest) == (3, second.published)
    suspects = (catalogue / "work" / "suspects.csv").read_text().splitlines()[1:]
    assert bad.suspects == len(suspects) > 100  # ... and names them: nearly all are of the bad batch.
    assert np.mean([line.startswith("song-3-") for line in suspects]) > 0.7

    loud = write_songs(catalogue / "loud.arrow", 300, 4, louder_db=6)  # Week 4: another mastering comes in.
    champion = catalogue / "champion"
    store.fetch("latest", champion)
    assert drift(champion, write_songs(catalogue / "calm.arrow", 300, 5)).exit_code == 0
    drifted = drift(champion, loud)
    assert drifted.exit_code == 4
    assert "loudness_start_db mean" in drifted.words

    store.rollback(why="listeners complain")
    assert store.index().latest == first.published
    fourth = week(catalogue, *weeks, (600, 6, 0))  # Against the older champion it is better; the story goes on.
    assert fourth.exit_code == 0
    index = store.index()
    assert [event.kind for event in index.events] == ["published", "published", "rejected", "rolled back", "published"]
    assert (index.latest, index.previous) == (fourth.published, first.published)
    story = (catalogue / "releases" / "index.html").read_text()
    for event in index.events:
        assert event.page is None or f'href="{event.page}"' in story
        assert event.page is None or (catalogue / "releases" / event.page).is_file()
    assert "listeners complain" in story


KILLED = """
import os, signal, sys
from pathlib import Path
import segue.export.retrain.retrain as module
from segue.stages import Stages
place = sys.argv[2]
run = Stages.run
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def killed(self, name, make, **how):
    if name == place.removesuffix(" inside"):
        if place.endswith(" inside"):
            def half():
                Path(how["output"]).with_name("half").write_text("x")
                die()
            return run(self, name, half, **how)
        run(self, name, make, **how)
        die()
    return run(self, name, make, **how)
Stages.run = killed
if place == "publish":
    module.ReleaseStore.publish = die
module.retrain(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["songs", "test", "teacher inside", "teacher", "student inside", "export", "publish"])
def test_a_killed_run_goes_on_where_it_was(catalogue: Path, place: str) -> None:
    write_songs(catalogue / "songs.arrow", 240, 1)
    recipe = catalogue / "recipe.toml"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(recipe), place])
    assert ended.returncode == -signal.SIGKILL
    store = ReleaseStore(catalogue / "releases")
    assert store.index().latest is None
    found = retrain(recipe)
    finished = {"songs": 1, "test": 2, "teacher": 3, "export": 5, "publish": 5}
    assert len(found.skipped) == finished.get(place, {"teacher inside": 2, "student inside": 3}.get(place, 0))
    assert (found.exit_code, store.index().latest) == (0, found.published)


def test_two_retrains_at_once_in_one_workspace_are_one(catalogue: Path) -> None:
    with (
        locked(fs.LocalFileSystem(), str(catalogue / "work" / ".lock"), "retrain"),
        pytest.raises(ReleaseError, match=r"locked by process .*, to retrain"),
    ):
        retrain(catalogue / "recipe.toml")


def test_a_gate_needs_songs_that_nobody_has_seen(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = catalogue / "recipe.toml"
    recipe.write_text(CATALOGUE_RECIPE.replace('[test]\nsources = ["$SPACE/held-out.arrow"]\n', ""))
    with pytest.raises(ConfigError, match=r"gate: expected a \[test\] table"):
        retrain(recipe)
    recipe.write_text(recipe.read_text().replace('releases = "$SPACE/releases"\n', ""))
    with pytest.raises(ConfigError, match="--drop-suspects: expected a champion"):
        retrain(recipe, drop_suspects=True)
    assert main([str(catalogue / "none.toml")]) == 1
    assert "expected a recipe" in capsys.readouterr().err


def test_later_corrections_win_and_conflicts_are_told(tmp_path: Path) -> None:
    songs = SongTable(write_songs(tmp_path / "songs.arrow", 40, 7))
    names = [songs.classes[label] for label in songs.labels[:3]]
    other = next(name for name in songs.classes if name not in names[:2])
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text(f"genre,song_id\n{names[1]},song-7-0\n{other},song-7-1\n{names[2]},song-7-2\n")
    second.write_text(f"song_id,genre\nsong-7-0,{other}\nstranger,{other}\n")
    found = correct(songs, read_corrections([first, second]), tmp_path / "out.arrow", drop=["song-7-5", "song-7-0"])
    after = SongTable(tmp_path / "out.arrow")
    assert [after.classes[label] for label in after.labels[:3]] == [other, other, names[2]]
    assert after.labels[5] == -1
    assert (found.changed, found.confirmed, found.labelled, found.unknown, found.dropped) == (2, 1, 0, 1, 1)
    assert found.conflicts == {"song-7-0": (names[1], other)}
    assert np.array_equal(after.segments(39), songs.segments(39))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("song,genre\na,b\n", "expected the columns song_id and genre, found song, genre"),
        ("song_id,genre\nsong-7-0,\n", "row 1: expected a song_id and a genre"),
        ("song_id,genre\nsong-7-0,Polka\n", "expected genres among .*; found Polka"),
    ],
)
def test_corrections_that_cannot_be_are_named(tmp_path: Path, text: str, message: str) -> None:
    songs = SongTable(write_songs(tmp_path / "songs.arrow", 40, 7))
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(LabelError, match=message):
        correct(songs, read_corrections([tmp_path / "c.csv"]), tmp_path / "out.arrow")


def test_sure_disagreement_is_above_the_mean_of_those_that_are_labelled_so() -> None:
    probs = np.array([[0.9, 0.1], [0.7, 0.3], [0.85, 0.15], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([0, 0, 1, 1, 1])
    # Songs labelled 0 get 0.8 for it on average: the third is surer than that of 0, the fourth is not.
    assert sure_disagreement(probs, labels).tolist() == [False, False, True, False, False]
