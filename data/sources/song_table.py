"""Source: a song table, so that tables can be joined, selected from and checked again; Parquet in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segue.data.labels import label_of
from segue.data.song import Ints, Units
from segue.data.sources.source import BATCH_SONGS, NOTHING, Kind, Options, Skipped, Source, select, starts_with
from segue.data.table import NO_LABEL, SongBatch, SongTable
from segue.errors import SongError

FIELDS = ("song_id", "label", "group")
READ_BYTES = 2**20


class TableSource:
    """One Arrow table; its segments stay on the disk until they are yielded."""

    passed_over = NOTHING

    def __init__(
        self, path: Path, units: Units | None = None, where: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Open the table at `path`; `where` selects by `song_id`, `label` or `group`."""
        self._table = SongTable(path, units)
        self.units: Units = self._table.units
        self.features = self._table.features
        self.classes = self._table.classes
        names = [self.classes[label] if label != NO_LABEL else None for label in self._table.labels]
        columns: tuple[Sequence[str | None], ...] = (self._table.song_ids, names, self._table.groups)
        self._rows = select(path, dict(zip(FIELDS, columns, strict=True)), len(self._table), where or {})

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs after the first `start` in table order."""
        for first in range(start, len(self._rows), BATCH_SONGS):
            yield self._table.batch(self._rows[first : first + BATCH_SONGS])


class ParquetSource:
    """One Parquet table, decoded some songs at a time."""

    passed_over = NOTHING

    def __init__(
        self, path: Path, units: Units | None = None, where: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Open the table at `path`; `where` selects by `song_id`, `label` or `group`."""
        self._path = path
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES)
            names = [name for name in FIELDS if name in self._file.schema_arrow.names]
            columns = self._file.read(columns=names).to_pydict()
        except pa.ArrowException as error:
            raise SongError(f"{path}: the file cannot be read, it may be cut short: {error}") from None
        n = self._file.metadata.num_rows
        fields = {name: [label_of(text) for text in columns.get(name, [None] * n)] for name in FIELDS}
        head = SongTable(path, units, self._file.schema_arrow.empty_table())  # Checks the columns, reads the metadata.
        self.units: Units = head.units
        self.features = head.features
        self.classes = head.classes or tuple(sorted({name for name in fields["label"] if name is not None}))
        self._rows: Ints = np.array(select(path, fields, n, where or {}), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs after the first `start` in table order."""
        wanted, first = self._rows[start:], 0
        try:
            for part in self._file.iter_batches(BATCH_SONGS):
                rows = wanted[(wanted >= first) & (wanted < first + len(part))]
                if len(rows):
                    yield SongTable(self._path, self.units, pa.Table.from_batches([part])).batch(rows - first)
                first += len(part)
        except pa.ArrowException as error:
            raise SongError(f"{self._path}: the file cannot be read, it may be cut short: {error}") from None


def _open_arrow(path: Path, options: Options) -> Source:
    return TableSource(path, options.units, options.where)


def _open_parquet(path: Path, options: Options) -> Source:
    return ParquetSource(path, options.units, options.where)


_SELECTABLE = ", ".join(FIELDS)
ARROW = Kind(
    "table", "a song table, Arrow IPC", lambda path: starts_with(path, b"ARROW1"), _open_arrow, fields=_SELECTABLE
)
PARQUET = Kind(
    "parquet", "a song table, Parquet", lambda path: starts_with(path, b"PAR1"), _open_parquet, fields=_SELECTABLE
)
