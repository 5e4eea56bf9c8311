"""A scoring run: the ranges of a catalogue that have no part yet are scored, one after the other."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tqdm import tqdm

from segue.data.song import Ints
from segue.data.sources.source import kind_of
from segue.errors import RunError, SongError
from segue.serving.batch.catalogue import Catalogue, Range
from segue.serving.batch.dial import Dial
from segue.serving.batch.run_folder import Note, RunFolder
from segue.serving.batch.scorer import Part, Scorer


@dataclass(frozen=True)
class Task:
    """One part that is to be made."""

    index: int
    range: Range
    threshold_nats: float | None  # None: the bundle's.
    going_on: Ints  # Rows of the file that go on to the teacher whatever the student says.


@dataclass(frozen=True)
class Columns:
    """What is written besides the answers."""

    probs: bool = False  # The probability of every class.
    keep: tuple[str, ...] = ()  # The caller's own columns.


class Engine(Protocol):
    """What makes parts: the threads of this process, or a cluster."""

    def parts(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Part]]:
        """Yield the part of each task, in any order."""


@dataclass(frozen=True)
class LocalEngine:
    """Makes parts in this process."""

    catalogue: Catalogue
    scorer: Scorer
    columns: Columns

    def parts(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Part]]:
        """Yield the part of each task, in order."""
        for task in tasks:
            batches = self.catalogue.read(task.range, self.columns.keep)
            part = self.scorer.score(batches, task.threshold_nats, probs=self.columns.probs, going_on=task.going_on)
            yield task, part


def run_parts(
    catalogue: Catalogue,
    ranges: Sequence[Range],
    engine: Engine,
    dial: Dial,
    kept: RunFolder,
    *,
    strict: bool,
    max_rejects: float,
) -> int:
    """Make the parts that are missing, and return how many songs had one already.

    Args:
        catalogue: the songs.
        ranges: one for each part.
        engine: makes the parts.
        dial: routes the songs.
        kept: where the parts are.
        strict: stop at the first song that cannot be scored.
        max_rejects: stop where more than this share of the songs cannot be scored.

    Raises:
        SongError: too many songs cannot be scored, or a file was changed meanwhile.
        RunError: the engine ended before all parts were made.
    """
    notes = [kept.note(index) for index in range(len(ranges))]
    resumed = sum(len(part) for part, note in zip(ranges, notes, strict=True) if note)
    rejected = sum(sum(note.rejects.values()) for note in notes if note)
    fell_back = sum(note.fell_back for note in notes if note)
    done = resumed
    written: Future[None] | None = None

    def tasks() -> Iterator[Task]:
        for index, (part, note) in enumerate(zip(ranges, notes, strict=True)):
            if note is None:
                first = int(catalogue.first_rows[part.file])
                low, high = np.searchsorted(dial.going_on, [first + part.start, first + part.end])
                threshold = dial.budget.threshold(len(catalogue) - done) if dial.budget else dial.threshold_nats
                yield Task(index, part, threshold, dial.going_on[low:high] - first)

    with (
        ThreadPoolExecutor(1, "segue-score-write") as writer,  # One part is written while the next one is made.
        tqdm(total=len(catalogue), initial=done, unit=" songs", disable=None, file=sys.stderr) as progress,
    ):
        for task, part in engine.parts(tasks()):
            if written:
                written.result()  # What went wrong with the part before is told first.
            name, songs = catalogue.files[task.range.file].name, len(task.range)
            done += songs
            rejected += len(part.rejects)
            fell_back += part.fell_back
            if part.rejects and (strict or rejected > max_rejects * len(catalogue)):
                one = part.rejects[0]
                raise SongError(
                    f"{name}, row {one.row}, song {one.song_id!r}: {one.reason}"
                    + ("" if strict else f"; more than {max_rejects:.1%} of {len(catalogue):,} songs cannot be scored")
                )
            if dial.budget:
                dial.budget.learn(part, songs)
            reasons = dict(Counter(kind_of(one.reason) for one in part.rejects))
            counts = tuple(part.counts.tolist())
            note = Note(name, task.range.start, task.range.end, task.threshold_nats, part.fell_back, counts, reasons)
            written = writer.submit(kept.write, task.index, part, note)
            progress.update(songs)
            progress.set_postfix_str(f"{fell_back / max(done, 1):.1%} fell back")
        if written:
            written.result()
    if done != len(catalogue):  # Never a summary of a part of the songs.
        raise RunError(f"{len(catalogue) - done:,} of {len(catalogue):,} songs were not scored; repeat the command")
    return resumed
