"""Conversions that are killed and started again."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from segue.data.sources.resume import resumable_table
from segue.data.table import SongTable
from tests.data.sources.test_msd import write_track
from tests.support.random_songs import random_batch, random_segments

# Notes its progress at every batch of ten tracks, and reads slowly, so that a kill hits the middle.
SLOW_CONVERSION = """
import sys, time
import segue.data.sources.msd, segue.data.sources.resume, segue.data.songs
segue.data.sources.msd.TRACKS_AT_A_TIME = 10
segue.data.sources.msd.usable_cores = lambda: 1
segue.data.sources.resume.JOURNAL_EVERY_S = 0
read = segue.data.sources.msd.read_track
segue.data.sources.msd.read_track = lambda file: (time.sleep(0.002), read(file))[1]
sys.exit(segue.data.songs.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks")
    for number in range(300):
        write_track(folder / f"{number:03d}.h5", f"TR{number:03d}", random_segments(100 + number, seed=number))
    (folder / "007.h5").write_bytes(b"cut")
    return folder


def convert(tracks: Path, out: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_CONVERSION, str(tracks), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def written(out: Path) -> int:
    """Return how many bytes of the table lie on the disk."""
    return sum(file.stat().st_size for file in out.parent.glob(f".{out.name}.*.partial"))


def test_a_conversion_killed_three_times_gives_the_table_of_an_undisturbed_one(tracks: Path, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed.arrow", tmp_path / "disturbed.arrow"
    reports = convert(tracks, undisturbed).communicate()
    goal = undisturbed.stat().st_size
    rng = random.Random(0)
    for kill in range(3):
        running = convert(tracks, disturbed)
        least = goal * (kill + rng.random()) / 4
        while running.poll() is None and written(disturbed) < least:
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert running.returncode == -signal.SIGKILL
        assert not disturbed.exists()
    out, log = convert(tracks, disturbed).communicate()
    assert b"going on after" in log
    assert out.replace(b"disturbed.arrow", b"") == reports[0].replace(b"undisturbed.arrow", b"")
    errors = [Path(f"{out}.errors.tsv") for out in (disturbed, undisturbed)]
    assert sorted(tmp_path.iterdir()) == sorted([disturbed, undisturbed, *errors])
    assert errors[0].read_bytes() == errors[1].read_bytes()
    assert disturbed.read_bytes() == undisturbed.read_bytes()


def test_of_two_conversions_into_one_table_the_second_says_who_is_writing(tracks: Path, tmp_path: Path) -> None:
    out = tmp_path / "songs.arrow"
    first = convert(tracks, out)
    while not list(tmp_path.glob(".songs.arrow.*.partial")):
        assert first.poll() is None
    _, complaint = convert(tracks, out).communicate()
    assert f"songs.arrow: process {first.pid} is writing it".encode() in complaint
    first.communicate()
    assert (first.returncode, len(SongTable(out)), len(list(tmp_path.iterdir()))) == (0, 299, 2)


def test_what_a_killed_run_left_is_removed_by_the_next(tracks: Path, tmp_path: Path) -> None:
    out = tmp_path / "songs.arrow"
    for leftover in (".songs.arrow.0.partial", ".songs.arrow.everything.arrow", ".songs.arrow.lock"):
        (tmp_path / leftover).write_bytes(b"half")
    (tmp_path / "..songs.arrow.everything.arrow.0.partial").write_bytes(b"half")
    (tmp_path / ".songs.arrow.old.0.partial").write_bytes(b"of songs.arrow.old")
    convert(tracks, out).communicate()
    assert {file.name for file in tmp_path.iterdir()} == {
        "songs.arrow",
        "songs.arrow.errors.tsv",
        ".songs.arrow.old.0.partial",
    }


def test_a_draft_made_from_something_else_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.sources.resume.JOURNAL_EVERY_S", 0)
    out, batch = tmp_path / "songs.arrow", random_batch([3, 4])
    with pytest.raises(KeyboardInterrupt), resumable_table(out, "raw", (), "these songs") as table:
        table.write(batch)
        table.note({"done": 2})
        raise KeyboardInterrupt
    with resumable_table(out, "raw", (), "other songs") as table:
        assert table.state is None
        table.write(random_batch([5], seed=1))
    assert SongTable(out).lengths.tolist() == [5]
    assert list(tmp_path.iterdir()) == [out]


def test_what_was_noted_is_there_again_and_the_rest_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.sources.resume.JOURNAL_EVERY_S", 0)
    out, noted, lost = tmp_path / "songs.arrow", random_batch([3, 4]), random_batch([5], seed=1)
    with pytest.raises(KeyboardInterrupt), resumable_table(out, "raw", (), "key") as table:
        table.write(noted)
        table.note({"done": 2})
        table.write(lost)
        raise KeyboardInterrupt
    with resumable_table(out, "raw", (), "key") as table:
        assert (table.state, table.song_ids) == ({"done": 2}, set(noted.song_ids))
    found = SongTable(out)
    np.testing.assert_array_equal(np.concatenate(found.songs([0, 1])), noted.songs.segments)
    assert len(found) == 2


def test_an_error_leaves_no_draft(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), resumable_table(tmp_path / "songs.arrow", "raw", (), "key") as table:
        table.write(random_batch([3]))
        raise ValueError("no")
    assert not list(tmp_path.iterdir())
