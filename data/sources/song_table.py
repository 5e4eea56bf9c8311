"""Source: a song table, so that tables can be joined, selected from and checked again."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.song import Units
from data.sources.source import BATCH_SONGS, Skipped, select
from data.table import NO_LABEL, SongBatch, SongTable


class TableSource:
    """One song table; see the module."""

    def __init__(
        self, path: Path, units: Units | None = None, where: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Open the table at `path`; `where` selects by `song_id`, `label` or `group`."""
        self._table = SongTable(path, units)
        self.units: Units = self._table.units
        self.classes = self._table.classes
        names = [self.classes[label] if label != NO_LABEL else None for label in self._table.labels]
        fields: dict[str, Sequence[str | None]] = {
            "song_id": self._table.song_ids,
            "label": names,
            "group": self._table.groups,
        }
        self._rows = select(path, fields, len(self._table), where or {})

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs after the first `start` in table order."""
        for first in range(start, len(self._rows), BATCH_SONGS):
            yield self._table.batch(self._rows[first : first + BATCH_SONGS])
