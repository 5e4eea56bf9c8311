"""A bundle in Python: `segue.load(path)`, then one verb.

Example:
    model = segue.load("artifacts/bundle")
    for answer in model.classify(songs):  # (n, 120, 25), a list of (T, 25), a pyarrow table, a path
        print(answer.song_id, answer.genre, answer.cross_entropy_nats, answer.answered_by)
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segue.data.song import N_FEATURES, WINDOW, Songs, check_songs
from segue.data.table import SongTable
from segue.errors import SongError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.cascade import Cascade, check_threshold, open_cascade
from segue.serving.predictions import NOT_A_NUMBER, Answer
from segue.serving.runtime import Provider
from segue.serving.tables import SONGS_AT_A_TIME, check_units
from segue.serving.tradeoff import tradeoff_text

SongsToClassify: TypeAlias = NDArray[Any] | Sequence[NDArray[Any]] | pa.Table | str | PathLike[str]


class GenreModel:
    """A bundle, verified and loaded. Threads may share it: it holds the models and nothing else."""

    def __init__(self, bundle: Bundle, cascade: Cascade, threshold_nats: float | None = None) -> None:
        """Join a bundle with its open models; see `load`."""
        self._bundle = bundle
        self._cascade = cascade
        self._threshold_nats = threshold_nats

    @property
    def classes(self) -> tuple[str, ...]:
        """The genres it tells apart."""
        return self._bundle.manifest.classes

    @property
    def threshold_nats(self) -> float:
        """The cross-entropy above which a song goes on to the next rung."""
        own = self._bundle.manifest.threshold_nats
        return own if self._threshold_nats is None else self._threshold_nats

    def classify(self, songs: SongsToClassify) -> Iterator[Answer]:
        """Yield an answer for each song, in order; some hundred songs at a time, so that any number can be classified.

        Args:
            songs: one array (n, 120, 25); a sequence of songs (T, 25) each; a table with the columns `song_id` and
                `segments`; or the path of a song table. Only tables name their songs, others are "0", "1" and so on.

        Raises:
            SongError: a song breaks the contract, is in other units than the bundle's, or gets no number from any rung.
        """
        for song_ids, some in self._batches(songs):
            answers = self._cascade.answer(some, self._threshold_nats)
            unknown = np.flatnonzero(np.isnan(answers.cross_entropy_nats))
            if len(unknown):
                raise SongError(f"song {song_ids[unknown[0]]!r}: {NOT_A_NUMBER}")
            yield from answers.one_by_one(song_ids, self.classes)

    def with_threshold(self, threshold_nats: float) -> "GenreModel":
        """Return the same models with one threshold for every rung; 0 asks the last rung about every uncertain song.

        Raises:
            ConfigError: it is below 0 or not a number.
        """
        check_threshold(threshold_nats)
        return GenreModel(self._bundle, self._cascade, threshold_nats)

    def explain_dial(self) -> str:
        """Return what the threshold stands at, what is promised of it, and what other settings give and cost."""
        guarantee = (
            str(self._bundle.manifest.guarantee)
            if self._threshold_nats is None
            else "set by hand; nothing is promised of it"
        )
        return "\n".join(
            [f"threshold: {self.threshold_nats:.3f} nats, {guarantee}", "", tradeoff_text(self._bundle.tradeoff)]
        )

    def _batches(self, songs: SongsToClassify) -> Iterator[tuple[Sequence[str], Songs]]:
        """Yield checked songs and their ids, some at a time."""
        if isinstance(songs, str | PathLike | pa.Table):
            table = self._table(songs)
            check_units(table, self._bundle)
            for rows in table.spans(SONGS_AT_A_TIME):
                yield table.song_ids[rows.start : rows.stop], table.songs(rows)
            return
        if isinstance(songs, np.ndarray) and songs.shape[1:] != (WINDOW, N_FEATURES):
            raise SongError(
                f"songs: expected an array (n, {WINDOW}, {N_FEATURES}) or a list of arrays (segments, {N_FEATURES}), "
                f"found an array {songs.shape}"
            )
        for start in range(0, len(songs), SONGS_AT_A_TIME):
            some = songs[start : start + SONGS_AT_A_TIME]
            song_ids = [str(place) for place in range(start, start + len(some))]
            if isinstance(some, np.ndarray) and some.dtype != np.float32:
                some = list(some)
            sound, errors = check_songs(some, song_ids, self._bundle.manifest.units)
            for error in errors.values():
                raise error
            yield song_ids, sound

    def _table(self, songs: str | PathLike[str] | pa.Table) -> SongTable:
        if not isinstance(songs, pa.Table):
            return SongTable(Path(songs))
        return SongTable(Path("table"), self._bundle.manifest.units, songs)


def load(
    path: str | PathLike[str], *, windows: int | None = None, provider: Provider = "auto", threads: int | None = None
) -> GenreModel:
    """Verify the bundle in folder `path`, load its models and return what classifies songs.

    Args:
        path: what `segue export` wrote.
        windows: windows of a song that every model sees, at most, instead of what the bundle says.
        provider: where the models run: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        threads: threads of each model; default: one for each core this process may use.

    Raises:
        BundleError: a file of the bundle is missing, changed or damaged, or a model cannot be loaded.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    bundle = load_bundle(Path(path))
    cascade = open_cascade(bundle, windows=windows, provider=provider, threads=threads)
    return GenreModel(bundle.without_contents(), cascade)
