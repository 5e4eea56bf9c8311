"""The files of a table: of any form, in folders, damaged, and changed while they are read."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.songs import songs
from segue.data.table import SongTable, write_table
from segue.data.table_file import TableFiles
from segue.errors import SongError
from tests.support.random_songs import random_batch, random_segments, save

SONGS = [random_segments(length, length) for length in (5, 1, 120, 7)]


def table_of(column: Any, **columns: Any) -> pa.Table:
    ids = [f"song-{n}" for n in range(len(column))]
    return pa.table({"song_id": ids, **columns, "segments": column}).replace_schema_metadata({"segue.units": "raw"})


NESTED = pa.array([song.tolist() for song in SONGS], SEGMENTS)


def arrow(path: Path, table: pa.Table, rows: int = 2, **options: Any) -> Path:
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as file:
        file.write_table(table, rows)
    return path


def stream(path: Path, table: pa.Table, rows: int = 2) -> Path:
    with pa.ipc.new_stream(path, table.schema) as file:
        file.write_table(table, rows)
    return path


def parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path, row_group_size=2)
    return path


# Columns before the segments have buffers of their own: of each kind, and of kinds whose number is not known.
BEFORE: dict[str, Any] = {
    "text": ["a", "b", None, "d"],
    "large text": pa.array(["a", "b", None, "d"], pa.large_string()),
    "a dictionary": pa.array(["a", "b", None, "a"]).dictionary_encode(),
    "views": pa.array(["a", "b", None, "a text that is longer than a view"], pa.string_view()),
    "numbers": pa.array([1.0, None, 2.0, 3.0]),
    "booleans": [True, False, None, True],
    "lists": [[1], [2, 3], None, []],
    "nested lists": pa.array([[[1.0] * 3], [], None, []], pa.list_(pa.list_(pa.float32(), 3))),
    "a struct": [{"a": 1}, {"a": 2}, None, {"a": 3}],
    "nulls": pa.nulls(4),
    "bytes": pa.array([b"abc", None, b"def", b"ghi"], pa.binary(3)),
    "times": pa.array([1, 2, None, 4], pa.timestamp("s")),
    "decimals": pa.array([1, 2, None, 4], pa.decimal128(5)),
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("write", [arrow, stream, parquet])
def test_segments_are_found_behind_columns_of_any_kind(
    tmp_path: Path, before: Any, write: Callable[[Path, pa.Table], Path]
) -> None:
    found = SongTable(write(tmp_path / "songs", table_of(NESTED, mood=before)))
    for row, song in enumerate(SONGS):
        np.testing.assert_array_equal(found.segments(row), song)
    for rows in ([0, 1, 2, 3], [3, 1], [1, 2], []):
        np.testing.assert_array_equal(
            found.songs(rows).segments, np.concatenate([np.zeros((0, 25)), *(SONGS[row] for row in rows)])
        )


@pytest.mark.parametrize(
    "options", [{"compression": "zstd"}, {"compression": "lz4"}, {"use_legacy_format": True}], ids=str
)
def test_arrow_files_may_be_compressed_or_old(tmp_path: Path, options: dict[str, Any]) -> None:
    if "use_legacy_format" in options:
        options = {"use_legacy_format": True, "metadata_version": pa.ipc.MetadataVersion.V4}
    windows = pa.array([random_segments(120, seed).reshape(-1).tolist() for seed in range(3)], FLAT_WINDOW)
    for column in (NESTED, windows):
        table = SongTable(arrow(tmp_path / "songs.arrow", table_of(column), **options))
        expected = np.array([value for song in column.to_pylist() for value in np.ravel(song)], np.float32)
        np.testing.assert_array_equal(table.songs(range(len(column))).segments.reshape(-1), expected)


def test_the_segments_of_an_arrow_table_are_left_on_the_disk(tmp_path: Path) -> None:
    path = save(tmp_path / "songs.arrow", random_batch([1000] * 200)).path
    with Path("/proc/self/io").open() as counters:
        before = int(counters.readline().split()[1])
        table = SongTable(path)
        counters.seek(0)
        opened = int(counters.readline().split()[1])
        assert opened - before < path.stat().st_size / 100
    assert len(table.segments(7)) == 1000


def folder(path: Path, write: Callable[[Path, pa.Table], Path], names: list[str]) -> Path:
    for number, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        table = table_of(NESTED.slice(number, 1), label=[f"genre-{number}"])
        write(path / name, table.set_column(0, "song_id", [[f"song-{number}"]]))
    return path


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (parquet, ["part-0.parquet", "part-1.parquet"]),
        (parquet, ["a/0.PARQUET", "b/0.parquet"]),
        (stream, ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]),
        (arrow, ["0.arrow", "1.arrow"]),
    ],
)
def test_a_folder_of_tables_is_a_table(
    tmp_path: Path, write: Callable[[Path, pa.Table], Path], names: list[str]
) -> None:
    path = folder(tmp_path / "in", write, names)
    for name in ("dataset_info.json", "state.json"):
        (path / name).write_text("{}")
    (path / "_SUCCESS").touch()
    (path / "cache-1.arrow").write_text("not of the data set")
    table = SongTable(path)
    assert (table.song_ids, table.classes) == (["song-0", "song-1"], ("genre-0", "genre-1"))
    np.testing.assert_array_equal(table.songs([0, 1]).segments, np.concatenate(SONGS[:2]))
    assert songs((path, tmp_path / "out.arrow")).songs == 2
    np.testing.assert_array_equal(
        SongTable(tmp_path / "out.arrow").songs([0, 1]).segments, table.songs([0, 1]).segments
    )
    assert table.fingerprint() != SongTable(path / names[0]).fingerprint()


def test_of_a_saved_data_set_the_listed_files_are_read(tmp_path: Path) -> None:
    path = folder(tmp_path, stream, ["data-1.arrow", "data-0.arrow", "old.arrow"])
    (path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-1.arrow"}, {"filename": "data-0.arrow"}]})
    )
    assert SongTable(path).song_ids == ["song-0", "song-1"]
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(SongError, match="expected one data set, found several"):
        SongTable(tmp_path)


def test_a_folder_without_tables_or_of_two_units_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SongError, match="found a folder without"):
        SongTable(tmp_path)
    save(tmp_path / "a.arrow", random_batch([1]))
    save(tmp_path / "b.parquet", random_batch([1], seed=1), units="standardised")
    with pytest.raises(SongError, match="of the same units, found raw and standardised ones"):
        SongTable(tmp_path)


BAD_METADATA = {
    "text": {"segue.classes": "Jazz"},
    "a number": {"segue.classes": "5"},
    "null": {"segue.classes": "null"},
    "numbers": {"segue.classes": "[1]"},
    "latin-1": {"segue.classes": b'["M\xfasica"]'},
    "deep": {"segue.classes": "[" * 100_000},
    "units in latin-1": {"segue.units": b"r\xe1w"},
}


@pytest.mark.parametrize("metadata", BAD_METADATA.values(), ids=BAD_METADATA)
@pytest.mark.parametrize("write", [arrow, stream, parquet])
def test_metadata_that_are_not_ours_are_named(
    tmp_path: Path, metadata: dict[Any, Any], write: Callable[[Path, pa.Table], Path]
) -> None:
    table = table_of(NESTED).replace_schema_metadata({"segue.units": "raw"} | metadata)
    with pytest.raises(SongError, match=rf"songs: expected the metadata '{next(iter(metadata))}' to .*, found "):
        SongTable(write(tmp_path / "songs", table))


@pytest.mark.parametrize("name", ["songs.arrow", "songs.parquet", "stream"])
@pytest.mark.parametrize("change", ["cut short", "written over", "replaced"])
def test_a_table_that_changes_while_it_is_read_ends_clearly_and_one_that_is_replaced_does_not(
    tmp_path: Path, name: str, change: str
) -> None:
    batches = [random_batch([50] * 500, seed=seed) for seed in range(4)]
    path = tmp_path / name
    if name == "stream":
        schema_of = save(tmp_path / "a.arrow", *batches).path
        stream(path, pa.ipc.open_file(schema_of).read_all(), 500)
    else:
        save(path, *batches)
    parts = TableFiles(path).parts()
    first = next(parts)
    np.testing.assert_array_equal(first.songs(0, 10).segments, batches[0].songs[:10].segments)
    if change == "replaced":
        save(path, random_batch([1], seed=9))
        rest = [part.songs(0, len(part)).segments for part in [first, *parts]]
        np.testing.assert_array_equal(np.concatenate(rest), np.concatenate([one.songs.segments for one in batches]))
        return
    if change == "cut short":
        os.truncate(path, 10_000)
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(bytes(1000))
    with pytest.raises(SongError, match=rf"{name}: the file (was written to while it was read|cannot be read)"):
        [part.songs(0, len(part)) for part in [first, *parts]]


CUT_WHILE_READ = """
import os, sys
from segue.data.table import SongTable
table = SongTable(__import__("pathlib").Path(sys.argv[1]))
os.truncate(sys.argv[1], 1000)
table.songs(range(10))
"""


def test_a_table_cut_short_is_no_signal(tmp_path: Path) -> None:
    path = save(tmp_path / "songs.arrow", random_batch([50] * 500)).path
    found = subprocess.run([sys.executable, "-c", CUT_WHILE_READ, path], capture_output=True, text=True, check=False)
    assert found.returncode not in (-signal.SIGBUS, -signal.SIGSEGV)
    assert "SongError" in found.stderr
    assert "songs.arrow: the file was written to while it was read" in found.stderr


def test_a_file_whose_name_is_no_text_is_a_table(tmp_path: Path) -> None:
    for suffix in ("arrow", "parquet"):
        path = tmp_path / f"caf\udce9.{suffix}"
        with write_table(path, "raw") as writer:
            writer.write(random_batch([3, 4]))
        assert SongTable(path).lengths.tolist() == [3, 4]
        assert songs((path, tmp_path / f"out-{suffix}.arrow")).songs == 2


def test_a_song_in_bad_form_is_left_out_and_the_others_are_kept(tmp_path: Path) -> None:
    column = pa.array([[[0.0] * 25], [[0.0] * 24], None, [[-0.0] * 25]], pa.list_(pa.list_(pa.float64())))
    for write in (arrow, stream, parquet):
        found = songs((write(tmp_path / "in", table_of(column)),), out=tmp_path / "out.arrow")
        assert found.songs == 2
        assert sum(tally.count for tally in found.left_out.values()) == 2
        assert SongTable(tmp_path / "out.arrow").song_ids == ["song-0", "song-3"]
