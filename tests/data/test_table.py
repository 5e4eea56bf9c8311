"""The song table: what is written is what is read, and a bad file is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.song import Floats
from segue.data.table import SongTable, SongWriter, write_table
from segue.errors import LabelError, SongError
from tests.support.random_songs import random_batch, random_segments, save

RAW = {"segue.units": "raw"}
FIRST = random_batch([3, 120, 1], labels=["Jazz", None, "Rock"], groups=["Ella", "Nina", None], seed=1)
SECOND = random_batch([7, 2], labels=["Folk", "Jazz"], groups=["Nina", None], seed=2)

formats = pytest.mark.parametrize("name", ["songs.arrow", "songs.parquet"])


def arrow_file(path: Path, columns: dict[str, Any], metadata: dict[str, str] = RAW) -> Path:
    """Write columns to an Arrow file, with pyarrow alone."""
    table = pa.table(columns).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return path


def nested(*songs: Floats) -> pa.Array:
    return pa.array([song.tolist() for song in songs], SEGMENTS)


def write_and_stop(table: SongWriter, interruption: type[BaseException]) -> None:
    table.write(SECOND)
    raise interruption


def sound_columns() -> dict[str, Any]:
    return {
        "song_id": pa.array(["a", "b"]),
        "segments": nested(random_segments(2), random_segments(3)),
        "label": pa.array(["Jazz", None]),
        "group": pa.array([None, "Nina"]),
    }


@formats
def test_pyarrow_reads_what_was_written_value_by_value(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, FIRST, SECOND)
    if name.endswith(".parquet"):
        rows = pq.read_table(tmp_path / name).to_pylist()
    else:
        rows = pa.ipc.open_file(str(tmp_path / name)).read_all().to_pylist()
    assert [row["song_id"] for row in rows] == FIRST.song_ids + SECOND.song_ids
    assert [row["label"] for row in rows] == ["Jazz", None, "Rock", "Folk", "Jazz"]
    assert [row["group"] for row in rows] == ["Ella", "Nina", None, "Nina", None]
    assert [len(row["segments"]) for row in rows] == [3, 120, 1, 7, 2]
    written = np.concatenate([FIRST.songs.segments, SECOND.songs.segments])
    np.testing.assert_array_equal([segment for row in rows for segment in row["segments"]], written)


@formats
def test_a_table_reads_back_what_was_written(tmp_path: Path, name: str) -> None:
    table = save(tmp_path / name, FIRST, SECOND, units="standardised")
    assert (len(table), table.units, table.classes) == (5, "standardised", ("Folk", "Jazz", "Rock"))
    assert table.song_ids == FIRST.song_ids + SECOND.song_ids
    assert table.labels.tolist() == [1, -1, 2, 0, 1]
    assert table.groups == ["Ella", "Nina", None, "Nina", None]
    assert table.lengths.tolist() == [3, 120, 1, 7, 2]
    written = np.split(np.concatenate([FIRST.songs.segments, SECOND.songs.segments]), [3, 123, 124, 131])
    for row, song in enumerate(table.songs(range(5))):
        np.testing.assert_array_equal(song, written[row])
        np.testing.assert_array_equal(table.segments(row), written[row])


@formats
def test_a_table_of_no_songs_is_a_table(tmp_path: Path, name: str) -> None:
    table = save(tmp_path / name, classes=["Jazz", "Folk"])
    assert (len(table), table.classes, table.lengths.tolist()) == (0, ("Jazz", "Folk"), [])
    assert len(table.songs([])) == 0


def test_a_batch_taken_from_a_table_and_one_taken_from_memory_agree(tmp_path: Path) -> None:
    from_table = save(tmp_path / "songs.arrow", FIRST).batch([2, 0])
    from_memory = FIRST.take([2, 0])
    assert from_table.song_ids == from_memory.song_ids == ["song-1-2", "song-1-0"]
    assert from_table.labels == from_memory.labels == ["Rock", "Jazz"]
    assert from_table.groups == from_memory.groups == [None, "Ella"]
    assert from_table.songs.lengths.tolist() == from_memory.songs.lengths.tolist() == [1, 3]
    np.testing.assert_array_equal(from_table.songs.segments, FIRST.songs.segments[[123, 0, 1, 2]])
    np.testing.assert_array_equal(from_memory.songs.segments, FIRST.songs.segments[[123, 0, 1, 2]])


def test_the_order_of_the_classes_is_kept(tmp_path: Path) -> None:
    table = save(tmp_path / "songs.arrow", FIRST, classes=["Rock", "Jazz", "Blues"])
    assert (table.classes, table.labels.tolist()) == (("Rock", "Jazz", "Blues"), [1, -1, 0])


def test_labels_can_be_counted_in_another_order(tmp_path: Path) -> None:
    table = save(tmp_path / "songs.arrow", FIRST)
    assert table.labels_among(["Folk", "Rock", "Jazz"]).tolist() == [2, -1, 1]


def test_a_label_outside_the_expected_classes_is_refused(tmp_path: Path) -> None:
    table = save(tmp_path / "songs.arrow", FIRST)
    with pytest.raises(LabelError, match=r"songs\.arrow: labels Rock are not among the expected classes: Jazz, Folk"):
        table.labels_among(["Jazz", "Folk"])


def test_a_label_outside_the_classes_of_the_table_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="labels Rock are not among the table's classes: Jazz"):
        save(tmp_path / "songs.arrow", FIRST, classes=["Jazz"])


@formats
def test_windows_may_be_stored_as_3000_numbers(tmp_path: Path, name: str) -> None:
    songs = [random_segments(120, seed) for seed in range(3)]
    windows = pa.array([song.reshape(-1).tolist() for song in songs], FLAT_WINDOW)
    columns = pa.table({"song_id": ["a", "b", "c"], "segments": windows}).replace_schema_metadata(RAW)
    if name.endswith(".parquet"):
        pq.write_table(columns, tmp_path / name)
    else:
        arrow_file(tmp_path / name, dict(zip(columns.column_names, columns.columns, strict=True)))
    table = SongTable(tmp_path / name)
    assert table.lengths.tolist() == [120, 120, 120]
    np.testing.assert_array_equal(table.songs([2, 0, 1]), [songs[2], songs[0], songs[1]])


def test_part_of_a_larger_table_reads_well(tmp_path: Path) -> None:
    songs = [random_segments(length, length) for length in (4, 5, 6, 7)]
    columns = pa.table({"song_id": list("abcd"), "segments": nested(*songs)}).slice(1, 2)
    table = SongTable(arrow_file(tmp_path / "part.arrow", {name: columns[name] for name in columns.column_names}))
    for row, song in enumerate(songs[1:3]):
        np.testing.assert_array_equal(table.segments(row), song)


def test_labels_and_groups_may_be_left_out(tmp_path: Path) -> None:
    columns = sound_columns()
    del columns["label"], columns["group"]
    table = SongTable(arrow_file(tmp_path / "songs.arrow", columns))
    assert (table.labels.tolist(), table.groups, table.classes) == ([-1, -1], [None, None], ())


def test_labels_may_be_a_dictionary_column(tmp_path: Path) -> None:
    columns = sound_columns() | {"label": pa.array(["Rock", None]).dictionary_encode()}
    assert SongTable(arrow_file(tmp_path / "songs.arrow", columns)).classes == ("Rock",)


BAD_COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "no ids": ({"song_id": None}, "expected a column 'song_id', found segments, label, group"),
    "no segments": ({"segments": None}, "expected a column 'segments', found song_id, label, group"),
    "numbers for ids": ({"song_id": [1, 2]}, "column 'song_id': expected type string, found int64"),
    "segments of another shape": ({"segments": [[0.5], [0.5]]}, "song 'a': expected 3000 numbers, found 1"),
    "numbers for labels": ({"label": [1, 2]}, "column 'label': expected type string, found int64"),
    "numbers for groups": ({"group": [1, 2]}, "column 'group': expected type string, found int64"),
    "a null id": ({"song_id": ["a", None]}, "column 'song_id': expected no nulls, found 1"),
    "a null song": (
        {"segments": pa.array([None, [[0.5] * 25]], SEGMENTS)},
        "song 'a': expected segments, found null",
    ),
    "a null segment": (
        {"segments": pa.array([[None], [[0.5] * 25]], SEGMENTS)},
        "song 'a': segment 0: expected 25 numbers, found null",
    ),
    "a null number": (
        {"segments": pa.array([[[None] + [0.5] * 24], [[0.5] * 25]], SEGMENTS)},
        "song 'a': segment 0: expected 25 numbers, found a null among them",
    ),
    "a null number in a window": (
        {"segments": pa.array([[None] + [0.5] * 2999, [0.5] * 3000], FLAT_WINDOW)},
        "song 'a': expected 3000 numbers, found a null among them",
    ),
}


@pytest.mark.parametrize(("change", "complaint"), BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_a_table_that_breaks_the_schema_is_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    columns = {name: column for name, column in (sound_columns() | change).items() if column is not None}
    with pytest.raises(SongError) as raised:
        SongTable(arrow_file(tmp_path / "bad.arrow", columns))
    assert str(raised.value).startswith(str(tmp_path / "bad.arrow"))
    assert complaint in str(raised.value)


def test_a_bad_song_is_named_when_it_is_read(tmp_path: Path) -> None:
    bad = random_batch([4, 5, 6])
    bad.songs.segments[4 + 2, 12] = 1.5
    table = save(tmp_path / "songs.arrow", bad)
    with pytest.raises(SongError, match=r"songs\.arrow, song 'song-0-1', segment 2: .*between 0 and 1, found 1\.5"):
        table.songs([0, 1, 2])
    assert len(table.songs([0, 2])) == 2


def test_a_song_without_segments_is_named_when_it_is_read(tmp_path: Path) -> None:
    table = save(tmp_path / "songs.arrow", random_batch([4, 0, 6]))
    with pytest.raises(SongError, match="song 'song-0-1': expected at least one segment, found none"):
        table.songs([0, 1, 2])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SongError, match=r"gone\.arrow: expected a song table, found no such file"):
        SongTable(tmp_path / "gone.arrow")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"song_id,segments\n", "one that starts with b'song_id,'"),
        (b"\x89HDF\r\n\x1a\n", "one that starts with"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "songs.arrow").write_bytes(content)
    with pytest.raises(SongError, match=rf"songs\.arrow: expected an Arrow IPC or Parquet file, found {found}"):
        SongTable(tmp_path / "songs.arrow")


@formats
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    save(tmp_path / name, FIRST)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SongError, match=f"{name}: the file cannot be read, it may be cut short"):
        SongTable(tmp_path / name)


def test_a_table_that_does_not_say_its_units_is_refused_unless_they_are_given(tmp_path: Path) -> None:
    path = arrow_file(tmp_path / "songs.arrow", sound_columns(), metadata={})
    with pytest.raises(SongError, match=r"songs\.arrow: expected the metadata 'segue\.units' to say raw or"):
        SongTable(path)
    assert SongTable(path, units="raw").units == "raw"


def test_units_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    path = arrow_file(tmp_path / "songs.arrow", sound_columns(), metadata={"segue.units": "decibels"})
    with pytest.raises(SongError, match="found 'decibels'"):
        SongTable(path)


@formats
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_a_write_that_fails_leaves_the_old_table_and_nothing_else(
    tmp_path: Path, name: str, interruption: type[BaseException]
) -> None:
    save(tmp_path / name, FIRST)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(interruption), write_table(tmp_path / name, "raw") as table:
        write_and_stop(table, interruption)
    assert (tmp_path / name).read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_the_same_songs_have_the_same_fingerprint_and_others_another(tmp_path: Path) -> None:
    one, same, other = (save(tmp_path / name, batch) for name, batch in zip("abc", (FIRST, FIRST, SECOND), strict=True))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float64())),
        pa.large_list(pa.list_(pa.float32())),
        pa.list_(pa.list_(pa.float64(), 25)),
        pa.list_(pa.float32()),
        pa.list_(pa.float64(), 3000),
    ],
    ids=str,
)
def test_segments_in_other_nested_lists_are_understood(tmp_path: Path, kind: pa.DataType, suffix: str) -> None:
    songs = np.stack([random_segments(120, seed=seed) for seed in range(3)])
    nested = pa.types.is_nested(kind.value_type)
    column = pa.array((songs if nested else songs.reshape(3, 3000)).tolist(), kind)
    table = pa.table({"song_id": ["a", "b", "c"], "segments": column}).replace_schema_metadata({"segue.units": "raw"})
    path = tmp_path / f"songs.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    np.testing.assert_array_equal(np.stack(SongTable(path).songs([0, 1, 2])), songs)


def test_nested_lists_of_24_features_are_refused(tmp_path: Path) -> None:
    table = pa.table({"song_id": ["a"], "segments": [[[1.0] * 24]]}).replace_schema_metadata({"segue.units": "raw"})
    pq.write_table(table, tmp_path / "songs.parquet")
    with pytest.raises(SongError, match=r"song 'a': segment 0: expected 25 numbers, found 24"):
        SongTable(tmp_path / "songs.parquet")
