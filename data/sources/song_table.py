"""Source: a song table, so that tables can be joined, selected from and checked again, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from segue.data.arrow_file import MAGIC
from segue.data.labels import label_of
from segue.data.song import Ints, Units
from segue.data.sources.folder import has_file, list_files
from segue.data.sources.source import (
    BATCH_SEGMENTS,
    BATCH_SONGS,
    NOTHING,
    Kind,
    Options,
    Skipped,
    Source,
    select,
    starts_with,
)
from segue.data.table import SongBatch
from segue.data.table_file import NOT_DATA, STREAM_MAGIC, SUFFIXES, Part, TableFiles

FIELDS = ("song_id", "label", "group", "split")


class TableSource:
    """A song table of one file or many, read some songs at a time."""

    def __init__(
        self, path: Path, units: Units | None = None, where: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Open the table at `path`; `where` selects by the values of `FIELDS`."""
        self._table = TableFiles(path, units)
        self.units: Units = self._table.units
        self.features = self._table.features
        self.passed_over = list_files(path, SUFFIXES, NOT_DATA).passed_over if path.is_dir() else NOTHING
        fields: dict[str, list[str | None]] = {name: [] for name in FIELDS}
        for texts in self._table.texts():
            n = len(texts["song_id"])
            for name, values in fields.items():
                values += map(label_of, texts[name].to_pylist()) if name in texts else [None] * n
        self.classes = self._table.classes or tuple(sorted({name for name in fields["label"] if name is not None}))
        self._rows: Ints = np.array(select(path, fields, len(fields["song_id"]), where or {}), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs after the first `start` in table order."""
        wanted, first = self._rows[start:], 0
        for part in self._table.parts():
            rows = wanted[(wanted >= first) & (wanted < first + len(part))] - first
            for at, end in _spans(part):
                yield from _batch(part, rows[(rows >= at) & (rows < end)])
            first += len(part)


def _spans(part: Part) -> Iterator[tuple[int, int]]:
    """Yield rows of a part, from one up to another, that are no more than a batch."""
    at = 0
    while at < len(part):
        fitting = int(np.searchsorted(part.offsets, part.offsets[at] + BATCH_SEGMENTS, side="right")) - 1
        end = min(max(fitting, at + 1), at + BATCH_SONGS, len(part))
        yield at, end
        at = end


def _batch(part: Part, rows: Ints) -> Iterator[SongBatch | Skipped]:
    """Yield some songs of a part, the ones in bad form first, as skipped."""
    for row in rows.tolist():
        if row in part.faults:
            yield Skipped(part.texts["song_id"][row].as_py(), part.faults[row])
    sound = rows[[row not in part.faults for row in rows.tolist()]] if part.faults else rows
    if len(sound):
        yield SongBatch(
            song_ids=part.texts["song_id"].take(pa.array(sound)).to_pylist(),
            songs=part.songs(int(sound[0]), int(sound[-1]) + 1).take(sound - sound[0]),
            labels=part.labels("label", sound),
            groups=part.labels("group", sound),
            second_labels=part.labels("second_label", sound),
            splits=part.labels("split", sound),
        )


def is_folder_of_tables(path: Path) -> bool:
    """Tell whether a folder tree holds tables, and no other songs: what describes a data set is no song either."""
    if not has_file(path, SUFFIXES) or has_file(path, (".h5",)):
        return False
    return not any(file.name not in NOT_DATA for file in list_files(path, (".json", ".jsonl", ".ndjson")).files)


def _recognises(path: Path) -> bool:
    return starts_with(path, MAGIC) or starts_with(path, STREAM_MAGIC) or is_folder_of_tables(path)


def _open(path: Path, options: Options) -> Source:
    return TableSource(path, options.units, options.where)


_SELECTABLE = ", ".join(FIELDS)
ARROW = Kind(
    "table",
    "a song table, an Arrow IPC file or stream, or a folder of Arrow or Parquet files",
    _recognises,
    _open,
    fields=_SELECTABLE,
)
PARQUET = Kind("parquet", "a song table, Parquet", lambda path: starts_with(path, b"PAR1"), _open, fields=_SELECTABLE)
