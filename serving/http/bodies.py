"""The songs of a request, in one of four bodies.

- application/json: `{"songs": [{"id", "segments"}], "threshold"?, "mode"?}`; songs of any length
- application/octet-stream: float32, little-endian, n x 120 x 25, and nothing else
- application/x-npy: what `numpy.save` writes of (n, 120, 25), (n, 3000), or one song (segments, 25)
- application/vnd.apache.arrow.stream: the song table of `segue.data.table` as an Arrow IPC stream

A song that breaks the contract has an error of its own; a body that cannot be read at all is a `Refusal`. No message
repeats what the body says, but for the ids of songs.
"""

import io
import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.song import N_FEATURES, WINDOW, Features, Floats, Songs, Units, check_songs
from segue.errors import SongError
from segue.serving.http.refusal import Refusal

SONG_BYTES = WINDOW * N_FEATURES * 4

JSON, RAW, NPY, ARROW = (
    "application/json",
    "application/octet-stream",
    "application/x-npy",
    "application/vnd.apache.arrow.stream",
)


@dataclass(frozen=True)
class SongsIn:
    """The songs of a request."""

    song_ids: Sequence[str]
    sound: Songs  # Those that can be answered, in their order.
    errors: dict[int, SongError]  # What is wrong with each of the others, by its place.
    mode: Any = None  # What the body says of the dial, unchecked.
    threshold: Any = None
    features: Any = None  # Which analyser made the segments, as the body says; None: it does not.


def read(body: bytes, content_type: str, units: Units, max_songs: int, features: Features = "echonest") -> SongsIn:
    """Read the songs of a body; a `Refusal` if there are none, too many, or it is not what its type says."""
    kind = content_type.partition(";")[0].strip().lower()
    reader = READERS.get(kind)
    if reader is None:
        raise Refusal(
            415, "unsupported type", f"content-type: expected one of {', '.join(READERS)}, found {kind!r:.80}"
        )
    songs = reader(body, units, max_songs)
    if songs.features not in (None, features):
        raise Refusal(
            422, "bad body", f"body: expected {features} features for this bundle, found {songs.features!r:.40}"
        )
    return songs


def _counted(found: int, max_songs: int) -> None:
    if not found:
        raise Refusal(422, "bad body", "songs: expected at least one, found none")
    if found > max_songs:
        raise Refusal(413, "too many songs", f"songs: expected at most {max_songs} in a request, found {found}")


def _numbered(count: int) -> list[str]:
    return [str(place) for place in range(count)]


# --- JSON ---


def _read_json(body: bytes, units: Units, max_songs: int) -> SongsIn:
    content = _parsed(body)
    if not isinstance(content, dict):
        raise _unexpected("body", "an object", content)
    if content.keys() - {"songs", "threshold", "mode", "features"}:
        raise Refusal(422, "bad body", "body: expected songs, threshold, mode and features, found another key")
    if "songs" not in content:
        raise Refusal(422, "bad body", "body.songs: expected a list of songs, found none")
    songs = content["songs"]
    if not isinstance(songs, list):
        raise _unexpected("body.songs", "a list", songs)
    _counted(len(songs), max_songs)
    song_ids = [_song_id(place, song) for place, song in enumerate(songs)]
    # To numpy a boolean among numbers is a number.
    prepared = _booleans_kept if _has_booleans(body) else _packed
    segments = [prepared(song["segments"]) for song in songs]
    sound, errors = check_songs(segments, song_ids, units)
    return SongsIn(song_ids, sound, errors, content.get("mode"), content.get("threshold"), content.get("features"))


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:  # Python's reader takes NaN and 1e400, so that only the song which has them is refused.
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Refusal(400, "malformed body", f"body: expected JSON, found something else{where}") from None


def _song_id(place: int, song: Any) -> str:
    where = f"body.songs[{place}]"
    if not isinstance(song, dict):
        raise _unexpected(where, "an object with id and segments", song)
    for name in ("id", "segments"):
        if name not in song:
            raise Refusal(422, "bad body", f"{where}.{name}: expected one, found none")
    if len(song) > 2:
        raise Refusal(422, "bad body", f"{where}: expected id and segments, found another key")
    song_id = song["id"]
    if not isinstance(song_id, str):
        raise _unexpected(f"{where}.id", "a string", song_id)
    try:
        song_id.encode()
    except UnicodeEncodeError:  # Python's reader lets half a surrogate pair in, and no answer can carry it out.
        raise Refusal(422, "bad body", f"{where}.id: expected text, found half a surrogate pair") from None
    return song_id


def _has_booleans(body: bytes) -> bool:
    """Tell whether `true` or `false` is in a body; that a letter of theirs is not takes a tenth of the time to see."""
    return (b"u" in body and b"true" in body) or (b"l" in body and b"false" in body)


def _packed(segments: Any) -> Any:
    """Return a song of rows of 25 numbers as (T, 25), in half the time that numpy takes; anything else as it is."""
    if not isinstance(segments, list):
        return segments
    try:
        if set(map(len, segments)) != {N_FEATURES}:
            return segments
        packed = struct.pack(f"{len(segments) * N_FEATURES}d", *chain.from_iterable(segments))
    except (TypeError, OverflowError, struct.error):
        return segments
    return np.frombuffer(packed).reshape(-1, N_FEATURES)


def _booleans_kept(segments: Any) -> Any:
    """Return a song as objects if it has a boolean, so that the check of songs sees it."""
    rows = segments if isinstance(segments, list) else []
    if any(isinstance(value, bool) for row in rows if isinstance(row, list) for value in row):
        try:
            return np.array(segments, dtype=object)
        except ValueError:
            return segments  # Ragged, which is refused too.
    return segments


def _unexpected(where: str, expected: str, found: Any) -> Refusal:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return Refusal(422, "bad body", f"{where}: expected {expected}, found {names.get(type(found), 'a number')}")


# --- arrays ---


def _read_raw(body: bytes, units: Units, max_songs: int) -> SongsIn:
    if len(body) % SONG_BYTES:
        raise Refusal(
            422,
            "bad body",
            f"body: expected {WINDOW} x {N_FEATURES} little-endian float32 a song, {SONG_BYTES} bytes; "
            f"found {len(body)} bytes, which are {len(body) / SONG_BYTES:.3f} songs",
        )
    return _array_of_songs(np.frombuffer(body, dtype="<f4"), units, max_songs)


def _read_npy(body: bytes, units: Units, max_songs: int) -> SongsIn:
    shape, fortran, dtype, start = _npy_header(body)
    if dtype.kind not in "fiu":
        raise Refusal(422, "bad body", f"body: expected an array of numbers, found one of {dtype!s:.80}")
    is_one_song = len(shape) == 2 and shape[1] == N_FEATURES
    if not is_one_song and shape[1:] not in {(WINDOW, N_FEATURES), (WINDOW * N_FEATURES,)}:
        raise Refusal(
            422,
            "bad body",
            f"body: expected shape (n, {WINDOW}, {N_FEATURES}), (n, {WINDOW * N_FEATURES}) or, for one song, "
            f"(segments, {N_FEATURES}); found {shape!s:.80}",
        )
    expected, found = math.prod(shape) * dtype.itemsize, len(body) - start
    if expected != found:
        raise Refusal(
            400, "malformed body", f"body: expected {expected!s:.80} bytes after the .npy header, found {found}"
        )
    with np.errstate(over="ignore"):
        values = np.frombuffer(body, dtype, offset=start).astype(np.float32, copy=False)
    values = values.reshape(shape, order="F" if fortran else "C")
    if is_one_song:
        sound, errors = check_songs([values], ["0"], units)
        return SongsIn(["0"], sound, errors)
    return _array_of_songs(np.ascontiguousarray(values), units, max_songs)


def _npy_header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order and type of an .npy file, and where its values begin; nothing of it is unpickled."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, fortran, dtype = read_header(file)
    except Exception:  # numpy reads it as Python source, and fails in as many ways as Python's readers do
        raise Refusal(
            400, "malformed body", "body: expected an .npy file of version 1 or 2, found another header"
        ) from None
    if any(type(size) is not int or size < 0 for size in shape):  # To Python `True` is an integer.
        raise Refusal(400, "malformed body", "body: expected an .npy shape of sizes from 0, found another")
    return shape, fortran, dtype, file.tell()


def _array_of_songs(values: Floats, units: Units, max_songs: int) -> SongsIn:
    count = values.size // (WINDOW * N_FEATURES)
    _counted(count, max_songs)
    song_ids = _numbered(count)
    sound, errors = check_songs(values.reshape(count, WINDOW, N_FEATURES), song_ids, units)
    return SongsIn(song_ids, sound, errors)


# --- Arrow ---


def _read_arrow(body: bytes, units: Units, max_songs: int) -> SongsIn:
    table = _arrow_table(body, max_songs)
    metadata = table.schema.metadata or {}
    stated = metadata.get(b"segue.units", units.encode()).decode(errors="replace")
    if stated != units:
        raise Refusal(422, "bad body", f"body: expected {units} songs for this bundle, found {stated!r:.40} ones")
    ids, segments = table["song_id"], table["segments"]
    if ids.type not in (pa.string(), pa.large_string()) or ids.null_count:
        raise Refusal(422, "bad body", f"column song_id: expected strings, none null, found {ids.type!s:.80}")
    if not _is_nested_numbers(segments.type):
        raise Refusal(
            422, "bad body", f"column segments: expected {SEGMENTS} or {FLAT_WINDOW}, found {segments.type!s:.80}"
        )
    song_ids: list[str] = ids.to_pylist()
    sound, errors = check_songs([_arrow_song(song) for song in segments], song_ids, units)
    # A song table that does not say is of a time when all were the Echo Nest's.
    features = metadata.get(b"segue.features", b"echonest" if b"segue.units" in metadata else None)
    return SongsIn(song_ids, sound, errors, features=features and features.decode(errors="replace"))


def _arrow_table(body: bytes, max_songs: int) -> pa.Table:
    """Return the table of a stream whose every offset was checked, so that no buffer is read past its end."""
    try:
        _refuse_compressed(body)
        with pa.ipc.open_stream(body) as stream:
            for name in ("song_id", "segments"):
                if name not in stream.schema.names:  # A `ValueError` where one is no text.
                    raise Refusal(422, "bad body", f"body: expected the columns song_id and segments, found no {name}")
            batches, found = [], 0
            for batch in stream:
                batch.validate(full=True)
                batches.append(batch)
                found += batch.num_rows
                if found > max_songs:
                    break
            _counted(found, max_songs)
            return pa.Table.from_batches(batches, stream.schema)
    except (pa.ArrowException, OSError, ValueError, struct.error):
        raise Refusal(
            400, "malformed body", "body: expected an Arrow IPC stream, found one that cannot be read"
        ) from None


def _refuse_compressed(body: bytes) -> None:
    """Refuse compressed batches, whose size is known only once they are in memory; gzip the body instead.

    Reads the flatbuffers of https://arrow.apache.org/docs/format/Columnar.html, since pyarrow does not say.
    """
    for message in pa.ipc.MessageReader.open_stream(body):
        metadata = message.metadata.to_pybytes()
        (root,) = struct.unpack_from("<I", metadata)
        header = _flatbuffer_table(metadata, root, 2)
        if message.type == "dictionary":
            header = _flatbuffer_table(metadata, header, 1)
        if message.type != "schema" and _flatbuffer_table(metadata, header, 3):
            raise Refusal(422, "bad body", "body: expected batches without compression, found compressed ones")


def _flatbuffer_table(buffer: bytes, table: int, field: int) -> int:
    """Return where the table in a field of the flatbuffer table at `table` is; 0 where there is none."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    (vtable_bytes,) = struct.unpack_from("<H", buffer, vtable)
    at = 4 + 2 * field
    (offset,) = struct.unpack_from("<H", buffer, vtable + at) if at < vtable_bytes else (0,)
    return table + offset + int(struct.unpack_from("<I", buffer, table + offset)[0]) if offset else 0


def _is_nested_numbers(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(test(kind) for test in lists):
        return False
    inner = kind.value_type
    return bool(pa.types.is_floating(inner) or pa.types.is_integer(inner) or _is_nested_numbers(inner))


def _arrow_song(song: pa.Scalar) -> Any:
    """Return the segments of one song: an array where its type says 25 numbers a segment and none is null."""
    values = song.values
    if values is None:
        return None
    if song.type == FLAT_WINDOW:
        return values.to_numpy(zero_copy_only=False).reshape(WINDOW, N_FEATURES)
    if song.type == SEGMENTS and not values.null_count:
        return values.flatten().to_numpy(zero_copy_only=False).reshape(-1, N_FEATURES)
    return song.as_py()


READERS: dict[str, Callable[[bytes, Units, int], SongsIn]] = {
    JSON: _read_json,
    RAW: _read_raw,
    NPY: _read_npy,
    ARROW: _read_arrow,
}
