"""Temperatures: how sure each model really is, for a song it sees one window of and for one it sees more of."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from segue.data.metrics import log_softmax, softmax
from segue.data.song import WINDOW, Floats, Ints
from segue.data.table import SongTable
from segue.serving.bundle.manifest import Temperature
from segue.serving.cascade import CalibratedModel, Model
from segue.serving.predictions import Predictions
from segue.serving.tables import predict_rows
from segue.serving.tradeoff import scores

log = logging.getLogger(__name__)

TEMPERATURES = (0.05, 20.0)
LONG_LOOK = 9  # Windows that the temperature of a longer look is fitted on, where the bundle itself asks for one only.
LEAST_SONGS = 5  # With several windows, to fit the temperature of a longer look on, and to measure it on.
AT_THE_END = 0.01  # Of the range, in units of log temperature.


@dataclass(frozen=True)
class UncalibratedPredictions:
    """What one model says of n songs, before any temperature."""

    one: Predictions  # Of one window a song.
    several: Predictions | None  # Of several windows a song, where some song is that long.
    windows: int  # How many windows of a song `several` is made of, at most.
    serves: Predictions  # The one of the two that is served.

    def take(self, rows: Ints) -> "UncalibratedPredictions":
        """Return what the model says of the songs of the given rows."""
        several = self.several and self.several.take(rows)
        return UncalibratedPredictions(self.one.take(rows), several, self.windows, self.serves.take(rows))


def predict_uncalibrated(
    model: Model, windows: int, songs: SongTable, rows: Ints, name: str
) -> UncalibratedPredictions:
    """Ask `model`, which serves with at most `windows` windows, about some songs; the progress bar is called `name`."""
    one = predict_rows(CalibratedModel(model, windows=1, temperature=1.0), songs, rows, name)
    if (songs.lengths[rows] <= WINDOW).all():
        return UncalibratedPredictions(one, None, 1, one)
    look = windows if windows > 1 else LONG_LOOK
    several = predict_rows(
        CalibratedModel(model, windows=look, temperature=1.0), songs, rows, f"{name}, {look} windows"
    )
    return UncalibratedPredictions(one, several, look, several if windows > 1 else one)


@dataclass(frozen=True)
class Temperatures:
    """Both temperatures of one model."""

    single: Temperature  # Of a song it sees one window of.
    mean: Temperature | None  # Of a song it sees several of; None where no song was that long.

    def predict(self, heard: UncalibratedPredictions, class_scales: Sequence[float] | None = None) -> Predictions:
        """Return the predictions that is served; for the scales see `segue.serving.cascade.Predictions.of`."""
        windows = heard.serves.windows
        temperature = np.where(windows == 1, self.single.value, (self.mean or self.single).value)
        return Predictions.of(heard.serves.logits, temperature, windows, class_scales)


def fit_temperatures(
    heard: UncalibratedPredictions, labels: Ints, fitting: Ints, measuring: Ints, name: str
) -> Temperatures:
    """Return a model's temperatures.

    Args:
        heard: what it says of n songs.
        labels: (n,) their classes.
        fitting: the rows that the temperatures are fitted on.
        measuring: the rows that tell how well calibrated it was before and is after.
        name: of the model.
    """
    single = _fit(heard.one, labels, fitting, measuring, 1, name)
    if heard.several is None:
        return Temperatures(single, None)
    long = heard.several.windows > 1
    fitting, measuring = fitting[long[fitting]], measuring[long[measuring]]
    if min(len(fitting), len(measuring)) < LEAST_SONGS:
        return Temperatures(single, None)
    return Temperatures(single, _fit(heard.several, labels, fitting, measuring, heard.windows, name))


def _fit(heard: Predictions, labels: Ints, fitting: Ints, measuring: Ints, windows: int, name: str) -> Temperature:
    value = fit_temperature(heard.logits[fitting], labels[fitting])
    if min(abs(np.log(value / end)) for end in TEMPERATURES) < AT_THE_END:
        log.warning(
            "%s: its temperature stands at %.3g, the end of the range; on %d calibration songs it is %s",
            name,
            value,
            len(fitting),
            "always right" if value < 1 else "far less often right than it is sure",
        )
    logits, right = heard.logits[measuring], labels[measuring]
    before, after = (scores(softmax(logits, one), right) for one in (1.0, value))
    return Temperature(value, windows, len(measuring), before, after)


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """Return the temperature in 0.05..20 with the smallest nll of logits (n, n_classes) on labels (n,).

    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017. The nll has one minimum, which L-BFGS finds over
    the logarithm of the temperature.
    """
    doubles = logits.astype(np.float64)
    right = np.arange(len(labels)), labels

    def nll_and_slope(log_temperature: Floats) -> tuple[float, float]:
        tempered = doubles / np.exp(log_temperature)
        log_probs = log_softmax(tempered)
        slope = (tempered[right] - (np.exp(log_probs) * tempered).sum(axis=1)).mean()
        return float(-log_probs[right].mean()), float(slope)

    found = minimize(nll_and_slope, x0=[0.0], jac=True, method="L-BFGS-B", bounds=[np.log(TEMPERATURES)])
    return float(np.exp(found.x[0]))
