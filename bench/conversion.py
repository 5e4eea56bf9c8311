"""Measure how fast songs are read and converted, each beside the plainest code that could do the same, in one run.

Example:
    python -m segue.bench.conversion --tracks MillionSongSubset --json
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from tabulate import tabulate

from segue.bench.memory import peak_bytes
from segue.command import run
from segue.data.songs import songs as convert
from segue.data.sources.course import CourseFile
from segue.data.sources.msd import MsdTracks, read_tracks
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.machine import usable_cores
from segue.provenance import Provenance, provenance

SONGS_AT_A_TIME = 1024
TRACKS = 4096
MSD_ARRAYS = ("segments_timbre", "segments_pitches", "segments_loudness_start")


@dataclass(frozen=True)
class Comparison:
    """One way of doing something beside another: medians, the two in turn."""

    what: str
    songs: int
    ours_songs_per_s: float
    other: str
    other_songs_per_s: float
    ratio: float  # Our songs/s over the other's.


@dataclass(frozen=True)
class ConversionBenchmark:
    """What was measured."""

    comparisons: tuple[Comparison, ...]
    converted_songs: int
    peak_bytes: int  # Resident memory of that conversion at its peak, files mapped into memory not counted.
    provenance: Provenance

    def __str__(self) -> str:
        rows = [
            (one.what, one.ours_songs_per_s, one.other, one.other_songs_per_s, one.ratio) for one in self.comparisons
        ]
        table = tabulate(rows, ("", "songs/s", "against", "songs/s", "ratio"), floatfmt=("", ",.0f", "", ",.0f", ".2f"))
        return (
            f"{table}\n\n"
            f"converting {self.converted_songs:,} synthetic songs: {self.peak_bytes / 1e6:.0f} MB at the peak\n"
            f"{self.provenance.machine}, commit {self.provenance.commit}"
        )


def conversion(
    tracks: Path, table_songs: int = 40_000, memory_songs: int = 200_000, rounds: int = 5
) -> ConversionBenchmark:
    """Measure reading and converting.

    Args:
        tracks: A folder of Million Song Dataset tracks; its files are used many times over.
        table_songs: Songs in the tables that are read.
        memory_songs: Songs in the conversion whose memory is measured.
        rounds: How often each pair is timed.
    """
    files = sorted(tracks.rglob("*.h5"))
    if not files or rounds < 1:
        raise ConfigError(f"expected a folder of *.h5 tracks and at least 1 round, found {tracks} and {rounds}")
    with TemporaryDirectory() as folder:
        space = Path(folder)
        comparisons = (*_hdf5(space, files, rounds), *_tables(space, table_songs, rounds))
        return ConversionBenchmark(comparisons, memory_songs, _peak_memory(space, memory_songs), provenance())


def _hdf5(space: Path, files: Sequence[Path], rounds: int) -> tuple[Comparison, Comparison]:
    many = [files[number % len(files)] for number in range(TRACKS)]
    for number, file in enumerate(many):
        (space / f"{number:05d}.h5").symlink_to(file.resolve())
    links = sorted(space.glob("*.h5"))

    def bare() -> None:
        for file in links:
            with h5py.File(file) as track:
                for name in MSD_ARRAYS:
                    track["analysis"][name][:]

    one_core, loop = _in_turn(lambda: read_tracks(links), bare, rounds)
    all_cores, one = _in_turn(lambda: _exhaust(MsdTracks(space).batches()), lambda: read_tracks(links), rounds)
    n = len(links)
    return (
        _compared("HDF5 tracks, one core", n, one_core, "bare h5py loop", loop),
        _compared(f"HDF5 tracks, {usable_cores()} cores", n, all_cores, "one core", one),
    )


def _tables(space: Path, n: int, rounds: int) -> tuple[Comparison, ...]:
    arrow, parquet, npz = space / "songs.arrow", space / "songs.parquet", space / "songs.npz"
    synth(arrow, n)
    convert((arrow, parquet))
    table = SongTable(arrow)
    inputs = np.concatenate([table.segments(row)[None] for row in range(n)])
    np.savez(npz, inputs=inputs, targets=table.labels, label_map=np.array(table.classes))
    del inputs

    def bare() -> None:
        with np.load(npz) as file:
            file["inputs"].copy()

    reading, load = _in_turn(lambda: _exhaust(CourseFile(npz).batches()), bare, rounds)
    writing, load_again = _in_turn(lambda: _convert_anew(npz, space / "converted.arrow"), bare, rounds)
    mapped, decoded = _in_turn(lambda: _windows(arrow), lambda: _windows(parquet), rounds)
    return (
        _compared("course .npz, reading", n, reading, "np.load and one copy", load),
        _compared("course .npz, to a table on disk", n, writing, "np.load and one copy", load_again),
        _compared("windows of an Arrow table", n, mapped, "of a Parquet table", decoded),
    )


def _compared(what: str, songs: int, ours_s: float, other: str, other_s: float) -> Comparison:
    return Comparison(what, songs, songs / ours_s, other, songs / other_s, other_s / ours_s)


def _convert_anew(source: Path, out: Path) -> None:
    """Convert to a table that is not there yet: dropping an old one of some hundred megabytes takes time of its own."""
    convert((source, out))
    out.rename(out.with_suffix(f".{time.perf_counter_ns()}"))


def _windows(path: Path) -> None:
    table = SongTable(path)
    for start in range(0, len(table), SONGS_AT_A_TIME):
        table.batch(range(start, min(start + SONGS_AT_A_TIME, len(table)))).songs.windows()


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def _in_turn(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the median seconds of two calls, made in turn after one each that does not count."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, times in zip((one, other), taken, strict=True):
            started = time.perf_counter()
            call()
            if number:
                times.append(time.perf_counter() - started)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _peak_memory(space: Path, n: int) -> int:
    """Return the most memory, in bytes, that a conversion of `n` synthetic songs holds."""
    source = space / "many.arrow"
    synth(source, n)
    return peak_bytes(["-m", "segue.data.songs", str(source), str(space / "many-converted.arrow")])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    return run(conversion, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
