"""Damaged Arrow files, streams and Parquet: right values or an error of ours, in another process and little memory."""

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.random_songs import random_batch, save

FILES, AT_A_TIME = 600, 150
MOST_MIB = 100  # Above what opening a sound table takes; the files have 30 to 60 kB.
READER = """
import resource, sys
from pathlib import Path
from segue.data.table import SongTable
from segue.errors import SegueError
for place, name in enumerate(sys.argv[1:]):
    try:
        table = SongTable(Path(name))
        table.songs(range(len(table)))
    except SegueError as error:
        assert name in str(error) and chr(10) not in str(error), error
    if not place:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
LIES = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**40)


def tables(folder: Path) -> list[bytes]:
    """Return sound tables of many forms, as bytes."""
    path = save(folder / "sound.arrow", random_batch([3, 120, 7, 1] * 5, ["x", "y", "x", None] * 5)).path
    table = pa.ipc.open_file(path).read_all()
    doubles = table["segments"].cast(pa.list_(pa.list_(pa.float64())))
    views = pa.array(table["segments"].to_pylist(), pa.list_view(pa.list_view(pa.float32())))
    forms = [
        table,
        table.set_column(1, "segments", doubles),
        table.set_column(0, "song_id", table["song_id"].dictionary_encode()),
        table.set_column(0, "song_id", table["song_id"].cast(pa.string_view())),
        table.set_column(1, "segments", views),
    ]
    found = []
    for form in forms:
        for compression in (None, "zstd"):
            options = pa.ipc.IpcWriteOptions(compression=compression)
            for new in (pa.ipc.new_file, pa.ipc.new_stream):
                sink = pa.BufferOutputStream()
                with new(sink, form.schema, options=options) as writer:
                    writer.write_table(form, 6)
                found.append(sink.getvalue().to_pybytes())
        if form is not forms[-1]:
            sink = pa.BufferOutputStream()
            pq.write_table(form, sink, row_group_size=6)
            found.append(sink.getvalue().to_pybytes())
    return found


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return a table cut short, or with bytes and numbers exchanged, most of them where its metadata are."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    found, edge = bytearray(content), min(2000, len(content))
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.choice([rng.randrange(len(found)), rng.randrange(edge), len(found) - 1 - rng.randrange(edge)])
        number = rng.choice([rng.randrange(256), *LIES]).to_bytes(8, "little", signed=True)
        size = rng.choice([1, 4, 8])
        found[at : at + size] = number[: len(found[at : at + size])]
    return bytes(found)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_a_damaged_table_is_read_right_or_refused(tmp_path: Path, seed: int) -> None:
    rng, sound = random.Random(seed), tables(tmp_path)
    names = [str(tmp_path / f"damaged-{number}") for number in range(FILES)]
    for name in names:
        Path(name).write_bytes(damaged(rng.choice(sound), rng))
    for start in range(0, FILES, AT_A_TIME):
        command = [sys.executable, "-c", READER, str(tmp_path / "sound.arrow"), *names[start : start + AT_A_TIME]]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        assert int(found.stdout) < MOST_MIB


@pytest.mark.slow
def test_lists_of_no_width_cost_a_multiple_of_their_bytes(tmp_path: Path) -> None:
    offsets = pa.py_buffer(bytes(4 * (10**7 + 1)))
    rows = pa.Array.from_buffers(pa.list_(pa.float32()), 10**7, [None, offsets], children=[pa.array([], pa.float32())])
    column = pa.ListArray.from_arrays(pa.array([0, 10**7], pa.int32()), rows)
    table = pa.table({"song_id": ["a"], "segments": column}).replace_schema_metadata({"segue.units": "raw"})
    path = tmp_path / "bomb.arrow"
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    sound = save(tmp_path / "sound.arrow", random_batch([3])).path
    found = subprocess.run([sys.executable, "-c", READER, sound, path], capture_output=True, text=True, check=True)
    assert int(found.stdout) * 2**20 < 12 * path.stat().st_size
