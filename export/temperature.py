"""Temperatures: how sure each model really is, for a song it sees one window of and for one it sees more of."""

import logging
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from data.metrics import log_softmax, softmax
from data.song import WINDOW, Floats, Ints
from data.table import SongTable
from serving.bundle import Temperature
from serving.cascade import Model, Opinion, Voice
from serving.evaluate import opinion_of
from serving.tradeoff import scores

log = logging.getLogger(__name__)

TEMPERATURES = (0.05, 20.0)
LONG_LOOK = 9  # Windows that the temperature of a longer look is fitted on, where the bundle itself asks for one only.
LEAST_SONGS = 5  # With several windows, to fit the temperature of a longer look on.


@dataclass(frozen=True)
class Heard:
    """What one model says of n songs, before any temperature."""

    one: Opinion  # Of one window a song.
    several: Opinion | None  # Of several windows a song, where some song is that long.
    windows: int  # How many windows of a song `several` is made of, at most.
    serves: Opinion  # The one of the two that is served.

    def take(self, rows: Ints) -> "Heard":
        """Return what the model says of the songs of the given rows."""
        several = self.several and self.several.take(rows)
        return Heard(self.one.take(rows), several, self.windows, self.serves.take(rows))


def hear(model: Model, windows: int, songs: SongTable, rows: Ints, name: str) -> Heard:
    """Ask `model`, which serves with at most `windows` windows, about some songs; the progress bar is called `name`."""
    one = opinion_of(Voice(model, windows=1, temperature=1.0), songs, rows, name)
    if (songs.lengths[rows] <= WINDOW).all():
        return Heard(one, None, 1, one)
    look = windows if windows > 1 else LONG_LOOK
    several = opinion_of(Voice(model, windows=look, temperature=1.0), songs, rows, f"{name}, {look} windows")
    return Heard(one, several, look, several if windows > 1 else one)


def fit_temperatures(
    fitting: Heard, labels: Ints, measuring: Heard, measuring_labels: Ints, name: str
) -> tuple[Temperature, Temperature | None]:
    """Return a model's temperature for one window, and for the mean over several if the songs are long enough.

    Args:
        fitting: what the model says of the songs to fit on.
        labels: of those songs, (n,).
        measuring: what it says of other songs, which tell how well calibrated it was before and is after.
        measuring_labels: of those other songs.
        name: of the model.
    """
    single = _fit(fitting.one, labels, measuring.one, measuring_labels, 1, name)
    if fitting.several is None or measuring.several is None:
        return single, None
    long, measured = fitting.several.windows > 1, measuring.several.windows > 1
    if long.sum() < LEAST_SONGS or not measured.any():
        return single, None
    mean = _fit(
        fitting.several.take(np.flatnonzero(long)),
        labels[long],
        measuring.several.take(np.flatnonzero(measured)),
        measuring_labels[measured],
        fitting.windows,
        name,
    )
    return single, mean


def _fit(
    fitting: Opinion, labels: Ints, measuring: Opinion, measuring_labels: Ints, windows: int, name: str
) -> Temperature:
    value = fit_temperature(fitting.logits, labels)
    if min(abs(np.log(value / end)) for end in TEMPERATURES) < 0.01:
        log.warning(
            "%s: its temperature stands at %.3g, the end of the range: on %d songs it was %s",
            name,
            value,
            len(labels),
            "always right" if value < 1 else "hardly ever right",
        )
    before = scores(softmax(measuring.logits), measuring_labels)
    after = scores(softmax(measuring.logits, value), measuring_labels)
    return Temperature(value, windows, len(measuring_labels), before, after)


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

    found = minimize(
        nll_and_slope, x0=[0.0], jac=True, method="L-BFGS-B", bounds=[np.log(TEMPERATURES)], options={"ftol": 1e-14}
    )
    return float(np.exp(found.x[0]))


def temper(heard: Heard, single: Temperature, mean: Temperature | None) -> Opinion:
    """Return the opinion that is served, at the temperatures that were fitted."""
    windows = heard.serves.windows
    temperature = np.where(windows == 1, single.value, (mean or single).value)
    return Opinion.of(heard.serves.logits, temperature, windows)
