"""What every source of songs offers: its units, its classes, its songs in batches, and an entry in the registry."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segue.data.song import Features, Songs, Units
from segue.data.table import SongBatch
from segue.errors import ConfigError, SegueError, SongError

BATCH_SONGS = 1000
BATCH_SEGMENTS = 200_000  # 20 MB: a batch of very long songs ends early.
LONGEST = 100_000  # Segments of a song, some seven hours; what claims to be longer is damaged.
EXAMPLES = 10


@dataclass
class Tally:
    """A number of songs or files, and the names of the first ten."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, names: Sequence[str]) -> None:
        """Count some more."""
        self.count += len(names)
        self.examples += names[: EXAMPLES - len(self.examples)]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count}" + (f": {', '.join(self.examples)}{more}" if self.count else "")


NOTHING: Mapping[str, Tally] = {}


@dataclass(frozen=True)
class Skipped:
    """A song that could not be read, and why."""

    name: str
    reason: str


def kind_of(reason: str) -> str:
    """Return a reason without what only one song has: which segment, and what was found there."""
    without_place = re.sub(r"^(song '[^']*'(, segment \d+)?|segment \d+): ", "", reason)
    return re.split(", found |: ", without_place, maxsplit=1)[0]


class Source(Protocol):
    """A file, or a folder of files, that holds songs."""

    @property
    def units(self) -> Units:
        """Whether the numbers are raw or standardised."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the source's own order; empty where it has none."""

    @property
    def passed_over(self) -> Mapping[str, Tally]:
        """What lies in the source and is not read, such as files of another kind, by reason."""

    def __len__(self) -> int:
        """Return how many songs there are, readable or not."""

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start`, readable or not, in batches of at most `BATCH_SONGS`.

        Whatever had to be skipped among or before the songs of a batch is yielded before that batch.
        """


def features_of(source: Source) -> Features:
    """Return which analyser made the segments of a source: the Echo Nest's, unless the source says otherwise."""
    features: Features = getattr(source, "features", "echonest")
    return features


@dataclass(frozen=True)
class Options:
    """What is asked of a source when it is opened."""

    units: Units | None = None  # What the numbers are, where the source does not say.
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)  # The values to keep, by field.
    name: str | None = None  # What ids made from the name of its file begin with; None: that name.


@dataclass(frozen=True)
class Kind:
    """A kind of source: one entry of the registry."""

    name: str  # As `--from` spells it.
    about: str  # One line for the help text.
    recognises: Callable[[Path], bool]  # Whether an existing regular file, or folder, is of this kind.
    open: Callable[[Path, Options], Source]
    fields: str = ""  # What songs can be selected by; empty: nothing.


def starts_with(path: Path, magic: bytes) -> bool:
    """Tell whether `path` is a file that begins with these bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def readable(name: str) -> str:
    """Return the name of a file as text; bytes of it that are no text become U+FFFD."""
    return os.fsencode(name).decode(errors="replace")


def clean(text: str) -> str:
    """Return text that Arrow can hold: half characters, which JSON and numpy can spell, become question marks."""
    return text.encode(errors="replace").decode()


@contextmanager
def damage_named(what: str, advice: str = "") -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into a `SongError` that begins with `what`.

    h5py, zipfile with its codecs, and numpy's parser of headers raise a dozen classes of errors and document none.
    """
    try:
        yield
    except SegueError:
        raise
    except Exception as error:
        raise SongError(f"{what}: {error or type(error).__name__}{advice}") from None


def select(path: Path, fields: Mapping[str, Any], n_songs: int, where: Mapping[str, Sequence[str]]) -> list[int]:
    """Return the rows whose every named field has one of the given values, whatever their case.

    Args:
        path: the file, for the error.
        fields: (n_songs,) values by name; None, where there is none, matches nothing.
        n_songs: how many rows there are.
        where: the values to keep, by field.

    Raises:
        ConfigError: there is no such field.
    """
    keep = np.ones(n_songs, dtype=bool)
    for name, values in where.items():
        if name not in fields:
            raise ConfigError(f"{path}: no field {name!r} to select by; it has {', '.join(fields) or 'none'}")
        wanted = {value.lower() for value in values}
        keep &= np.array([value is not None and str(value).lower() in wanted for value in fields[name]], dtype=bool)
    return [int(row) for row in np.flatnonzero(keep)]


def in_batches(songs: Iterable[SongBatch | Skipped]) -> Iterator[SongBatch | Skipped]:
    """Join songs that come one by one to batches of at most `BATCH_SONGS`; what was skipped goes before its batch."""
    held: list[SongBatch] = []
    segments = 0
    for song in songs:
        if isinstance(song, Skipped):
            yield song
            continue
        held.append(song)
        segments += len(song.songs.segments)
        if len(held) == BATCH_SONGS or segments >= BATCH_SEGMENTS:
            yield join(held)
            held, segments = [], 0
    if held:
        yield join(held)


def join(songs: Sequence[SongBatch]) -> SongBatch:
    """Return batches of one song each as one batch."""
    return SongBatch(
        song_ids=[song.song_ids[0] for song in songs],
        songs=Songs.concat([song.songs for song in songs]),
        labels=[song.labels[0] for song in songs],
        groups=[song.groups[0] for song in songs],
    )
