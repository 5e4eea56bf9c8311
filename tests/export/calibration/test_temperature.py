"""Temperatures: at their optimum, one for a window and one for the mean over several, and measured on other songs."""

from math import log
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segue.data.song import Floats, Ints
from segue.data.table import SongTable
from segue.export.calibration.temperature import (
    LONG_LOOK,
    TEMPERATURES,
    UncalibratedPredictions,
    fit_temperature,
    fit_temperatures,
    predict_uncalibrated,
)
from segue.serving.cascade import CalibratedModel
from segue.serving.predictions import Predictions
from tests.support.random_songs import random_batch, save

Array = NDArray[np.float64]


def drawn_logits(n: int, scale: float, seed: int = 0) -> tuple[Floats, Ints]:
    """Return logits (n, 5) and labels drawn from softmax(logits / scale): the best temperature is near `scale`."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(0, 2, (n, 5))).astype(np.float32)
    gumbels = rng.gumbel(size=logits.shape)
    return logits, (logits / scale + gumbels).argmax(axis=1)


def best_on_a_fine_grid(logits: Floats, labels: Ints) -> float:
    """Return the temperature of the smallest nll among 3,000 that are 0.2 % apart."""
    grid = np.exp(np.linspace(log(0.05), log(20), 3000))
    tempered = logits[:, :, None].astype(np.float64) / grid
    losses = np.log(np.exp(tempered).sum(axis=1)) - tempered[np.arange(len(labels)), labels]
    return float(grid[losses.mean(axis=0).argmin()])


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_best_of_a_fine_grid(scale: float) -> None:
    logits, labels = drawn_logits(1000, scale)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(best_on_a_fine_grid(logits, labels), rel=2e-3)
    assert found == pytest.approx(scale, rel=0.15)


def test_a_temperature_stays_in_its_range() -> None:
    logits, labels = drawn_logits(500, 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1)) == pytest.approx(TEMPERATURES[0], rel=0.01)
    assert fit_temperature(logits, (logits.argmax(axis=1) + 1) % 5) == pytest.approx(TEMPERATURES[1], rel=0.01)
    assert TEMPERATURES[0] < fit_temperature(logits, labels) < TEMPERATURES[1]


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_the_temperature_is_where_the_slope_of_the_nll_is_zero(scale: float) -> None:
    logits, labels = drawn_logits(500, scale, seed=1)
    tempered = logits.astype(np.float64) / fit_temperature(logits, labels)
    probs = np.exp(tempered) / np.exp(tempered).sum(axis=1, keepdims=True)
    slopes = tempered[np.arange(500), labels] - (probs * tempered).sum(axis=1)
    assert abs(slopes.mean()) < 1e-4


def heard_of(scale: float, mean_scale: float, n: int = 4000) -> tuple[UncalibratedPredictions, Ints]:
    """Return what a model says whose single windows need one temperature, and means over windows another."""
    logits, labels = drawn_logits(n, scale)
    windows = np.where(np.arange(n) % 4 == 0, 1, 5)
    means = np.where(windows[:, None] == 1, logits, logits * np.float32(mean_scale / scale))
    one = Predictions.of(logits, 1.0, np.ones(n, np.int64))
    several = Predictions.of(means, 1.0, windows)
    return UncalibratedPredictions(one, several, 5, several), labels


def test_a_mean_over_windows_has_a_temperature_of_its_own() -> None:
    heard, labels = heard_of(scale=2.0, mean_scale=0.5)
    rows = np.arange(len(labels))
    found = fit_temperatures(heard, labels, rows[:2000], rows[2000:], "student")
    assert found.mean is not None
    assert (found.single.windows, found.mean.windows) == (1, 5)
    assert (found.single.songs, found.mean.songs) == (2000, 1500)
    assert found.single.value == pytest.approx(2.0, rel=0.15)
    assert found.mean.value == pytest.approx(0.5, rel=0.15)
    predictions = found.predict(heard)
    for row, temperature in ((0, found.single.value), (1, found.mean.value)):
        tempered = heard.serves.logits[row].astype(np.float64) / temperature
        np.testing.assert_allclose(predictions.probs[row], np.exp(tempered) / np.exp(tempered).sum(), rtol=1e-9)


def test_before_and_after_are_those_of_the_other_songs() -> None:
    heard, labels = heard_of(scale=3.0, mean_scale=3.0)
    rows = np.arange(len(labels))
    found = fit_temperatures(heard, labels, rows[:1000], rows[1000:], "student").single
    for temperature, scores in ((1.0, found.before), (found.value, found.after)):
        tempered = heard.one.logits[1000:].astype(np.float64) / temperature
        log_probs = tempered - np.log(np.exp(tempered).sum(axis=1, keepdims=True))
        assert scores.nll == pytest.approx(-log_probs[np.arange(3000), labels[1000:]].mean())
    assert found.before.accuracy == found.after.accuracy
    assert found.after.nll < found.before.nll
    assert found.after.ece < found.before.ece


@pytest.mark.parametrize(("right", "words"), [(True, "always right"), (False, "far less often right than it is sure")])
def test_all_right_or_all_wrong_is_said(right: bool, words: str, caplog: pytest.LogCaptureFixture) -> None:
    logits, _ = drawn_logits(100, 1.0)
    labels = (logits.argmax(axis=1) + (0 if right else 1)) % 5
    one = Predictions.of(logits, 1.0, np.ones(100, np.int64))
    fit_temperatures(UncalibratedPredictions(one, None, 1, one), labels, np.arange(30), np.arange(30, 100), "teacher")
    assert "teacher: its temperature stands at" in caplog.text
    assert f"on 30 calibration songs it is {words}" in caplog.text


class FirstSegment:
    """A model whose logits are the first timbres of a window."""

    def logits(self, windows: Floats) -> Floats:
        return windows[:, 0, :3] * np.float32(0.05)


@pytest.mark.parametrize(("windows", "look"), [(1, LONG_LOOK), (3, 3)])
def test_a_model_is_heard_on_one_window_and_on_several(tmp_path: Path, windows: int, look: int) -> None:
    table = save(tmp_path / "songs.arrow", random_batch([100, 120, 300, 500]))
    heard = predict_uncalibrated(FirstSegment(), windows, table, np.arange(4), "")
    assert (heard.windows, heard.one.windows.tolist()) == (look, [1, 1, 1, 1])
    assert heard.several is not None
    assert heard.several.windows.tolist() == [1, 1, look, look]
    assert heard.serves is (heard.one if windows == 1 else heard.several)
    expected = CalibratedModel(FirstSegment(), windows=windows, temperature=1.0).predict(table.songs(range(4)))
    np.testing.assert_array_equal(heard.serves.logits, expected.logits)


def test_songs_of_one_window_need_one_temperature_only(tmp_path: Path) -> None:
    table: SongTable = save(tmp_path / "songs.arrow", random_batch([120] * 40))
    heard = predict_uncalibrated(FirstSegment(), 5, table, np.arange(40), "")
    assert heard.several is None
    labels = np.arange(40) % 3
    assert fit_temperatures(heard, labels, np.arange(10), np.arange(10, 40), "student").mean is None


def test_too_few_long_songs_get_no_temperature_of_their_own() -> None:
    heard, labels = heard_of(1.0, 1.0, n=24)
    found = fit_temperatures(heard, labels, np.arange(5), np.arange(5, 24), "student")
    assert found.mean is None
    assert (
        found.predict(heard).probs
        == Predictions.of(heard.serves.logits, found.single.value, heard.serves.windows).probs
    ).all()
