"""A client of the service: songs in, typed answers out, and patience with a server that is busy.

Example:
    with SegueClient("http://127.0.0.1:3000") as client:
        for answer in client.classify(windows).answers:  # float32 (n, 120, 25), raw
            print(answer.genre, answer.cross_entropy_nats)
"""

import email.utils
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import httpx
import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from segue.data.song import N_FEATURES, WINDOW
from segue.errors import ServiceError, SongError
from segue.serving.http.bodies import ARROW, RAW
from segue.serving.http.dial import Mode
from segue.serving.predictions import Answer

FIRST_WAIT_S = 0.25  # Before the first retry; each further one waits twice as long.
LONGEST_WAIT_S = 30.0  # A server that asks for more than this is not waited for.
BUSY = 503

SongsToSend: TypeAlias = NDArray[Any] | Sequence[NDArray[Any]] | pa.Table


@dataclass(frozen=True)
class BadSong:
    """A song that got no answer, and why."""

    song_id: str
    error: str


@dataclass(frozen=True)
class Classified:
    """What the service says of the songs of one call."""

    songs: tuple[Answer | BadSong, ...]  # In the order they were given.
    bundle: str  # Version of the bundle that answered.
    mode: str  # fast, balanced, accurate, or threshold where the call named one.
    threshold_nats: float | None  # None where the mode asks no threshold.

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The songs that got an answer."""
        return tuple(song for song in self.songs if isinstance(song, Answer))

    @property
    def bad_songs(self) -> tuple[BadSong, ...]:
        """The songs that got none."""
        return tuple(song for song in self.songs if isinstance(song, BadSong))


class SegueClient:
    """Asks one server. Threads may share a client: it keeps connections open and nothing else."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        retries: int = 4,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare to ask the server at `url`; nothing is sent yet.

        Args:
            url: what `segue serve` prints, such as http://127.0.0.1:3000.
            token: the bearer token, where the server wants one.
            retries: how often a request is sent again when the server is busy (503), cannot be reached or hangs up.
            timeout_s: the longest wait for a connection, or for any part of the answer; not tried again.
            transport: how requests travel, for a proxy or certificates of one's own.
        """
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(self, songs: SongsToSend, threshold: float | None = None, mode: Mode | None = None) -> Classified:
        """Ask for the genre of each song, in one request.

        Args:
            songs: windows (n, 120, 25); one song (T, 25); a sequence of songs (T, 25) each; or a table with the columns
                `song_id` and `segments`. Only a table names its songs, the others are called "0", "1" and so on.
            threshold: nats above which a song falls back to the teacher. Default: the server's.
            mode: `fast`, `balanced` or `accurate`, instead of a threshold.

        Returns:
            An answer or an error for each song.

        Raises:
            SongError: a song is not an array of numbers (T, 25), or the table lacks a column.
            ServiceError: the server refused the request as a whole, stayed busy, or cannot be reached.
        """
        kind, body = _body(songs)
        dial = {"threshold": threshold, "mode": mode}
        request = self._http.build_request(
            "POST",
            "/v1/classify",
            params={name: value for name, value in dial.items() if value is not None},
            content=body,
            headers={"content-type": kind},
        )
        return _classified(request, self._send(request))

    def classify_audio(
        self, path: str | PathLike[str], threshold: float | None = None, mode: Mode | None = None
    ) -> Answer | BadSong:
        """Ask for the genre of one audio file, where the server takes audio.

        Args:
            path: the file; its content tells the format.
            threshold: nats above which a song falls back to the teacher. Default: the server's.
            mode: `fast`, `balanced` or `accurate`, instead of a threshold.

        Raises:
            OSError: the file cannot be read.
            ServiceError: the server refused the request, stayed busy, or cannot be reached.
        """
        dial = {"threshold": threshold, "mode": mode}
        request = self._http.build_request(
            "POST",
            "/v1/classify",
            params={name: value for name, value in dial.items() if value is not None},
            files={"file": (Path(path).name, Path(path).read_bytes(), "application/octet-stream")},
        )
        request.read()  # So that it can be sent again.
        return _classified(request, self._send(request)).songs[0]

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Send a request, again and again if need be; classifying twice does no harm."""
        for retry in range(self._retries + 1):
            asked_s = 0.0
            try:
                response = self._http.send(request)
                if response.status_code != BUSY:
                    return response
                failure, asked_s = _refused(request, response), _retry_after_s(response)
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                failure = ServiceError(f"{request.url}: {error}")
            except httpx.HTTPError as error:
                raise ServiceError(f"{request.url}: {str(error) or type(error).__name__}") from None
            if retry == self._retries or asked_s > LONGEST_WAIT_S:
                break
            # Longer by chance, so that callers who were refused together do not come back together.
            time.sleep(max(asked_s, FIRST_WAIT_S * 2**retry) * random.uniform(1, 1.5))
        raise failure


def _body(songs: SongsToSend) -> tuple[str, bytes]:
    """Return the content type and the body that carry `songs`."""
    if isinstance(songs, pa.Table):
        try:
            return ARROW, _stream(songs.select(["song_id", "segments"]))
        except KeyError:
            found = ", ".join(songs.column_names)
            raise SongError(f"table: expected the columns song_id and segments, found {found}") from None
    if isinstance(songs, np.ndarray) and songs.shape[1:] == (WINDOW, N_FEATURES) and songs.dtype.kind in "fiu":
        return RAW, songs.astype("<f4").tobytes()
    if isinstance(songs, np.ndarray) and songs.ndim == 2:
        songs = [songs]
    checked = [_segments(song, place) for place, song in enumerate(songs)]
    ends = np.cumsum([0, *map(len, checked)]).astype(np.int32)
    flat = np.concatenate([np.zeros((0, N_FEATURES), np.float32), *checked]).reshape(-1)
    segments = pa.ListArray.from_arrays(ends, pa.FixedSizeListArray.from_arrays(pa.array(flat), N_FEATURES))
    return ARROW, _stream(pa.table({"song_id": [str(place) for place in range(len(checked))], "segments": segments}))


def _segments(song: NDArray[Any], place: int) -> NDArray[np.float32]:
    """Return a song as it travels; whether its values are in range is for the server to say."""
    values = np.asarray(song)
    if values.ndim != 2 or values.shape[1] != N_FEATURES or values.dtype.kind not in "fiu":
        raise SongError(
            f"song {place}: expected numbers of shape (segments, {N_FEATURES}), found {values.dtype} of {values.shape}"
        )
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _classified(request: httpx.Request, response: httpx.Response) -> Classified:
    content = _parsed(response)
    if "songs" not in content:
        raise _refused(request, response)
    songs = tuple(_song(song) for song in content["songs"])
    return Classified(songs, content["bundle"], content["mode"], content["threshold"])


def _song(found: dict[str, Any]) -> Answer | BadSong:
    if "error" in found:
        return BadSong(found["id"], found["error"])
    return Answer(found["id"], **{field.name: found[field.name] for field in fields(Answer)[1:]})


def _refused(request: httpx.Request, response: httpx.Response) -> ServiceError:
    message = _parsed(response).get("error", response.reason_phrase)
    return ServiceError(f"{request.url}: {response.status_code}: {message}", response.status_code)


def _parsed(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer; an empty one if it is none, as where a proxy answers in its stead."""
    try:
        content = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _retry_after_s(response: httpx.Response) -> float:
    """Return how long a busy server asks to be left alone, in seconds; 0 if it does not say (RFC 9110, 10.2.3)."""
    said = response.headers.get("retry-after", "")
    if said.isdigit():
        return float(said)
    try:
        return max((email.utils.parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):  # No date, or one without a time zone.
        return 0.0
