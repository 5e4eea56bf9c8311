"""The scorer: songs in, answers out, with every core busy.

    read ahead -> check -> student, in batches that fit the cache -> hard songs, gathered until a batch of the next rung
    is full -> answers in the order of the songs

Each thread takes a whole batch from bytes to answers, with one thread inside the model: threads then wait for each
other nowhere but at the two hand-overs. What a range of songs gets depends on the range alone, never on what else is
scored, so a range that is scored again gives the same bytes.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segue.data.song import Ints, Songs, Units
from segue.machine import usable_cores
from segue.serving.batch.catalogue import Rows
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import Cascade, open_cascade
from segue.serving.ladder import Ladder
from segue.serving.predictions import MODELS, NOT_A_NUMBER, Answers, Predictions
from segue.serving.runtime import Provider

FULL_SONGS = 1024  # In a batch of songs that go on to the next rung.
SOME_DOUBTS = 500  # Kept of a range, to set the dial by.


@dataclass(frozen=True)
class Reject:
    """A song that has no answer, and why."""

    row: int
    song_id: str
    reason: str


@dataclass(frozen=True)
class Part:
    """The answers for one range of songs, and what they cost."""

    table: pa.Table
    rejects: tuple[Reject, ...]
    went_on: int  # Songs that a rung above the first was asked about.
    fell_back: int  # Songs that the last rung was asked about.
    counts: Ints  # (n_classes,) songs of each class.
    doubts: NDArray[np.float64]  # Of the student, of some hundred songs evenly spaced among the others.
    student_s: float  # Seconds in all threads together, checks included ...
    teacher_s: float  # ... and of the other rungs.


@dataclass(frozen=True)
class _Batch:
    """Songs that a rung has answered."""

    at: Ints  # Their places in the range, among the songs that can be scored.
    songs: Songs
    answers: Answers

    def take(self, rows: Ints) -> "_Batch":
        """Return some of the songs."""
        return _Batch(self.at[rows], self.songs.take(rows), self.answers.take(rows))


@dataclass(frozen=True)
class _Climbed:
    """What a thread has done."""

    rung: int
    batch: _Batch | None  # None: no song of these can be scored.
    seconds: float
    rows: Rows | None = None  # On the first rung: all songs of the batch, ...
    sound: Ints | None = None  # ... and the places of those that can be scored.


class Scorer:
    """Scores ranges of songs with the cascade of one bundle; a context manager, which ends its threads.

    Attributes:
        threads: how many there are.
    """

    def __init__(self, cascade: Cascade, classes: Sequence[str], units: Units, *, threads: int) -> None:
        """Score with `cascade`, whose models use one thread each, in `threads` threads."""
        self.threads = threads
        self._cascade = cascade
        self._classes = tuple(classes)
        self._units = units
        self._most_waiting = 2 * threads + 2  # Batches in memory, each at most 25 MB.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="segue-score")

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        windows: int | None = None,
        provider: Provider = "auto",
        threads: int | None = None,
        ends_only: bool = False,
    ) -> Self:
        """Open the models of a bundle for scoring; with `ends_only`, its first and its last rung and none between."""
        cascade = open_cascade(bundle, windows=windows, provider=provider, threads=1)
        if ends_only:
            cascade = cascade.ends()
        return cls(cascade, bundle.manifest.classes, bundle.manifest.units, threads=threads or usable_cores())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def score(
        self,
        batches: Iterable[Rows],
        threshold_nats: float | None = None,
        *,
        probs: bool = False,
        going_on: Ints | None = None,
    ) -> Part:
        """Return the answers for the songs of some batches, in their order.

        Args:
            batches: the songs of one range.
            threshold_nats: above this doubt a song goes on to the next rung; None: the bundle's.
            probs: whether to return the probability of every class.
            going_on: rows that go on from the first rung whatever it says, in rising order.
        """
        ladder = self._cascade.ladder.at(threshold_nats)
        forced = np.zeros(0, np.int64) if going_on is None else going_on
        answered = _Answered(self._classes, ladder)
        hard: list[list[_Batch]] = [[] for _ in range(len(ladder))]  # Songs that wait for a rung.
        waiting: deque[Future[_Climbed]] = deque()

        def ask(rung: int, least: int) -> None:
            """Send the songs that wait for a rung to it, in batches of `least` songs at least."""
            full, hard[rung] = _deal(hard[rung], least)
            waiting.extend(self._pool.submit(self._climb, ladder, rung, batch) for batch in full)

        def finish(most: int) -> None:
            """Wait until at most `most` batches are under way."""
            while len(waiting) > most:
                done = waiting.popleft().result()
                batch, above = answered.add(done), done.rung + 1
                if batch is not None and above < len(ladder):
                    hard[above].append(batch.take(ladder.going_on(batch.answers, above)))
                    ask(above, FULL_SONGS)

        for rows in batches:
            finish(self._most_waiting)
            waiting.append(self._pool.submit(self._first, ladder, rows, forced))
        finish(0)
        for rung in range(1, len(ladder)):
            ask(rung, 1)
            finish(0)
        return answered.part(probs=probs)

    def compare(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the first rung's doubts of the songs that can be scored, and whether the last says another genre."""
        batch = self._first(self._cascade.ladder, rows, np.zeros(0, np.int64)).batch
        if batch is None:
            return np.zeros(0), np.zeros(0, bool)
        last = self._cascade.teacher.predict(batch.songs)
        return batch.answers.doubt_nats, batch.answers.choice != last.probs.argmax(axis=1)

    def _first(self, ladder: Ladder, rows: Rows, forced: Ints) -> _Climbed:
        """Check a batch, and ask the first rung about its sound songs."""
        started = perf_counter()
        faults = rows.songs.faults(self._units)
        rows.faults.update((place, str(fault)) for place, fault in faults.items() if place not in rows.faults)
        sound = np.setdiff1d(np.arange(len(rows)), np.fromiter(rows.faults, np.int64), assume_unique=True)
        batch = None
        if len(sound):
            songs = rows.songs.take(sound)
            answers = ladder.first(self._cascade.models[0].predict(songs))
            if len(forced):  # What is not a number goes on.
                doubts = np.where(np.isin(rows.first + sound, forced), np.nan, answers.doubt_nats)
                answers = replace(answers, doubt_nats=doubts)
            batch = _Batch(np.arange(len(sound)), songs, answers)
        return _Climbed(0, batch, perf_counter() - started, rows, sound)

    def _climb(self, ladder: Ladder, rung: int, batch: _Batch) -> _Climbed:
        """Ask a rung about songs that have gone on to it."""
        started = perf_counter()
        said = self._cascade.models[rung].predict(batch.songs)
        answers = ladder.joined(batch.answers, np.arange(len(batch.at)), said, rung)
        return _Climbed(rung, replace(batch, answers=answers), perf_counter() - started)


def _deal(batches: list[_Batch], least: int) -> tuple[list[_Batch], list[_Batch]]:
    """Return batches of `least` to `FULL_SONGS` songs made of these, and what is left over."""
    if sum(len(batch.at) for batch in batches) < least:
        return [], batches
    at = np.concatenate([batch.at for batch in batches])
    songs = Songs.concat([batch.songs for batch in batches])
    answers = Answers.concat([batch.answers for batch in batches])
    spans = [slice(start, start + FULL_SONGS) for start in range(0, len(at), FULL_SONGS)]
    dealt = [_Batch(at[span], songs[span], answers.take(span)) for span in spans]
    left = [dealt.pop()] if len(dealt[-1].at) < least else []
    return dealt, left


class _Answered:
    """What is known of a range of songs so far."""

    def __init__(self, classes: Sequence[str], ladder: Ladder) -> None:
        self._classes = classes
        self._ladder = ladder
        self._read: list[tuple[Rows, Ints]] = []  # With the places of the songs that can be scored.
        self._songs = 0
        self._at: list[list[Ints]] = [[] for _ in range(len(ladder))]
        self._answers: list[list[Answers]] = [[] for _ in range(len(ladder))]
        self._seconds = [0.0] * len(ladder)

    def add(self, climbed: _Climbed) -> _Batch | None:
        """Add what a rung says of some songs, and return it, with the songs' places in the range."""
        self._seconds[climbed.rung] += climbed.seconds
        batch = climbed.batch
        if climbed.rows is not None and climbed.sound is not None:
            self._read.append((replace(climbed.rows, songs=climbed.rows.songs[:0]), climbed.sound))  # Not the segments.
            if batch is not None:
                batch = replace(batch, at=batch.at + self._songs)
                self._songs += len(batch.at)
        if batch is not None:
            self._at[climbed.rung].append(batch.at)
            self._answers[climbed.rung].append(batch.answers)
        return batch

    def part(self, *, probs: bool) -> Part:
        """Return the answers of the whole range."""
        nothing = self._ladder.first(Predictions.none(0, len(self._classes)))
        answers = Answers.concat([nothing, *self._answers[0]])
        doubts = answers.doubt_nats
        for at, climbed in zip(self._at[1:], self._answers[1:], strict=True):
            if at:
                answers = answers.put(np.concatenate(at), Answers.concat(climbed))
        return self._part(answers, doubts, probs=probs)

    def _part(self, answers: Answers, doubts: NDArray[np.float64], *, probs: bool) -> Part:
        answered = ~np.isnan(answers.cross_entropy_nats)
        songs, known = self._kept(answered), answers.take(np.flatnonzero(answered))
        columns: dict[str, pa.Array] = {
            "song_id": songs.pop("song_id"),
            "genre": pa.array(self._classes).take(pa.array(known.choice)),
            "cross_entropy_nats": pa.array(known.cross_entropy_nats.astype(np.float32)),
            "answered_by": pa.array(MODELS).take(pa.array(known.by_teacher.astype(np.int8))),
            "rung": pa.array((known.rung + 1).astype(np.int32)),
            "windows": pa.array(known.windows.astype(np.int32)),
        }
        if probs:
            each = [pa.array(column.astype(np.float32)) for column in known.probs.T]
            columns["probabilities"] = pa.StructArray.from_arrays(each, names=list(self._classes))
        return Part(
            table=pa.table(columns | songs),
            rejects=self._rejects(answered),
            went_on=int((answers.reached > 0).sum()),
            fell_back=int(answers.fell_back.sum()),
            counts=np.bincount(known.choice, minlength=len(self._classes)),
            doubts=doubts[:: max(1, len(doubts) // SOME_DOUBTS)],
            student_s=self._seconds[0],
            teacher_s=sum(self._seconds[1:]),
        )

    def _kept(self, answered: NDArray[np.bool_]) -> dict[str, pa.ChunkedArray]:
        """Return ids and the caller's columns of the songs that have an answer."""
        batches = []
        for rows, sound in self._read:
            places = pa.array(sound)
            ids = pa.record_batch({"song_id": rows.song_ids.take(places)})
            kept = rows.kept
            if kept is not None:
                for name in kept.schema.names:
                    ids = ids.append_column(name, kept.column(name).take(places))
            batches.append(ids)
        if not batches:
            return {"song_id": pa.chunked_array([], pa.string())}
        table = pa.Table.from_batches(batches).filter(pa.array(answered))
        return {name: table[name] for name in table.column_names}

    def _rejects(self, answered: NDArray[np.bool_]) -> tuple[Reject, ...]:
        found = []
        at = 0
        for rows, sound in self._read:
            faults = dict(rows.faults)
            unknown = np.flatnonzero(~answered[at : at + len(sound)])
            faults |= {int(sound[place]): NOT_A_NUMBER for place in unknown}
            at += len(sound)
            found += [Reject(rows.first + row, rows.song_ids[row].as_py(), faults[row]) for row in sorted(faults)]
        return tuple(found)
