"""What a song is: 25 numbers a segment, any number of segments, seen by the models through windows of 120.

One segment holds 12 timbre coefficients (unbounded), 12 chroma values or *pitches* (0..1) and the loudness at its start
(dB, -60..0), in that order, as in the Million Song Dataset and the Echo Nest analysis it comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from segue.errors import SongError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Units = Literal["raw", "standardised"]
Features = Literal["echonest", "segue-audio-1"]  # Which analyser made the segments: the Echo Nest's, or ours of audio.

ADVICE: dict[Features, str] = {  # What to do where segments of another analyser are found than those of ...
    "echonest": "Use a bundle of those features, or train one on such songs.",
    "segue-audio-1": "`segue songs` makes such songs of audio files.",
}


def check_features(found: Features, expected: Features, what: str, of: str) -> None:
    """Refuse segments of another analyser: the numbers look alike, and mean something else.

    Args:
        found: what they are.
        expected: what they must be.
        what: the songs, for the message.
        of: what expects them, for the message.
    """
    if found != expected:
        raise SongError(f"{what}: expected {expected} features for {of}, found {found}. {ADVICE[expected]}")


TIMBRE = slice(0, 12)
CHROMA = slice(12, 24)
LOUDNESS = 24
N_FEATURES = 25
WINDOW = 120
LOUDNESS_RANGE_DB = (-60.0, 0.0)
ROUNDING = 1e-5  # Of the width of a range: what lies no farther beyond it is rounding noise, and no fault.
_LARGEST = float(np.finfo(np.float32).max)
_LOWEST: dict[Units, Floats] = {
    "raw": np.array([-_LARGEST] * 12 + [0.0] * 12 + [LOUDNESS_RANGE_DB[0]], dtype=np.float32),
    "standardised": np.full(N_FEATURES, -_LARGEST, dtype=np.float32),
}
_HIGHEST: dict[Units, Floats] = {
    "raw": np.array([_LARGEST] * 12 + [1.0] * 12 + [LOUDNESS_RANGE_DB[1]], dtype=np.float32),
    "standardised": np.full(N_FEATURES, _LARGEST, dtype=np.float32),
}
_WINDOW_RANGE = {units: (np.tile(low, WINDOW), np.tile(_HIGHEST[units], WINDOW)) for units, low in _LOWEST.items()}
_NOISE = np.array([0.0] * 12 + [ROUNDING] * 12 + [ROUNDING * 60], dtype=np.float32)  # Of raw segments.

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FEATURE_NAMES = (
    *(f"timbre_{i}" for i in range(1, 13)),
    *(f"chroma_{name}" for name in PITCH_CLASSES),
    "loudness_start_db",
)


@dataclass(frozen=True)
class Fault:
    """Where a song breaks the contract, and how."""

    segment: int | None  # None: it has no segments.
    reason: str

    def __str__(self) -> str:
        return self.reason if self.segment is None else f"segment {self.segment}: {self.reason}"

    def of_song(self, song_id: str) -> str:
        """Return the same with the song's name."""
        return f"song {song_id!r}{': ' if self.segment is None else ', '}{self}"


NO_SEGMENTS = Fault(None, "expected at least one segment, found none")


@dataclass(frozen=True, eq=False)
class Songs(Sequence[Floats]):
    """Some songs in memory, from table and request to model: their segments one after the other.

    A sequence of songs, each (T, 25) and a view. Nothing is checked on the way in: see `faults`.
    """

    segments: Floats  # (sum of lengths, 25)
    lengths: Ints  # (n_songs,), in segments

    @classmethod
    def of(cls, songs: Sequence[Floats] | Floats) -> "Songs":
        """Return arrays (T, 25) each, or one (n_songs, T, 25), as `Songs`; one float32 array is not copied."""
        if isinstance(songs, Songs):
            return songs
        if isinstance(songs, np.ndarray):
            segments = np.ascontiguousarray(songs, np.float32).reshape(-1, N_FEATURES)
            return cls(segments, np.full(len(songs), songs.shape[1], np.int64))
        parts = [np.zeros((0, N_FEATURES), np.float32), *songs]
        segments = parts[1] if len(songs) == 1 else np.concatenate(parts)
        return cls(np.ascontiguousarray(segments, np.float32), np.array([len(song) for song in songs], np.int64))

    @classmethod
    def concat(cls, parts: Sequence["Songs"]) -> "Songs":
        """Return the songs of all parts; a single part is not copied."""
        if len(parts) == 1:
            return parts[0]
        segments = np.concatenate([np.zeros((0, N_FEATURES), np.float32), *(part.segments for part in parts)])
        return cls(segments, np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)]))

    @cached_property
    def offsets(self) -> Ints:
        """Where each song begins in `segments`, and last the end of all, (n_songs + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, at: int) -> Floats: ...
    @overload
    def __getitem__(self, at: slice) -> "Songs": ...
    def __getitem__(self, at: int | slice) -> "Floats | Songs":
        if isinstance(at, slice):
            first, end, step = at.indices(len(self))
            if step != 1:
                return self.take(np.arange(first, end, step))
            first_segment, end_segment = self.offsets[[first, max(first, end)]]
            return Songs(self.segments[first_segment:end_segment], self.lengths[at])
        row = range(len(self))[at]
        return self.segments[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: Ints) -> "Songs":
        """Return the songs of the given rows, in that order; all of them are not copied."""
        if len(rows) == len(self) and (np.diff(rows) == 1).all():
            return self
        if len(self) and (self.lengths == self.lengths[0]).all():
            return Songs.of(self.segments.reshape(len(self), -1, N_FEATURES)[rows])
        return Songs.of([self[row] for row in rows.tolist()])

    def split(self, sizes: Sequence[int]) -> "list[Songs]":
        """Return the first `sizes[0]` songs, the next `sizes[1]`, and so on; nothing is copied."""
        ends = np.cumsum(sizes).tolist()
        return [self[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def faults(self, units: Units) -> dict[int, Fault]:
        """Return the first fault of each song that breaks the contract, by row; nothing is copied."""
        if self.lengths.min(initial=1) > 0 and first_fault(self.segments, units) is None:
            return {}
        faults = (first_fault(song, units) if len(song) else NO_SEGMENTS for song in self)
        return {row: fault for row, fault in enumerate(faults) if fault is not None}

    def windows(self, k: int = 1) -> tuple[Floats, Ints]:
        """Return the windows of all songs, (n_windows, 120, 25), and how many each song has, (n_songs,).

        `k` windows of a song at most, where `window_starts` says. A song shorter than 120 segments is repeated from its
        beginning until the window is full. Where every song has 120 segments, nothing is copied.
        """
        if (self.lengths == WINDOW).all():
            return self.segments.reshape(-1, WINDOW, N_FEATURES), np.ones(len(self), dtype=np.int64)
        starts, counts = window_starts(self.lengths, k)
        firsts, lengths = np.repeat(self.offsets[:-1], counts), np.repeat(self.lengths, counts)
        steps = starts[:, None] + np.arange(WINDOW)
        # A window of a song that is long enough ends before the song does, so only short ones wrap around.
        return self.segments.take(firsts[:, None] + steps % lengths[:, None], axis=0), counts


def window_starts(lengths: Ints, k: int) -> tuple[Ints, Ints]:
    """Return where the windows of songs start, each in its song, (n_windows,), and how many each has, (n_songs,).

    The central one for k = 1, else k evenly spaced ones. A song of T segments has `T - 119` different windows at most,
    so a short song gives fewer than `k`.

    Args:
        lengths: (n_songs,) in segments.
        k: windows of a song, at most.
    """
    slack = np.maximum(lengths - WINDOW, 0)
    if k == 1:
        return slack // 2, np.ones(len(lengths), dtype=np.int64)
    starts = np.rint(slack[:, None] * np.arange(k) / (k - 1)).astype(np.int64)
    new = np.diff(starts, prepend=-1) > 0
    return starts[new], new.sum(axis=1)


def check_segments(segments: Any, song_id: str, units: Units = "raw") -> Floats:
    """Return `segments` as float32 (T, 25), or raise a `SongError` that says what is wrong with song `song_id`.

    The one validation of songs: shape, type, finiteness, and, for raw units, the ranges of chroma and loudness.
    Anything numpy can turn into a numeric array is welcome; text, booleans, nulls and ragged lists are not.
    """
    values = as_segments(segments, song_id)
    fault = first_fault(values, units)
    if fault is not None:
        raise SongError(fault.of_song(song_id))
    return values


def check_songs(
    songs: Sequence[Any] | Floats, song_ids: Sequence[str], units: Units = "raw"
) -> tuple[Songs, dict[int, SongError]]:
    """Check many songs as `check_segments` checks one, the values of all at once.

    Args:
        songs: the segments of each song; `Songs`, and an array (n, T, 25) of float32, are not copied.
        song_ids: their ids.
        units: what the values are in.

    Returns:
        The sound songs in their order, and the error of every other one by its place.
    """
    errors: dict[int, SongError] = {}
    places = list(range(len(songs)))
    if isinstance(songs, Songs | np.ndarray):
        shaped = Songs.of(songs)
    else:
        values: list[Floats] = []
        for place, (song, song_id) in enumerate(zip(songs, song_ids, strict=True)):
            try:
                values.append(as_segments(song, song_id))
            except SongError as error:
                errors[place] = SongError(*error.args)  # The one that was raised holds its frames, and they all songs.
        places = [place for place in places if place not in errors]
        shaped = Songs.of(values)
    faults = shaped.faults(units)
    if faults:
        errors |= {places[row]: SongError(fault.of_song(song_ids[places[row]])) for row, fault in faults.items()}
        shaped = shaped.take(np.array([row for row in range(len(shaped)) if row not in faults], dtype=np.int64))
    return shaped, errors


def as_segments(segments: Any, song_id: str) -> Floats:
    """Return `segments` as float32 (T, 25), whatever their values, or raise a `SongError`."""
    what = f"song {song_id!r}"
    try:
        given = np.asarray(segments)
    except ValueError:
        raise SongError(
            f"{what}: expected segments of {N_FEATURES} numbers each, found rows of unequal length"
        ) from None
    if given.size == 0:
        raise SongError(f"{what}: expected at least one segment, found none")
    if given.dtype.kind not in "fiu":
        raise SongError(f"{what}: expected numbers, found {_no_numbers(given)}")
    if given.ndim != 2 or given.shape[1] != N_FEATURES:
        raise SongError(
            f"{what}: expected shape (segments, {N_FEATURES}): 12 timbre, 12 chroma, 1 loudness; found {given.shape}"
        )
    with np.errstate(over="ignore"):
        values: Floats = given.astype(np.float32, copy=False)
    return values


def _no_numbers(values: NDArray[Any]) -> str:
    """Say what values are that are no numbers; of a mixture, the first that is none."""
    if values.dtype != object:
        return {"U": "text", "S": "bytes", "b": "booleans"}.get(values.dtype.kind, f"values of type {values.dtype}")
    odd = next((one for one in values.flat if isinstance(one, bool) or not isinstance(one, int | float)), 0)
    names = {NoneType: "null", bool: "a boolean", str: "text", dict: "an object", list: "a list", int: "one too large"}
    return names.get(type(odd), f"a {type(odd).__name__}")


def first_fault(values: Floats, units: Units) -> Fault | None:
    """Return where segments (n, 25) first break the contract, and how; None where all are sound.

    Rounding noise is sound: chroma of 1.0000001, for example. See `ROUNDING` and `clip_rounding`.
    """
    if _are_within(values, units):
        return None
    low, high = _LOWEST[units], _HIGHEST[units]
    noise = _NOISE if units == "raw" else np.float32(0)
    sound = (values >= low - noise) & (values <= high + noise)
    if sound.all():
        return None
    infinite = ~np.isfinite(values)
    wrong = infinite if infinite.any() else ~sound
    row, column = divmod(int(wrong.argmax()), N_FEATURES)  # Where all others are, `argwhere` takes 16 bytes a number.
    found, name = values[row, column], FEATURE_NAMES[column]
    if infinite.any():
        return Fault(row, f"expected finite numbers, found {found} in {name}")
    return Fault(row, f"expected {name} between {low[column]:g} and {high[column]:g}, found {shown(found)}")


def clip_rounding(segments: Floats, units: Units) -> tuple[Floats, Ints]:
    """Return sound segments (n, 25) with rounding noise clipped to the ranges, and the rows where there was some."""
    if _are_within(segments, units):
        return segments, np.zeros(0, np.int64)
    low, high = _LOWEST[units], _HIGHEST[units]
    beyond = ((segments < low) | (segments > high)).any(axis=1)
    return segments.clip(low, high), np.flatnonzero(beyond)


def shown(value: np.float32) -> str:
    """Return a number with as many digits as tell it from its neighbours, such as 1.0000001."""
    return str(value).removesuffix(".0")


def _are_within(values: Floats, units: Units) -> bool:
    """Tell whether segments (n, 25) lie in the ranges, without allowing for rounding noise."""
    whole = len(values) // WINDOW * WINDOW
    windows = values[:whole].reshape(-1, WINDOW * N_FEATURES)  # In rows so long numpy is four times as fast.
    rest = values[whole:]
    return _are_between(windows, *_WINDOW_RANGE[units]) and _are_between(rest, _LOWEST[units], _HIGHEST[units])


def _are_between(rows: Floats, low: Floats, high: Floats) -> bool:
    """Tell whether all rows lie between two; extremes among which a NaN is are NaN, and so are not."""
    return not len(rows) or bool((rows.min(axis=0) >= low).all() and (rows.max(axis=0) <= high).all())
