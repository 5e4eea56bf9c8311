"""What a scoring run leaves at its end: the summary, the rejects, and one file where one was asked for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq

from segue.atomic import atomic_file
from segue.command import to_json
from segue.errors import SongError
from segue.serving.batch.agreement import Agreement
from segue.serving.batch.run_folder import REJECTS, SUMMARY, Note, RunFolder

FILES = (".parquet", ".csv")  # How an output ends that is one file.


@dataclass(frozen=True)
class Scored:
    """What `segue score` wrote."""

    out: Path
    songs: int  # With an answer.
    rejected: dict[str, int]  # Songs without one, by reason.
    fallback_rate: float
    songs_by_genre: dict[str, int]
    threshold_nats: tuple[float | None, float | None]  # Of the first and of the last part; None: the bundle's.
    promise: str | None
    bundle_version: str
    files: int
    resumed_songs: int  # That an earlier run had scored.
    seconds: float
    setup_seconds: float  # Of them, before the first song was scored: files, models, a cluster, the promise's sample.

    def __str__(self) -> str:
        fresh = self.songs + sum(self.rejected.values()) - self.resumed_songs
        genres = ", ".join(f"{name} {count:,}" for name, count in self.songs_by_genre.items() if count)
        lines = [
            f"{self.out}: {self.songs:,} songs of {self.files} file{'s' * (self.files != 1)} in {self.seconds:.1f} s "
            f"({fresh / self.seconds:,.0f} songs/s), {self.fallback_rate:.1%} of them answered by way of the teacher",
            *([f"  {genres}"] if genres else []),
        ]
        if self.resumed_songs:
            lines.insert(1, f"  {self.resumed_songs:,} of them had been scored by an earlier run")
        if self.promise:
            lines.append(f"  promised: {self.promise}")
        if self.rejected:
            lines.append(f"  rejected {sum(self.rejected.values()):,} songs, see {beside(self.out, REJECTS)}:")
            lines += [f"    {count:,}: {reason}" for reason, count in list(self.rejected.items())[:5]]
        return "\n".join(lines)


def summarise(
    out: Path,
    notes: Sequence[Note],
    classes: Sequence[str],
    *,
    bundle_version: str,
    catalogue_songs: int,
    files: int,
    agreement: Agreement | None,
    resumed_songs: int,
    seconds: float,
    setup_seconds: float,
) -> Scored:
    """Return the summary of a run from the notes of its parts."""
    reasons: Counter[str] = Counter()
    for note in notes:
        reasons.update(note.rejects)
    counts = np.array([note.counts for note in notes], np.int64).reshape(-1, len(classes)).sum(axis=0)
    songs = int(counts.sum())
    made = None
    if agreement:
        holds = agreement.holds(catalogue_songs - songs)
        made = (
            str(agreement) if holds else f"nothing: more songs were rejected than the sample let expect ({agreement})"
        )
    return Scored(
        out=out,
        songs=songs,
        rejected=dict(reasons.most_common()),
        fallback_rate=sum(note.fell_back for note in notes) / max(songs, 1),
        songs_by_genre=dict(zip(classes, counts.tolist(), strict=True)),
        threshold_nats=(notes[0].threshold_nats, notes[-1].threshold_nats),
        promise=made,
        bundle_version=bundle_version,
        files=files,
        resumed_songs=resumed_songs,
        seconds=seconds,
        setup_seconds=setup_seconds,
    )


def finish(scored: Scored, kept: RunFolder, parts: int, files: object, *, competition: bool) -> None:
    """Write the summary and the rejects, and, where one file was asked for, that file from the parts."""
    out, classes = scored.out, tuple(scored.songs_by_genre)
    rejects = list(kept.rejects(parts))
    place = beside(out, REJECTS)
    if rejects:
        with atomic_file(place) as draft:
            pq.write_table(pa.concat_tables(rejects), draft)
    else:
        place.unlink(missing_ok=True)
    if out.suffix in FILES:
        with atomic_file(out) as draft:
            _join((kept.table(index) for index in range(parts)), draft, classes, competition=competition)
    with atomic_file(beside(out, SUMMARY)) as draft:
        draft.write_text(to_json({**vars(scored), "files": files}) + "\n")
    if out.suffix in FILES:
        kept.remove()


def beside(out: Path, name: str) -> Path:
    """Return where a file about the output lies: in the folder, or beside the file."""
    return out.with_name(f"{out.stem}.{name.lstrip('_')}") if out.suffix in FILES else out / name


def _join(tables: Iterator[pa.Table], draft: Path, classes: Sequence[str], *, competition: bool) -> None:
    """Write all tables to one Parquet or CSV file."""
    first = next(tables, None)
    if first is None:
        raise SongError("expected songs, found none in any file")
    as_csv = draft.suffix == ".csv"

    def shaped(table: pa.Table) -> pa.Table:
        if competition:
            numbers = pa.array(range(len(classes))).take(pa.compute.index_in(table["genre"], pa.array(list(classes))))
            return pa.table({"Id": table["song_id"], "Class": numbers})
        if as_csv and "probabilities" in table.column_names:
            at = table.column_names.index("probabilities")
            table = pa.table(
                {
                    f"probability_{name}" if at <= place < at + len(classes) else name: column
                    for place, (name, column) in enumerate(_flattened(table, at))
                }
            )
        return table.replace_schema_metadata({"segue.made_by": "score"})

    table = shaped(first)
    writer = pa.csv.CSVWriter if as_csv else pq.ParquetWriter
    with writer(draft, table.schema) as sink:
        sink.write_table(table)
        for table in tables:
            _check_alike(table, first)
            sink.write_table(shaped(table))


def _check_alike(table: pa.Table, first: pa.Table) -> None:
    """Check that the caller's own columns are of the same types in all parts."""
    for expected, found in zip(first.schema, table.schema, strict=True):
        if expected.type != found.type:
            raise SongError(
                f"column {found.name!r}: expected {expected.type} as in the first songs, found {found.type}; a folder "
                "of parts takes both"
            )


def _flattened(table: pa.Table, at: int) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns of a table, those of the struct at column `at` one by one."""
    for place, name in enumerate(table.column_names):
        if place == at:
            yield from zip(table[name].type.names, table[name].flatten(), strict=True)
        else:
            yield name, table[name]
