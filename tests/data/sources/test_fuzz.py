"""Damage at random: every source answers with songs or with an error of ours, in little memory, and never dies.

Each source is damaged in a process of its own, so that a crash of a library fails one test. Where the format has
checksums, songs that come through are the right ones.
"""

import gzip
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.bench.memory import peak_bytes
from segue.data.sources.registry import open_source
from segue.data.table import SongBatch
from segue.errors import SegueError
from tests.data.sources.test_analysis import one
from tests.data.sources.test_msd import write_track
from tests.data.sources.test_msd_summary import three_songs, write_summary
from tests.support.random_songs import random_batch, random_segments, save

TRIALS = 300
PEAK_BYTES = 400_000_000  # The libraries alone take 90 MB; the files have 1 to 80 kB.
INPUTS = random_segments(3 * 120).reshape(3, 120, 25)
FACTS: dict[str, Any] = {
    "targets": np.array([0, 1, -1]),
    "label_map": np.array(["a", "b"]),
    "track_ids": np.array(["x", "y", "z"]),
}
BUCKET: dict[str, Any] = {"inputs_250": np.full((2, 250, 25), 0.5, np.float16), "indices_250": np.arange(2)}

WRITERS: dict[str, Callable[[Path], object]] = {
    "course.npz": lambda path: np.savez(path, inputs=INPUTS, **FACTS),
    "packed.npz": lambda path: np.savez_compressed(path, inputs=INPUTS, **FACTS),
    "whole.npz": lambda path: np.savez(path, segments=INPUTS[0], lengths=np.array([50, 70])),
    "buckets.npz": lambda path: np.savez_compressed(path, **BUCKET),
    "packed.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(one(1)).encode())),
    "track.h5": lambda path: write_track(path, "TR1", random_segments(20)),
    "summary.h5": lambda path: write_summary(path, three_songs()),
    "wrapped.json": lambda path: path.write_text(json.dumps({"a": one(1), "b": {"audio_analysis": one(2)}})),
    "lines.jsonl": lambda path: path.write_text("\n".join(json.dumps(one(seed)) for seed in range(3))),
    "table.arrow": lambda path: save(path, random_batch([4, 130], labels=["a", None])),
    "table.parquet": lambda path: save(path, random_batch([4, 130], labels=["a", None])),
}
CHECKED = (".npz", ".gz")  # Formats with checksums over the songs.


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return `content` with bits, bytes, numbers or pieces changed, put in or taken out."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, length = rng.randrange(len(found)), rng.choice([1, 2, 4, 8])
        how = rng.randrange(6)
        if how == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[at : at + length] = rng.choice([b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7])[:length]
        elif how == 2:
            found[at] = rng.randrange(256)
        elif how == 3:
            del found[max(at, 1) :]
        elif how == 4:
            other = rng.randrange(len(found))
            found[at : at + 32] = found[other : other + 32]
        else:
            found[at:at] = rng.randbytes(length)
    return bytes(found)


def segments_of(path: Path) -> bytes:
    """Return all segments that a source yields, as bytes."""
    batches = [item for item in open_source(path).batches() if isinstance(item, SongBatch)]
    return b"".join(batch.songs.segments.tobytes() for batch in batches)


def fuzz(name: str, trials: int) -> None:
    """Damage a source many times; anything but songs or an error of ours is an exception or ends the process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](path)
        content, expected = path.read_bytes(), segments_of(path)
        rng = random.Random(name)
        for _ in range(trials):
            path.write_bytes(damaged(content, rng))
            try:
                found = segments_of(path)
            except SegueError:
                continue
            assert found in (b"", expected) or not name.endswith(CHECKED)


@pytest.mark.long
@pytest.mark.parametrize("name", WRITERS)
def test_damage_gives_songs_or_an_error_in_little_memory(name: str) -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}; from {__name__} import fuzz; fuzz({name!r}, {TRIALS})"
    assert peak_bytes(["-c", program]) < PEAK_BYTES
