"""Where the segments of a batch lie in an Arrow IPC file, from its metadata alone.

pyarrow reads a batch whole, or maps the file. With these places the numbers stay on the disk until they are asked for,
and are read and never mapped. The metadata are flatbuffers:
https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format, https://flatbuffers.dev/internals.
"""

import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.song import N_FEATURES, WINDOW, Ints
from segue.errors import SongError

MAGIC = b"ARROW1"
TAIL = struct.Struct("<i6s")  # Length of the footer, magic.
BLOCK_BYTES, RECORD_BATCH, CONTINUATION = 24, 3, 0xFFFFFFFF
SEGMENT_BYTES = N_FEATURES * 4


class Bytes(Protocol):
    """A file that is read at any place."""

    size: int

    def read(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on; a `SongError` where the file ends before."""


@dataclass(frozen=True)
class Batch:
    """A record batch."""

    n_rows: int  # As it says.
    buffers: Ints  # Where they lie in the file: (n_buffers, 2), position and length in bytes.
    compressed: bool


@dataclass(frozen=True)
class Place:
    """Where the segments of a batch are: song k has those from offsets[k] up to offsets[k + 1]."""

    position: int  # Of the first number, in bytes.
    offsets: Ints  # (n_songs + 1,), in segments


def read_batches(file: Bytes) -> list[Batch]:
    """Return the record batches of an Arrow IPC file; none where its numbers have the other byte order."""
    length, magic = TAIL.unpack(file.read(file.size - TAIL.size, TAIL.size))
    if magic != MAGIC or not 0 < length < file.size:
        raise SongError("the file cannot be read, it may be cut short: it has no footer")
    footer = file.read(file.size - TAIL.size - length, length)
    root = _target(footer, 0)
    endianness = _field(footer, _target(footer, _field(footer, root, 1)), 0)
    if endianness and struct.unpack_from("<h", footer, endianness)[0] != 0:
        return []
    start, count = _vector(footer, _field(footer, root, 3))
    blocks = (struct.unpack_from("<qi4xq", footer, start + i * BLOCK_BYTES) for i in range(count))
    return [_read_batch(file.read(position, length), position + length) for position, length, _ in blocks]


def _read_batch(message: bytes, body: int) -> Batch:
    start = 8 if struct.unpack_from("<I", message)[0] == CONTINUATION else 4
    root = _target(message, start)
    kind = _field(message, root, 1)
    if not kind or message[kind] != RECORD_BATCH:
        raise SongError("the file cannot be read: its footer leads to what is no record batch")
    header = _target(message, _field(message, root, 2))
    start, count = _vector(message, _field(message, header, 2))
    buffers = np.frombuffer(message, "<i8", 2 * count, start).reshape(-1, 2) + np.array([body, 0])
    rows = _field(message, header, 0)
    n_rows = struct.unpack_from("<q", message, rows)[0] if rows else 0
    return Batch(n_rows, buffers, compressed=bool(_field(message, header, 3)))


def place_of(file: Bytes, batch: Batch, schema: pa.Schema, n_songs: int) -> Place | None:
    """Return where the segments of a batch are; None where its type, compression or nulls make it no matter of places.

    Raises:
        SongError: an offset or a length lies.
    """
    before = schema.names[: schema.names.index("segments")]
    counts = [_buffers_of(schema.field(i).type) for i in range(len(before))]
    kind = schema.field("segments").type
    if batch.compressed or 0 in counts or not (kind.equals(SEGMENTS) or kind.equals(FLAT_WINDOW)):
        return None
    first = sum(counts)
    if kind.equals(FLAT_WINDOW):
        *nulls, values = batch.buffers[first : first + 3]
        offsets = np.arange(n_songs + 1) * WINDOW
    else:
        lists, starts, *nulls, values = batch.buffers[first : first + 5]
        nulls.append(lists)
        offsets = np.zeros(1, np.int64)
        if n_songs:
            offsets = np.frombuffer(_within(file, starts, 4 * (n_songs + 1)), "<i4").astype(np.int64)
    if any(length for _, length in nulls):
        return None
    if offsets[0] < 0 or (np.diff(offsets) < 0).any() or offsets[-1] * SEGMENT_BYTES > values[1]:
        raise SongError("expected sound Arrow data, found offsets of segments that lie")
    if values[0] < 0 or values.sum() > file.size:
        raise SongError("the file cannot be read, it may be cut short: segments lie beyond its end")
    return Place(int(values[0]), offsets)


def _within(file: Bytes, buffer: Ints, count: int) -> bytes:
    if not 0 <= count <= buffer[1]:
        raise SongError(f"expected sound Arrow data, found a buffer of {buffer[1]} bytes for {count}")
    return file.read(int(buffer[0]), count)


def _buffers_of(kind: pa.DataType) -> int:
    """Return how many buffers a column of a type has; 0 where that depends, or is not known here."""
    if pa.types.is_dictionary(kind) or pa.types.is_primitive(kind) or pa.types.is_boolean(kind):
        return 2
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return 3
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _buffers_of(kind.value_type)
        return inner and inner + (1 if pa.types.is_fixed_size_list(kind) else 2)
    return 0


def _field(buffer: bytes, table: int, number: int) -> int:
    """Return where a field of the table at `table` is; 0 where it has none."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    (vtable_bytes,) = struct.unpack_from("<H", buffer, vtable)
    at = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", buffer, vtable + at) if at < vtable_bytes else (0,)
    return table + int(offset) if offset else 0


def _target(buffer: bytes, at: int) -> int:
    """Return where the table or vector is that the offset at `at` leads to."""
    return at + int(struct.unpack_from("<I", buffer, at)[0])


def _vector(buffer: bytes, at: int) -> tuple[int, int]:
    """Return where the entries of the vector begin that the field at `at` leads to, and how many there are."""
    if not at:
        return 0, 0
    vector = _target(buffer, at)
    return vector + 4, struct.unpack_from("<I", buffer, vector)[0]
