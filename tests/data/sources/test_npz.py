"""Arrays in `.npz` files: any byte order is read, lying headers are refused, and no header decides how much memory."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.bench.memory import peak_bytes
from segue.data.sources.npz import NpzArrays
from segue.data.sources.registry import open_source
from segue.data.sources.source import Source, Tally
from segue.data.table import SongBatch
from segue.errors import LabelError, SegueError, SongError
from tests.support.random_songs import random_segments

INPUTS = random_segments(4 * 120).reshape(4, 120, 25)
SMALL: dict[str, Any] = {
    "inputs": INPUTS,
    "targets": np.array([0, 1, 1, -1]),
    "label_map": np.array(["Jazz", "Folk"]),
    "track_ids": np.array(["a", "b", "c", "d"]),
}


def save(path: Path, **changes: Any) -> Path:
    np.savez(path, **SMALL | changes)
    return path


def only(source: Source) -> SongBatch:
    (batch,) = source.batches()
    assert isinstance(batch, SongBatch)
    return batch


@pytest.mark.parametrize("order", ["<", ">", "="])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_any_byte_order_is_read(tmp_path: Path, order: str, size: int) -> None:
    changes: dict[str, Any] = {name: array.astype(array.dtype.newbyteorder(order)) for name, array in SMALL.items()}
    changes["inputs"] = INPUTS.astype(f"{order}f{size}")
    batch = only(open_source(save(tmp_path / "a.npz", **changes)))
    assert (batch.song_ids, batch.labels) == (["a", "b", "c", "d"], ["Jazz", "Folk", "Folk", None])
    assert batch.songs.segments.dtype == np.float32
    np.testing.assert_array_equal(batch.songs.segments, INPUTS.astype(f"f{size}").astype(np.float32).reshape(-1, 25))


@pytest.mark.parametrize("order", ["<", ">"])
def test_whole_songs_in_any_byte_order(tmp_path: Path, order: str) -> None:
    lengths = np.array([100, 300, 80], f"{order}i4")
    np.savez(tmp_path / "a.npz", segments=INPUTS.reshape(-1, 25).astype(f"{order}f4"), lengths=lengths)
    batch = only(open_source(tmp_path / "a.npz"))
    assert batch.songs.lengths.tolist() == [100, 300, 80]
    np.testing.assert_array_equal(batch.songs.segments, INPUTS.reshape(-1, 25))


@pytest.mark.parametrize(
    "odd", [np.array([{"a": 1}]), np.asfortranarray(np.zeros((3, 2))), np.array(["x", None], dtype=object)]
)
def test_an_array_that_is_not_needed_is_counted_where_it_cannot_be_read(tmp_path: Path, odd: Any) -> None:
    source = open_source(save(tmp_path / "a.npz", notes=odd))
    assert source.passed_over == {"an array that cannot be read and is not needed": Tally(1, ["notes"])}
    np.testing.assert_array_equal(only(source).songs.segments, INPUTS.reshape(-1, 25))


@pytest.mark.parametrize("name", ["inputs", "targets", "label_map", "track_ids"])
def test_an_array_that_is_needed_is_refused_where_it_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(SongError, match=rf"a\.npz: {name}\.npy holds Python objects"):
        open_source(save(tmp_path / "a.npz", **{name: np.array([{}] * 4)}))


def test_targets_without_a_label_map_are_named(tmp_path: Path) -> None:
    arrays = {name: array for name, array in SMALL.items() if name != "label_map"}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(LabelError, match="expected an array 'label_map', the names of the classes that targets counts"):
        open_source(tmp_path / "a.npz")


def test_blank_ids_are_made_from_the_file_and_odd_text_is_cleaned(tmp_path: Path) -> None:
    ids = np.array(["a", "", " ", "b\ud800"])
    assert only(open_source(save(tmp_path / "a.npz", track_ids=ids))).song_ids == ["a", "a-000001", "a-000002", "b?"]
    beyond = np.frombuffer(struct.pack("<4I", 97, 98, 99, 0x7FFFFFFF), "<U1")
    with pytest.raises(SongError, match=r"a\.npz: expected text in track_ids, found what is none"):
        open_source(save(tmp_path / "a.npz", track_ids=beyond))


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def with_raw(path: Path, name: str, content: bytes) -> Path:
    """Write the sound arrays, with the bytes of one array as given."""
    np.savez(path, **{other: array for other, array in SMALL.items() if other != name})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", content)
    return path


LIES = {
    "negative": header("(-1, 120, 25)"),
    "two negatives": header("(-1, -3000)") + bytes(12_000),
    "65 dimensions": header(str((1,) * 65)) + bytes(4),
    "empty and endless": header("(0, 10000000000000000000000000000000)"),
    "true": header("(True, 25)") + bytes(100),
    "a text": header("'abc'"),
    "no type": header("(4, 3000)", "'x'"),
    "a nested type": header("(4,)", str([("a", "<f4", (3000,))])) + bytes(48_000),
    "huge": header("(4, 120, 100000000000)"),
    "cut": header("(4, 120, 25)") + bytes(100),
    "a header in 2.0 that is not there": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 100,
    "a header that nests": header("(" * 5000),
    "of version 3": b"\x93NUMPY\x03\x00" + bytes(100),
    "no header": b"",
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
@pytest.mark.parametrize("name", ["inputs", "targets", "track_ids", "label_map"])
def test_a_header_that_lies_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(SegueError, match=r"a\.npz"):
        list(open_source(with_raw(tmp_path / "a.npz", name, content)).batches())


@pytest.mark.long
@pytest.mark.parametrize("name", ["track_ids", "group", "label_map", "targets", "inputs"])
def test_few_bytes_that_unpack_to_gigabytes_are_refused(tmp_path: Path, name: str) -> None:
    """`track_ids` of `U187500000` took 6 GB from a file of 6 MB; here 1 GB, from 1 MB."""
    n_bytes = 2**30
    descr, shape = {"targets": ("'<i8'", f"({n_bytes // 8},)"), "inputs": ("'<f4'", f"(1, {n_bytes // 4})")}.get(
        name, (f"'<U{n_bytes // 16}'", "(4,)")
    )
    path = with_raw(tmp_path / "a.npz", name, header(shape, descr) + bytes(n_bytes))
    with pytest.raises(SegueError, match=r"a\.npz: expected"):
        open_source(path)
    program = f"""
from pathlib import Path
from segue.data.sources.registry import open_source
try:
    open_source(Path({str(path)!r}))
except Exception as error:
    assert "expected" in str(error)
"""
    assert peak_bytes(["-c", program]) < 100 * path.stat().st_size + 250e6


def test_names_and_headers(tmp_path: Path) -> None:
    arrays = NpzArrays(save(tmp_path / "a.npz", odd=np.array([{}])))
    assert arrays.names == ["inputs", "targets", "label_map", "track_ids", "odd"]
    assert arrays.header("nothing") is None
    assert arrays.expect("inputs").shape == (4, 120, 25)
    with pytest.raises(SongError, match="expected an array 'nothing', found inputs, targets"):
        arrays.expect("nothing")
