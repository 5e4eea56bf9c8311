"""Source: the course's fixed-length `.npz` files, 120 segments a song.

Arrays `inputs` (n, 3000) or (n, 120, 25) in float16 or float32, and what the songs are called and labelled; see
`segue.data.sources.npz.SongFacts`. Read without pickle, in pieces.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.song import N_FEATURES, WINDOW, Units
from segue.data.sources.npz import NpzArrays, SongFacts, recognise_units
from segue.data.sources.source import BATCH_SONGS, Kind, Options, Skipped, Source, starts_with
from segue.data.table import SongBatch
from segue.errors import SongError


class CourseFile:
    """One `.npz` file of the course layout; see the module."""

    def __init__(
        self,
        path: Path,
        units: Units | None = None,
        where: Mapping[str, Sequence[str]] | None = None,
        name: str | None = None,
    ) -> None:
        """Open the file; without `units` they are recognised, since only raw songs keep within the raw ranges."""
        self._arrays = NpzArrays(path)
        self._facts = SongFacts(self._arrays, _count_songs(self._arrays), name)
        self.classes = self._facts.classes
        self.label_map = self._facts.label_map
        self.passed_over = self._arrays.passed_over
        self._rows = self._facts.select(where or {})
        self.units: Units = units or recognise_units(self._first_segments())

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs after the first `start` in file order."""
        wanted = self._rows[start:]
        for number, block in enumerate(self._arrays.blocks("inputs", BATCH_SONGS)):
            first = number * BATCH_SONGS
            rows = wanted[(wanted >= first) & (wanted < first + len(block))]
            if len(rows):
                yield self._facts.batch(rows, block[rows - first].reshape(-1, N_FEATURES), [WINDOW] * len(rows))

    def _first_segments(self) -> NDArray[Any]:
        blocks = self._arrays.blocks("inputs", BATCH_SONGS)
        found: NDArray[Any] = next(blocks, np.zeros((0, N_FEATURES), np.float32))
        return found.reshape(-1, N_FEATURES)


def _count_songs(arrays: NpzArrays) -> int:
    header = arrays.expect("inputs")
    if not header.is_float:
        raise SongError(f"{arrays.path}: expected inputs of type float16 or float32, found {header.dtype}")
    if header.shape[1:] not in ((WINDOW * N_FEATURES,), (WINDOW, N_FEATURES)):
        raise SongError(f"{arrays.path}: expected inputs of shape (n, 3000) or (n, 120, 25), found {header.shape}")
    return header.shape[0]


def _open(path: Path, options: Options) -> Source:
    return CourseFile(path, options.units, options.where, options.name)


KIND = Kind(
    "course",
    "the course's fixed-length songs, one `.npz` file",
    lambda path: starts_with(path, b"PK"),
    _open,
    fields="every array of one value a song",
)
