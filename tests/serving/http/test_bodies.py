"""Bodies: four ways to say the same songs, and what is wrong with those that say nothing."""

import contextlib
import gzip
import io
import json
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.song import Floats
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW, SongsIn, read
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
    bounded &= ((values[..., 12:24] >= 0) & (values[..., 12:24] <= 1)).all(axis=(1, 2))
    bounded &= ((values[..., 24] >= -60) & (values[..., 24] <= 0)).all(axis=1)
    assert sorted(errors[RAW]) == np.flatnonzero(~bounded).tolist()


def nested(change: Callable[[list[Any]], Any]) -> pa.Array:
    """Return a good song, one that `change` has changed, and another good one."""
    return pa.array(
        [OTHERS[0].tolist(), change(OTHERS[1].tolist()), OTHERS[2].tolist()], pa.list_(pa.list_(pa.float64()))
    )


@pytest.mark.parametrize(
    ("song", "message"),
    [
        (None, "song 'b': expected numbers, found null"),
        ([], "song 'b': expected at least one segment, found none"),
        ([[1.0] * 25, [1.0] * 24], "song 'b': expected segments of 25 numbers each, found rows of unequal length"),
        ([[1.0] * 24], "song 'b': expected shape (segments, 25)"),
        ([[None] * 25], "song 'b': expected numbers, found null"),
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
    "arrow, no ids": (ARROW, arrow({"segments": nested(list)}), 422, "found no song_id"),
    "arrow, null id": (ARROW, arrow({"song_id": ["a", None, "c"], "segments": nested(list)}), 422, "none null"),
    "arrow, number ids": (ARROW, arrow({"song_id": [1, 2, 3], "segments": nested(list)}), 422, "found int64"),
    "arrow, no songs": (ARROW, arrow({"song_id": IDS}), 422, "found no segments"),
    "arrow, a name that is no text": (
        ARROW,
        arrow({"song_id": IDS, "segments": nested(list), "mood": IDS}).replace(b"mood", b"m\xffod"),
        400,
        "found one that cannot be read",
    ),
    "arrow, text": (ARROW, arrow({"song_id": IDS, "segments": IDS}), 422, "column segments: expected list<"),
    "arrow, booleans": (ARROW, arrow({"song_id": IDS, "segments": [[[True]]] * 3}), 422, "column segments: "),
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
        (gzip.compress(WINDOWS.tobytes())[:-9], 400, "expected one whole gzip stream, found one cut off"),
        (gzip.compress(bytes(10)) + b"more", 400, "or followed by more"),
        (zlib.compress(bytes(10)), 400, "expected gzip, found something else"),
        (b"", 400, "expected one whole gzip stream"),
        (gzip.compress(bytes(2**24)), 413, "expected at most 36000 bytes after gzip, found more"),
    ],
)
def test_a_bad_gzip_is_a_refusal(body: bytes, status: int, message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        inflate(body, WINDOWS.nbytes)
    assert refusal.value.status == status
    assert message in refusal.value.message
