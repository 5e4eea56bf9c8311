"""Turn any source of songs into the canonical song table.

Sources are recognised by their content: the course's fixed-length `.npz` files, Million Song Dataset tracks (an HDF5
file or a folder tree of them), and song tables in Arrow or Parquet. The last path is the table to write: Parquet if it
ends in `.parquet`, else Arrow. Songs stream through; one that cannot be read is named, counted and left out.

Examples:
    segue songs msd_songs.npz artifacts/songs.arrow
    segue songs MillionSongSubset/ artifacts/songs.arrow --labels msd_tagtraum_cd2c.cls
    segue songs msd_songs.npz artifacts/test.arrow --where fold=3 --where balanced=true
"""

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, UseAppendAction, arg

from data.command import run
from data.conversion import Conversion, faults
from data.course import CourseFile
from data.errors import ConfigError, LabelError, SongError
from data.labels import read_labels
from data.msd import MsdTracks
from data.resume import ResumableTable, resumable_table
from data.song import Units
from data.source import Skipped, Source
from data.table import SongBatch, SongWriter, write_table
from data.table_source import TableSource

log = logging.getLogger(__name__)


def open_source(path: Path, units: Units | None, where: Mapping[str, Sequence[str]]) -> Source:
    """Recognise the source at `path` by its content and open it."""
    if not path.exists():
        raise SongError(f"{path}: expected a source of songs, found no such file or folder")
    head = b"\x89HDF" if path.is_dir() else path.open("rb").read(8)
    if head.startswith(b"PK"):
        return CourseFile(path, units, where)
    if head.startswith((b"ARROW1", b"PAR1")):
        return TableSource(path, units, where)
    if head.startswith(b"\x89HDF"):
        if where:
            raise ConfigError(f"{path}: --where selects from .npz files and song tables, not from HDF5 tracks")
        return MsdTracks(path)
    raise SongError(
        f"{path}: expected an .npz file, HDF5 tracks or a song table, found a file that starts with {head!r}"
    )


def songs(
    paths: Positional[Annotated[tuple[Path, ...], arg(metavar="SOURCE... OUT")]],
    labels: Path | None = None,
    classes: tuple[str, ...] = (),
    where: UseAppendAction[tuple[str, ...]] = (),
    units: Units | None = None,
    strict: bool = False,
) -> Conversion:
    """Turn any source of songs into the canonical song table.

    Args:
        paths: The sources, and last the table to write.
        labels: Genres by track id: a tagtraum .cls file, or any file of track id, tab, genre.
        classes: The classes to keep, in this order; songs of others lose their label. Default: the source's own.
        where: Keep only songs whose field has one of these values, as in fold=0,1 or label=Jazz. Can be repeated.
        units: What the numbers are, where a source does not say.
        strict: Stop at the first song that cannot be read, instead of leaving it out.
    """
    if len(paths) < 2:
        raise ConfigError(f"expected SOURCE... OUT, at least two paths; found {len(paths)}")
    *sources, out = paths
    by_id = read_labels(labels) if labels else None
    conditions = _conditions(where)
    opened = [open_source(source, units, conditions) for source in sources]
    found = {source.units for source in opened}
    if len(found) > 1:
        raise SongError(f"{', '.join(map(str, sources))}: raw and standardised songs cannot share a table")
    order = _class_order(opened, classes, by_id)
    units_found = opened[0].units
    if out.suffix == ".parquet":
        with write_table(out, units_found, order) as table:
            return _convert(opened, table, Conversion(out, units_found), by_id, order, strict)
    key = _key(sources, labels, [classes, where, units, strict])
    with resumable_table(out, units_found, order, key) as resumable:
        state = resumable.state
        report = Conversion.of_state(out, state["report"]) if state else Conversion(out, units_found)
        if state:
            log.info("going on after %d songs that an earlier run had written", report.songs)
        return _convert(opened, resumable, report, by_id, order, strict, state["done"] if state else 0)


def _convert(
    sources: Sequence[Source],
    table: SongWriter | ResumableTable,
    report: Conversion,
    labels: Mapping[str, str] | None,
    classes: Sequence[str],
    strict: bool,
    done: int = 0,
) -> Conversion:
    """Write the songs of all sources after the first `done` to `table`, and count them in `report`."""
    resumable = table if isinstance(table, ResumableTable) else None
    seen = set(resumable.song_ids) if resumable else set()
    progress = tqdm(total=sum(map(len, sources)), initial=done, unit=" songs", disable=None, file=sys.stderr)
    for item in _items(sources, done):
        entries, faulty = (1, {0: item}) if isinstance(item, Skipped) else (len(item), faults(item, report.units, seen))
        for song in faulty.values():
            if strict:
                raise SongError(f"{song.name}: {song.reason}")
            report.leave_out(song)
        done += entries
        progress.update(entries)
        if isinstance(item, SongBatch):
            kept = item.take([row for row in range(len(item)) if row not in faulty]) if faulty else item
            kept = _relabelled(kept, labels, classes)
            table.write(kept)
            report.keep(kept)
            if resumable:
                resumable.note({"done": done, "report": report.state()})
    progress.close()
    return report


def _items(sources: Sequence[Source], done: int) -> Iterator[SongBatch | Skipped]:
    """Yield what all sources hold after the first `done` songs, readable or not."""
    for source in sources:
        skipped = min(done, len(source))
        yield from source.batches(skipped)
        done -= skipped


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


def _class_order(sources: Sequence[Source], chosen: tuple[str, ...], labels: Mapping[str, str] | None) -> list[str]:
    """Return the classes of the new table in order; empty when only the labels themselves tell."""
    own = list(dict.fromkeys(name for source in sources for name in source.classes))
    known = set(own) | set((labels or {}).values())
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise LabelError(f"--classes: no song has the class {', '.join(unknown)}; found {', '.join(sorted(known))}")
    return list(chosen) or ([] if labels else own)


def _relabelled(batch: SongBatch, labels: Mapping[str, str] | None, classes: Sequence[str]) -> SongBatch:
    """Return the batch with its genres from the label file, if any, and only those that are among `classes`, if any."""
    found = [labels.get(name) for name in batch.song_ids] if labels is not None else batch.labels
    kept = [name if not classes or name in classes else None for name in found]
    return SongBatch(batch.song_ids, batch.segments, batch.lengths, kept, batch.groups)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue songs`."""
    return run(songs, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
