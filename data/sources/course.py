"""Source: the course's fixed-length `.npz` files, 120 segments a song.

Arrays `inputs` (n, 3000) or (n, 120, 25) in float16 or float32, `targets` (n,) integer, -1 = no label, and `label_map`
(n_classes,) the class names. Where they exist, `track_ids` names the songs and `group` (or `artist_id`) the artists.
Every other array of n numbers or names is a field that `where` can select by. Read without pickle, in pieces.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import SongError
from data.song import N_FEATURES, WINDOW, Units
from data.sources.npz import NpzArrays, classes_of, labels_of, recognise_units
from data.sources.source import BATCH_SONGS, Skipped, select
from data.table import SongBatch


class CourseFile:
    """One `.npz` file of the course layout; see the module."""

    def __init__(
        self, path: Path, units: Units | None = None, where: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Open the file; without `units` they are recognised, since only raw songs keep within the raw ranges."""
        self._arrays = NpzArrays(path)
        n, stem = _count_songs(self._arrays), path.stem
        self.classes = classes_of(self._arrays)
        self._labels = labels_of(self._arrays, "targets", n, self.classes)
        self._song_ids = _names(self._arrays, "track_ids", n) or [f"{stem}-{row:06d}" for row in range(n)]
        groups = _names(self._arrays, "group", n) or _names(self._arrays, "artist_id", n)
        self._groups: list[str | None] = [*groups] if groups else [None] * n
        self._rows = np.array(select(path, self._fields(n) if where else {}, n, where or {}), dtype=np.int64)
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
                yield SongBatch(
                    song_ids=[self._song_ids[row] for row in rows],
                    segments=block[rows - first].astype(np.float32).reshape(-1, N_FEATURES),
                    lengths=np.full(len(rows), WINDOW, dtype=np.int64),
                    labels=[self._labels[row] for row in rows],
                    groups=[self._groups[row] for row in rows],
                )

    def _fields(self, n_songs: int) -> dict[str, list[str]]:
        headers = self._arrays.headers.items()
        return {name: _text(self._arrays.read(name)) for name, header in headers if header.shape == (n_songs,)}

    def _first_segments(self) -> NDArray[Any]:
        blocks = self._arrays.blocks("inputs", BATCH_SONGS)
        found: NDArray[Any] = next(blocks, np.zeros((0, N_FEATURES), np.float32))
        return found.reshape(-1, N_FEATURES)


def _count_songs(arrays: NpzArrays) -> int:
    if "inputs" not in arrays.headers:
        raise SongError(f"{arrays.path}: expected an array 'inputs', found {', '.join(arrays.headers) or 'none'}")
    header = arrays.headers["inputs"]
    if header.dtype not in (np.float16, np.float32, np.float64):
        raise SongError(f"{arrays.path}: expected inputs of type float16 or float32, found {header.dtype}")
    if header.shape[1:] not in ((WINDOW * N_FEATURES,), (WINDOW, N_FEATURES)):
        raise SongError(f"{arrays.path}: expected inputs of shape (n, 3000) or (n, 120, 25), found {header.shape}")
    return header.shape[0]


def _names(arrays: NpzArrays, field: str, n_songs: int) -> list[str]:
    """Return what `field` calls each song; empty where the file has no such field."""
    header = arrays.headers.get(field)
    if header is None:
        return []
    if header.shape != (n_songs,):
        raise SongError(
            f"{arrays.path}: expected {field!r} for each of the {n_songs} songs, found shape {header.shape}"
        )
    return _text(arrays.read(field))


def _text(array: NDArray[Any]) -> list[str]:
    return [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in array]
