"""HDF5 from anybody: nothing outside the file is read, and headers that lie, loop or claim terabytes harm one song."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from segue.data.sources.msd import MsdTracks
from segue.data.sources.msd_summary import MsdSummary
from segue.data.sources.source import Skipped
from segue.data.table import SongBatch
from segue.errors import SongError
from tests.data.sources.test_msd import write_track
from tests.data.sources.test_msd_summary import three_songs, write_summary
from tests.support.random_songs import random_segments

TIMBRE = "analysis/segments_timbre"


def anew(file: Any, name: str, **how: Any) -> None:
    del file[name]
    file.create_dataset(name, **how)


def link(name: str, target: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = target

    return change


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((5, 12), "f8")
    layout[:] = h5py.VirtualSource("other.h5", TIMBRE, (5, 12))
    del file[TIMBRE]
    file.create_virtual_dataset(TIMBRE, layout)


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "external link": (link(TIMBRE, h5py.ExternalLink("other.h5", f"/{TIMBRE}")), "found a link"),
    "external link to a fifo": (link(TIMBRE, h5py.ExternalLink("fifo", "/x")), "found a link"),
    "external link to a group": (link("analysis", h5py.ExternalLink("other.h5", "/analysis")), "found a link"),
    "soft link": (link(TIMBRE, h5py.SoftLink("/metadata/songs")), "found a link"),
    "loop": (link(TIMBRE, h5py.SoftLink(f"/{TIMBRE}")), "found a link"),
    "loop of groups": (link("metadata", h5py.SoftLink("/metadata")), "found a link"),
    "external storage": (
        lambda file: anew(file, TIMBRE, shape=(5, 12), dtype="f8", external=[("/etc/passwd", 0, 480)]),
        "found one that other files hold",
    ),
    "virtual": (virtual, "found one that other files hold"),
    "10^12 rows": (
        lambda file: anew(file, TIMBRE, shape=(10**12, 12), dtype="f8", chunks=(1024, 12)),
        "expected at most 100000 rows",
    ),
    "huge chunks": (
        lambda file: anew(file, TIMBRE, shape=(5, 12), dtype="f8", maxshape=(None, 12), chunks=(2 * 10**7, 12)),
        "expected chunks of at most",
    ),
    "three dimensions": (lambda file: anew(file, TIMBRE, data=np.zeros((5, 12, 10**4), "f4")), "found shape (5, 12, "),
    "text for numbers": (lambda file: anew(file, TIMBRE, data=np.full((5, 12), b"abc")), "expected numbers in"),
    "text of variable length": (
        lambda file: anew(file, "metadata/songs", data=np.array([("AR1",)], [("artist_id", h5py.string_dtype())])),
        "expected text of at most 1024 bytes in artist_id",
    ),
    "an id of a megabyte": (
        lambda file: anew(file, "metadata/songs", data=np.array([(b"AR1",)], [("artist_id", "S1000000")])),
        "expected text of at most 1024 bytes in artist_id",
    ),
    "a number for an id": (
        lambda file: anew(file, "metadata/songs", data=np.array([(7,)], [("artist_id", "i4")])),
        "expected text of at most 1024 bytes in artist_id",
    ),
}


@pytest.mark.parametrize(("change", "complaint"), CHANGES.values(), ids=CHANGES)
def test_one_bad_track_is_left_out(tmp_path: Path, change: Callable[[Any], None], complaint: str) -> None:
    write_track(tmp_path / "other.h5", "TR0", random_segments(5))
    os.mkfifo(tmp_path / "fifo")
    with h5py.File(write_track(tmp_path / "tree/bad.h5", "TR1", random_segments(5)), "a") as file:
        change(file)
    write_track(tmp_path / "tree/sound.h5", "TR2", random_segments(4, 2))
    os.link(tmp_path / "other.h5", tmp_path / "tree/other.hdf5.bak")
    skipped, batch = MsdTracks(tmp_path / "tree").batches()
    assert isinstance(skipped, Skipped)
    assert isinstance(batch, SongBatch)
    assert (skipped.name, batch.song_ids) == ("bad.h5", ["TR2"])
    assert complaint in skipped.reason
    np.testing.assert_array_equal(batch.songs.segments, random_segments(4, 2))


@pytest.mark.parametrize("part", [TIMBRE, "analysis/songs", "metadata/songs", "analysis/segments_loudness_start"])
@pytest.mark.parametrize("target", [h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/x")])
def test_a_summary_with_links_is_refused(tmp_path: Path, part: str, target: Any) -> None:
    path = write_summary(tmp_path / "summary.h5", three_songs())
    with h5py.File(path, "a") as file:
        link(part, target)(file)
    with pytest.raises(SongError, match=f"expected /{part} within the file, found a link"):
        MsdSummary(path)


def test_a_track_without_an_id_is_called_by_its_file(tmp_path: Path) -> None:
    write_track(tmp_path / "tree/TR7.h5", "", random_segments(5))
    write_track(tmp_path / "tree" / os.fsdecode(b"caf\xe9.h5"), "  ", random_segments(5), artist_id=" ")
    (batch,) = MsdTracks(tmp_path / "tree").batches()
    assert isinstance(batch, SongBatch)
    assert (sorted(batch.song_ids), sorted(map(str, batch.groups))) == (["TR7", "caf\ufffd"], ["AR1", "None"])


def test_an_id_that_is_no_text_is_cleaned(tmp_path: Path) -> None:
    path = write_track(tmp_path / "a.h5", "TR1", random_segments(5))
    with h5py.File(path, "a") as file:
        anew(file, "analysis/songs", data=np.array([(b"TR\xff",)], [("track_id", "S8")]))
    (batch,) = MsdTracks(path).batches()
    assert isinstance(batch, SongBatch)
    assert batch.song_ids == ["TR\ufffd"]


def test_endings_in_capitals_are_read_and_packed_tracks_counted(tmp_path: Path) -> None:
    write_track(tmp_path / "tree/A.H5", "TR1", random_segments(5))
    write_track(tmp_path / "tree/B.hdf5", "TR2", random_segments(5))
    (tmp_path / "tree/C.h5.gz").write_bytes(b"")
    source = MsdTracks(tmp_path / "tree")
    assert (len(source), list(source.passed_over)) == (2, ["another kind of file (.h5.gz)"])
