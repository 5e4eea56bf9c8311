"""Songs: the one validation, and the windows that models see."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.song import (
    FEATURE_NAMES,
    N_FEATURES,
    WINDOW,
    Songs,
    check_segments,
    check_songs,
    clip_rounding,
    first_fault,
    window_starts,
)
from segue.errors import SongError
from tests.support.random_songs import random_segments

SEGMENT = [1.5] * 12 + [0.5] * 12 + [-20.0]

lengths = st.integers(1, 5000)  # of songs, in segments


def changed(feature: str, value: Any) -> list[list[Any]]:
    """Return two segments, the second with `value` in one feature."""
    second: list[Any] = list(SEGMENT)
    second[FEATURE_NAMES.index(feature)] = value
    return [SEGMENT, second]


BAD_SONGS: dict[str, tuple[Any, str]] = {
    "ragged": ([SEGMENT, SEGMENT[:-1]], "25 numbers each, found rows of unequal length"),
    "a null segment": ([SEGMENT, None], "25 numbers each, found rows of unequal length"),
    "text": ([["1.0"] * 25], "expected numbers, found text"),
    "text among numbers": (changed("timbre_1", "1.0"), "expected numbers, found text"),
    "a string": ("song", "expected numbers, found text"),
    "booleans": ([[True] * 25], "expected numbers, found booleans"),
    "None": (None, "expected numbers, found null"),
    "None among numbers": (changed("timbre_1", None), "expected numbers, found null"),
    "huge integers": ([[10**400] * 25], "expected numbers, found one too large"),
    "complex numbers": ([[1j] * 25], "expected numbers, found values of type complex"),
    "NaN": (changed("timbre_4", math.nan), "segment 1: expected finite numbers, found nan in timbre_4"),
    "inf": (changed("chroma_F#", math.inf), "segment 1: expected finite numbers, found inf in chroma_F#"),
    "1e400": (changed("timbre_2", 1e400), "segment 1: expected finite numbers, found inf in timbre_2"),
    "beyond float32": (changed("timbre_3", -1e39), "found -inf in timbre_3"),
    "transposed": (np.full((25, 120), 0.5), "expected shape (segments, 25)"),
    "transposed, found": (np.full((25, 120), 0.5), "found (25, 120)"),
    "flat": ([0.5] * 3000, "found (3000,)"),
    "a batch": ([[SEGMENT]], "found (1, 1, 25)"),
    "24 columns": ([SEGMENT[:-1]] * 2, "found (2, 24)"),
    "chroma above": (changed("chroma_C", 1.5), "segment 1: expected chroma_C between 0 and 1, found 1.5"),
    "chroma below": (changed("chroma_B", -0.25), "expected chroma_B between 0 and 1, found -0.25"),
    "too loud": (
        changed("loudness_start_db", 0.5),
        "segment 1: expected loudness_start_db between -60 and 0, found 0.5",
    ),
    "too soft": (changed("loudness_start_db", -61), "between -60 and 0, found -61"),
    "empty": ([], "expected at least one segment, found none"),
    "an empty segment": ([[]], "expected at least one segment, found none"),
}


@pytest.mark.parametrize(("segments", "complaint"), BAD_SONGS.values(), ids=BAD_SONGS)
def test_a_bad_song_is_refused_with_its_name_and_its_fault(segments: Any, complaint: str) -> None:
    with pytest.raises(SongError) as raised:
        check_segments(segments, "TR42")
    assert str(raised.value).startswith("song 'TR42'")
    assert complaint in str(raised.value)


@given(row=st.integers(0, 199), column=st.integers(0, 24))
def test_the_fault_is_found_wherever_it_is(row: int, column: int) -> None:
    segments = random_segments(200)
    segments[row, column] = np.nan
    with pytest.raises(SongError, match=f"segment {row}: .*{FEATURE_NAMES[column]}$"):
        check_segments(segments, "TR42")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_good_song_comes_back_as_float32(dtype: Any) -> None:
    segments = random_segments(7).astype(dtype)
    checked = check_segments(segments, "TR42")
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, segments.astype(np.float32))


def test_lists_of_integers_are_numbers() -> None:
    np.testing.assert_array_equal(check_segments([[0] * 25], "TR42"), np.zeros((1, 25)))


def test_the_bounds_themselves_are_within_range() -> None:
    check_segments([[0] * 24 + [-60], [1] * 24 + [0]], "TR42")


def test_standardised_songs_have_no_range_but_must_be_finite() -> None:
    segments = np.random.default_rng(0).normal(0, 3, (50, 25))
    np.testing.assert_array_equal(check_segments(segments, "TR42", "standardised"), segments.astype(np.float32))
    segments[3, 20] = np.inf
    with pytest.raises(SongError, match="segment 3: expected finite numbers, found inf in chroma_G#"):
        check_segments(segments, "TR42", "standardised")


def starts_of(n_segments: int, k: int) -> list[int]:
    starts, counts = window_starts(np.array([n_segments]), k)
    assert counts.tolist() == [len(starts)]
    return [int(start) for start in starts]


@given(n_segments=lengths, k=st.integers(1, 40))
def test_windows_start_within_the_song_in_order_and_at_different_places(n_segments: int, k: int) -> None:
    starts = starts_of(n_segments, k)
    last = max(n_segments - WINDOW, 0)
    assert all(0 <= start <= last for start in starts)
    assert starts == sorted(set(starts))
    assert len(starts) == min(k, last + 1)


@given(n_segments=lengths)
def test_a_single_window_is_the_central_one(n_segments: int) -> None:
    assert starts_of(n_segments, 1) == [max(n_segments - WINDOW, 0) // 2]


@given(n_segments=lengths, k=st.integers(2, 40))
def test_several_windows_reach_from_end_to_end_in_even_steps(n_segments: int, k: int) -> None:
    starts = starts_of(n_segments, k)
    assert (starts[0], starts[-1]) == (0, max(n_segments - WINDOW, 0))
    gaps = np.diff(starts)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@given(st.lists(lengths, min_size=1, max_size=8), st.integers(2, 40))
def test_the_windows_of_many_songs_start_where_those_of_each_do(many: list[int], k: int) -> None:
    plain = [sorted({round(i * max(n - WINDOW, 0) / (k - 1)) for i in range(k)}) for n in many]
    starts, counts = window_starts(np.array(many), k)
    assert starts.tolist() == [start for one in plain for start in one]
    assert counts.tolist() == [len(one) for one in plain]


@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("n_segments", [1, 10, 119, 120, 121, 500])
def test_a_window_is_120_segments_in_a_row_and_a_short_song_repeats(n_segments: int, k: int) -> None:
    segments = random_segments(n_segments)
    plain = [[segments[(start + i) % n_segments] for i in range(120)] for start in starts_of(n_segments, k)]
    np.testing.assert_array_equal(Songs.of([segments]).windows(k)[0], plain)


@pytest.mark.parametrize("lengths", [(120, 120, 120), (10, 120, 121, 700)])
@pytest.mark.parametrize("k", [1, 9])
def test_the_windows_of_songs_are_those_of_each_song_in_turn(lengths: tuple[int, ...], k: int) -> None:
    songs = of_lengths(*lengths)
    together, counts = songs.windows(k)
    each = [Songs.of([song]).windows(k)[0] for song in songs]
    assert counts.tolist() == [len(windows) for windows in each]
    np.testing.assert_array_equal(together, np.concatenate(each))


def of_lengths(*lengths: int) -> Songs:
    return Songs.of([random_segments(length, seed) for seed, length in enumerate(lengths)])


def assert_same(found: Songs, expected: list[Any]) -> None:
    assert [len(song) for song in found] == found.lengths.tolist() == [len(song) for song in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.lists(st.integers(0, 9), max_size=8), st.data())
def test_songs_are_taken_sliced_split_and_joined_like_a_list(lengths: list[int], data: st.DataObject) -> None:
    songs, plain = of_lengths(*lengths), [random_segments(length, seed) for seed, length in enumerate(lengths)]
    assert_same(songs, plain)
    rows = data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=9)) if plain else []
    assert_same(songs.take(np.array(rows, dtype=np.int64)), [plain[row] for row in rows])
    some = data.draw(st.slices(len(plain)))
    assert_same(songs[some], plain[some])
    at = data.draw(st.integers(0, len(plain)))
    first, second = songs.split([at, len(plain) - at])
    assert_same(first, plain[:at])
    assert_same(second, plain[at:])
    assert_same(Songs.concat([second, first, second]), plain[at:] + plain[:at] + plain[at:])


def test_songs_of_120_segments_reach_the_model_without_a_copy() -> None:
    array = np.stack([random_segments(120, seed) for seed in range(4)])
    songs, errors = check_songs(array, ["a", "b", "c", "d"])
    windows, _ = Songs.concat([songs[1:].take(np.arange(3))]).windows(9)
    assert not errors
    assert np.shares_memory(windows, array)
    np.testing.assert_array_equal(windows, array[1:])


def test_each_song_has_its_own_first_fault_and_the_others_are_kept_in_order() -> None:
    songs = [random_segments(3, 0), random_segments(2, 1), np.zeros((0, 25), np.float32), random_segments(4, 2)]
    songs[0][1, 3] = np.nan
    songs[3][2:, 12] = 1.5
    assert {row: str(fault) for row, fault in Songs.of(songs).faults("raw").items()} == {
        0: "segment 1: expected finite numbers, found nan in timbre_4",
        2: "expected at least one segment, found none",
        3: "segment 2: expected chroma_C between 0 and 1, found 1.5",
    }
    sound, errors = check_songs([*songs, "no"], ["a", "b", "c", "d", "e"])
    assert_same(sound, [songs[1]])
    assert {place: str(error) for place, error in errors.items()} == {
        0: "song 'a', segment 1: expected finite numbers, found nan in timbre_4",
        2: "song 'c': expected at least one segment, found none",
        3: "song 'd', segment 2: expected chroma_C between 0 and 1, found 1.5",
        4: "song 'e': expected numbers, found text",
    }


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 24), st.floats(-2, 2, width=32)), max_size=6),
    st.sampled_from([0.0, 1.0, -60.0]),
)
def test_noise_is_what_lies_within_the_tolerance_of_a_range(changes: list[tuple[int, int, float]], edge: float) -> None:
    """Against the contract written out in float64, near the ends of the ranges."""
    values = random_segments(10)
    for row, column, noise in changes:
        values[row, column] = np.float32(edge + noise * 1e-5)
    exact = values.astype(np.float64)
    width = np.array([np.inf] * 12 + [1.0] * 12 + [60.0])
    low, high = np.array([-np.inf] * 12 + [0.0] * 12 + [-60.0]), np.array([np.inf] * 12 + [1.0] * 12 + [0.0])
    beyond = np.maximum(low - exact, exact - high).clip(0)
    relative = (beyond / width).max()
    if relative > 1.2e-5:
        assert first_fault(values, "raw") is not None
    if relative < 0.8e-5:
        assert first_fault(values, "raw") is None
        clipped, rows = clip_rounding(values, "raw")
        np.testing.assert_array_equal(clipped, exact.clip(low, high).astype(np.float32))
        assert rows.tolist() == np.flatnonzero((beyond > 0).any(axis=1)).tolist()


def test_where_nothing_is_sound_it_costs_little_to_say_so() -> None:
    values = np.full((100_000, N_FEATURES), np.nan, np.float32)
    tracemalloc.start()
    try:
        fault = first_fault(values, "raw")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(fault) == f"segment 0: expected finite numbers, found nan in {FEATURE_NAMES[0]}"
    assert peak_bytes < 2 * values.nbytes
