"""The registry of sources: every kind that Segue reads, and which one a path is.

To add one: write its module with a `KIND`, and add that to `SOURCES`. `--from`, the help text of `segue songs`, and the
messages read this list.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segue.data.song import Units
from segue.data.sources import (
    analysis,
    audio,
    course,
    course_buckets,
    course_pair,
    msd,
    msd_summary,
    song_table,
    whole,
)
from segue.data.sources.folder import kinds_of_files
from segue.data.sources.source import Kind, Options, Source
from segue.errors import ConfigError, SongError

SOURCES: tuple[Kind, ...] = (  # The first that recognises a path opens it.
    song_table.ARROW,
    song_table.PARQUET,
    course_buckets.KIND,
    whole.KIND,
    course_pair.KIND,
    course.KIND,
    msd_summary.KIND,
    msd.KIND,
    analysis.KIND,
    audio.KIND,
)


def open_source(
    path: Path,
    units: Units | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    kind: str | None = None,
    name: str | None = None,
) -> Source:
    """Open the source at `path`.

    Args:
        path: a file or a folder.
        units: what the numbers are, where the source does not say.
        where: keep only songs whose named fields have one of the given values.
        kind: the name of its kind; by default its content tells.
        name: what ids made from the name of its file begin with; by default that name.

    Raises:
        SongError: there is no such source, or it cannot be read.
        ConfigError: there is no such kind, or songs cannot be selected from it.
    """
    if not path.exists():
        raise SongError(f"{path}: expected a source of songs, found no such file or folder")
    if not (path.is_file() or path.is_dir()):
        raise SongError(f"{path}: expected a regular file or a folder, found a fifo, socket or device")
    found = kind_named(kind) if kind else recognise(path)
    if where and not found.fields:
        able = ", ".join(one.name for one in SOURCES if one.fields)
        raise ConfigError(
            f"{path}: --where cannot select from a source of kind {found.name}, only from {able}. "
            "Convert it to a table first."
        )
    return found.open(path, Options(units, where or {}, name))


def kind_named(name: str) -> Kind:
    """Return the kind of that name; a `ConfigError` lists the kinds where there is none."""
    for kind in SOURCES:
        if kind.name == name:
            return kind
    raise ConfigError(f"--from: expected one of {', '.join(kind.name for kind in SOURCES)}; found {name!r}")


def recognise(path: Path) -> Kind:
    """Tell what the source at `path` is by its content; a `SongError` if it is none."""
    found = next((kind for kind in SOURCES if kind.recognises(path)), None)
    if found is not None:
        return found
    if path.is_dir():
        content = f"a folder of {kinds_of_files(path)}"
    else:
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise SongError(f"{path}: expected songs, found an empty file")
        content = f"a file that starts with {head!r}"
    raise SongError(
        f"{path}: expected an .npz file, HDF5 tracks, audio analyses in JSON or a song table, found {content}. "
        f"`segue songs --from KIND` converts it, where KIND is {', '.join(kind.name for kind in SOURCES)}"
    )


def list_of_kinds() -> str:
    """Return the kinds for a help text, one a line."""
    return "\n".join(f"- {kind.name}: {kind.about}" for kind in SOURCES)
