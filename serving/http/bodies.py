"""The songs of a request, in one of four bodies.

- application/json: `{"songs": [{"id", "segments"}], "threshold"?, "mode"?}`; songs of any length
- application/octet-stream: float32, little-endian, n x 120 x 25, and nothing else
- application/x-npy: what `numpy.save` writes of (n, 120, 25), (n, 3000), or one song (segments, 25)
- application/vnd.apache.arrow.stream: the song table of `segue.data.table` as an Arrow IPC stream

A song that breaks the contract has an error of its own; a body that cannot be read at all is a `Refusal`. No message
repeats what the body says, but for the ids of songs.
"""

from collections.abc import Callable

from segue.data.song import Features, Units
from segue.serving.http.array_body import read_npy, read_raw
from segue.serving.http.arrow_body import read_arrow
from segue.serving.http.json_body import read_json
from segue.serving.http.refusal import Refusal
from segue.serving.http.songs_in import ARROW, JSON, NPY, RAW, SONG_BYTES, SongsIn

__all__ = ["ARROW", "JSON", "NPY", "RAW", "READERS", "SONG_BYTES", "SongsIn", "read", "read_unchecked"]

READERS: dict[str, Callable[[bytes, int], SongsIn]] = {
    JSON: read_json,
    RAW: read_raw,
    NPY: read_npy,
    ARROW: read_arrow,
}


def read(body: bytes, content_type: str, units: Units, max_songs: int, features: Features = "echonest") -> SongsIn:
    """Read the songs of a body and check them; a `Refusal` where `read_unchecked` has one."""
    return read_unchecked(body, content_type, units, max_songs, features).checked(units)


def read_unchecked(body: bytes, content_type: str, units: Units, max_songs: int, features: Features) -> SongsIn:
    """Read the songs of a body; a `Refusal` if there are none, too many, or it is not what its type says.

    Nobody has looked at their values yet: for many requests at once that takes hardly longer than for one.
    """
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    reader = READERS.get(kind)
    if reader is None:
        raise Refusal(
            415, "unsupported type", f"content-type: expected one of {', '.join(READERS)}, found {kind!r:.80}"
        )
    charsets = {one.removeprefix("charset=").strip('"') for one in parameters if one.startswith("charset=")}
    if kind == JSON and not charsets <= {"utf-8", "utf8", "us-ascii"}:
        raise Refusal(415, "unsupported type", "content-type: expected charset=utf-8 or none, found another")
    songs = reader(body, max_songs)
    if songs.units not in (None, units):
        raise Refusal(422, "bad body", f"body: expected {units} songs for this bundle, found {songs.units!r:.40} ones")
    if songs.features not in (None, features):
        raise Refusal(
            422, "bad body", f"body: expected {features} features for this bundle, found {songs.features!r:.40}"
        )
    return songs
