"""Which source a file or folder is, told by its content."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from segue.data.song import Units
from segue.data.sources import analysis, course_buckets, course_pair, msd_summary, whole
from segue.data.sources.analysis import AnalysisFiles
from segue.data.sources.course import CourseFile
from segue.data.sources.course_buckets import CourseBuckets
from segue.data.sources.course_pair import CoursePair
from segue.data.sources.msd import MsdTracks
from segue.data.sources.msd_summary import MsdSummary
from segue.data.sources.song_table import ParquetSource, TableSource
from segue.data.sources.source import Source
from segue.data.sources.whole import WholeSongs
from segue.errors import ConfigError, SongError

Kind = Literal["course", "course-buckets", "course-pair", "whole", "msd", "msd-summary", "analysis", "table", "parquet"]
SELECTABLE = ("course", "whole", "table", "parquet")


def open_source(
    path: Path,
    units: Units | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    kind: Kind | None = None,
) -> Source:
    """Open the source at `path`.

    Args:
        path: a file or a folder.
        units: what the numbers are, where the source does not say.
        where: keep only songs whose named fields have one of the given values.
        kind: what the source is; by default its content tells.

    Raises:
        SongError: there is no such source, or it cannot be read.
        ConfigError: songs cannot be selected from this kind of source.
    """
    if not path.exists():
        raise SongError(f"{path}: expected a source of songs, found no such file or folder")
    found = kind or recognise(path)
    if where and found not in SELECTABLE:
        raise ConfigError(f"{path}: --where selects from .npz files and song tables; convert it to a table first")
    openers: dict[Kind, Callable[[], Source]] = {
        "course": lambda: CourseFile(path, units, where),
        "course-buckets": lambda: CourseBuckets(path, units),
        "course-pair": lambda: CoursePair(path, units),
        "whole": lambda: WholeSongs(path, units, where),
        "msd": lambda: MsdTracks(path),
        "msd-summary": lambda: MsdSummary(path),
        "analysis": lambda: AnalysisFiles(path),
        "table": lambda: TableSource(path, units, where),
        "parquet": lambda: ParquetSource(path, units, where),
    }
    return openers[found]()


def recognise(path: Path) -> Kind:
    """Tell what the source at `path` is by its content; a `SongError` if it is none."""
    if path.is_dir():
        return "msd" if next(path.rglob("*.h5"), None) or not analysis.recognises(path) else "analysis"
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"ARROW1"):
        return "table"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK") and course_buckets.recognises(path):
        return "course-buckets"
    if head.startswith(b"PK") and whole.recognises(path):
        return "whole"
    if head.startswith(b"PK"):
        return "course-pair" if course_pair.recognises(path) else "course"
    if head.startswith(b"\x89HDF"):
        return "msd-summary" if msd_summary.recognises(path) else "msd"
    if analysis.recognises(path):
        return "analysis"
    raise SongError(
        f"{path}: expected an .npz file, HDF5 tracks, audio analyses in JSON or a song table, found "
        f"{f'a file that starts with {head!r}' if head else 'an empty file'}. "
        f"--from says what it is: {', '.join(get_args(Kind))}"
    )
