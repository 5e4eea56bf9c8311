"""Songs from Arrow data: values come out as they went in, and lengths and offsets that lie are refused first."""

import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segue.data.columns import FLAT_WINDOW, SEGMENTS, SongColumns, check_schema, song_columns
from segue.data.song import Floats
from segue.errors import SongError
from tests.support.random_songs import random_segments

SONGS = [random_segments(length, length) for length in (5, 1, 120)]
WINDOWS = [random_segments(120, seed) for seed in range(3)]


def batch(segments: Any, kind: pa.DataType = SEGMENTS, **columns: Any) -> pa.RecordBatch:
    """Return a batch of songs called a, b, c, ..."""
    column = segments if isinstance(segments, pa.Array) else pa.array(segments, kind)
    return pa.record_batch({"song_id": list("abcdefgh"[: len(column)]), "segments": column} | columns)


def per_song(columns: SongColumns) -> list[Floats]:
    return np.split(columns.segments, np.cumsum(columns.lengths)[:-1])


def fixed(inner: pa.DataType, size: int = 25) -> pa.DataType:
    return pa.list_(inner, size)


NESTED = [
    SEGMENTS,
    pa.large_list(fixed(pa.float32())),
    pa.list_(pa.list_(pa.float64())),
    pa.large_list(pa.large_list(pa.float64())),
    pa.list_(fixed(pa.float16())),
    pa.list_view(fixed(pa.float32())),
    pa.large_list_view(pa.list_view(pa.float32())),
    pa.list_(pa.large_list_view(pa.float64())),
]


@pytest.mark.parametrize("kind", NESTED, ids=str)
@pytest.mark.parametrize("part", [slice(0, 3), slice(1, 3), slice(2, 3), slice(1, 1)])
def test_nested_lists_of_any_kind_are_read_and_so_are_parts_of_a_batch(kind: pa.DataType, part: slice) -> None:
    songs = [song.astype(np.float16) for song in SONGS] if "halffloat" in str(kind) else SONGS
    whole = batch([song.tolist() for song in songs], kind)
    found = song_columns(whole.slice(part.start, part.stop - part.start))
    assert (found.lengths.tolist(), found.faults) == ([len(song) for song in songs[part]], {})
    np.testing.assert_array_equal(found.segments, np.concatenate([np.zeros((0, 25)), *songs[part]]))
    assert found.texts["song_id"].to_pylist() == list("abc")[part]


@pytest.mark.parametrize(
    "kind", [FLAT_WINDOW, pa.list_(pa.float64()), pa.large_list(pa.float64()), pa.list_view(pa.float32())], ids=str
)
def test_windows_may_be_flat_lists_of_3000_numbers(kind: pa.DataType) -> None:
    whole = batch([song.reshape(-1).tolist() for song in WINDOWS], kind)
    found = song_columns(whole.slice(1))
    assert (found.lengths.tolist(), found.faults) == ([120, 120], {})
    np.testing.assert_array_equal(found.segments, np.concatenate(WINDOWS[1:]))


@pytest.mark.parametrize(
    "kind", [fixed(fixed(pa.float32()), 120), pa.fixed_shape_tensor(pa.float32(), (120, 25))], ids=str
)
def test_windows_may_be_fixed_lists_of_lists_or_tensors(kind: pa.DataType) -> None:
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    values = [window.reshape(-1) if storage.list_size == 3000 else window for window in WINDOWS]
    column = pa.array([value.tolist() for value in values], storage)
    column = pa.ExtensionArray.from_storage(kind, column) if storage is not kind else column
    np.testing.assert_array_equal(song_columns(batch(column)).segments, np.concatenate(WINDOWS))


def test_whole_numbers_are_numbers_and_too_large_ones_are_infinite() -> None:
    assert song_columns(batch([[[2] * 25]], pa.list_(fixed(pa.int8())))).segments.tolist() == [[2.0] * 25]
    assert np.isinf(song_columns(batch([[[1e300] * 25]], pa.list_(fixed(pa.float64())))).segments).all()


def test_canonical_segments_are_not_copied() -> None:
    whole = batch([song.tolist() for song in SONGS])
    found = song_columns(whole).segments
    assert found.ctypes.data == whole["segments"].values.values.buffers()[1].address


@pytest.mark.parametrize("kind", NESTED, ids=str)
def test_each_song_in_bad_form_is_named_and_the_others_are_read(kind: pa.DataType) -> None:
    bad: list[Any] = [[[1.0] * 25], None, [[2.0] * 25, None], [[3.0] * 24 + [None]], [], [[4.0] * 25]]
    expected = {
        1: "expected segments, found null",
        2: "segment 1: expected 25 numbers, found null",
        3: "segment 0: expected 25 numbers, found a null among them",
    }
    if not pa.types.is_fixed_size_list(kind.value_type):
        bad.append([[5.0] * 25, [5.0] * 24])
        expected[6] = "segment 1: expected 25 numbers, found 24"
    for start in (0, 1):
        found = song_columns(batch(bad, kind).slice(start))
        assert found.faults == {row - start: text for row, text in expected.items() if row >= start}
        assert found.lengths.tolist() == [1, 0, 0, 0, 0, 1, 0][start : len(bad)]
        np.testing.assert_array_equal(found.segments[-1], [4.0] * 25)


@pytest.mark.parametrize("kind", [FLAT_WINDOW, pa.list_(pa.float64())], ids=str)
def test_each_flat_song_in_bad_form_is_named(kind: pa.DataType) -> None:
    bad: list[Any] = [[1.0] * 3000, None, [None] + [1.0] * 2999, [2.0] * 3000]
    expected = {1: "expected 3000 numbers, found null", 2: "expected 3000 numbers, found a null among them"}
    if not pa.types.is_fixed_size_list(kind):
        bad.append([1.0] * 2975)
        expected[4] = "expected 3000 numbers, found 2975"
    found = song_columns(batch(bad, kind))
    assert (found.faults, found.lengths.tolist()) == (expected, [120, 0, 0, 120, 0][: len(bad)])
    np.testing.assert_array_equal(found.segments[:, 0], [1.0] * 120 + [2.0] * 120)


STRANGE = {
    "booleans": pa.list_(pa.list_(pa.bool_())),
    "text": pa.list_(pa.list_(pa.string())),
    "decimals": pa.list_(pa.list_(pa.decimal128(5, 2))),
    "structs": pa.list_(pa.struct([("timbre", pa.list_(pa.float64()))])),
    "a map": pa.map_(pa.int32(), pa.list_(pa.float32())),
    "maps": pa.list_(pa.map_(pa.int32(), pa.float32())),
    "a struct": pa.struct([("t", SEGMENTS)]),
    "numbers": pa.float32(),
    "lists of one level too many": pa.list_(SEGMENTS),
    "no width": pa.list_(fixed(pa.float32(), 0)),
    "no length": fixed(fixed(pa.float32()), 0),
    "lists of another width": pa.list_(fixed(pa.float32(), 24)),
    "a flat list of another width": fixed(pa.float32(), 2975),
    "nulls": pa.list_(pa.null()),
    "a dictionary": pa.dictionary(pa.int8(), pa.float32()),
}


@pytest.mark.parametrize("kind", STRANGE.values(), ids=STRANGE)
def test_segments_of_another_type_are_refused_by_their_schema(kind: pa.DataType) -> None:
    with pytest.raises(SongError, match=r"^column 'segments': expected type list<.* lists of lists of 25 .* found "):
        check_schema(pa.schema([("song_id", pa.string()), ("segments", kind)]))


def test_a_column_twice_or_names_that_are_not_utf8_are_refused() -> None:
    twice = pa.schema([("song_id", pa.string()), ("segments", SEGMENTS), ("segments", SEGMENTS)])
    with pytest.raises(SongError, match=r"^column 'segments': expected one, found 2"):
        check_schema(twice)
    strange = pa.ipc.read_schema(
        pa.py_buffer(pa.schema([("mood", pa.int8())]).serialize().to_pybytes().replace(b"mood", b"m\xffod"))
    )
    with pytest.raises(SongError, match="names of columns in UTF-8"):
        check_schema(strange)


VIEW = pa.array(["a", None, "a text of more than twelve letters"], pa.string_view())
TEXT_TYPES = {
    "large": (pa.array(["x", None, "z"], pa.large_string()), ["x", None, "z"]),
    "views": (VIEW, VIEW.to_pylist()),
    "a dictionary": (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
    "a dictionary of views": (
        pa.DictionaryArray.from_arrays(pa.array([2, 0, None], pa.int8()), VIEW),
        [VIEW[2].as_py(), "a", None],
    ),
    "nulls": (pa.nulls(3), [None] * 3),
}


@pytest.mark.parametrize(("column", "expected"), TEXT_TYPES.values(), ids=TEXT_TYPES)
def test_text_of_any_type_is_read_as_strings(column: pa.Array, expected: list[str | None]) -> None:
    whole = batch([[[1.0] * 25]] * 3, label=column)
    for start in range(3):
        label = song_columns(whole.slice(start)).texts["label"]
        assert (label.type, label.to_pylist()) == (pa.string(), expected[start:])


def offsets(*values: int) -> bytes:
    return np.array(values, np.int32).tobytes()


def damaged(whole: pa.RecordBatch, old: bytes, new: bytes) -> pa.RecordBatch:
    """Return the batch as pyarrow reads it from a stream in which `old`, which is there once, is `new`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as stream:
        stream.write_batch(whole)
    content = sink.getvalue().to_pybytes()
    assert (content.count(old), len(old)) == (1, len(new))
    return pa.ipc.open_stream(content.replace(old, new)).read_next_batch()


FIVE_SONGS = [[[1.0] * 25] * length for length in (3, 4, 5, 6, 7)]
LIES = {
    "past the end": (3, 7, 12, 18, 2_000_000_000),
    "going back": (3, 7, 5, 18, 25),
    "negative": (3, -7, 12, 18, 25),
    "far outside and back": (3, 2_000_000_000, 12, 18, 25),
}


@pytest.mark.parametrize("found", LIES.values(), ids=LIES)
@pytest.mark.parametrize("kind", [SEGMENTS, pa.list_(pa.list_(pa.float64()))], ids=str)
def test_offsets_that_lie_are_refused(kind: pa.DataType, found: tuple[int, ...]) -> None:
    lying = damaged(batch(FIVE_SONGS, kind), offsets(3, 7, 12, 18, 25), offsets(*found))
    with pytest.raises(SongError, match="expected sound Arrow data, found lengths, offsets or text that are not"):
        song_columns(lying)


def test_ids_that_lie_or_are_not_utf8_or_null_are_refused() -> None:
    whole = batch(FIVE_SONGS, label=["pop", "", "rock", "jazz", "folk"])
    for lying in (
        damaged(whole, offsets(3, 3, 7, 11, 15), offsets(3, 3, 7, 1_000_000_000, 15)),
        damaged(whole, b"poprock", b"poprock"[:6] + b"\xff"),
    ):
        with pytest.raises(SongError, match="expected sound Arrow data"):
            song_columns(lying)
    with pytest.raises(SongError, match="column 'song_id': expected no nulls, found 1"):
        song_columns(pa.record_batch({"song_id": ["a", None], "segments": whole["segments"][:2]}))


def test_short_values_that_stand_for_much_text_are_refused_before_it_is_written_out() -> None:
    long, segments = "x" * 1_000_000, pa.array([[[1.0] * 25]] * 100, SEGMENTS)
    indices = pa.array(np.zeros(100, np.int8))
    view = np.tile(np.frombuffer(pa.array([long], pa.string_view()).buffers()[1], np.uint8)[:16], 100)
    views = pa.Array.from_buffers(pa.string_view(), 100, [None, pa.py_buffer(view), pa.py_buffer(long.encode())])
    ids = [str(n) for n in range(100)]
    for label in (pa.DictionaryArray.from_arrays(indices, pa.array([long])), views):
        whole = pa.record_batch({"song_id": ids, "segments": segments, "label": label})
        before = pa.total_allocated_bytes()
        with pytest.raises(SongError, match=r"column 'label': expected at most 1024 bytes a song, found 1000000"):
            song_columns(whole)
        assert pa.total_allocated_bytes() - before < 1_000_000


def test_views_that_overlap_are_refused() -> None:
    kind = pa.list_view(fixed(pa.float32()))
    rows, views = pa.array([[1.0] * 25] * 2, kind.value_type), map(pa.py_buffer, (offsets(0, 0), offsets(2, 2)))
    overlap = pa.Array.from_buffers(kind, 2, [None, *views], children=[rows])
    with pytest.raises(SongError, match="found views that overlap"):
        song_columns(pa.record_batch({"song_id": ["a", "b"], "segments": overlap}))


def test_lists_of_no_width_take_memory_in_proportion_to_their_bytes() -> None:
    n = 1_000_000
    rows = pa.ListArray.from_arrays(np.zeros(n + 1, np.int32), pa.array([], pa.float32()))
    whole = pa.record_batch({"song_id": ["a"], "segments": pa.ListArray.from_arrays([0, n], rows)})
    tracemalloc.start()
    found = song_columns(whole)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.faults == {0: "segment 0: expected 25 numbers, found 0"}
    assert peak < 12 * whole.nbytes


def test_columns_that_no_song_table_has_are_not_looked_at() -> None:
    whole = batch(FIVE_SONGS, mood=["calm", "", "dark", "warm", "cool"])
    found = song_columns(damaged(whole, offsets(4, 4, 8, 12, 16), offsets(4, 4, 8, 1_000_000_000, 16)))
    assert (list(found.texts), found.lengths.tolist()) == (["song_id"], [3, 4, 5, 6, 7])
