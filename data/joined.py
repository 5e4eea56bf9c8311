"""Two song tables as one: the songs of the first, then those of a second, such as validation songs."""

import hashlib
from itertools import accumulate
from pathlib import Path

import numpy as np

from segue.data.song import Ints
from segue.data.table import SongTable
from segue.errors import SongError


class JoinedSongs(SongTable):
    """The songs of two tables, read where they are; rows count through the first, then through the second.

    Attributes:
        second_path: the file of the second table; `path` is that of the first.
    """

    def __init__(self, first: SongTable, second: SongTable) -> None:
        """Join two tables of the same units; the second may have no class that the first has not.

        Raises:
            SongError: units or features differ, or a song is in both.
            LabelError: the second has a class of its own.
        """
        if first.units != second.units:
            raise SongError(
                f"{second.path}: expected {first.units} songs as in {first.path}, found {second.units} ones"
            )
        if first.features != second.features:
            raise SongError(
                f"{second.path}: expected {first.features} features as in {first.path}, found {second.features}"
            )
        both = set(first.song_ids) & set(second.song_ids)
        if both:
            raise SongError(
                f"{second.path}: expected other songs than in {first.path}, found {len(both)} that are in both, "
                f"{min(both)!r} among them"
            )
        self.path, self.second_path = first.path, second.path
        self.units, self.features, self.classes = first.units, first.features, first.classes
        self.song_ids = [*first.song_ids, *second.song_ids]
        self.groups = [*first.groups, *second.groups]
        self.second_labels = [*first.second_labels, *second.second_labels]
        self.splits = [*first.splits, *second.splits]
        self.labels = np.concatenate([first.labels, second.labels_among(first.classes)])
        self._parts = [*first._parts, *second._parts]
        self._first_rows = [0, *accumulate(map(len, self._parts))]
        self._tables = (first, second)

    @property
    def second_rows(self) -> Ints:
        """The rows of the second table."""
        return np.arange(len(self._tables[0]), len(self))

    def fingerprint(self) -> str:
        """Return a sha256 over both files."""
        return hashlib.sha256("".join(table.fingerprint() for table in self._tables).encode()).hexdigest()


def open_songs(songs: Path, validation_songs: Path | None = None) -> SongTable:
    """Open a table of songs; with a table of validation songs, both as one (`JoinedSongs`)."""
    table = SongTable(songs)
    return JoinedSongs(table, SongTable(validation_songs)) if validation_songs else table
