"""Standardisation: the mean and deviation of the training songs, and of no others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from segue.training.networks.standardise import Standardise
from tests.support.random_songs import random_batch, save


def test_mean_and_deviation_are_those_of_all_segments_of_the_training_songs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.training.networks.standardise.ROWS_AT_A_TIME", 2)
    batch = random_batch([120, 300, 7, 120, 55])
    batch.songs.segments[:, 5] += 300  # Far from zero, as loudness and the first timbre are.
    rows = np.array([0, 1, 2, 4])
    standardise = Standardise.of(save(tmp_path / "songs.arrow", batch), rows)
    segments = batch.take(rows).songs.segments.astype(np.float64)
    np.testing.assert_allclose(standardise.mean, segments.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(standardise.deviation, segments.std(axis=0), rtol=1e-6)
    scaled = standardise(torch.from_numpy(batch.take(rows).songs.segments))
    np.testing.assert_allclose(scaled.mean(dim=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(dim=0, correction=0), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 45.8, -3.3])
def test_a_feature_that_never_changes_becomes_zero(tmp_path: Path, value: float) -> None:
    batch = random_batch([20_000] * 3)
    batch.songs.segments[:, 3] = value
    standardise = Standardise.of(save(tmp_path / "songs.arrow", batch), np.arange(3))
    assert standardise.deviation[3] == 1
    np.testing.assert_array_equal(standardise(torch.from_numpy(batch.songs.segments))[:, 3], 0)


def test_standardised_songs_pass_unchanged(tmp_path: Path) -> None:
    batch = random_batch([120, 120])
    table = save(tmp_path / "songs.arrow", batch, units="standardised")
    segments = torch.from_numpy(batch.songs.segments)
    np.testing.assert_array_equal(Standardise.of(table, np.arange(2))(segments), segments)
