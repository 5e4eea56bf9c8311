"""Classify every song of a table by genre: Parquet, or CSV if the output ends in `.csv`.

Columns: song_id, genre, cross_entropy_nats, answered_by (student or teacher), rung (1 is the first), windows that it
looked at, and the probability of every class: one struct in Parquet, one column a class in CSV. Songs stream through;
the file appears when all are scored.

Example:
    segue score artifacts/bundle artifacts/catalogue.arrow artifacts/genres.parquet
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from tqdm import tqdm
from tyro.conf import Positional, arg

from segue.atomic import atomic_file
from segue.command import run
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from segue.places import MADE_BY, check_last, check_out
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import check_threshold, open_cascade
from segue.serving.predictions import MODELS, NOT_A_NUMBER, Answers
from segue.serving.runtime import Provider
from segue.serving.tables import SONGS_AT_A_TIME, check_units

SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Scored:
    """What `segue score` wrote."""

    out: Path
    songs: int
    fallback_rate: float
    songs_by_genre: dict[str, int]
    seconds: float

    def __str__(self) -> str:
        genres = ", ".join(f"{name} {count}" for name, count in self.songs_by_genre.items() if count)
        return (
            f"{self.out}: {self.songs} songs in {self.seconds:.1f} s ({self.songs / self.seconds:,.0f} songs/s), "
            f"{self.fallback_rate:.1%} of them by way of the teacher\n  {genres}"
        )


def score(
    bundle: Positional[Path],
    songs: Positional[Path],
    place: Positional[Annotated[Path | None, arg(metavar="[OUT]")]] = None,
    threshold: float | None = None,
    windows: int | None = None,
    provider: Provider = "auto",
    out: Path | None = None,
    overwrite: bool = False,
) -> Scored:
    """Classify every song of a table by genre.

    Args:
        bundle: The bundle's folder.
        songs: The song table.
        place: The file to write, without --out: it must not be there yet, or be what this verb made of such songs.
        threshold: Cross-entropy in nats above which a song falls back to the teacher. Default: the bundle's.
        windows: Windows of a song that both models see, at most. Default: what the bundle says.
        provider: Where the models run; auto takes a GPU where there is one.
        out: The file to write: CSV if it ends in .csv, Parquet if it ends in .parquet. One of this verb's is replaced.
        overwrite: Replace what is there, whatever made it; never what is read.
    """
    check_threshold(threshold)
    out = _checked_place(bundle, songs, place, out, overwrite=overwrite)
    started = time.perf_counter()
    opened = load_bundle(bundle)
    classes = opened.manifest.classes
    table = SongTable(songs)
    check_units(table, opened)
    cascade = open_cascade(opened, windows=windows, provider=provider)
    counts = np.zeros(len(classes), dtype=np.int64)
    fell_back = 0
    progress = tqdm(total=len(table), unit=" songs", disable=None, file=sys.stderr)
    schema = _schema(classes, nested=out.suffix == ".parquet")
    with _open_sink(out, schema) as sink, progress:
        for rows in table.spans(SONGS_AT_A_TIME):
            answers = cascade.answer(table.songs(rows), threshold)
            song_ids = table.song_ids[rows.start : rows.stop]
            sink.write_batch(_record_batch(song_ids, answers, classes, schema))
            counts += np.bincount(answers.choice, minlength=len(classes))
            fell_back += int(answers.fell_back.sum())
            progress.update(len(rows))
    by_genre = dict(zip(classes, counts.tolist(), strict=True))
    return Scored(out, len(table), fell_back / max(len(table), 1), by_genre, time.perf_counter() - started)


def _checked_place(bundle: Path, songs: Path, place: Path | None, out: Path | None, *, overwrite: bool) -> Path:
    """Return the file to write, given by position or as an option; a `ConfigError` if it must not be written."""
    if (place is None) == (out is None):
        raise ConfigError(f"expected one file to write, BUNDLE SONGS OUT or --out OUT, found {place} and {out}")
    if out is None:
        assert place is not None
        check_last([songs], place, "score", [bundle, songs], SUFFIXES, overwrite=overwrite)
        return place
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: expected a name that ends in {' or '.join(SUFFIXES)}")
    check_out(out, "score", [bundle, songs], overwrite=overwrite)
    return out


@contextmanager
def _open_sink(out: Path, schema: pa.Schema) -> Iterator[Any]:
    with atomic_file(out) as draft:
        writer = pa.parquet.ParquetWriter if out.suffix == ".parquet" else pa.csv.CSVWriter
        with writer(draft, schema) as sink:
            yield sink


def _schema(classes: Sequence[str], *, nested: bool) -> pa.Schema:
    probabilities = [pa.field(name, pa.float32()) for name in classes]
    flat = [pa.field(f"probability_{name}", pa.float32()) for name in classes]
    return pa.schema(
        [
            pa.field("song_id", pa.string()),
            pa.field("genre", pa.string()),
            pa.field("cross_entropy_nats", pa.float32()),
            pa.field("answered_by", pa.string()),
            pa.field("rung", pa.int32()),
            pa.field("windows", pa.int32()),
            *([pa.field("probabilities", pa.struct(probabilities))] if nested else flat),
        ],
        {MADE_BY: "score"},
    )


def _record_batch(song_ids: list[str], answers: Answers, classes: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    unknown = np.flatnonzero(np.isnan(answers.cross_entropy_nats))
    if len(unknown):
        raise SongError(f"song {song_ids[unknown[0]]!r}: {NOT_A_NUMBER}")
    probabilities = [pa.array(column.astype(np.float32)) for column in answers.probs.T]
    if schema.names[-1] == "probabilities":
        probabilities = [pa.StructArray.from_arrays(probabilities, fields=list(schema.field("probabilities").type))]
    columns = [
        pa.array(song_ids),
        pa.array(classes).take(pa.array(answers.choice)),
        pa.array(answers.cross_entropy_nats.astype(np.float32)),
        pa.array(MODELS).take(pa.array(answers.by_teacher.astype(np.int8))),
        pa.array((answers.rung + 1).astype(np.int32)),
        pa.array(answers.windows.astype(np.int32)),
        *probabilities,
    ]
    return pa.record_batch(columns, schema=schema)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue score`."""
    return run(score, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
