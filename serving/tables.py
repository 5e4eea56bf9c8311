"""Song tables as a bundle sees them: their units checked, their labels in its order, and what models say of rows."""

import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from segue.data.song import Ints, check_features
from segue.data.table import NO_LABEL, SongTable
from segue.errors import LabelError, SongError
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import CalibratedModel, Cascade
from segue.serving.predictions import Predictions

SONGS_AT_A_TIME = 1024


def check_units(songs: SongTable, bundle: Bundle) -> None:
    """Refuse songs in other units, or of another analyser, than the bundle's models were trained on."""
    check_features(songs.features, bundle.manifest.features, str(songs.path), "this bundle")
    if songs.units != bundle.manifest.units:
        raise SongError(
            f"{songs.path}: expected {bundle.manifest.units} songs for this bundle, found {songs.units} ones"
        )


def labelled(songs: SongTable, bundle: Bundle) -> tuple[Ints, Ints]:
    """Return the rows that have a label, and their classes in the bundle's order."""
    check_units(songs, bundle)
    labels = songs.labels_among(bundle.manifest.classes)
    rows = np.flatnonzero(labels != NO_LABEL)
    if not len(rows):
        raise LabelError(f"{songs.path}: expected labelled songs, found none among {len(songs)}")
    return rows, labels[rows]


def predict_rows(model: CalibratedModel, songs: SongTable, rows: Ints, name: str) -> Predictions:
    """Return a model's predictions for the given songs, at least one, with a progress bar called `name`."""
    parts: list[Predictions] = []
    with tqdm(total=len(rows), desc=name, unit=" songs", disable=None, file=sys.stderr) as progress:
        for start in range(0, len(rows), SONGS_AT_A_TIME):
            some = rows[start : start + SONGS_AT_A_TIME]
            parts.append(model.predict(songs.songs(some)))
            progress.update(len(some))
    return Predictions.concat(parts)


def predict_rungs(cascade: Cascade, songs: SongTable, rows: Ints, names: Sequence[str]) -> list[Predictions]:
    """Return the predictions of every rung for the given songs, at least one, with progress bars `names`."""
    return [predict_rows(model, songs, rows, name) for model, name in zip(cascade.models, names, strict=True)]
