"""Retraining with a champion: what is better is published, all else changes nothing and says why."""

import itertools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import fs

from segue.data.corrections import correct, read_corrections
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError, ReleaseError
from segue.export.drift.drift import drift
from segue.export.retrain.retrain import Retrained, main, retrain
from segue.export.retrain.suspects import sure_disagreement
from segue.serving.bundle.load import load_bundle
from segue.serving.releases.lock import locked
from segue.serving.releases.store import ReleaseStore
from segue.stages import Stages
from tests.support.catalogue import CATALOGUE_RECIPE, write_catalogue, write_songs
from tests.support.small_disk import fill, small_disk


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


@pytest.mark.long
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


@pytest.mark.long
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


STAGES = ("songs", "test", "teacher", "student", "export")


def retrain_and_die(recipe: str, place: str) -> None:
    """Retrain until a place: "STAGE begun" (its first file is there), "STAGE made" (all but its note), "STAGE"."""
    space, run = Path(recipe).parent / "work", Stages.run

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def die_with_the_first_file() -> None:
        before = set(space.rglob("*"))
        while set(space.rglob("*")) == before:
            pass
        die()

    def make_and_die(make: Callable[[], object]) -> None:
        if place.endswith("begun"):
            threading.Thread(target=die_with_the_first_file).start()
        make()
        die()

    def until(self: Stages, name: str, make: Callable[[], object], **how: Any) -> None:
        if place.startswith(f"{name} "):
            return run(self, name, lambda: make_and_die(make), **how)
        run(self, name, make, **how)
        return die() if place == name else None

    publish = ReleaseStore.publish
    if place == "publish":
        ReleaseStore.publish = die  # type: ignore[assignment, method-assign]
    if place == "published":
        ReleaseStore.publish = lambda *given, **how: die(publish(*given, **how))  # type: ignore[assignment, method-assign]
    Stages.run = until  # type: ignore[method-assign]
    torch.set_num_threads(1)  # As in the undisturbed run: sums depend on how many threads share them.
    retrain(Path(recipe))


@pytest.mark.long
def test_a_run_that_is_killed_at_every_place_goes_on_and_ends_as_an_undisturbed_one(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    write_songs(catalogue / "songs.arrow", 240, 1)
    recipe, store = catalogue / "recipe.toml", ReleaseStore(catalogue / "releases")
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["segue.export.retrain.retrain"])

    def die(place: str) -> None:
        process = context.Process(target=retrain_and_die, args=(str(recipe), place))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, place

    for stage, place in itertools.product(STAGES, ("{} begun", "{} made", "{}")):
        die(place.format(stage))
        notes = {note.stem for note in (catalogue / "work" / "stages").glob("*.json")}
        finished = STAGES[: STAGES.index(stage) + (place == "{}")]
        assert notes == set(finished), place.format(stage)
    die("publish")
    assert store.index().latest is None
    die("published")
    found = retrain(recipe)
    assert (found.ran, found.skipped) == ((), STAGES)
    assert (found.verdict, found.published) == ("unchanged: the challenger is the champion", store.index().latest)
    assert [event.kind for event in store.index().events] == ["published"]

    (catalogue / "undisturbed").mkdir()
    monkeypatch.setenv("SPACE", str(catalogue / "undisturbed"))
    for name in ("songs.arrow", "held-out.arrow"):
        shutil.copy(catalogue / name, catalogue / "undisturbed")
    undisturbed = retrain(recipe)
    assert undisturbed.ran == STAGES
    assert undisturbed.evaluation == found.evaluation


@pytest.mark.long
def test_two_retrains_and_a_prune_at_once_do_not_harm_each_other(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both challengers beat the first champion; whoever comes second is judged again, by the first of the two."""
    store = ReleaseStore(catalogue / "releases")
    week(catalogue, (240, 1, 0))
    text = CATALOGUE_RECIPE.replace("$SPACE/releases", store.where).replace("$SPACE/held", f"{catalogue}/held")
    context = multiprocessing.get_context("spawn")
    processes = []
    for seed in (2, 3):
        space = catalogue / str(seed)
        space.mkdir()
        (space / "recipe.toml").write_text(text.replace("$SPACE", str(space)))
        write_catalogue(space / "songs.arrow", [(240, 1, 0), (600, seed, 0)])
        processes.append(context.Process(target=retrain, args=(space / "recipe.toml",)))
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        store.prune(1)
        store.fetch("latest", catalogue / "read")  # Whole and verified, at any time.
    assert [process.exitcode for process in processes] == [0, 0]
    index = store.index()
    kinds = [event.kind for event in index.events if event.kind != "pruned"]
    assert kinds in (["published"] * 3, ["published"] * 2 + ["rejected"])
    assert {index.latest, index.previous} <= {release.name for release in index.releases}
    for release in index.releases:
        load_bundle(catalogue / "releases" / release.name)


@pytest.mark.long
def test_a_retrain_on_a_full_disk_publishes_nothing_and_goes_on_once_there_is_room(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(catalogue / "disk", 4 << 20) as disk:
        recipe = catalogue / "recipe.toml"
        recipe.write_text(CATALOGUE_RECIPE.replace("$SPACE/releases", f"{disk}/releases"))
        store = ReleaseStore(disk / "releases")
        first = week(catalogue, (240, 1, 0))
        write_catalogue(catalogue / "songs.arrow", [(240, 1, 0), (600, 3, 0)])
        filling = fill(disk, leave=20_000)
        assert main([str(recipe)]) == 1
        assert "No space left on device" in capsys.readouterr().err
        assert (store.index().latest, len(store.index().releases)) == (first.published, 1)
        filling.unlink()
        found = retrain(recipe)
        assert (found.ran, found.exit_code) == ((), 0)
        assert store.index().latest == found.published != first.published


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
