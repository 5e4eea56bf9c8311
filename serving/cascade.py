"""The cascade: a ladder of models, in memory. The student answers, and a song it is not sure of goes on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from segue.data.metrics import mean_over_windows
from segue.data.song import WINDOW, Floats, Ints, Songs
from segue.errors import BundleError, ConfigError
from segue.serving.bundle.load import Bundle
from segue.serving.bundle.manifest import ModelEntry, Rung
from segue.serving.ladder import Ladder
from segue.serving.predictions import Answers, ModelName, Predictions
from segue.serving.runtime import OnnxModel, Provider

BATCH_WINDOWS = 1024  # Larger batches leave the cache and are slower.


class Model(Protocol):
    """Anything that puts logits on windows."""

    def logits(self, windows: Floats) -> Floats:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""


class CalibratedModel:
    """A model as the cascade asks it: so many windows a song, and temperatures."""

    def __init__(
        self,
        model: Model,
        *,
        windows: int,
        temperature: float,
        mean_temperature: float | None = None,
        class_scales: Sequence[float] | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: what is asked.
            windows: how many windows of a song it is shown, at most.
            temperature: of a song it is shown one window of.
            mean_temperature: of a song it is shown more of; by default the same.
            class_scales: see `Predictions.of`.
        """
        self._model = model
        self._windows = windows
        self._temperatures = (temperature, temperature if mean_temperature is None else mean_temperature)
        self._class_scales = class_scales

    def n_windows(self, songs: Songs) -> int:
        """Return how many windows of `songs` the model is shown."""
        if self._windows == 1 or len(songs.segments) == WINDOW * len(songs):  # Songs of 120 segments, most of the time.
            return len(songs)
        return int(np.clip(songs.lengths - WINDOW + 1, 1, self._windows).sum())

    def predict(self, songs: Songs) -> Predictions:
        """Return what the model says of `songs`, each (T, 25) raw; at least one."""
        windows, counts = songs.windows(self._windows)
        batches = range(0, len(windows), BATCH_WINDOWS)
        per_window = np.concatenate([self._model.logits(windows[at : at + BATCH_WINDOWS]) for at in batches])
        temperature = np.where(counts == 1, *self._temperatures)
        return Predictions.of(mean_over_windows(per_window, counts), temperature, counts, self._class_scales)


class Cascade:
    """The rungs of a ladder, each with the model that answers on it."""

    def __init__(self, models: Sequence[CalibratedModel], ladder: Ladder) -> None:
        """Join the models of a ladder, first to last; its thresholds are the default of `answer`."""
        self.models = tuple(models)
        self.ladder = ladder

    @property
    def student(self) -> CalibratedModel:
        """The model of the first rung."""
        return self.models[0]

    @property
    def teacher(self) -> CalibratedModel:
        """The model of the last rung."""
        return self.models[-1]

    def ends(self) -> "Cascade":
        """Return the cascade of the first and the last rung, whose answer stands: agreement with it can be promised."""
        ladder, threshold = self.ladder, self.ladder.thresholds_nats[:1]
        models = (ladder.models[0], ladder.models[-1])
        two = replace(ladder, models=models, thresholds_nats=threshold, on_fallback="teacher")
        return Cascade((self.models[0], self.models[-1]), two)

    def answer(self, songs: Songs, threshold_nats: float | None = None) -> Answers:
        """Return an answer for each of `songs`, raw; at least one.

        A rung is asked only about songs whose doubt on the one below, which is their cross-entropy unless the bundle
        has thresholds per class, is not at or below its threshold.

        Args:
            songs: raw songs.
            threshold_nats: for every rung, instead of its own.
        """

        def ask(rung: int, rows: Ints | slice) -> Predictions:
            return self.models[rung].predict(songs if isinstance(rows, slice) else songs.take(rows))

        return self.ladder.at(threshold_nats).climb(ask)


def check_threshold(threshold_nats: float | None) -> None:
    """Refuse a threshold below 0 nats; None is the bundle's."""
    if threshold_nats is not None and not threshold_nats >= 0:
        raise ConfigError(f"threshold: expected at least 0 nats, found {threshold_nats}")


def open_cascade(
    bundle: Bundle, *, windows: int | None = None, provider: Provider = "auto", threads: int | None = None
) -> Cascade:
    """Return the cascade of a bundle, both models loaded.

    Args:
        bundle: a verified bundle.
        windows: windows of a song that both models see, at most, instead of what the bundle says.
        provider: where the models run.
        threads: threads of each model.
    """
    manifest = bundle.manifest
    opened: dict[ModelName, OnnxModel] = {}
    models = []
    for rung in manifest.all_rungs:
        if rung.model not in opened:
            opened[rung.model] = open_model(bundle, manifest.entry(rung), provider=provider, threads=threads)
        models.append(calibrated(bundle, rung, opened[rung.model], windows=windows))
    return Cascade(models, manifest.ladder)


def calibrated(bundle: Bundle, rung: Rung, model: Model, *, windows: int | None = None) -> CalibratedModel:
    """Return a model as it answers on a rung; `windows` instead of the rung's own."""
    if windows is not None and windows < 1:
        raise ConfigError(f"windows: expected at least 1, found {windows}")
    manifest = bundle.manifest
    return CalibratedModel(
        model,
        windows=windows or rung.windows,
        temperature=rung.temperature.value,
        mean_temperature=rung.mean_temperature.value if rung.mean_temperature else None,
        class_scales=manifest.class_scales if rung == manifest.all_rungs[0] else None,
    )


def open_model(
    bundle: Bundle, entry: ModelEntry, *, provider: Provider = "auto", threads: int | None = None
) -> OnnxModel:
    """Return one model of a bundle, loaded; a `BundleError` if its classes are not those of the manifest."""
    name = str(bundle.path / entry.file)
    model = OnnxModel(
        bundle.model(entry), name, provider=provider, threads=threads, arena=entry.form.lowering != "scan"
    )
    if model.classes != bundle.manifest.classes:
        raise BundleError(
            f"{name}: expected the classes of the manifest, {', '.join(bundle.manifest.classes)}; found "
            f"{', '.join(model.classes) or 'none'}. The manifest or the model is of another bundle."
        )
    return model
