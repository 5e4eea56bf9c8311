"""Songs in JSON: `{"songs": [{"id", "segments"}], "threshold"?, "mode"?, "features"?}`.

Python's objects take up to thirty times the bytes of the JSON that they are read from. So a body is cut where its songs
begin and end, which takes no objects, and read song by song, a long song piece by piece; what stays is float32. A small
body is read at once. simdjson puts the numbers of plain songs into a buffer; what it cannot, Python's reader explains.
A large body is first counted: it may hold no more brackets, quotes and numbers than songs have.
"""

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import simdjson

from segue.data.song import N_FEATURES, Floats, Songs, as_segments
from segue.errors import SongError
from segue.serving.http.dial import dial
from segue.serving.http.refusal import Refusal
from segue.serving.http.songs_in import MAX_NUMBERS, SongsIn, counted

PIECE_BYTES = 2**18  # What is read at once: a few milliseconds, and 8 MB of Python's objects at most.
PLAIN_BYTES = 2**21  # What simdjson reads at once, into 30 MB at most; none of them are Python's objects.
MARKS = {"braces": (b"{",), "brackets": (b"[", b"{"), "quotes": (b'"',), "commas": (b",",), "escapes": (b"\\",)}
# What a larger body may hold. A segment of 25 numbers takes 52 bytes at least, and a song has three texts.
BYTES_A_BRACKET, BYTES_A_QUOTE, SPARE_MARKS = 40, 6, 100_000
MAX_ESCAPES = 2**17
FOUND = {
    b"{": "an object", b"[": "a list", b'"': "a string", b"t": "a boolean", b"f": "a boolean", b"n": "null",
    **{bytes([digit]): "a number" for digit in b"-0123456789NI"},
}  # fmt: skip
SPACE = re.compile(rb"[ \t\n\r]*+")
KEY = re.compile(rb'("(?:[^"\\]|\\.){0,64}+")[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
SCALAR = re.compile(rb'("(?:[^"\\]|\\.){0,400}+"|[^][{},"\x00-\x20]{1,400}+)', re.DOTALL)
TEXT_OR_BRACE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}]', re.DOTALL)
SEGMENTS = re.compile(rb'"segments"[ \t\n\r]*+:[ \t\n\r]*+\[')


def read_json(body: bytes, max_songs: int) -> SongsIn:
    """Read the songs of a body; a `Refusal` if it is not what this module says."""
    plain = _plain_body(body, max_songs) if len(body) <= PLAIN_BYTES else None
    if plain is not None:
        song_ids, sound, rest = plain
        return SongsIn(song_ids, Songs.of(sound), {}, **rest)
    if len(body) > PIECE_BYTES:
        braces, quotes = (len(body) // one + SPARE_MARKS for one in (BYTES_A_BRACKET, BYTES_A_QUOTE))
        _refuse_more(body, braces=braces, quotes=quotes, commas=MAX_NUMBERS, escapes=MAX_ESCAPES)
    reader = _Reader(body)
    values: dict[str, Any] = {}
    song_ids, sound, errors = [], [], {}
    for key in reader.each_key():
        if key not in ("songs", "threshold", "mode", "features"):
            raise Refusal(422, "bad body", "body: expected songs, threshold, mode and features, found another key")
        if key in values:
            raise Refusal(422, "bad body", f"body.{key}: expected it once, found it twice")
        values[key] = None
        if key != "songs":
            values[key] = reader.scalar(key)
            continue
        for place, is_plain in reader.songs():
            if len(song_ids) == max_songs:
                raise Refusal(413, "too many songs", f"songs: expected at most {max_songs} in a request, found more")
            song_id, song = _song(body, place, is_plain, f"body.songs[{len(song_ids)}]")
            try:
                sound.append(as_segments(song, song_id))
            except SongError as error:  # Not for long: its traceback holds all that is here.
                errors[len(song_ids)] = SongError(*error.args)
            song_ids.append(song_id)
    if "songs" not in values:
        raise Refusal(422, "bad body", "body.songs: expected a list of songs, found none")
    counted(len(song_ids), max_songs)
    return SongsIn(
        song_ids, Songs.of(sound), errors, values.get("mode"), values.get("threshold"), values.get("features")
    )


def _refuse_more(body: bytes, place: slice = slice(None), **most: int) -> None:
    """Refuse a text with more of some marks than songs have; to count them in 32 MB takes a few milliseconds."""
    n_bytes = len(range(*place.indices(len(body))))
    for name, bound in most.items():
        if bound >= n_bytes:
            continue
        found = sum(_count(body, mark, place) for mark in MARKS[name])
        if found > bound:
            raise Refusal(422, "bad body", f"body: expected at most {bound} {name} in {n_bytes} bytes, found {found}")


class _Reader:
    """Finds where things are in a body, and builds none of them."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def each_key(self) -> Iterator[str]:
        """Yield each key of the body's object; whoever gets one reads its value before the next."""
        if not self._takes(b"{"):
            raise self._unexpected("body", "an object")
        more = not self._takes(b"}")
        while more:
            found = KEY.match(self._body, self._at)
            if found is None:
                raise self._malformed()
            self._at = found.end()
            yield str(self._small(found[1]))
            more = self._takes(b",")
            if not (more or self._takes(b"}")):
                raise self._malformed()
        if self._at != len(self._body):
            raise self._malformed()

    def scalar(self, key: str) -> Any:
        """Return the value of a key; a list or an object cannot be one."""
        if self._next() in (b"[", b"{"):
            if key == "features":
                raise self._unexpected("body.features", "a string")
            dial(**{"mode": None, "threshold": None, key: self._next()})
        found = SCALAR.match(self._body, self._at)
        if found is None:
            raise self._malformed()
        self._at = found.end()
        return self._small(found[1])

    def songs(self) -> Iterator[tuple[slice, bool]]:
        """Yield where each song of a list is, and whether it surely has three texts, without escapes."""
        if not self._takes(b"["):
            raise self._unexpected("body.songs", "a list")
        more, place = not self._takes(b"]"), 0
        while more:
            self._space()
            if self._next() != b"{":
                raise self._unexpected(f"body.songs[{place}]", "an object with id and segments")
            start = self._at
            self._at, is_plain = self._end_of_object()
            yield slice(start, self._at), is_plain
            place += 1
            more = self._takes(b",")
            if not (more or self._takes(b"]")):
                raise self._malformed()

    def _end_of_object(self) -> tuple[int, bool]:
        start = self._at
        end = self._body.find(b"}", start) + 1
        # Six quotes before the brace: it is in no text.
        if (
            self._body.find(b"{", start + 1, end) < 0
            and self._body.find(b"\\", start, end) < 0
            and _count(self._body, b'"', slice(start, end)) == 6
        ):
            return end, True
        depth = 0
        for found in TEXT_OR_BRACE.finditer(self._body, start):
            depth += {b"{": 1, b"}": -1}.get(found[0], 0)
            if not depth:
                return found.end(), False
        raise self._malformed()

    def _small(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._malformed() from None

    def _space(self) -> None:
        self._at = SPACE.match(self._body, self._at).end()  # type: ignore[union-attr]

    def _takes(self, mark: bytes) -> bool:
        """Pass over a mark, with what space is around it, and tell whether it is there."""
        self._space()
        if self._next() != mark:
            return False
        self._at += 1
        self._space()
        return True

    def _next(self) -> bytes:
        return self._body[self._at : self._at + 1]

    def _unexpected(self, where: str, expected: str) -> Refusal:
        found = FOUND.get(self._next())
        if found is None or (where == "body" and not _is_json(self._body)):
            return self._malformed()
        return Refusal(422, "bad body", f"{where}: expected {expected}, found {found}")

    def _malformed(self) -> Refusal:
        return malformed(self._at)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body[:PIECE_BYTES])
    except (ValueError, RecursionError):
        return len(body) > PIECE_BYTES
    return True


def malformed(at: int) -> Refusal:
    """Return the refusal of a body that is not JSON from a place on."""
    return Refusal(400, "malformed body", f"body: expected JSON, found something else at character {at}")


def _song(body: bytes, place: slice, is_plain: bool, where: str) -> tuple[str, Any]:
    """Return the id of a song and its segments, (T, 25) where they are rows of 25 numbers."""
    if place.stop - place.start > PIECE_BYTES:
        return _long_song(body, place, where)
    text = body[place]
    found = _plain_song(text) if is_plain else None
    if found is not None:
        return found
    song = _parsed(text, where) if is_plain else _parsed_once(text, where)
    return _id(song, where), _booleans_kept(song["segments"])


def _long_song(body: bytes, place: slice, where: str) -> tuple[str, Any]:
    """Return the same of a song whose text is long; no copy of it is made."""
    n_bytes = place.stop - place.start
    _refuse_more(body, place, brackets=n_bytes // BYTES_A_BRACKET + SPARE_MARKS)
    key = SEGMENTS.search(body, place.start, place.stop)
    if key is None:
        raise Refusal(422, "bad body", f"{where}: expected an object with id and segments, found a large one without")
    start = key.end()
    quote = body.find(b'"', start, place.stop)
    end = body.rfind(b"]", start, quote if quote >= 0 else place.stop)
    if end < 0 or n_bytes - (end - start) > PIECE_BYTES:
        raise _no_rows(where)
    song = _parsed_once(body[place.start : start] + body[end : place.stop], where)
    return _id(song, where), _long(body, start, end, where)


def _long(body: bytes, at: int, last: int, where: str) -> Any:
    """Return the segments of a long song, (T, 25), from the text of its rows; a part of them that are none."""
    segments = np.empty((_count(body, b",", slice(at, last)) // N_FEATURES + 1, N_FEATURES), np.float32)
    n_rows = 0
    while at < last:
        end = body.find(b"]", at + PIECE_BYTES, min(at + 2 * PIECE_BYTES, last)) + 1
        if not end:
            if last - at > 2 * PIECE_BYTES:  # No row of 25 numbers is that long.
                raise _no_rows(where)
            end = last
        piece = b"[" + body[at:end] + b"]"
        part = _plain_rows(piece)
        if part is None:
            try:
                odd = _booleans_kept(_parsed(piece, where))
            except Refusal:
                raise _no_rows(where) from None
            try:  # Numbers past a double's range, say.
                part = as_segments(odd, "")
            except SongError:
                return odd
        segments[n_rows : n_rows + len(part)] = part
        n_rows += len(part)
        at = SPACE.match(body, end, last).end()  # type: ignore[union-attr]
        if at < last:
            at += 1
            if body[at - 1 : at] != b"," or at == last:
                raise _no_rows(where)
    return segments[:n_rows] if n_rows else []


def _no_rows(where: str) -> Refusal:
    return Refusal(422, "bad body", f"{where}.segments: expected rows of {N_FEATURES} numbers, found something else")


def _parsed(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:  # Python's reader takes NaN and 1e400, so that only the song which has them is refused.
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(400, "malformed body", f"{where}: expected JSON, found something else") from None


def _parsed_once(text: bytes, where: str) -> Any:
    """Return a parsed object; a `Refusal` if a key of it is there twice."""
    keys = 0

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys = len(pairs)  # Of the outermost object in the end.
        return dict(pairs)

    try:
        song = json.loads(text, object_pairs_hook=noted)
    except (ValueError, RecursionError):
        raise Refusal(400, "malformed body", f"{where}: expected JSON, found something else") from None
    if len(song) != keys:
        raise Refusal(422, "bad body", f"{where}: expected each key once, found one twice")
    return song


def _id(song: Any, where: str) -> str:
    for name in ("id", "segments"):
        if name not in song:
            raise Refusal(422, "bad body", f"{where}.{name}: expected one, found none")
    if len(song) > 2:
        raise Refusal(422, "bad body", f"{where}: expected id and segments, found another key")
    song_id = song["id"]
    if not isinstance(song_id, str):
        found = FOUND[orjson.dumps(song_id)[:1]]
        raise Refusal(422, "bad body", f"{where}.id: expected a string, found {found}")
    try:
        song_id.encode()
    except UnicodeEncodeError:  # Python's reader lets half a surrogate pair in, and no answer can carry it out.
        raise Refusal(422, "bad body", f"{where}.id: expected text, found half a surrogate pair") from None
    return song_id


class _Scratch(threading.local):
    """What simdjson parses into: one a thread, used again, of some megabytes at most."""

    def __init__(self) -> None:
        self.parser: Any = simdjson.Parser()  # Its types say less than its results do.


_scratch = _Scratch()
_ODD = (TypeError, ValueError, RuntimeError, KeyError)  # What simdjson raises, of one thing and another.


def _plain_body(body: bytes, max_songs: int) -> tuple[list[str], list[Floats], dict[str, Any]] | None:
    """Return ids, segments and what else is in a small body that is as plain as most are; None if it is odd."""
    if body[:1] == b"\xef":  # A byte-order mark, which simdjson passes over.
        return None
    try:
        found = _scratch.parser.parse(body)
        rest = {key: found[key] for key in ("threshold", "mode", "features") if key in found}
        songs = found["songs"]
        is_plain = 0 < len(songs) <= max_songs and len(found) == 1 + len(rest)
        if not is_plain or any(isinstance(value, simdjson.Array | simdjson.Object) for value in rest.values()):
            return None
        pairs = [_id_and_rows(song) for song in songs]
        if _count(body, b"[") != 1 + sum(len(rows) + 1 for _, rows in pairs):
            return None
        return [song_id for song_id, _ in pairs], [_matrix(rows) for _, rows in pairs], rest
    except _ODD:
        return None


def _plain_song(text: bytes) -> tuple[str, Floats] | None:
    """Return the id of a song and its segments, (T, 25), with none of Python's objects between; None if it is odd.

    A song is odd that is not an id and some rows of 25 numbers that a double holds; whoever reads it then says how.
    """
    try:
        song_id, rows = _id_and_rows(_scratch.parser.parse(text))
        return (song_id, _matrix(rows)) if _count(text, b"[") == len(rows) + 1 else None
    except _ODD:
        return None


def _plain_rows(text: bytes) -> Floats | None:
    """Return a list of rows of 25 numbers as (T, 25); None if it is anything else."""
    try:
        rows = _scratch.parser.parse(text)
        return _matrix(rows) if _count(text, b"[") == len(rows) + 1 else None
    except _ODD:
        return None


def _id_and_rows(song: Any) -> tuple[str, Any]:
    song_id, rows = song["id"], song["segments"]
    if len(song) != 2 or not isinstance(song_id, str):
        raise ValueError
    return song_id, rows


def _matrix(rows: Any) -> Floats:
    """Return rows of 25 numbers as (T, 25), if none of them is a list, which whoever calls this has counted."""
    if not len(rows) or any(len(row) != N_FEATURES for row in rows):
        raise ValueError
    # A `TypeError` where there are booleans, nulls or texts. Lists within a row would come out flat.
    numbers = np.frombuffer(rows.as_buffer(of_type="d"))
    with np.errstate(over="ignore"):
        return numbers.reshape(-1, N_FEATURES).astype(np.float32)


def _count(text: bytes, mark: bytes, place: slice = slice(None)) -> int:
    """Return how often a byte is in a text, in a quarter of the time that `bytes.count` takes."""
    found = np.frombuffer(text, np.uint8)[place]
    pieces = (found[at : at + PIECE_BYTES] for at in range(0, len(found), PIECE_BYTES))
    return sum(int(np.count_nonzero(piece == mark[0])) for piece in pieces)


def _booleans_kept(segments: Any) -> Any:
    """Return a song as objects if it has a boolean, so that the check of songs sees it."""
    rows = segments if isinstance(segments, list) else []
    if any(isinstance(value, bool) for row in rows if isinstance(row, list) for value in row):
        try:
            return np.array(segments, dtype=object)
        except ValueError:
            return segments  # Ragged, which is refused too.
    return segments
