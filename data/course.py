"""Source: the course's fixed-length `.npz` files, 120 segments a song.

Arrays `inputs` (n, 3000) or (n, 120, 25) in float16 or float32, `targets` (n,) integer, -1 = no label, and `label_map`
(n_classes,) the class names. Where they exist, `track_ids` names the songs and `group` (or `artist_id`) the artists.
Every other array of n numbers or names is a field that `where` can select by. Read without pickle.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import LabelError, SongError
from data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, N_FEATURES, WINDOW, Units
from data.source import BATCH_SONGS, Skipped, select
from data.table import SongBatch


class CourseFile:
    """One `.npz` file of the course layout; see the module."""

    def __init__(
        self, path: Path, units: Units | None = None, where: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Open the file; without `units` they are recognised, since only raw songs keep within the raw ranges."""
        arrays = _load(path)
        self._inputs = _inputs(path, arrays)
        n = len(self._inputs)
        label_map = arrays.get("label_map", np.zeros(0, dtype=str))
        if label_map.ndim != 1:
            raise LabelError(f"{path}: expected label_map of shape (n_classes,), found {label_map.shape}")
        self.classes = tuple(_text(label_map))
        targets = arrays.get("targets", np.full(n, -1))
        if targets.shape != (n,):
            raise SongError(f"{path}: expected one target for each of the {n} songs, found shape {targets.shape}")
        if targets.dtype.kind not in "iu":
            raise LabelError(f"{path}: expected integer targets, found {targets.dtype}")
        if targets.max(initial=-1) >= len(self.classes):
            raise LabelError(
                f"{path}: expected targets below {len(self.classes)}, the length of label_map; found {targets.max()}"
            )
        self._labels = [self.classes[target] if target >= 0 else None for target in targets.astype(int)]
        self._song_ids = _names(path, arrays, "track_ids", n) or [f"{path.stem}-{row:06d}" for row in range(n)]
        groups = _names(path, arrays, "group", n) or _names(path, arrays, "artist_id", n)
        self._groups: list[str | None] = [*groups] if groups else [None] * n
        fields = {name: _text(array) for name, array in arrays.items() if array.shape == (n,)}
        self._rows = select(path, fields, n, where or {})
        self.units: Units = units or self._recognise_units()

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs after the first `start` in file order."""
        for first in range(start, len(self._rows), BATCH_SONGS):
            rows = self._rows[first : first + BATCH_SONGS]
            yield SongBatch(
                song_ids=[self._song_ids[row] for row in rows],
                segments=self._inputs[rows].astype(np.float32).reshape(-1, N_FEATURES),
                lengths=np.full(len(rows), WINDOW, dtype=np.int64),
                labels=[self._labels[row] for row in rows],
                groups=[self._groups[row] for row in rows],
            )

    def _recognise_units(self) -> Units:
        """Tell by the first songs: standardised chroma is centred on 0, so some of it is negative."""
        sample = self._inputs[self._rows[:BATCH_SONGS]].astype(np.float32)
        chroma, loudness = sample[..., CHROMA], sample[..., LOUDNESS]
        below = np.nanmin(chroma, initial=0.0) < 0
        above = np.nanmax(loudness, initial=-1.0) > LOUDNESS_RANGE_DB[1]
        return "standardised" if below and above else "raw"


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise SongError(
                f"{path}: holds Python objects, which only pickle can read, and a pickle can run any code. "
                "Save the arrays with plain numeric or string types."
            ) from None
        raise SongError(f"{path}: expected an .npz file, found one that numpy cannot read: {error}") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SongError(f"{path}: expected an .npz file, found one that cannot be read: {error}") from None


def _inputs(path: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if "inputs" not in arrays:
        raise SongError(f"{path}: expected an array 'inputs', found {', '.join(arrays) or 'none'}")
    inputs = arrays["inputs"]
    if inputs.dtype not in (np.float16, np.float32, np.float64):
        raise SongError(f"{path}: expected inputs of type float16 or float32, found {inputs.dtype}")
    if inputs.shape[1:] not in ((WINDOW * N_FEATURES,), (WINDOW, N_FEATURES)):
        raise SongError(f"{path}: expected inputs of shape (n, 3000) or (n, 120, 25), found {inputs.shape}")
    return inputs.reshape(-1, WINDOW, N_FEATURES)


def _names(path: Path, arrays: Mapping[str, NDArray[Any]], field: str, n: int) -> list[str]:
    """Return what `field` calls each of the n songs; empty where the file has no such field."""
    names = arrays.get(field)
    if names is None:
        return []
    if names.shape != (n,):
        raise SongError(f"{path}: expected {field!r} for each of the {n} songs, found shape {names.shape}")
    return _text(names)


def _text(array: NDArray[Any]) -> list[str]:
    return [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in array]
