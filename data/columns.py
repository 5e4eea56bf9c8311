"""Songs from Arrow data that nobody has checked: a table's file, or a request's body.

pyarrow checks nothing when it opens a file or a stream: offsets past the end of a buffer, or lists of no width, reach
its C++ code as they are. Here the types are checked first, then lengths and offsets against the buffers, and only then
are values read. Columns that a song table does not have are never touched. What is read takes at most 12 times the
bytes that it is read from, plus 1 kB of text a song and column.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segue.data.song import N_FEATURES, WINDOW, Floats, Ints
from segue.errors import SongError

SEGMENTS = pa.list_(pa.list_(pa.float32(), N_FEATURES))
FLAT_WINDOW = pa.list_(pa.float32(), WINDOW * N_FEATURES)
TEXTS = ("song_id", "label", "group", "second_label", "split")
TEXT_BYTES = 1024  # Of a text that may be stored once for many songs, a dictionary's or a view's; on average.


@dataclass(frozen=True)
class SongColumns:
    """The songs of a record batch, checked but for the values of their segments."""

    texts: dict[str, pa.StringArray]  # song_id, none null; the other texts where there is such a column.
    segments: Floats  # (sum of lengths, 25); a view of the batch where its type is one of the canonical two.
    lengths: Ints  # (n_songs,), in segments; 0 where the song has a fault.
    faults: dict[int, str]  # What is wrong with the form of a song, by its row.


def check_schema(schema: pa.Schema) -> None:
    """Check which columns there are and what they hold; reads no value.

    Raises:
        SongError: a column is missing or there twice, or is of a type that a song table's cannot be.
    """
    try:
        names = schema.names
    except UnicodeDecodeError:
        raise SongError("expected names of columns in UTF-8, found others") from None
    for name in ("song_id", "segments"):
        if name not in names:
            raise SongError(f"expected a column {name!r}, found {', '.join(names)[:200] or 'none'}")
    for name in {"segments", *TEXTS} & set(names):
        if names.count(name) > 1:
            raise SongError(f"column {name!r}: expected one, found {names.count(name)}")
        found = schema.field(name).type
        if name in TEXTS and not _is_text(found):
            raise SongError(f"column {name!r}: expected type string, found {shown(found)}")
    segments = schema.field("segments").type
    if not _is_song(segments):
        raise SongError(
            f"column 'segments': expected type {SEGMENTS} or {FLAT_WINDOW}, or lists of lists of {N_FEATURES} or of "
            f"{WINDOW * N_FEATURES} numbers, found {shown(segments)}"
        )


def song_columns(batch: pa.RecordBatch) -> SongColumns:
    """Return the songs of `batch`, after a check of its schema, its lengths and every offset.

    Raises:
        SongError: the schema is not that of a song table, a length or an offset lies, or an id is null or not UTF-8.
    """
    check_schema(batch.schema)
    kept = batch.select([name for name in batch.schema.names if name in {"segments", *TEXTS}])
    check_buffers(kept)
    segments, lengths, faults = _songs(kept.column("segments"))
    return SongColumns(texts_of(kept), segments, lengths, faults)


def check_buffers(batch: pa.RecordBatch) -> None:
    """Check every length and offset of a batch against its buffers, and that text is UTF-8; `SongError` if not."""
    try:
        batch.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise SongError(f"expected sound Arrow data, found lengths, offsets or text that are not: {error}") from None


def texts_of(batch: pa.RecordBatch) -> dict[str, pa.StringArray]:
    """Return the columns of text that a batch with checked buffers has, by name, as strings; a null id is a fault."""
    texts = {name: _text(name, batch.column(name)) for name in TEXTS if name in batch.schema.names}
    if texts["song_id"].null_count:
        raise SongError(f"column 'song_id': expected no nulls, found {texts['song_id'].null_count}")
    return texts


def shown(kind: pa.DataType) -> str:
    """Return a type's name for a message, cut short."""
    try:
        name = str(kind)
    except UnicodeDecodeError:  # of a field within it
        return f"a type with names that are not UTF-8, number {kind.id}"
    return name if len(name) <= 120 else f"{name[:120]}..."


# --- types ---


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type reads as strings, nulls allowed."""
    kind = _storage(kind)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in plain)


def _is_list(kind: pa.DataType) -> bool:
    variable = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(kind) for test in variable)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_song(kind: pa.DataType) -> bool:
    """Tell whether a value of this type can be a song: lists of lists of 25 numbers, or lists of 3,000 numbers."""
    kind = _storage(kind)
    fixed = pa.types.is_fixed_size_list(kind)
    if not (fixed or _is_list(kind)):
        return False
    inner = kind.value_type
    if _is_number(inner):
        return not fixed or kind.list_size == WINDOW * N_FEATURES
    widths = inner.list_size == N_FEATURES if pa.types.is_fixed_size_list(inner) else _is_list(inner)
    return bool(widths and _is_number(inner.value_type) and (not fixed or kind.list_size > 0))


# --- text ---


def _text(name: str, column: pa.Array) -> pa.StringArray:
    """Return a column of text as strings; few bytes that stand for much text are refused first."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.string())
    try:
        if pa.types.is_dictionary(column.type):
            entries = _strings(name, column.dictionary)
            text_bytes = pc.sum(pc.binary_length(entries).take(column.indices)).as_py() or 0
            _limit(name, text_bytes, len(column))
            return entries.take(column.indices)
        return _strings(name, column)
    except pa.ArrowException as error:
        raise SongError(f"column {name!r}: expected text, found what cannot be read as it: {error}") from None


def _strings(name: str, column: pa.Array) -> pa.StringArray:
    if pa.types.is_string_view(column.type):
        views = np.frombuffer(column.buffers()[1], np.int32).reshape(-1, 4)[column.offset :][: len(column)]
        _limit(name, int(views[:, 0].sum(dtype=np.int64)), len(column))
    return column.cast(pa.string())


def _limit(name: str, text_bytes: int, count: int) -> None:
    if text_bytes > TEXT_BYTES * count:
        raise SongError(f"column {name!r}: expected at most {TEXT_BYTES} bytes a song, found {text_bytes // count}")


# --- segments ---


@dataclass(frozen=True)
class _Lists:
    """An array of lists: where each lies in the array of their values."""

    values: pa.Array
    starts: Ints
    ends: Ints
    nulls: NDArray[np.bool_]


NULL, HAS_NULLS = -1, -2  # In place of a list's width.


def _songs(column: pa.Array) -> tuple[Floats, Ints, dict[int, str]]:
    """Return the segments of all songs in good form, how many each has, and what is wrong with the others."""
    songs = _lists(column)
    if _is_number(songs.values.type):
        width = WINDOW * N_FEATURES
        numbers, widths = _rows(songs, width)
        faults = {int(row): _fault(width, widths[row]) for row in np.flatnonzero(widths != width)}
        return numbers.reshape(-1, N_FEATURES), np.where(widths == width, WINDOW, 0), faults
    faults = {int(row): "expected segments, found null" for row in np.flatnonzero(songs.nulls)}
    lengths = np.where(songs.nulls, 0, songs.ends - songs.starts)
    if _is_sound(songs.values):
        segments = _floats(songs.values.flatten()).reshape(-1, N_FEATURES)
        return _joined(segments, songs.starts, lengths), lengths, faults
    segments, widths = _rows(_lists(songs.values), N_FEATURES)
    whole = np.concatenate([[0], np.cumsum(widths == N_FEATURES)])  # Whole segments before each segment.
    starts = whole[songs.starts]
    in_part = whole[songs.starts + lengths] - starts != lengths
    for row in np.flatnonzero(in_part):
        at = int(np.argmax(widths[songs.starts[row] : songs.ends[row]] != N_FEATURES))
        faults[int(row)] = f"segment {at}: {_fault(N_FEATURES, widths[songs.starts[row] + at])}"
    lengths[in_part] = 0
    return _joined(segments, starts, lengths), lengths, faults


def _is_sound(segments: pa.Array) -> bool:
    """Tell whether all lists of an array are of 25 numbers by their type, which is quick to see, and none is null."""
    fixed = pa.types.is_fixed_size_list(segments.type)
    return bool(fixed and not segments.null_count and not segments.values.null_count)


def _rows(lists: _Lists, width: int) -> tuple[Floats, Ints]:
    """Return the lists of `width` numbers, (n, width), and the width of every list, of the others too."""
    widths = np.where(lists.nulls, NULL, lists.ends - lists.starts)
    if lists.values.null_count:
        nulls = np.concatenate([[0], np.cumsum(lists.values.is_null().to_numpy(zero_copy_only=False))])
        widths[(nulls[lists.ends] > nulls[lists.starts]) & ~lists.nulls] = HAS_NULLS
    kept = np.where(widths == width, width, 0)
    return _joined(_floats(lists.values), lists.starts, kept).reshape(-1, width), widths


def _floats(numbers: pa.Array) -> Floats:
    """Return numbers as float32; what is beyond it becomes infinite, which no song may be."""
    with np.errstate(over="ignore", invalid="ignore"):
        floats: Floats = numbers.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return floats


def _joined(values: Floats, starts: Ints, lengths: Ints) -> Floats:
    """Return parts of `values` one after the other; a view where that is how they lie."""
    kept = lengths > 0
    starts, lengths = starts[kept], lengths[kept]
    if not len(starts):
        return values[:0]
    if np.array_equal(starts[1:], starts[:-1] + lengths[:-1]):
        view: Floats = values[starts[0] : starts[-1] + lengths[-1]]
        return view
    before = np.cumsum(lengths) - lengths
    joined: Floats = values[np.repeat(starts - before, lengths) + np.arange(lengths.sum())]
    return joined


def _lists(array: pa.Array) -> _Lists:
    """Return where the lists of an array of any type of lists lie."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_fixed_size_list(array.type):
        starts = (array.offset + np.arange(len(array))) * array.type.list_size
        ends = starts + array.type.list_size
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        offsets = array.offsets.to_numpy().astype(np.int64)
        starts, ends = offsets[:-1], offsets[1:]
    else:  # Views, which pyarrow casts wrongly.
        starts = array.offsets.to_numpy().astype(np.int64)
        ends = starts + array.sizes.to_numpy()
        if (ends - starts).sum() > len(array.values):
            raise SongError("column 'segments': expected lists that share no values, found views that overlap")
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    return _Lists(array.values, starts, ends, nulls)


def _fault(expected: int, width: int) -> str:
    found = {NULL: "null", HAS_NULLS: "a null among them"}.get(int(width), str(width))
    return f"expected {expected} numbers, found {found}"
