"""Bodies: four ways to say the same songs, and what is wrong with those that say nothing."""

import contextlib
import gzip
import io
import json
import math
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.song import ROUNDING, Floats
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW, SongsIn, read
from segue.serving.http.json_body import PIECE_BYTES, read_json
from segue.serving.http.receiving import inflate
from segue.serving.http.refusal import Refusal
from tests.support.random_songs import random_segments

WINDOWS: Floats = np.stack([random_segments(120, seed=n) for n in range(3)])
OTHERS = [random_segments(n, seed=n) for n in (1, 119, 400)]
CHANGES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 119), st.integers(0, 24), st.floats(width=32)), max_size=4
)


def arrow(columns: dict[str, Any], metadata: dict[str, str] | None = None, compression: str | None = None) -> bytes:
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def songs_json(songs: Any) -> bytes:
    return json.dumps({"songs": [{"id": str(n), "segments": one.tolist()} for n, one in enumerate(songs)]}).encode()


def songs_arrow(songs: Any, kind: pa.DataType = SEGMENTS) -> bytes:
    lists = [one.ravel().tolist() if kind == FLAT_WINDOW else one.tolist() for one in songs]
    return arrow({"song_id": [str(n) for n in range(len(songs))], "segments": pa.array(lists, kind)})


def every_layout() -> Iterator[bytes]:
    """Yield the same three windows in the layouts of Arrow that polars, pandas and others write."""
    ids, flat = pa.array(["0", "1", "2"]), WINDOWS.ravel()
    rows = pa.FixedSizeListArray.from_arrays(flat, 25)
    starts, sizes = np.array([0, 120, 240]), np.array([120, 120, 120])
    nested = pa.ListArray.from_arrays(pa.array([0, 120, 240, 360], pa.int32()), rows)
    for texts in (ids.cast(pa.string_view()), ids.cast(pa.large_string()), ids.dictionary_encode()):
        yield arrow({"song_id": texts, "segments": nested})
    for segments in (
        pa.ListArray.from_arrays(pa.array([0, 3000, 6000, 9000], pa.int32()), flat.astype(np.float64)),
        pa.LargeListArray.from_arrays(pa.array([0, 3000, 6000, 9000], pa.int64()), flat),
        pa.FixedSizeListArray.from_arrays(flat.astype(np.float64), 3000),
        pa.FixedSizeListArray.from_arrays(rows, 120),
        pa.ListViewArray.from_arrays(pa.array(starts, pa.int32()), pa.array(sizes, pa.int32()), rows),
        pa.LargeListViewArray.from_arrays(starts, sizes, rows),
        pa.concat_arrays([nested, nested])[3:],
    ):
        yield arrow({"song_id": ids, "segments": segments})


def ask(body: bytes, kind: str) -> SongsIn:
    return read(body, kind, "raw", 10)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, songs_json(WINDOWS)),
        (RAW, WINDOWS.tobytes()),
        (NPY, npy(WINDOWS)),
        (NPY, npy(WINDOWS.reshape(3, 3000))),
        (NPY, npy(WINDOWS.astype(np.float64))),
        (NPY, npy(np.asfortranarray(WINDOWS))),
        (NPY, npy(WINDOWS.astype(">f4"))),
        (ARROW, songs_arrow(WINDOWS)),
        (ARROW, songs_arrow(WINDOWS, FLAT_WINDOW)),
        (ARROW, songs_arrow(WINDOWS, pa.list_(pa.list_(pa.float64())))),
        *((ARROW, body) for body in every_layout()),
        (f"{RAW}; charset=binary", WINDOWS.tobytes()),
    ],
)
def test_every_body_says_the_same_windows(kind: str, body: bytes) -> None:
    found = ask(body, kind)
    np.testing.assert_array_equal(np.stack(list(found.sound)), WINDOWS)
    assert found.song_ids == ["0", "1", "2"]
    assert not found.errors


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, songs_json(OTHERS)),
        (ARROW, songs_arrow(OTHERS)),
        (ARROW, songs_arrow(OTHERS, pa.large_list(pa.list_(pa.float32())))),
    ],
)
def test_some_bodies_carry_songs_of_any_length(kind: str, body: bytes) -> None:
    for found, expected in zip(ask(body, kind).sound, OTHERS, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_two_dimensional_npy_is_one_song() -> None:
    (found,) = ask(npy(OTHERS[2]), NPY).sound
    np.testing.assert_array_equal(found, OTHERS[2])


def test_a_raw_body_is_not_copied() -> None:
    body = WINDOWS.tobytes()
    windows, _ = ask(body, RAW).sound.windows()
    assert np.shares_memory(windows, np.frombuffer(body, np.uint8))


@given(CHANGES)
def test_a_bad_song_is_found_alike_in_every_body(changes: list[tuple[int, int, int, float]]) -> None:
    values = WINDOWS.copy()
    for song, row, column, value in changes:
        values[song, row, column] = value
    bodies = {JSON: songs_json(values), RAW: values.tobytes(), NPY: npy(values), ARROW: songs_arrow(values)}
    found = {kind: ask(body, kind) for kind, body in bodies.items()}
    errors = {kind: {place: str(error) for place, error in one.errors.items()} for kind, one in found.items()}
    assert errors[JSON] == errors[RAW] == errors[NPY] == errors[ARROW]
    bounded = np.isfinite(values).all(axis=(1, 2))
    noise = np.float32(ROUNDING)  # Which is no fault.
    bounded &= ((values[..., 12:24] >= -noise) & (values[..., 12:24] <= 1 + noise)).all(axis=(1, 2))
    bounded &= ((values[..., 24] >= -60 - 60 * noise) & (values[..., 24] <= 60 * noise)).all(axis=1)
    assert sorted(errors[RAW]) == np.flatnonzero(~bounded).tolist()


def nested(change: Callable[[list[Any]], Any]) -> pa.Array:
    """Return a good song, one that `change` has changed, and another good one."""
    return pa.array(
        [OTHERS[0].tolist(), change(OTHERS[1].tolist()), OTHERS[2].tolist()], pa.list_(pa.list_(pa.float64()))
    )


@pytest.mark.parametrize(
    ("song", "message"),
    [
        (None, "song 'b': expected segments, found null"),
        ([], "song 'b': expected at least one segment, found none"),
        ([[1.0] * 25, [1.0] * 24], "song 'b': segment 1: expected 25 numbers, found 24"),
        ([[1.0] * 24], "song 'b': segment 0: expected 25 numbers, found 24"),
        ([[None] * 25], "song 'b': segment 0: expected 25 numbers, found a null among them"),
        ([[math.nan] * 25], "song 'b', segment 0: expected finite numbers, found nan in timbre_1"),
    ],
)
def test_a_bad_song_of_a_table_has_an_error_of_its_own(song: Any, message: str) -> None:
    segments = nested(lambda _: song)
    found = ask(arrow({"song_id": ["a", "b", "c"], "segments": segments}), ARROW)
    assert message in str(found.errors[1])
    assert [len(one) for one in found.sound] == [1, 400]


@pytest.mark.parametrize(
    ("song", "message"),
    [
        (3, "expected shape (segments, 25)"),
        ({"timbre": []}, "expected numbers, found an object"),
        (["5" * 25], "expected numbers, found text"),
        ([{str(n): 0 for n in range(25)}], "expected numbers, found an object"),
        ([[0.5] * 24 + ["-5"]], "expected numbers, found text"),
        ([[0.5] * 24 + [None]], "expected numbers, found null"),
        ([[0.5] * 24 + [True]], "expected numbers, found a boolean"),
        ([[0.5] * 24 + [False]], "expected numbers, found a boolean"),
        ([[[0.5]] * 25], "expected shape (segments, 25)"),
        ([[0.5] * 24 + [10**400]], "expected numbers, found one too large"),
        ([[0.5] * 24 + [10**300]], "segment 0: expected finite numbers, found inf in loudness_start_db"),
        ([[0.5] * 24, [0.5] * 26], "expected segments of 25 numbers each, found rows of unequal length"),
        ([[0.5] * 24 + [[-5.0]]], "expected segments of 25 numbers each, found rows of unequal length"),
        ([[0.5] * 25, []], "expected segments of 25 numbers each, found rows of unequal length"),
        ([[[0.5]] * 24 + [[]] + [[0.5, 0.5]]], "expected segments of 25 numbers each, found rows of unequal length"),
        ([0.5, [0.5] * 24], "expected segments of 25 numbers each, found rows of unequal length"),
    ],
)
def test_a_bad_song_of_a_json_body_has_an_error_of_its_own(song: Any, message: str) -> None:
    songs = [OTHERS[0].tolist(), song, OTHERS[2].tolist()]
    body = json.dumps({"songs": [{"id": str(n), "segments": one} for n, one in enumerate(songs)]}).encode()
    found = ask(body, JSON)
    assert str(found.errors[1]).startswith("song '1'")
    assert message in str(found.errors[1])
    assert [len(one) for one in found.sound] == [1, 400]


@pytest.mark.parametrize("song", [None, [None] * 3000, [math.nan] * 3000])
def test_nulls_in_a_window_are_an_error_of_that_song(song: Any) -> None:
    segments = pa.array([WINDOWS[0].ravel(), song], FLAT_WINDOW)
    found = ask(arrow({"song_id": ["a", "b"], "segments": segments}), ARROW)
    assert list(found.errors) == [1]
    assert len(found.sound) == 1


def lying_npy(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(245) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(12_000)


IDS = ["a", "b", "c"]
BAD: dict[str, tuple[str, bytes, int, str]] = {
    "no type": ("", b"", 415, "content-type: expected one of application/json, application/octet-stream, "),
    "a form": ("application/x-www-form-urlencoded", b"a=b", 415, "content-type: expected one of"),
    "pickle": ("application/vnd.bentoml+pickle", b"\x80\x04N.", 415, "content-type: expected one of"),
    "raw, none": (RAW, b"", 422, "songs: expected at least one, found none"),
    "raw, cut off": (RAW, bytes(17_999), 422, "12000 bytes; found 17999 bytes, which are 1.500 songs"),
    "raw, too many": (RAW, bytes(12_000 * 11), 413, "songs: expected at most 10 in a request, found 11"),
    "npy, empty": (NPY, b"", 400, "expected an .npy file of version 1 or 2"),
    "npy, raw": (NPY, bytes(12_000), 400, "expected an .npy file of version 1 or 2"),
    "npy, none": (NPY, npy(WINDOWS[:0]), 422, "songs: expected at least one, found none"),
    "npy, cut off": (NPY, npy(WINDOWS)[:-1], 400, "expected 36000 bytes after the .npy header, found 35999"),
    "npy, huge": (NPY, lying_npy("(1000000000000, 120, 25)"), 400, "bytes after the .npy header, found 12000"),
    "npy, more numbers than four bytes each would leave room for": (
        NPY,
        npy(np.zeros((335_545, 25), np.uint8)),
        413,
        "expected at most 8388608 numbers, found 8388625",
    ),
    "arrow, more empty rows than songs have room for": (
        ARROW,
        arrow({"song_id": ["a"], "segments": pa.array([[[]] * 335_545], pa.list_(pa.list_(pa.float32())))}),
        413,
        "expected at most 8388608 numbers, found 8388625",
    ),
    "npy, no bytes but endless": (NPY, lying_npy("(0, 1000000000000000000000000000000)"), 422, "found (0, 1000"),
    "npy, endless and one song": (NPY, lying_npy(f"({10**30}, 25)"), 400, "bytes after the .npy header, found 12000"),
    "npy, many dimensions": (NPY, lying_npy(f"({', '.join('1' * 65)})"), 422, "found (1, 1, 1"),
    "npy, a boolean": (NPY, lying_npy("(True, 25)"), 400, "expected an .npy shape of sizes from 0"),
    "npy, a list": (NPY, lying_npy("[120, 25]"), 400, "expected an .npy file of version 1 or 2"),
    "npy, nested": (NPY, lying_npy("(" * 100 + ",)" * 100), 400, "expected an .npy"),
    "npy, arrays of arrays": (NPY, lying_npy("(1, 120, 25)", "('<f4', (10000, 10000))"), 422, "an array of num"),
    "npy, negative": (NPY, lying_npy("(-1, 120, 25)"), 400, "expected an .npy shape of sizes from 0"),
    "npy, pickled": (NPY, npy(np.array([{}, None])), 422, "expected an array of numbers, found one of object"),
    "npy, booleans": (NPY, npy(np.ones((1, 120, 25), bool)), 422, "expected an array of numbers, found one of bool"),
    "npy, text": (NPY, npy(np.full((1, 120, 25), "1")), 422, "expected an array of numbers, found one of <U1"),
    "npy, transposed": (NPY, npy(WINDOWS.swapaxes(1, 2)), 422, "found (3, 25, 120)"),
    "npy, flat": (NPY, npy(WINDOWS.ravel()), 422, "found (9000,)"),
    "npy, one number": (NPY, npy(np.float32(1)), 422, "found ()"),
    "npy, a formula": (NPY, lying_npy("(exit(), 120, 25)"), 400, "expected an .npy file of version 1 or 2"),
    "arrow, empty": (ARROW, b"", 400, "expected an Arrow IPC stream, found one that cannot be read"),
    "arrow, raw": (ARROW, bytes(12_000), 400, "expected an Arrow IPC stream, found one that cannot be read"),
    "arrow, cut off": (ARROW, songs_arrow(OTHERS)[:3000], 400, "expected an Arrow IPC stream"),
    "arrow, none": (ARROW, songs_arrow([]), 422, "songs: expected at least one, found none"),
    "arrow, too many": (ARROW, songs_arrow([OTHERS[0]] * 11), 413, "songs: expected at most 10 in a request"),
    "arrow, no ids": (ARROW, arrow({"segments": nested(list)}), 422, "expected a column 'song_id', found seg"),
    "arrow, null id": (ARROW, arrow({"song_id": ["a", None, "c"], "segments": nested(list)}), 422, "no nulls, found 1"),
    "arrow, number ids": (ARROW, arrow({"song_id": [1, 2, 3], "segments": nested(list)}), 422, "found int64"),
    "arrow, no songs": (ARROW, arrow({"song_id": IDS}), 422, "expected a column 'segments', found son"),
    "arrow, a name that is no text": (
        ARROW,
        arrow({"song_id": IDS, "segments": nested(list), "mood": IDS}).replace(b"mood", b"m\xffod"),
        422,
        "expected names of columns in UTF-8, found others",
    ),
    "arrow, text": (ARROW, arrow({"song_id": IDS, "segments": IDS}), 422, "column 'segments': expected type list<"),
    "arrow, booleans": (ARROW, arrow({"song_id": IDS, "segments": [[[True]]] * 3}), 422, "'segments': expected "),
    "arrow, standardised": (
        ARROW,
        arrow({"song_id": IDS, "segments": nested(list)}, {"segue.units": "standardised"}),
        422,
        "expected raw songs for this bundle, found 'standardised' ones",
    ),
    "arrow, zstd": (
        ARROW,
        arrow({"song_id": ["a"], "segments": pa.array([np.zeros(3000)], FLAT_WINDOW)}, compression="zstd"),
        422,
        "expected batches without compression, found compressed ones",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_a_refusal(name: str) -> None:
    kind, body, status, message = BAD[name]
    with pytest.raises(Refusal) as refusal:
        ask(body, kind)
    assert refusal.value.status == status
    assert message in refusal.value.message


@pytest.mark.parametrize("before", [b"", b'"threshold": 0.5, ', b'"mode": null ,'])
@pytest.mark.parametrize("space", ["", " ", "\n\t"])
@pytest.mark.parametrize("song_id", ["a", "é", 'a "quoted" one', "a}b", "{[", "\\", '\\"}', "spotify:track:1", ""])
@pytest.mark.parametrize("ids_first", [True, False])
def test_json_is_read_however_it_is_written(before: bytes, space: str, song_id: str, ids_first: bool) -> None:
    pairs = [("id", song_id), ("segments", OTHERS[1].tolist())]
    songs = json.dumps([dict(pairs if ids_first else pairs[::-1])] * 2, separators=("," + space, ":" + space))
    body = space.encode() + b"{" + before + b'"songs"' + space.encode() + b":" + songs.encode() + b"}" + space.encode()
    found = ask(body, JSON)
    assert found.song_ids == [song_id] * 2
    np.testing.assert_array_equal(found.sound[0], OTHERS[1])
    assert found.threshold == (0.5 if b"thr" in before else None)


def test_numbers_are_read_as_python_reads_them() -> None:
    texts = ["1", "-0", "1e-400", "0.1", "1E2", "3.4028234e38", "9007199254740993", "-9223372036854775808",
             "18446744073709551615", "123456789012345678901234567890", "1.7976931348623157e308"]  # fmt: skip
    rows = [[one] * 24 + ["-1"] for one in texts]
    lists = [f"[{', '.join(row)}]" for row in rows]
    body = f'{{"songs": [{{"id": "a[", "segments": [{", ".join(lists)}]}}]}}'
    expected = np.array(json.loads(body)["songs"][0]["segments"], dtype=np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(read_json(body.encode(), 10).sound[0], expected.astype(np.float32))
        for one, numbers in zip(lists, expected, strict=True):
            alone = f'{{"songs":[{{"segments":[{one}],"id":"a"}}]}}'
            np.testing.assert_array_equal(read_json(alone.encode(), 10).sound[0][0], numbers.astype(np.float32))


def test_a_byte_order_mark_is_no_json() -> None:
    with pytest.raises(Refusal) as refusal:
        ask(b"\xef\xbb\xbf" + songs_json(OTHERS), JSON)
    assert refusal.value.status == 400


@pytest.mark.parametrize("song_id", ["a", 'a "quoted" one]', "é"])
@pytest.mark.parametrize("ids_first", [True, False])
def test_a_long_song_is_read_in_pieces(song_id: str, ids_first: bool) -> None:
    song = random_segments(3_000, seed=5)
    pairs = [("id", song_id), ("segments", song.tolist())]
    body = json.dumps(
        {"songs": [{"id": "short", "segments": OTHERS[0].tolist()}, dict(pairs if ids_first else pairs[::-1])]}
    )
    assert len(body) > 5 * PIECE_BYTES
    found = ask(body.encode(), JSON)
    assert found.song_ids == ["short", song_id]
    np.testing.assert_array_equal(found.sound[1], song)


@pytest.mark.parametrize("space", [0, 1, 100])
def test_a_comma_after_the_last_row_of_a_long_song_is_refused_wherever_a_piece_ends(space: int) -> None:
    row = b"[" + b",".join([b"0"] * 25) + b"]"
    rows = b",".join([row] * 5_000)
    rows = rows[:-1] + b" " * (PIECE_BYTES - len(rows) + space) + b"]"  # Its last row ends about where a piece does.
    body = b'{"songs": [{"id": "a", "segments": [%b%b]}]}'
    assert len(ask(body % (rows, b""), JSON).sound[0]) == 5_000
    with pytest.raises(Refusal):
        ask(body % (rows, b","), JSON)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "segment 2999: expected finite numbers, found nan in timbre_3"),
        (1e400, "segment 2999: expected finite numbers, found inf in timbre_3"),
        (None, "expected numbers, found null"),
        (True, "expected numbers, found a boolean"),
    ],
)
def test_a_bad_value_of_a_long_song_is_an_error_of_its_own(value: Any, message: str) -> None:
    song = random_segments(3_000, seed=5).tolist()
    song[2_999][2] = value
    body = json.dumps({"songs": [{"id": "a", "segments": song}, {"id": "b", "segments": OTHERS[0].tolist()}]})
    found = ask(body.encode(), JSON)
    assert message in str(found.errors[0])
    np.testing.assert_array_equal(found.sound[0], OTHERS[0])


TWICE = {
    "songs": b'{"songs": [], "songs": []}',
    "the dial": b'{"threshold": 0.1, "songs": [], "threshold": 0.9}',
    "the dial, in other letters": b'{"threshold": 0.1, "songs": [], "\\u0074hreshold": 0.9}',
    "an id": b'{"songs": [{"id": "a", "id": "b", "segments": []}]}',
    "segments": b'{"songs": [{"id": "a", "segments": [[1]], "segments": []}]}',
    "segments of a long song": b'{"songs": [{"id": "a", "segments": [%b], "segments": []}]}' % (b"[1]," * 90_000)[:-1],
}


@pytest.mark.parametrize("name", TWICE)
def test_what_json_says_twice_is_refused(name: str) -> None:
    with pytest.raises(Refusal) as refusal:
        ask(TWICE[name], JSON)
    assert refusal.value.status == 422


MANY = 3_000_000
BOMBS = {
    "empty lists": b'{"songs": [{"id": "a", "segments": [' + b"[]," * MANY + b"[]]}]}",
    "empty objects": b'{"songs": [{"id": "a", "segments": [' + b"{}," * MANY + b"{}]}]}",
    "nested lists": b'{"songs": [{"id": "a", "segments": ' + b"[" * MANY + b"]" * MANY + b"}]}",
    "nested objects": b'{"songs": [' + b'{"a":' * MANY + b"1" + b"}" * MANY + b"]}",
    "empty texts": b'{"songs": [{"id": "a", "segments": [' + b'"",' * MANY + b'""]}]}',
    "numbers": b'{"songs": [{"id": "a", "segments": [[' + b"9," * (4 * MANY) + b"9]]}]}",
    "as many numbers as may be, in a row": b'{"songs": [{"id": "a", "segments": [[' + b"999," * 8_000_000 + b"9]]}]}",
    "escapes": b'{"songs": [{"id": "' + b"\\n" * MANY + b'", "segments": []}]}',
    "songs": b'{"songs": [' + b'{"id":"","segments":[]},' * MANY + b"{}]}",
    "keys": b"{" + b'"mode":"fast",' * MANY + b'"mode":"fast"}',
    "an endless key": b'{"' + b"k" * MANY + b'": 1}',
    "other keys": b"{" + b",".join(b'"%d":1' % n for n in range(100_000)) + b"}",
    "lists, not songs": b"[" * MANY,
    "a list of numbers": b"[" + b"9," * MANY + b"9]",
    "songs that are numbers": b'{"songs": [' + b"999," * MANY + b"9]}",
    "songs in lists": b'{"songs": ' + b"[" * MANY,
    "a threshold of lists": b'{"threshold": ' + b"[" * MANY,
    "an endless number": b'{"threshold": ' + b"1" * MANY + b"}",
    "an endless value": b'{"songs": [{"id": "a", "segments": [[' + b"1" * MANY + b"]]}]}",
    "space": b'{"songs": ' + b" " * MANY,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_body_that_blows_up_in_memory_is_refused_before_it_does(name: str) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(Refusal):
            found = ask(BOMBS[name], JSON)
            assert found.errors
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * len(BOMBS[name]) + 2**25


@pytest.mark.parametrize(
    "shape", [(), (0,), (2**40,), (1, 2**60, 25), (2**20, 0, 25), (0, 120, 25), (2**62, 2**62, 25), (1,) * 64]
)
def test_a_header_of_npy_costs_no_more_than_its_bytes(shape: tuple[int, ...]) -> None:
    with pytest.raises(Refusal) as refusal:
        ask(lying_npy(str(shape)), NPY)
    assert refusal.value.status in (400, 422)


def test_json_in_another_charset_is_refused() -> None:
    assert ask(songs_json(WINDOWS), f"{JSON}; charset=UTF-8").song_ids == ["0", "1", "2"]
    with pytest.raises(Refusal) as refusal:
        ask(songs_json(WINDOWS), f"{JSON}; charset=latin-1")
    assert refusal.value.status == 415


def test_many_empty_batches_are_refused() -> None:
    schema = pa.schema({"song_id": pa.string(), "segments": SEGMENTS})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        for _ in range(1000):
            stream.write_batch(pa.RecordBatch.from_pylist([], schema))
    with pytest.raises(Refusal) as refusal:
        ask(sink.getvalue().to_pybytes(), ARROW)
    assert (refusal.value.status, refusal.value.message) == (422, "body: expected at most 74 batches, found more")


@given(st.sampled_from([JSON, NPY, ARROW]), st.integers(0, 2**64), st.integers(0, 255))
def test_a_damaged_body_is_read_or_refused_and_nothing_else(kind: str, place: int, byte: int) -> None:
    body = bytearray({JSON: songs_json(OTHERS[:2]), NPY: npy(WINDOWS[:1]), ARROW: songs_arrow(OTHERS[:2])}[kind])
    body[place % min(len(body), 2000)] = byte
    with contextlib.suppress(Refusal):
        found = ask(bytes(body), kind)
        assert len(found.sound) + len(found.errors) == len(found.song_ids)


def test_gzip_is_inflated_up_to_a_cap() -> None:
    content = WINDOWS.tobytes()
    assert inflate(gzip.compress(content), len(content)) == content


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (gzip.compress(WINDOWS.tobytes(), mtime=0)[:-9], 400, "expected one whole gzip stream, found one cut off"),
        (gzip.compress(bytes(10), mtime=0) + b"more", 400, "or followed by more"),
        (zlib.compress(bytes(10)), 400, "expected gzip, found something else"),
        (b"", 400, "expected one whole gzip stream"),
        (gzip.compress(bytes(2**24), mtime=0), 413, "expected at most 36000 bytes after gzip, found more"),
    ],
)
def test_a_bad_gzip_is_a_refusal(body: bytes, status: int, message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        inflate(body, WINDOWS.nbytes)
    assert refusal.value.status == status
    assert message in refusal.value.message
