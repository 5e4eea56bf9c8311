"""Augmentation: chroma goes round by semitones, noise has its size, and the rest stays as it is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segue.data.song import CHROMA, LOUDNESS, TIMBRE
from segue.errors import ConfigError
from segue.training.fit.augmentation import PITCHES, AugmentationConfig, augment, transpose

DEVIATION = torch.linspace(0.5, 40.0, 25)


def windows(n: int = 6, steps: int = 8) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((n, steps, 25)).astype(np.float32))


@settings(deadline=None)
@given(st.lists(st.integers(-30, 30), min_size=6, max_size=6))
def test_a_transposition_rotates_the_chroma_of_each_window(semitones: list[int]) -> None:
    segments = windows()
    found = transpose(segments, torch.tensor(semitones))
    for window, turned, by in zip(segments.numpy(), found.numpy(), semitones, strict=True):
        np.testing.assert_array_equal(turned[:, CHROMA], np.roll(window[:, CHROMA], by, axis=1))
        np.testing.assert_array_equal(turned[:, TIMBRE], window[:, TIMBRE])
        np.testing.assert_array_equal(turned[:, LOUDNESS], window[:, LOUDNESS])


@settings(deadline=None)
@given(st.integers(0, 11), st.integers(0, 11))
def test_transpositions_add_up_and_twelve_semitones_are_none(one: int, other: int) -> None:
    segments = windows(1)
    twice = transpose(transpose(segments, torch.tensor([one])), torch.tensor([other]))
    np.testing.assert_array_equal(twice, transpose(segments, torch.tensor([one + other])))
    np.testing.assert_array_equal(transpose(segments, torch.tensor([PITCHES])), segments)


def test_c_becomes_c_sharp() -> None:
    segments = torch.zeros(1, 1, 25)
    segments[0, 0, CHROMA.start] = 1
    assert transpose(segments, torch.tensor([1]))[0, 0, CHROMA.start + 1] == 1


def test_every_transposition_is_drawn_as_often() -> None:
    torch.manual_seed(0)
    segments = torch.zeros(12_000, 1, 25)
    segments[:, :, CHROMA.start] = 1
    drawn = augment(segments, AugmentationConfig(transpose=True), DEVIATION)[:, 0, CHROMA].sum(dim=0)
    assert drawn.sum() == 12_000
    np.testing.assert_allclose(drawn, 1000, atol=5 * math.sqrt(1000))


def test_noise_has_its_size_in_deviations_of_each_feature_and_is_drawn_anew_everywhere() -> None:
    torch.manual_seed(0)
    segments = 7 + torch.zeros(200, 120, 25)
    noise = ((augment(segments, AugmentationConfig(noise=0.2), DEVIATION) - segments) / DEVIATION).numpy()
    n = noise[..., 0].size
    np.testing.assert_allclose(noise.mean(axis=(0, 1)), 0, atol=5 * 0.2 / math.sqrt(n))
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 0.2, rtol=5 / math.sqrt(2 * n))
    correlations = np.corrcoef(noise.reshape(-1, 25).T) - np.eye(25)
    assert np.abs(correlations).max() < 6 / math.sqrt(n)


def test_without_augmentation_a_window_is_as_it_was() -> None:
    segments = windows()
    assert augment(segments, AugmentationConfig(), DEVIATION) is segments


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_noise_without_a_size_is_refused(noise: float) -> None:
    with pytest.raises(ConfigError, match=f"noise: expected at least 0 standard deviations, found {noise}"):
        AugmentationConfig(noise=noise)
