"""Songs in a body of numbers alone: raw float32, or an .npy file."""

import io
import math
from typing import Any

import numpy as np

from segue.data.song import N_FEATURES, WINDOW, Floats, Songs, as_segments
from segue.errors import SongError
from segue.serving.http.refusal import Refusal
from segue.serving.http.songs_in import SONG_BYTES, SongsIn, counted, numbers_counted


def read_raw(body: bytes, max_songs: int) -> SongsIn:
    """Read n x 120 x 25 little-endian float32, and nothing else; a `Refusal` if it is not that."""
    if len(body) % SONG_BYTES:
        raise Refusal(
            422,
            "bad body",
            f"body: expected {WINDOW} x {N_FEATURES} little-endian float32 a song, {SONG_BYTES} bytes; "
            f"found {len(body)} bytes, which are {len(body) / SONG_BYTES:.3f} songs",
        )
    return _array_of_songs(np.frombuffer(body, dtype="<f4"), max_songs)


def read_npy(body: bytes, max_songs: int) -> SongsIn:
    """Read what `numpy.save` writes of (n, 120, 25), (n, 3000), or one song (segments, 25); a `Refusal` if not."""
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
    numbers_counted(math.prod(shape))
    with np.errstate(over="ignore"):
        values = np.frombuffer(body, dtype, offset=start).astype(np.float32, copy=False)
    values = values.reshape(shape, order="F" if fortran else "C")
    if is_one_song:
        try:
            return SongsIn(["0"], Songs.of([as_segments(values, "0")]), {})
        except SongError as error:
            return SongsIn(["0"], Songs.of([]), {0: SongError(*error.args)})
    return _array_of_songs(np.ascontiguousarray(values), max_songs)


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


def _array_of_songs(values: Floats, max_songs: int) -> SongsIn:
    count = values.size // (WINDOW * N_FEATURES)
    counted(count, max_songs)
    song_ids = [str(place) for place in range(count)]
    return SongsIn(song_ids, Songs.of(values.reshape(count, WINDOW, N_FEATURES)), {})
