"""The scorer: songs in, answers out, with every core busy.

    read ahead -> check -> student, in batches that fit the cache -> hard songs, gathered until a batch of the next rung
    is full -> answers in the order of the songs

Each thread takes a whole batch from bytes to answers, with one thread inside the model: threads then wait for each
other nowhere but at the two hand-overs. What a range of songs gets depends on the range alone, never on what else is
scored, so a range that is scored again gives the same bytes.
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segue.data.song import Floats, Ints, Songs, Units
from segue.data.table_file import room_for
from segue.machine import usable_cores
from segue.serving.batch.catalogue import READ_SEGMENTS, Rows
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import Cascade, open_cascade
from segue.serving.ladder import Ladder
from segue.serving.predictions import MODELS, NOT_A_NUMBER, Answers, Predictions
from segue.serving.runtime import Provider

FULL_SONGS = 1024  # In a batch of songs that go on to the next rung, ...
LAST_SONGS = 256  # ... and in the last batches of a range, so that no thread is left without one for long.
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
    student_s: float  # Seconds in all threads together, reading and checks included ...
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
class _Read:
    """Some songs of which the first rung has seen those that can be scored; their segments are no longer needed."""

    first: int  # Row of the first.
    song_ids: pa.StringArray
    kept: pa.RecordBatch | None
    faults: dict[int, str]  # Why a song cannot be scored, by its place.
    sound: Ints  # Places of the others.


@dataclass(frozen=True)
class _Climbed:
    """What a thread has done."""

    rung: int
    at: Ints  # Places of the songs in the range, among those that can be scored; on the first rung, in the batch.
    answers: Answers
    hard: _Batch | None  # Those of them that go on to the next rung.
    seconds: float
    read: _Read | None = None  # On the first rung.


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
        self._rooms = threading.local()
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
        waiting: deque[tuple[int, Future[_Climbed]]] = deque()  # What is asked, with its rung.

        def ask(rung: int, least: int, most: int) -> None:
            """Send the songs that wait for a rung to it, in batches of `least` to `most` songs."""
            full, hard[rung] = _deal(hard[rung], least, most)
            waiting.extend((rung, self._pool.submit(self._climb, ladder, rung, batch)) for batch in full)

        def finish() -> None:
            """Wait for the batch that is under way for longest."""
            done = waiting.popleft()[1].result()
            going_on = answered.add(done)
            if going_on is not None:
                hard[done.rung + 1].append(going_on)
                ask(done.rung + 1, FULL_SONGS, FULL_SONGS)

        for rows in batches:
            while len(waiting) > self._most_waiting:
                finish()
            waiting.append((0, self._pool.submit(self._first, ladder, rows, forced)))
        for rung in range(1, len(ladder)):
            while any(below < rung for below, _ in waiting):
                finish()
            ask(rung, 1, LAST_SONGS)  # While full batches of the same rung may still be under way.
        while waiting:
            finish()
        return answered.part(probs=probs)

    def compare(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the first rung's doubts of the songs that can be scored, and whether the last says another genre."""
        sound, songs, _ = self._checked(rows)
        if not len(sound):
            return np.zeros(0), np.zeros(0, bool)
        first, last = self._cascade.student.predict(songs), self._cascade.teacher.predict(songs)
        return first.doubt_nats, first.probs.argmax(axis=1) != last.probs.argmax(axis=1)

    def _checked(self, rows: Rows, room: Floats | None = None) -> tuple[Ints, Songs, dict[int, str]]:
        """Read a batch; return the places of its sound songs, those songs, and what is wrong with the others."""
        songs = rows.songs(room)
        found = {place: str(fault) for place, fault in songs.faults(self._units).items()} | rows.faults
        if not found:
            return np.arange(len(rows)), songs, found
        sound = np.setdiff1d(np.arange(len(rows)), np.fromiter(found, np.int64), assume_unique=True)
        return sound, songs.take(sound), found

    def _first(self, ladder: Ladder, rows: Rows, forced: Ints) -> _Climbed:
        """Read and check a batch, and ask the first rung about its sound songs."""
        started = perf_counter()
        room = self._room()
        sound, songs, faults = self._checked(rows, room)
        said = self._cascade.student.predict(songs) if len(sound) else Predictions.none(0, len(self._classes))
        answers = ladder.first(said)
        if len(forced):  # What is not a number goes on.
            doubts = np.where(np.isin(rows.first + sound, forced), np.nan, answers.doubt_nats)
            answers = replace(answers, doubt_nats=doubts)
        read = _Read(rows.first, rows.song_ids, rows.kept, faults, sound)
        climbed = self._climbed(ladder, 0, _Batch(np.arange(len(sound)), songs, answers), started, read)
        if climbed.hard and np.may_share_memory(climbed.hard.songs.segments, room):  # All of them go on, or one does.
            songs = Songs(climbed.hard.songs.segments.copy(), climbed.hard.songs.lengths)
            climbed = replace(climbed, hard=replace(climbed.hard, songs=songs))
        return climbed

    def _room(self) -> Floats:
        """Return this thread's room for the songs of a batch: new memory for each costs as much as to check them."""
        if not hasattr(self._rooms, "room"):
            self._rooms.room = room_for(READ_SEGMENTS)
        room: Floats = self._rooms.room
        return room

    def _climb(self, ladder: Ladder, rung: int, batch: _Batch) -> _Climbed:
        """Ask a rung about songs that have gone on to it."""
        started = perf_counter()
        said = self._cascade.models[rung].predict(batch.songs)
        answers = ladder.joined(batch.answers, np.arange(len(batch.at)), said, rung)
        return self._climbed(ladder, rung, replace(batch, answers=answers), started)

    def _climbed(self, ladder: Ladder, rung: int, batch: _Batch, started: float, read: _Read | None = None) -> _Climbed:
        """Return what a rung has done; of the segments, those of the songs that go on are kept."""
        hard = batch.take(ladder.going_on(batch.answers, rung + 1)) if rung + 1 < len(ladder) else None
        return _Climbed(rung, batch.at, batch.answers, hard, perf_counter() - started, read)


def _deal(batches: list[_Batch], least: int, most: int) -> tuple[list[_Batch], list[_Batch]]:
    """Return batches of `least` to `most` songs made of these, and what is left over."""
    if sum(len(batch.at) for batch in batches) < least:
        return [], batches
    at = np.concatenate([batch.at for batch in batches])
    songs = Songs.concat([batch.songs for batch in batches])
    answers = Answers.concat([batch.answers for batch in batches])
    spans = [slice(start, start + most) for start in range(0, len(at), most)]
    dealt = [_Batch(at[span], songs[span], answers.take(span)) for span in spans]
    left = [dealt.pop()] if len(dealt[-1].at) < least else []
    return dealt, left


class _Answered:
    """What is known of a range of songs so far."""

    def __init__(self, classes: Sequence[str], ladder: Ladder) -> None:
        self._classes = classes
        self._ladder = ladder
        self._read: list[_Read] = []
        self._songs = 0
        self._at: list[list[Ints]] = [[] for _ in range(len(ladder))]
        self._answers: list[list[Answers]] = [[] for _ in range(len(ladder))]
        self._seconds = [0.0] * len(ladder)

    def add(self, climbed: _Climbed) -> _Batch | None:
        """Add what a rung says of some songs, and return those that go on, with their places in the range."""
        self._seconds[climbed.rung] += climbed.seconds
        before = 0
        if climbed.read:
            self._read.append(climbed.read)
            before, self._songs = self._songs, self._songs + len(climbed.at)
        self._at[climbed.rung].append(climbed.at + before)
        self._answers[climbed.rung].append(climbed.answers)
        return climbed.hard and replace(climbed.hard, at=climbed.hard.at + before)

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
        for read in self._read:
            places = pa.array(read.sound)
            ids = pa.record_batch({"song_id": read.song_ids.take(places)})
            if read.kept is not None:
                for name in read.kept.schema.names:
                    ids = ids.append_column(name, read.kept.column(name).take(places))
            batches.append(ids)
        if not batches:
            return {"song_id": pa.chunked_array([], pa.string())}
        table = pa.Table.from_batches(batches).filter(pa.array(answered))
        return {name: table[name] for name in table.column_names}

    def _rejects(self, answered: NDArray[np.bool_]) -> tuple[Reject, ...]:
        found = []
        at = 0
        for read in self._read:
            unknown = np.flatnonzero(~answered[at : at + len(read.sound)])
            faults = read.faults | {int(read.sound[place]): NOT_A_NUMBER for place in unknown}
            at += len(read.sound)
            found += [Reject(read.first + row, read.song_ids[row].as_py(), faults[row]) for row in sorted(faults)]
        return tuple(found)
