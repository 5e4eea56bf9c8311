"""What a conversion of songs keeps, what it leaves out, and why."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from segue.data.song import FEATURE_NAMES, ROUNDING, WINDOW, Features, Floats, Songs, Units, clip_rounding, shown
from segue.data.sources.source import Skipped, Tally, kind_of
from segue.data.table import SongBatch

log = logging.getLogger(__name__)


@dataclass
class Conversion:
    """What a conversion wrote, and what it left out by reason; every song left out was also named in the log."""

    out: Path
    units: Units
    features: Features = "echonest"
    songs: int = 0
    labelled: dict[str, int] = field(default_factory=dict)  # Songs by class.
    unlabelled: Tally = field(default_factory=Tally)
    short: Tally = field(default_factory=Tally)  # Songs below one window.
    clipped: Tally = field(default_factory=Tally)  # Songs with rounding noise beyond a range, which was cut off.
    left_out: dict[str, Tally] = field(default_factory=dict)  # By reason.
    passed_over: dict[str, Tally] = field(default_factory=dict)  # What lies in the sources and is no song, by reason.
    warnings: list[str] = field(default_factory=list)  # What deserves a look; also in the log.

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in sorted(self.labelled.items()))
        own = "" if self.features == "echonest" else f", {self.features}"
        lines = [
            f"{self.out}: {self.songs} songs ({self.units}{own})",
            f"  labelled: {sum(self.labelled.values())}" + (f" ({classes})" if classes else ""),
            f"  without a label: {self.unlabelled}",
            f"  shorter than {WINDOW} segments, kept (their window repeats them): {self.short}",
            *(
                [f"  with rounding noise, {ROUNDING:g} of a range, clipped: {self.clipped}"]
                if self.clipped.count
                else []
            ),
            f"  left out: {sum(tally.count for tally in self.left_out.values())}",
            *(f"    {reason}: {tally}" for reason, tally in self.left_out.items()),
            *(f"  passed over, {reason}: {tally}" for reason, tally in self.passed_over.items()),
            *(f"  warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)

    def keep(self, batch: SongBatch) -> None:
        """Count the songs of a batch that is written."""
        self.songs += len(batch)
        for label, count in Counter(label for label in batch.labels if label is not None).items():
            self.labelled[label] = self.labelled.get(label, 0) + count
        self.unlabelled.add([name for name, label in zip(batch.song_ids, batch.labels, strict=True) if label is None])
        lengths = zip(batch.song_ids, batch.songs.lengths.tolist(), strict=True)
        self.short.add([f"{name} ({length} segments)" for name, length in lengths if length < WINDOW])

    def clip(self, batch: SongBatch) -> SongBatch:
        """Return sound songs with rounding noise clipped to the ranges, and count the songs that had some."""
        segments, rows = clip_rounding(batch.songs.segments, self.units)
        if not len(rows):
            return batch
        noisy = np.searchsorted(batch.songs.offsets, rows, side="right") - 1
        songs, first = np.unique(noisy, return_index=True)
        noise = [_noise(batch.songs.segments[row], segments[row]) for row in rows[first]]
        self.clipped.add([f"{batch.song_ids[song]} ({one})" for song, one in zip(songs, noise, strict=True)])
        return replace(batch, songs=Songs(segments, batch.songs.lengths))

    def leave_out(self, song: Skipped) -> None:
        """Count and log a song that is not written."""
        log.info("left out %s: %s", song.name, song.reason)
        self.left_out.setdefault(kind_of(song.reason), Tally()).add([song.name])

    def pass_over(self, found: Mapping[str, Tally]) -> None:
        """Count what a source holds and does not read."""
        for reason, tally in found.items():
            mine = self.passed_over.setdefault(reason, Tally())
            mine.add(tally.examples)
            mine.count += tally.count - len(tally.examples)

    def warn(self, warning: str) -> None:
        """Keep a warning, once, and log it."""
        if warning not in self.warnings:
            log.warning("warning: %s", warning)
            self.warnings.append(warning)

    def state(self) -> dict[str, Any]:
        """Return all of it but the path as JSON types, for `of_state`."""
        return asdict(self) | {"out": None}

    @classmethod
    def of_state(cls, out: Path, state: dict[str, Any]) -> Self:
        """Return the conversion that `state` was read from."""
        tallies = {name: Tally(**state[name]) for name in ("unlabelled", "short", "clipped")}
        by_reason = {
            name: {reason: Tally(**tally) for reason, tally in state[name].items()}
            for name in ("left_out", "passed_over")
        }
        return cls(**state | tallies | by_reason | {"out": out})


def faults(batch: SongBatch, units: Units, seen: set[str]) -> dict[int, Skipped]:
    """Return the rows of a batch that break the contract, each with the reason; ids of the other songs join `seen`."""
    found = {row: Skipped(batch.song_ids[row], str(fault)) for row, fault in batch.songs.faults(units).items()}
    for row, name in enumerate(batch.song_ids):
        if row in found:
            continue
        if not name.strip():
            found[row] = Skipped("a song without an id", "expected an id, found an empty one")
            continue
        if name in seen:
            found[row] = Skipped(name, "another song has the same id")
        seen.add(name)
    return found


def _noise(before: Floats, after: Floats) -> str:
    column = int(np.flatnonzero(before != after)[0])
    return f"{FEATURE_NAMES[column]} {shown(before[column])}"
