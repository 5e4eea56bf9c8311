"""The JSON documents of a file: one, or one on a line; as they are, or packed by gzip.

A document of n bytes takes at most 20 n bytes of memory: one with more brackets than audio analyses have is not parsed,
and one that unpacks to far more than its file is not unpacked.
"""

import gzip
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

from segue.data.sources.source import damage_named, starts_with
from segue.errors import SongError

BLANKS = b"\xef\xbb\xbf \t\r\n"  # With the byte order mark that some editors put first.
GZIP = b"\x1f\x8b"
LARGEST = 2**28  # Bytes of a document: an analysis of seven hours has 40 MB.
UNPACKED_BYTES, UNPACKED_TIMES = 2**20, 100  # What a packed document may unpack to, of itself and by its size.
BYTES_A_BRACKET = 8  # At least, on average; an analysis has 30 and more.


def holds_json(file: Path) -> bool:
    """Tell whether a file begins like a JSON object or list."""
    try:
        with damage_named(str(file)), _opened(file) as stream:
            head = stream.read(4096)
            return head.decode(json.detect_encoding(head), "replace").lstrip("\ufeff \t\r\n").startswith(("{", "["))
    except SongError:
        return False


def holds_lines(file: Path, named_so: bool) -> bool:
    """Tell by its first two lines whether a file has one document a line.

    Within one object or list, no line that begins with a bracket follows one that ends with a bracket. A file that is
    `named_so` has one a line unless it clearly has not.
    """
    try:
        with damage_named(str(file)), _opened(file) as stream:
            lines = iter(lambda: stream.readline(_most(file)), b"")
            filled = filter(None, (line.strip(BLANKS) for line in lines))
            first, second = next(filled, b""), next(filled, b"")
    except SongError:
        return named_so
    closed, opened = first.endswith((b"}", b"]")), second.startswith((b"{", b"["))
    if named_so:
        return closed or (opened and first not in (b"{", b"[")) or not second
    return closed and opened


def read_documents(file: Path, one_a_line: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the documents of a file, each with the number of its line; blank lines are none.

    Raises:
        SongError: the file cannot be read, or a document is too large.
    """
    most = _most(file)
    with damage_named("not a readable file"), _opened(file) as stream:
        for number in count(1):
            text = stream.readline(most + 1) if one_a_line else stream.read(most + 1)
            if len(text) > most:
                raise SongError(
                    f"expected a document of at most {most} bytes, found a larger one. A file with one analysis on a "
                    "line (.jsonl) may have any size"
                )
            if not one_a_line or text.strip(BLANKS):
                yield number, text
            if not one_a_line or not text:
                return


def parse(text: bytes) -> tuple[Any, bool]:
    """Return what a document says, and whether some bytes of it are not UTF-8; U+FFFD stands for those.

    Raises:
        SongError: it is not JSON, or has more brackets than audio analyses have.
    """
    what = "not a readable audio analysis in JSON"
    brackets = text.count(b"[") + text.count(b"{")
    if brackets > 1000 + len(text) / BYTES_A_BRACKET:
        raise SongError(f"{what}: {brackets} brackets in {len(text)} bytes")
    try:
        try:
            return json.loads(text), False
        except UnicodeDecodeError:
            return json.loads(text.decode(json.detect_encoding(text), "replace")), True
    except (ValueError, RecursionError) as error:
        advice = ". One analysis on a line needs a file that ends in .jsonl" if "Extra data" in str(error) else ""
        raise SongError(f"{what}, it may be cut short: {error}{advice}") from None


def _opened(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file)) if starts_with(file, GZIP) else file.open("rb")


def _most(file: Path) -> int:
    return min(LARGEST, UNPACKED_BYTES + UNPACKED_TIMES * file.stat().st_size) if starts_with(file, GZIP) else LARGEST
