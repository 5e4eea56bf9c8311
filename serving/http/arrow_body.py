"""Songs in an Arrow IPC stream: the columns that a song table in a file may have, checked in the same way."""

import struct

import numpy as np
import pyarrow as pa

from segue.data.columns import SongColumns, check_schema, song_columns
from segue.data.song import N_FEATURES, Songs
from segue.errors import SongError
from segue.serving.http.refusal import Refusal
from segue.serving.http.songs_in import SongsIn, counted, numbers_counted

SPARE_MESSAGES = 64  # Beside one a song: the schema, dictionaries, empty batches.


def read_arrow(body: bytes, max_songs: int) -> SongsIn:
    """Read the song table (song_id, segments) of a stream; a `Refusal` if it is not one."""
    try:
        parts, metadata = _columns(body, max_songs)
    except (pa.ArrowException, OSError, ValueError, struct.error):
        raise Refusal(
            400, "malformed body", "body: expected an Arrow IPC stream, found one that cannot be read"
        ) from None
    except SongError as error:
        raise Refusal(422, "bad body", f"body: {error}") from None
    song_ids: list[str] = [song_id for part in parts for song_id in part.texts["song_id"].to_pylist()]
    counted(len(song_ids), max_songs)
    lengths = np.concatenate([part.lengths for part in parts])
    firsts = np.cumsum([0, *(len(part.lengths) for part in parts)])
    faults = {
        int(first) + row: fault
        for first, part in zip(firsts, parts, strict=False)
        for row, fault in part.faults.items()
    }
    empty = "expected at least one segment, found none"
    errors = {
        int(row): SongError(f"song {song_ids[row]!r}: {faults.get(int(row), empty)}")
        for row in np.flatnonzero(lengths == 0)
    }
    whole = np.flatnonzero(lengths)
    segments = parts[0].segments if len(parts) == 1 else np.concatenate([part.segments for part in parts])
    # A song table that does not say is of a time when all were the Echo Nest's.
    features = metadata.get("segue.features", "echonest" if "segue.units" in metadata else None)
    return SongsIn(
        song_ids, Songs(segments, lengths[whole]), errors, features=features, units=metadata.get("segue.units")
    )


def _columns(body: bytes, max_songs: int) -> tuple[list[SongColumns], dict[str, str]]:
    _check_messages(body, max_songs)
    with pa.ipc.open_stream(body) as stream:
        check_schema(stream.schema)
        metadata = stream.schema.metadata or {}
        parts, found = [], 0
        for batch in stream:
            found += batch.num_rows
            if found > max_songs:
                counted(found, max_songs)
            if batch.num_rows:
                numbers_counted(_most_numbers(batch))
                parts.append(song_columns(batch))
    counted(found, max_songs)
    return parts, {name.decode(errors="replace"): value.decode(errors="replace") for name, value in metadata.items()}


def _most_numbers(batch: pa.RecordBatch) -> int:
    """Return how many numbers a batch's segments have; every row counts for 25 at least, an empty one too."""
    values = batch.column("segments").values
    if not pa.types.is_nested(values.type):
        return len(values)
    return max(len(values) * N_FEATURES, len(values.values))


def _check_messages(body: bytes, max_songs: int) -> None:
    """Refuse too many batches, and compressed ones, whose size is known only once they are in memory.

    Reads the flatbuffers of https://arrow.apache.org/docs/format/Columnar.html, since pyarrow does not say.
    """
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(body)):
        if number > max_songs + SPARE_MESSAGES:
            raise Refusal(422, "bad body", f"body: expected at most {max_songs + SPARE_MESSAGES} batches, found more")
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
