"""Turn any source of songs into the canonical song table.

Sources are recognised by their content: the course's fixed-length `.npz` files, Million Song Dataset tracks (an HDF5
file or a folder tree of them), and song tables in Arrow or Parquet. The last path is the table to write: Parquet if it
ends in `.parquet`, else Arrow. Songs stream through; one that cannot be read is named, counted and left out.

Examples:
    segue songs msd_songs.npz artifacts/songs.arrow
    segue songs MillionSongSubset/ artifacts/songs.arrow --labels msd_tagtraum_cd2c.cls
    segue songs msd_songs.npz artifacts/test.arrow --where fold=3 --where balanced=true
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, UseAppendAction, arg

from data.command import run
from data.course import CourseFile
from data.errors import ConfigError, LabelError, SongError
from data.labels import read_labels
from data.msd import MsdTracks
from data.song import WINDOW, Units, first_fault
from data.source import BATCH_SONGS, Skipped, Source, select
from data.table import NO_LABEL, SongBatch, SongTable, write_table

NAMED_IN_REPORT = 10


@dataclass
class Conversion:
    """What a conversion wrote, and what it left out and why."""

    out: Path
    units: Units
    songs: int = 0
    labelled: dict[str, int] = field(default_factory=dict)  # songs by class
    unlabelled: list[str] = field(default_factory=list)  # ids
    short: list[tuple[str, int]] = field(default_factory=list)  # id and segments of songs below one window
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name and reason

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in sorted(self.labelled.items()))
        lines = [f"{self.out}: {self.songs} songs ({self.units})"]
        lines.append(f"  labelled: {sum(self.labelled.values())}" + (f" ({classes})" if classes else ""))
        lines.append(_listed("without a label", self.unlabelled))
        short = [f"{name} ({segments} segments)" for name, segments in self.short]
        lines.append(_listed(f"shorter than {WINDOW} segments, kept (their window repeats them)", short))
        lines.append(f"  left out: {len(self.skipped)}")
        lines += [f"    {name}: {reason}" for name, reason in self.skipped]
        return "\n".join(lines)

    def count(self, batch: SongBatch) -> None:
        """Add the songs of a batch that was written."""
        self.songs += len(batch)
        for label, count in Counter(label for label in batch.labels if label is not None).items():
            self.labelled[label] = self.labelled.get(label, 0) + count
        self.unlabelled += [name for name, label in zip(batch.song_ids, batch.labels, strict=True) if label is None]
        lengths = zip(batch.song_ids, batch.lengths.tolist(), strict=True)
        self.short += [(name, length) for name, length in lengths if length < WINDOW]


class TableSource:
    """A song table as a source, so that tables can be joined, selected from and checked again."""

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

    def batches(self) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs in table order."""
        for start in range(0, len(self._rows), BATCH_SONGS):
            yield self._table.batch(self._rows[start : start + BATCH_SONGS])


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
    report = Conversion(out, opened[0].units)
    seen: set[str] = set()
    progress = tqdm(total=sum(map(len, opened)), unit=" songs", disable=None, file=sys.stderr)
    with write_table(out, report.units, order) as table, progress:
        for item in (item for source in opened for item in source.batches()):
            progress.update(len(item) if isinstance(item, SongBatch) else 1)
            faults = {0: item.reason} if isinstance(item, Skipped) else _faults(item, report.units, seen)
            names = [item.name] if isinstance(item, Skipped) else item.song_ids
            report.skipped += [(names[row], reason) for row, reason in faults.items()]
            if faults and strict:
                raise SongError("{}: {}".format(*report.skipped[0]))
            if isinstance(item, SongBatch):
                kept = item.take([row for row in range(len(item)) if row not in faults]) if faults else item
                kept = _relabelled(kept, by_id, order)
                table.write(kept)
                report.count(kept)
    return report


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


def _faults(batch: SongBatch, units: Units, seen: set[str]) -> dict[int, str]:
    """Return the rows of a batch that break the contract, each with the reason; ids of the other songs join `seen`."""
    sound = first_fault(batch.segments, units) is None and batch.lengths.min(initial=1) > 0
    faults = {} if sound else _content_faults(batch, units)
    for row, name in enumerate(batch.song_ids):
        if row in faults:
            continue
        if name in seen:
            faults[row] = "another song has the same id"
        seen.add(name)
    return faults


def _content_faults(batch: SongBatch, units: Units) -> dict[int, str]:
    faults = {}
    for row, (length, end) in enumerate(zip(batch.lengths, batch.lengths.cumsum(), strict=True)):
        fault = first_fault(batch.segments[end - length : end], units)
        if not length:
            faults[row] = "expected at least one segment, found none"
        elif fault is not None:
            faults[row] = f"segment {fault[0]}: {fault[1]}"
    return faults


def _relabelled(batch: SongBatch, labels: Mapping[str, str] | None, classes: Sequence[str]) -> SongBatch:
    """Return the batch with its genres from the label file, if any, and only those that are among `classes`, if any."""
    found = [labels.get(name) for name in batch.song_ids] if labels is not None else batch.labels
    kept = [name if not classes or name in classes else None for name in found]
    return SongBatch(batch.song_ids, batch.segments, batch.lengths, kept, batch.groups)


def _listed(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED_IN_REPORT]) + (", ..." if len(names) > NAMED_IN_REPORT else "")
    return f"  {what}: {len(names)}" + (f": {shown}" if names else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue songs`."""
    return run(songs, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
