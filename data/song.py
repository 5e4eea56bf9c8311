"""What a song is: 25 numbers a segment, any number of segments, seen by the models through windows of 120.

One segment holds 12 timbre coefficients (unbounded), 12 chroma values or *pitches* (0..1) and the loudness at its start
(dB, -60..0), in that order, as in the Million Song Dataset and the Echo Nest analysis it comes from.
"""

from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segue.errors import SongError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Songs = Sequence[Floats] | Floats  # Each (T, 25); an array where all have 120 segments: (n_songs, 120, 25).
Units = Literal["raw", "standardised"]

TIMBRE = slice(0, 12)
CHROMA = slice(12, 24)
LOUDNESS = 24
N_FEATURES = 25
WINDOW = 120
LOUDNESS_RANGE_DB = (-60.0, 0.0)
_LARGEST = float(np.finfo(np.float32).max)
_LOWEST: dict[Units, Floats] = {
    "raw": np.array([-_LARGEST] * 12 + [0.0] * 12 + [LOUDNESS_RANGE_DB[0]], dtype=np.float32),
    "standardised": np.full(N_FEATURES, -_LARGEST, dtype=np.float32),
}
_HIGHEST: dict[Units, Floats] = {
    "raw": np.array([_LARGEST] * 12 + [1.0] * 12 + [LOUDNESS_RANGE_DB[1]], dtype=np.float32),
    "standardised": np.full(N_FEATURES, _LARGEST, dtype=np.float32),
}

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FEATURE_NAMES = (
    *(f"timbre_{i}" for i in range(1, 13)),
    *(f"chroma_{name}" for name in PITCH_CLASSES),
    "loudness_start_db",
)


def check_segments(segments: Any, song_id: str, units: Units = "raw") -> Floats:
    """Return `segments` as float32 (T, 25), or raise a `SongError` that says what is wrong with song `song_id`.

    The one validation of songs: shape, type, finiteness, and, for raw units, the ranges of chroma and loudness.
    Anything numpy can turn into a numeric array is welcome; text, booleans, nulls and ragged lists are not.
    """
    values = _numbers(segments, song_id)
    fault = first_fault(values, units)
    if fault is not None:
        row, reason = fault
        raise SongError(f"song {song_id!r}, segment {row}: {reason}")
    return values


def check_songs(
    songs: Sequence[Any] | Floats, song_ids: Sequence[str], units: Units = "raw"
) -> tuple[Songs, dict[int, SongError]]:
    """Check many songs as `check_segments` checks one, the values of all at once.

    Args:
        songs: the segments of each song; an array (n, 120, 25) of float32 is not copied.
        song_ids: their ids.
        units: what the values are in.

    Returns:
        The sound songs in their order, and the error of every other one by its place.
    """
    errors: dict[int, SongError] = {}
    if isinstance(songs, np.ndarray):
        if first_fault(songs.reshape(-1, N_FEATURES), units) is None:
            return songs, errors
    else:
        shaped: list[Any] = []
        for place, (song, song_id) in enumerate(zip(songs, song_ids, strict=True)):
            try:
                shaped.append(_numbers(song, song_id))
            except SongError as error:
                errors[place] = error
        if not shaped or first_fault(np.concatenate(shaped), units) is None:
            return shaped, errors
    sound: list[Floats] = []
    for place, (song, song_id) in enumerate(zip(songs, song_ids, strict=True)):
        if place not in errors:
            try:
                sound.append(check_segments(song, song_id, units))
            except SongError as error:
                errors[place] = error
    return sound, errors


def _numbers(segments: Any, song_id: str) -> Floats:
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


def first_fault(values: Floats, units: Units) -> tuple[int, str] | None:
    """Return the row of the first segment of (n, 25) that breaks the contract, and why; None when all are sound."""
    low, high = _LOWEST[units], _HIGHEST[units]
    sound = (values >= low) & (values <= high)  # A NaN is neither, an infinity not both.
    if sound.all():
        return None
    infinite = ~np.isfinite(values)
    row, column = np.argwhere(infinite if infinite.any() else ~sound)[0]
    found, name = values[row, column], FEATURE_NAMES[column]
    if infinite.any():
        return int(row), f"expected finite numbers, found {found} in {name}"
    return int(row), f"expected {name} between {low[column]:g} and {high[column]:g}, found {found:g}"


def window_starts(n_segments: int, k: int) -> list[int]:
    """Return where the `k` windows of a song of `n_segments` start: the central one for k = 1, else evenly spaced ones.

    A song has `n_segments - 119` different windows at most, so a short song gives fewer than `k`.
    """
    slack = max(n_segments - WINDOW, 0)
    if k == 1:
        return [slack // 2]
    return sorted({round(i * slack / (k - 1)) for i in range(k)})


def windows(segments: Floats, k: int = 1) -> Floats:
    """Return the windows of one song as (at most k, 120, 25): see `window_starts`.

    A song shorter than 120 segments is repeated from its beginning until the window is full.
    """
    if len(segments) < WINDOW:
        segments = segments[np.arange(WINDOW) % len(segments)]
    return np.stack([segments[start : start + WINDOW] for start in window_starts(len(segments), k)])


def stack_windows(songs: Songs, k: int = 1) -> tuple[Floats, Ints]:
    """Return the windows of all `songs`, (n_windows, 120, 25), and how many each song has, (n_songs,)."""
    if isinstance(songs, np.ndarray) and songs.shape[1] == WINDOW:
        return songs, np.ones(len(songs), dtype=np.int64)
    if all(len(song) == WINDOW for song in songs):  # Whatever k is, such a song has one window.
        return np.stack(list(songs)), np.ones(len(songs), dtype=np.int64)
    parts = [windows(song, k) for song in songs]
    return np.concatenate(parts), np.array([len(part) for part in parts], dtype=np.int64)
