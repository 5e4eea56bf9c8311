"""Where the segments of a recording begin: at onsets, where many bands become louder at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.song import Floats, Ints

SHORTEST_FRAMES = 14  # 81 ms, as the shortest percent of the Million Song Dataset's segments.

_FAINTEST_DB = -48.0  # What changes below this is as much the codec's as the music's.
_REACH = 3  # An onset is the rise from so many frames before to as many after, about the width of a frame's window.
_EARLY = 2  # In decibels a rise shows as soon as the window of a frame touches it: so many frames before the attack.
_SMOOTHING = np.hanning(11)[1:-1] / np.hanning(11).sum()
_AROUND = 86  # Frames on either side that a rise is compared with: 0.5 s.
_LEAST_RISE_DB = 0.3  # Of the mean band, above ...
_TIMES_THE_MEAN = 1.2  # ... so many times the mean rise around.


def onset_frames(bands_db: Floats) -> Ints:
    """Return the frames at which segments begin, the first of them 0, given the bands' loudness (n_frames, 23)."""
    rise = novelty_db(bands_db)
    n = len(rise)
    before = np.concatenate([[0.0], np.cumsum(rise)])
    low, high = np.maximum(np.arange(n) - _AROUND, 0), np.minimum(np.arange(n) + _AROUND + 1, n)
    mean = (before[high] - before[low]) / (high - low)
    peaks = (rise >= _running_maximum(rise, SHORTEST_FRAMES - 1)) & (rise > _LEAST_RISE_DB + _TIMES_THE_MEAN * mean)
    starts = [0]
    for peak in np.flatnonzero(peaks) + _EARLY:
        if peak - starts[-1] >= SHORTEST_FRAMES and n - peak >= SHORTEST_FRAMES:
            starts.append(int(peak))
    return np.array(starts, dtype=np.int64)


def novelty_db(bands_db: Floats) -> NDArray[np.float64]:
    """Return how much louder the mean band becomes around each frame, (n_frames,); bands that fade count as none."""
    heard = np.maximum(bands_db, np.float32(_FAINTEST_DB))
    rise = heard[2 * _REACH :] - heard[: -2 * _REACH]
    np.maximum(rise, 0, out=rise)
    novelty = np.zeros(len(bands_db))
    novelty[_REACH : len(bands_db) - _REACH] = rise.mean(axis=1, dtype=np.float64)
    padded = np.pad(novelty, len(_SMOOTHING) // 2)
    smooth: NDArray[np.float64] = sum(
        weight * padded[shift : shift + len(novelty)] for shift, weight in enumerate(_SMOOTHING)
    )
    return smooth


def _running_maximum(values: NDArray[np.float64], reach: int) -> NDArray[Any]:
    """Return the largest value within `reach` of each place."""
    view = np.lib.stride_tricks.sliding_window_view(np.pad(values, reach), 2 * reach + 1)
    largest: NDArray[Any] = view.max(axis=1)
    return largest
