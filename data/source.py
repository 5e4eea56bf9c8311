"""What every source of songs offers: its units, its classes, and its songs in batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from data.song import Units
from data.table import SongBatch

BATCH_SONGS = 1000


@dataclass(frozen=True)
class Skipped:
    """A song that could not be read, and why."""

    name: str
    reason: str


class Source(Protocol):
    """A file, or a folder of files, that holds songs."""

    @property
    def units(self) -> Units:
        """Whether the numbers are raw or standardised."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the source's own order; empty where it has none."""

    def __len__(self) -> int:
        """Return how many songs there are, readable or not."""

    def batches(self) -> Iterator[SongBatch | Skipped]:
        """Yield the songs in batches of at most `BATCH_SONGS`, and what had to be skipped."""
