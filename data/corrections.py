"""Corrections of labels: files of song id and genre that overrule what a song table says.

CSV with the columns `song_id` and `genre`, or an Arrow or Parquet table with them. Later ones win: of two files the
later one, within a file the later row. Songs that were given different genres are reported all the same.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from segue.data.labels import label_of
from segue.data.sources.source import BATCH_SONGS
from segue.data.table import NO_LABEL, SongTable, write_table
from segue.errors import LabelError

COLUMNS = ("song_id", "genre")
LISTED = 10


@dataclass(frozen=True)
class Corrections:
    """Genres by song id, the last word of each, and the songs about which the files do not agree."""

    genres: dict[str, str]
    conflicts: dict[str, tuple[str, ...]]  # By song id, in the order given; the last one counts.


@dataclass(frozen=True)
class Corrected:
    """What corrections did to a table."""

    out: Path
    changed: int  # Songs that had another label.
    labelled: int  # Songs that had none.
    confirmed: int  # Songs that had this one.
    unknown: int  # Corrections of songs that are not in the table.
    dropped: int  # Songs that lost their label.
    conflicts: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        some = "; ".join(f"{song}: {', '.join(said)}" for song, said in list(self.conflicts.items())[:LISTED])
        return (
            f"{self.out}: {self.changed} labels changed, {self.labelled} given, {self.confirmed} confirmed"
            + (f", {self.dropped} suspects without a label" if self.dropped else "")
            + (f"; {self.unknown} corrections are of songs not in this table" if self.unknown else "")
            + (f"\n  corrected more than once, differently; the last one counts: {some}" if some else "")
        )


def read_corrections(paths: Sequence[Path]) -> Corrections:
    """Read files of corrections, the earliest first.

    Raises:
        LabelError: a file cannot be read, lacks a column, or has a row without an id or a genre.
    """
    said: dict[str, list[str]] = {}
    for path in paths:
        table = _read(path)
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise LabelError(
                f"{path}: expected the columns song_id and genre, found {', '.join(table.column_names) or 'none'}"
            )
        ids, genres = (table[name].cast(pa.string()).to_pylist() for name in COLUMNS)
        for row, (song_id, genre) in enumerate(zip(ids, map(label_of, genres), strict=True), start=1):
            if not song_id or genre is None:
                raise LabelError(f"{path}, row {row}: expected a song_id and a genre, found {song_id!r} and {genre!r}")
            said.setdefault(song_id, []).append(genre)
    return Corrections(
        {song_id: genres[-1] for song_id, genres in said.items()},
        {song_id: tuple(genres) for song_id, genres in said.items() if len(set(genres)) > 1},
    )


def correct(songs: SongTable, corrections: Corrections, out: Path, drop: Collection[str] = ()) -> Corrected:
    """Write a table with corrected labels, and without the labels of the songs in `drop`.

    Raises:
        LabelError: a genre is none of the table's classes.
    """
    of_table = {song_id: row for row, song_id in enumerate(songs.song_ids)}
    known = {song_id: genre for song_id, genre in corrections.genres.items() if song_id in of_table}
    odd = sorted({genre for genre in known.values() if genre not in songs.classes})
    if odd:
        raise LabelError(
            f"corrections: expected genres among {', '.join(songs.classes)}; found {', '.join(odd)}. A new genre "
            "begins in the song table, with the songs that have it."
        )
    dropped = {song_id for song_id in drop if song_id not in known}
    before = {song_id: songs.labels[of_table[song_id]] for song_id in known}
    same = sum(label != NO_LABEL and songs.classes[label] == known[song_id] for song_id, label in before.items())
    given = sum(label == NO_LABEL for label in before.values())
    with write_table(out, songs.units, songs.classes) as table:
        for start in range(0, len(songs), BATCH_SONGS):
            batch = songs.batch(np.arange(start, min(start + BATCH_SONGS, len(songs))))
            labels = [
                None if song_id in dropped else known.get(song_id, label)
                for song_id, label in zip(batch.song_ids, batch.labels, strict=True)
            ]
            table.write(replace(batch, labels=labels))
    return Corrected(
        out,
        changed=len(known) - same - given,
        labelled=given,
        confirmed=same,
        unknown=len(corrections.genres) - len(known),
        dropped=len(dropped & of_table.keys()),
        conflicts=corrections.conflicts,
    )


def _read(path: Path) -> pa.Table:
    try:
        with path.open("rb") as file:
            head = file.read(6)
        if head.startswith(b"PAR1"):
            return pq.read_table(path)
        if head.startswith(b"ARROW1"):
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()))
        return pa.csv.read_csv(path, convert_options=texts)
    except FileNotFoundError:
        raise LabelError(f"{path}: expected a file of corrections, found no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise LabelError(f"{path}: expected CSV, Arrow or Parquet with song_id and genre: {error}") from None
