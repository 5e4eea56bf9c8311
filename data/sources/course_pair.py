"""Source: the course's test songs in two halves, `...-inputs.npz` and `...-targets.npz`.

The class names may be in either, or in the training or validation file beside them.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from segue.data.song import Units
from segue.data.sources.course import CourseFile
from segue.data.sources.npz import NpzArrays, array_names, classes_in, label_map_of, labels_of
from segue.data.sources.source import Kind, Options, Skipped, Source
from segue.data.table import SongBatch
from segue.errors import LabelError, SongError


class CoursePair:
    """The course's test songs: `...-inputs.npz` and, where they are published, their `...-targets.npz` beside it."""

    def __init__(self, path: Path, units: Units | None = None, name: str | None = None) -> None:
        """Open both halves, given either; `label_map` may be in them or in the training or validation file beside."""
        inputs, targets = _halves(path)
        if not inputs.is_file():
            raise SongError(f"{path}: expected its other half {inputs.name} in the same folder, found no such file")
        self._songs = CourseFile(inputs, units, name=name)
        self.units: Units = self._songs.units
        self.classes = self._songs.classes
        self.passed_over = self._songs.passed_over
        self._labels: list[str | None] = [None] * len(self._songs)
        if targets.is_file():
            arrays = NpzArrays(targets)
            label_map = _label_map_beside(arrays, self._songs.label_map)
            self.classes = classes_in(label_map)
            self._labels = labels_of(arrays, "targets", len(self._songs), label_map)

    def __len__(self) -> int:
        return len(self._songs)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start` in file order, each with its label."""
        labels = iter(self._labels[start:])
        for batch in self._songs.batches(start):
            yield replace(batch, labels=list(islice(labels, len(batch)))) if isinstance(batch, SongBatch) else batch


def recognises(path: Path) -> bool:
    """Tell whether `path` is one half of a test set: named so, and without the other half's array."""
    names = array_names(path)
    return (path.name.endswith("-inputs.npz") and "inputs" in names and "targets" not in names) or (
        path.name.endswith("-targets.npz") and "targets" in names and "inputs" not in names
    )


def _halves(path: Path) -> tuple[Path, Path]:
    start = path.name.removesuffix("-inputs.npz").removesuffix("-targets.npz")
    return path.with_name(f"{start}-inputs.npz"), path.with_name(f"{start}-targets.npz")


def _label_map_beside(targets: NpzArrays, known: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Return the class of each target: from its file, else those `known`, else from the training or validation file."""
    start = targets.path.name.removesuffix("-targets.npz").removesuffix("-test")
    beside = [targets.path.with_name(f"{start}-{name}.npz") for name in ("train", "valid")]
    label_map = label_map_of(targets) or known
    for path in beside:
        if not label_map and path.is_file():
            label_map = label_map_of(NpzArrays(path))
    if not label_map:
        raise LabelError(
            f"{targets.path}: expected label_map, the class names, in it or in {beside[0].name} beside it; found none. "
            "Put the training file into the same folder."
        )
    return label_map


def _open(path: Path, options: Options) -> Source:
    return CoursePair(path, options.units, options.name)


KIND = Kind(
    "course-pair",
    "the course's test songs, `...-inputs.npz` and `...-targets.npz`; give either",
    recognises,
    _open,
)
