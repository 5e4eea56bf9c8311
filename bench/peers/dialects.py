"""How songs are written into a request to each server, and probabilities read from its answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from segue.data.song import N_FEATURES, WINDOW, Floats
from segue.errors import ServiceError

JSON, RAW = "application/json", "application/octet-stream"
HEADER_LENGTH = "inference-header-content-length"  # Of Open Inference Protocol's binary extension.
IN_NUMPY = orjson.OPT_SERIALIZE_NUMPY

Probs = NDArray[np.float64]


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]  # Names in small letters.
    body: bytes


@dataclass(frozen=True)
class Dialect:
    """A body that a server takes.

    Attributes:
        body: json, raw or binary, as the report calls it.
        path: where it is posted.
        encode: the headers and the body of a request about some songs, (120, 25) each, or wrong on purpose.
        decode: what `probs` returns of an answer that has its form.
    """

    body: str
    path: str
    encode: Callable[[Sequence[Floats]], tuple[dict[str, str], bytes]]
    decode: Callable[[Reply], Probs]

    def request(self, songs: Sequence[Floats]) -> bytes:
        """Return a whole HTTP request."""
        headers, body = self.encode(songs)
        lines = [f"POST {self.path} HTTP/1.1", "host: peers", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def probs(self, reply: Reply) -> Probs:
        """Return the probabilities (n_songs, n_classes) of an answer with status 200; NaN for a song with an error."""
        try:
            return self.decode(reply)
        except (LookupError, ValueError, TypeError) as error:
            raise ServiceError(f"{self.path}: expected answers, found {error!r} in {reply.body[:200]!r}") from None


def _raw(songs: Sequence[Floats]) -> tuple[dict[str, str], bytes]:
    return {"content-type": RAW}, b"".join(song.astype("<f4").tobytes() for song in songs)


def _lists(songs: Sequence[Floats]) -> tuple[dict[str, str], bytes]:
    return {"content-type": JSON}, _with_nan(orjson.dumps({"songs": [*map(_marked, songs)]}, option=IN_NUMPY))


def _segue(songs: Sequence[Floats]) -> tuple[dict[str, str], bytes]:
    named = [{"id": str(place), "segments": _marked(song)} for place, song in enumerate(songs)]
    return {"content-type": JSON}, _with_nan(orjson.dumps({"songs": named}, option=IN_NUMPY))


def _tensor(songs: Sequence[Floats]) -> dict[str, object]:
    shapes = {song.shape for song in songs}
    shape = shapes.pop() if len(shapes) == 1 else (WINDOW, N_FEATURES)  # No tensor has songs of several shapes.
    return {"name": "segments", "shape": [len(songs), *shape], "datatype": "FP32"}


def _v2_json(songs: Sequence[Floats]) -> tuple[dict[str, str], bytes]:
    data = np.concatenate([_marked(song).ravel() for song in songs])
    content = {"inputs": [{**_tensor(songs), "data": data}]}
    return {"content-type": JSON}, _with_nan(orjson.dumps(content, option=IN_NUMPY))


def _v2_binary(songs: Sequence[Floats]) -> tuple[dict[str, str], bytes]:
    data = _raw(songs)[1]
    tensor = _tensor(songs) | {"parameters": {"binary_data_size": len(data)}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return {"content-type": RAW, HEADER_LENGTH: str(len(head))}, head + data


# orjson writes null for a NaN, and Python's json, which most clients use, the word NaN. This number stands for it.
_STAND_IN = 12345678.0


def _marked(song: Floats) -> Floats:
    return np.where(np.isnan(song), np.float32(_STAND_IN), song)


def _with_nan(body: bytes) -> bytes:
    return body.replace(b"12345678.0", b"NaN")


def _songs(reply: Reply) -> Probs:
    found = json.loads(reply.body)  # Some servers write NaN, which the standard library reads.
    songs = found if isinstance(found, list) else found["songs"]
    n_classes = max((len(song["probabilities"]) for song in songs if "probabilities" in song), default=1)
    missing = {str(place): np.nan for place in range(n_classes)}
    return np.array([[*song.get("probabilities", missing).values()] for song in songs], float)


def _outputs(reply: Reply) -> Probs:
    length = int(reply.headers.get(HEADER_LENGTH, len(reply.body)))
    at = length
    for output in json.loads(reply.body[:length])["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size", 0)
        if output["name"] == "probs":
            values = np.frombuffer(reply.body[at : at + size], "<f4") if size else np.array(output["data"], float)
            return values.astype(float).reshape(output["shape"])
        at += size
    raise ValueError("no output is called probs")


SEGUE_RAW = Dialect("raw", "/v1/classify", _raw, _songs)
SEGUE_JSON = Dialect("json", "/v1/classify", _segue, _songs)
PLAIN_RAW = Dialect("raw", "/classify", _raw, _songs)
PLAIN_JSON = Dialect("json", "/classify", _lists, _songs)
V2_JSON = Dialect("json", "/v2/models/cascade/infer", _v2_json, _outputs)
V2_BINARY = Dialect("binary", "/v2/models/cascade/infer", _v2_binary, _outputs)
