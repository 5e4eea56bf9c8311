"""Requests to `/v1/classify`, whole and made beforehand, in each of the bodies that the service takes."""

import io
from collections.abc import Callable, Mapping

import numpy as np
import orjson
import pyarrow as pa

from segue.data.song import N_FEATURES, WINDOW, Floats
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW


def to_json(songs: Floats) -> bytes:
    """Return songs (n_songs, 120, 25) as JSON, called "0", "1" and so on."""
    named = [{"id": str(place), "segments": song} for place, song in enumerate(songs)]
    return orjson.dumps({"songs": named}, option=orjson.OPT_SERIALIZE_NUMPY)


def to_raw(songs: Floats) -> bytes:
    """Return the numbers of songs (n_songs, 120, 25), float32, little-endian."""
    return songs.astype("<f4").tobytes()


def to_npy(songs: Floats) -> bytes:
    """Return what `numpy.save` writes of songs (n_songs, 120, 25)."""
    sink = io.BytesIO()
    np.save(sink, songs.astype("<f4"))
    return sink.getvalue()


def to_arrow(songs: Floats) -> bytes:
    """Return songs (n_songs, 120, 25) as the song table, an Arrow IPC stream."""
    starts = np.arange(len(songs) + 1, dtype=np.int32) * WINDOW
    segments = pa.FixedSizeListArray.from_arrays(songs.astype("<f4").reshape(-1), N_FEATURES)
    table = pa.table(
        {"song_id": [*map(str, range(len(songs)))], "segments": pa.ListArray.from_arrays(starts, segments)}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


# Name of a body to its content type, and to what writes it.
BODIES: Mapping[str, tuple[str, Callable[[Floats], bytes]]] = {
    "raw": (RAW, to_raw),
    "json": (JSON, to_json),
    "npy": (NPY, to_npy),
    "arrow": (ARROW, to_arrow),
}


def requests(
    songs: Floats, body: str, songs_a_request: int, *, host: str = "bench", path: str = "/v1/classify", token: str = ""
) -> list[bytes]:
    """Return songs (n_songs, 120, 25) as requests of so many songs each; what is left over is not sent."""
    content_type, write = BODIES[body]
    starts = range(0, len(songs) - songs_a_request + 1, songs_a_request)
    return [post(path, content_type, write(songs[at : at + songs_a_request]), host, token) for at in starts]


def post(path: str, content_type: str, body: bytes, host: str = "bench", token: str = "") -> bytes:
    """Return a whole POST request."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-type: {content_type}", f"content-length: {len(body)}"]
    lines += [f"authorization: Bearer {token}"] if token else []
    return "\r\n".join([*lines, "", ""]).encode() + body
