"""Reading songs: each source beside the plainest code that could do the same, and what it takes to show windows."""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segue.bench.suites.conftest import Measure
from segue.data.song import N_FEATURES, WINDOW, Floats, Songs
from segue.data.songs import songs as convert
from segue.data.sources.course import CourseFile
from segue.data.sources.msd import MsdTracks, read_tracks
from segue.data.table import SongTable

TRACKS = 256
SEGMENTS = 300  # Of a track, about the median of the Million Song Dataset with 120 segments and more.
ARRAYS = ("segments_timbre", "segments_pitches", "segments_loudness_start")
SONGS_AT_A_TIME = 1024


@pytest.fixture(scope="session")
def tracks(space: Path) -> list[Path]:
    """Tracks in the layout of the Million Song Dataset."""
    folder = space / "tracks"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(TRACKS):
        with h5py.File(folder / f"TR{number:05d}.h5", "w") as file:
            file["analysis/segments_timbre"] = rng.normal(size=(SEGMENTS, 12))
            file["analysis/segments_pitches"] = rng.random((SEGMENTS, 12))
            file["analysis/segments_loudness_start"] = -60 * rng.random(SEGMENTS)
            ids = [("analysis_sample_rate", "<i4"), ("track_id", "S32")]
            file["analysis/songs"] = np.array([(22050, f"TR{number:05d}")], ids)
            file["metadata/songs"] = np.array([("AR1", 0.5)], [("artist_id", "S32"), ("song_hotttnesss", "<f8")])
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def course_file(space: Path, table: SongTable) -> Path:
    """A course file with the songs of the table."""
    path = space / "songs.npz"
    inputs = np.stack(table.songs(range(len(table)))).reshape(len(table), -1)
    np.savez(path, inputs=inputs, targets=table.labels, label_map=np.array(table.classes))
    return path


@pytest.fixture(scope="session")
def parquet(space: Path, table: SongTable) -> Path:
    """The table as Parquet."""
    convert((table.path, space / "songs.parquet"))
    return space / "songs.parquet"


def test_tracks_by_segue(measure: Measure, tracks: list[Path]) -> None:
    """HDF5 tracks, in this process."""
    measure("HDF5 tracks", lambda: read_tracks(tracks), len(tracks), reader="Segue, one process")


def test_tracks_by_all_cores(measure: Measure, tracks: list[Path]) -> None:
    """HDF5 tracks, by a process for each core."""
    source = MsdTracks(tracks[0].parent)
    measure("HDF5 tracks", lambda: _exhaust(source.batches()), len(tracks), reader="Segue, all cores")


def test_tracks_by_h5py(measure: Measure, tracks: list[Path]) -> None:
    """The baseline: the arrays and nothing else, unchecked."""

    def bare() -> None:
        for file in tracks:
            with h5py.File(file) as track:
                for name in ARRAYS:
                    track["analysis"][name][:]

    measure("HDF5 tracks", bare, len(tracks), reader="bare h5py loop")


def test_course_file_by_segue(measure: Measure, course_file: Path, table: SongTable) -> None:
    """A course file, as batches of checked songs."""
    source = CourseFile(course_file)
    measure("course file", lambda: _exhaust(source.batches()), len(table), reader="Segue")


def test_course_file_by_numpy(measure: Measure, course_file: Path, table: SongTable) -> None:
    """The baseline: the array."""

    def bare() -> None:
        with np.load(course_file) as file:
            file["inputs"].copy()

    measure("course file", bare, len(table), reader="np.load and one copy")


def test_arrow_by_segue(measure: Measure, table: SongTable) -> None:
    """An Arrow table, opened and read from its beginning to its end, checked."""
    measure("song table", lambda: _read(table.path), len(table), reader="Segue, Arrow")


def test_parquet_by_segue(measure: Measure, parquet: Path, table: SongTable) -> None:
    """The same songs as Parquet."""
    measure("song table", lambda: _read(parquet), len(table), reader="Segue, Parquet", least=3)


def test_arrow_by_pyarrow(measure: Measure, table: SongTable) -> None:
    """The baseline: pyarrow, one copy into numpy, unchecked."""

    def bare() -> None:
        with pa.memory_map(str(table.path)) as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                _copied(reader.get_batch(number).column("segments"))

    measure("song table", bare, len(table), reader="pyarrow, Arrow")


def test_parquet_by_pyarrow(measure: Measure, parquet: Path, table: SongTable) -> None:
    """The baseline of Parquet."""

    def bare() -> None:
        with pq.ParquetFile(parquet) as file:
            for batch in file.iter_batches(SONGS_AT_A_TIME, columns=["segments"]):
                _copied(batch.column("segments"))

    measure("song table", bare, len(table), reader="pyarrow, Parquet", least=3)


@pytest.mark.parametrize("n_windows", [1, 9])
def test_windows_by_segue(measure: Measure, n_windows: int) -> None:
    """Windows of long songs."""
    songs = _long_songs()
    measure(f"{n_windows} windows a song", lambda: songs.windows(n_windows), len(songs), reader="Segue")


@pytest.mark.parametrize("n_windows", [1, 9])
def test_windows_by_numpy(measure: Measure, n_windows: int) -> None:
    """The baseline: one slice after the other, stacked."""
    songs = list(_long_songs())

    def bare() -> Floats:
        starts = (np.linspace(0, len(song) - WINDOW, n_windows + 2)[1:-1].astype(int) for song in songs)
        return np.stack([song[at : at + WINDOW] for song, some in zip(songs, starts, strict=True) for at in some])

    measure(f"{n_windows} windows a song", bare, len(songs), reader="numpy slices")


def _long_songs() -> Songs:
    return Songs.of(np.random.default_rng(0).random((SONGS_AT_A_TIME, 500, N_FEATURES), dtype=np.float32))


def _read(path: Path) -> None:
    table = SongTable(path)
    for rows in table.spans(SONGS_AT_A_TIME):
        table.songs(rows).windows()


def _copied(segments: pa.Array) -> Floats:
    copied: Floats = segments.flatten().flatten().to_numpy(zero_copy_only=False).copy()
    return copied


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass
