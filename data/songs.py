"""Turn any source of songs into the canonical song table.

Sources are recognised by their content; --from overrides:

{kinds}

The last path is the table to write: Parquet if it ends in `.parquet`, else Arrow. Songs stream through; one that
cannot be read is named, counted and left out: OUT.errors.tsv lists them. A conversion to Arrow that is stopped goes on
where it was when it is started again.

Examples:
    segue songs msd_songs.npz artifacts/songs.arrow
    segue songs MillionSongSubset/ artifacts/songs.arrow --labels msd_tagtraum_cd2c.cls
    segue songs MUSIC/ artifacts/songs.arrow --labels genres.csv
    segue songs msd_songs.npz artifacts/test.arrow --where fold=3 --where balanced=true
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from tqdm import tqdm
from tyro.conf import Positional, UseAppendAction, arg

from segue.command import run
from segue.data.label_tables import key_of, read_label_table
from segue.data.labels import LabelFile, read_labels
from segue.data.parts import parts_of
from segue.data.song import Units, check_features
from segue.data.sources.conversion import Conversion, faults
from segue.data.sources.error_table import ErrorTable, error_table_of
from segue.data.sources.folder import names_of
from segue.data.sources.registry import list_of_kinds, open_source
from segue.data.sources.resume import ResumableTable, clear, resumable_table
from segue.data.sources.song_table import is_folder_of_tables
from segue.data.sources.source import BATCH_SONGS, Skipped, Source, Tally, features_of
from segue.data.table import NO_LABEL, SongBatch, SongTable, SongWriter, write_table
from segue.errors import ConfigError, LabelError, SongError
from segue.places import check_last, check_out, made_by

log = logging.getLogger(__name__)

SUFFIXES = (".arrow", ".parquet")


@dataclass(frozen=True)
class Labelling:
    """Which genre a song gets, and whether it stays one."""

    file: LabelFile | None  # Genres, artists and splits by song id; None: the source's own.
    classes: tuple[str, ...]  # The classes that are kept, in order; empty: all.
    parts: bool = False  # Whether every 120 segments of a song become a song of their own.

    def apply(self, batch: SongBatch) -> SongBatch:
        """Return the batch with the genres of its songs, and what else the label file says of them."""
        if self.file is not None:
            keys = [key_of(name, self.file.keys) or name for name in batch.song_ids]
            found = [self.file.pairs.get(key, (None, None)) for key in keys]
            own = (batch.groups or [None] * len(batch), batch.splits or [None] * len(batch))
            batch = replace(
                batch,
                labels=[genre for genre, _ in found],
                second_labels=[second for _, second in found],
                groups=[self.file.artists.get(key, group) for key, group in zip(keys, own[0], strict=True)],
                splits=[self.file.splits.get(key, split) for key, split in zip(keys, own[1], strict=True)],
            )
        kept = [name if not self.classes or name in self.classes else None for name in batch.labels]
        labelled = replace(batch, labels=kept)
        return parts_of(labelled) if self.parts else labelled


def songs(
    paths: Positional[Annotated[tuple[Path, ...], arg(metavar="SOURCE... [OUT]")]],
    labels: Path | None = None,
    classes: tuple[str, ...] = (),
    where: UseAppendAction[tuple[str, ...]] = (),
    balance: int | None = None,
    seed: int = 0,
    kind: Annotated[str | None, arg(name="from", metavar="KIND")] = None,
    units: Units | None = None,
    strict: bool = False,
    parts: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Turn any source of songs into the canonical song table.

    Args:
        paths: The sources; without --out also, last, the table to write, which must not be there yet.
        labels: Genres by track id or path: a tagtraum .cls, MASD or MAGD file, any of id, tab, genre[, tab, genre],
            a CSV or TSV with the columns path or id, genre and perhaps artist and split, FMA's tracks.csv,
            MTG-Jamendo's TSV.
        classes: The classes to keep, in this order; songs of others lose their label. Default: the source's own.
        where: Keep only songs whose field has one of these values, as in fold=0,1 or label=Jazz. Can be repeated.
        balance: Keep at most so many songs of a class, drawn at random; songs without a label are all kept.
        seed: Picks the songs that --balance keeps.
        kind: What the sources are, one of the kinds above. Default: their content tells.
        units: What the numbers are, where a source does not say.
        strict: Stop at the first song that cannot be read, instead of leaving it out.
        parts: Split songs into consecutive parts of 120 segments, which become songs of their own, of one group.
        out: The table to write, Parquet or Arrow. One that this verb made is replaced.
        overwrite: Replace what is there, whatever made it; never what is read.
    """
    if len(paths) < (1 if out else 2):
        raise ConfigError(f"expected SOURCE... OUT, at least two paths; found {len(paths)}. Or SOURCE... --out OUT")
    if balance is not None and balance < 1:
        raise ConfigError(f"balance: expected at least 1 song a class, found {balance}")
    sources = list(paths)
    if out:
        check_out(out, "songs", _reads(sources, labels, out), overwrite=overwrite)
    else:
        out = sources.pop()
        check_last(sources, out, "songs", _reads(sources, labels, out), SUFFIXES, overwrite=overwrite)
    check_out(error_table_of(out), "songs", _reads(sources, labels, out), overwrite=overwrite)
    conditions = _conditions(where)
    names = _names(sources)
    opened = [open_source(path, units, conditions, kind, name) for path, name in zip(sources, names, strict=True)]
    found = {source.units for source in opened}
    if len(found) > 1:
        raise SongError(f"{', '.join(map(str, sources))}: raw and standardised songs cannot share a table")
    features = features_of(opened[0])
    for path, source in zip(sources, opened, strict=True):
        check_features(features_of(source), features, str(path), f"a table that begins with {sources[0]}")
    label_file = (read_label_table(labels) or read_labels(labels)) if labels else None
    labelling = replace(_labelling(opened, label_file, classes), parts=parts)
    key = _key(sources, labels, [classes, where, kind, units, strict, parts])
    report = Conversion(out, opened[0].units, features)
    if label_file and label_file.conflicts:
        report.warn(f"{labels}: {_conflicts(label_file)}")
    everything = out.with_name(f".{out.name}.everything.arrow")
    if balance is None:
        clear(everything)
        everything.unlink(missing_ok=True)
        return _write(opened, out, report, labelling, strict, key)
    report = _write(opened, everything, report, labelling, strict, key)
    balanced = draw_balanced(SongTable(everything), balance, seed, report, labelling.classes)
    everything.unlink()
    return balanced


def _reads(sources: Sequence[Path], labels: Path | None, out: Path) -> list[Path]:
    """Return what a conversion reads; a folder that has other files than tables may hold the one that is written."""
    own = not out.exists() or made_by(out) == "songs"
    apart = [source for source in sources if not (own and source.is_dir() and not is_folder_of_tables(source))]
    return [*apart, *([labels] if labels else [])]


def draw_balanced(
    everything: SongTable, most: int, seed: int, report: Conversion, classes: Sequence[str]
) -> Conversion:
    """Write the table `report.out` with at most `most` songs of a class and all unlabelled ones; return its report."""
    rng = np.random.default_rng(seed)
    drawn = [np.flatnonzero(everything.labels == NO_LABEL)]
    for label in range(len(everything.classes)):
        drawn.append(rng.permutation(np.flatnonzero(everything.labels == label))[:most])
    rows = np.sort(np.concatenate(drawn))
    balanced = replace(report, songs=0, labelled={}, unlabelled=Tally(), short=Tally())
    with write_table(report.out, report.units, classes, made_by="songs", features=report.features) as table:
        for start in range(0, len(rows), BATCH_SONGS):
            batch = everything.batch(rows[start : start + BATCH_SONGS])
            table.write(batch)
            balanced.keep(batch)
    beyond = np.setdiff1d(np.arange(len(everything)), rows)
    if len(beyond):
        tally = balanced.left_out.setdefault(f"beyond the {most} songs drawn of their class", Tally())
        tally.add([everything.song_ids[row] for row in beyond])
    return balanced


def _write(
    sources: Sequence[Source],
    out: Path,
    report: Conversion,
    labelling: Labelling,
    strict: bool,
    key: str,
) -> Conversion:
    """Write the songs of all sources to `out`, after those that a killed run with the same `key` had written."""
    if out.suffix == ".parquet":
        with write_table(out, report.units, labelling.classes, made_by="songs", features=report.features) as table:
            return _convert(sources, table, report, labelling, strict)
    with resumable_table(
        out, report.units, labelling.classes, key, made_by="songs", features=report.features
    ) as resumable:
        state = resumable.state
        if state is None:
            return _convert(sources, resumable, report, labelling, strict)
        before = Conversion.of_state(report.out, state["report"])
        log.info("going on after %d songs that an earlier run had written", before.songs)
        return _convert(sources, resumable, before, labelling, strict, state["source"], state["done"])


def _convert(
    sources: Sequence[Source],
    table: SongWriter | ResumableTable,
    report: Conversion,
    labelling: Labelling,
    strict: bool,
    first: int = 0,
    done: int = 0,
) -> Conversion:
    """Write the songs of all sources from number `first` on, after its first `done`, and count them in `report`."""
    resumable = table if isinstance(table, ResumableTable) else None
    seen = set(resumable.song_ids) if resumable else set()
    sizes = list(map(len, sources))
    before = sum(sizes[:first]) + done
    progress = tqdm(total=sum(sizes), initial=before, unit=" songs", disable=None, file=sys.stderr)
    at = first
    errors = ErrorTable(report.out, goes_on=bool(before))
    for number, item in _items(sources, first, done):
        if number != at:
            at, done = number, 0
        entries, faulty = (1, {0: item}) if isinstance(item, Skipped) else (len(item), faults(item, report.units, seen))
        for song in faulty.values():
            if strict:
                raise SongError(f"{song.name}: {song.reason}")
            report.leave_out(song)
            errors.append(song)
        done += entries
        progress.update(entries)
        if isinstance(item, SongBatch):
            kept = item.take([row for row in range(len(item)) if row not in faulty]) if faulty else item
            kept = labelling.apply(report.clip(kept))
            table.write(kept)
            report.keep(kept)
            if resumable:
                resumable.note({"source": at, "done": done, "report": report.state()})
    progress.close()
    for source in sources:
        report.pass_over(source.passed_over)
    pairs = labelling.file.pairs if labelling.file else {}
    if pairs and seen and not any(key_of(name, pairs) for name in seen):
        report.warn(
            "no label is used: none of the ids in the label file is among the songs, "
            f"ids there are like {next(iter(pairs))!r}, of the songs like {min(seen)!r}"
        )
    if not report.songs:
        reasons = "; ".join(f"{reason}: {tally}" for reason, tally in report.left_out.items())
        n_left_out = sum(tally.count for tally in report.left_out.values())
        raise SongError(
            f"{report.out}: not written, for no song is left of {n_left_out}. "
            + (f"Left out: {reasons}" if reasons else "Is it the right source, and does --where ask for what is there?")
        )
    return report


def _items(sources: Sequence[Source], first: int, done: int) -> Iterator[tuple[int, SongBatch | Skipped]]:
    """Yield what the sources from number `first` on hold, after its first `done` songs, with the source's number."""
    for number, source in enumerate(sources[first:], start=first):
        for item in source.batches(done if number == first else 0):
            yield number, item


def _names(sources: Sequence[Path]) -> list[str]:
    """Return what ids made from the name of each source begin with: its own name, or its path where two share that."""
    absolute = [source.absolute() for source in sources]
    return names_of(absolute, Path(os.path.commonpath([path.parent for path in absolute])))


def _key(sources: Sequence[Path], labels: Path | None, options: Sequence[object]) -> str:
    """Return what a conversion is made from, so that a draft made from something else is not gone on with."""
    files = [file for path in (*sources, *([labels] if labels else [])) for file in _files(path)]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([stats, options], default=str).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _conditions(where: Sequence[str]) -> dict[str, list[str]]:
    conditions: dict[str, list[str]] = {}
    for one in where:
        name, equals, values = one.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"--where: expected FIELD=VALUE[,VALUE], found {one!r}")
        conditions.setdefault(name, []).extend(values.split(","))
    return conditions


def _conflicts(labels: LabelFile) -> str:
    shown = [f"{name} ({first}, {other})" for name, (first, other) in labels.conflicts.items()]
    return f"tracks with two different genres, of which the first is taken: {Tally(len(shown), shown[:3])}"


def _labelling(sources: Sequence[Source], labels: LabelFile | None, chosen: tuple[str, ...]) -> Labelling:
    """Return the labelling by a label file and the chosen classes; a class that no song has is a `LabelError`."""
    pairs = labels.pairs if labels else None
    own = tuple(dict.fromkeys(name for source in sources for name in source.classes))
    known = {genre for genre, _ in pairs.values()} if pairs else set(own)
    unknown = [name for name in chosen if name not in known]
    if known and unknown:
        raise LabelError(f"--classes: no song has the class {', '.join(unknown)}; found {', '.join(sorted(known))}")
    return Labelling(labels, chosen or (() if pairs else own))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue songs`."""
    return run(songs, argv, (__doc__ or "").format(kinds=list_of_kinds()))


if __name__ == "__main__":
    sys.exit(main())
