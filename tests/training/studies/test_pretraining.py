"""Pretraining: a recurrence comes to predict segments better than their mean does, the same way every time."""

import numpy as np
import pytest
import torch

from segue.data.table import SongTable
from segue.training.networks.build import build
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise
from segue.training.studies.pretraining import pretrain
from tests.support.random_songs import random_batch, random_segments, save

ROWS = np.arange(150)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> SongTable:
    """Return songs of two segments of a common store in turn: what comes next is what came before."""
    store, rng = random_segments(6), np.random.default_rng(0)
    batch = random_batch([120] * len(ROWS))
    for row in ROWS:
        batch.songs.segments[120 * row : 120 * (row + 1)] = np.tile(store[rng.permutation(6)[:2]], (60, 1))
    return save(tmp_path_factory.mktemp("pretraining") / "songs.arrow", batch, classes=["a", "b"])


def pretrained(songs: SongTable, epochs: int) -> tuple[Network, float]:
    torch.manual_seed(0)
    network = build(RecurrentConfig(state=32), len(songs.classes), Standardise.of(songs, ROWS))
    return network, pretrain(network, songs, ROWS, epochs, seed=0)


def test_the_next_segment_is_predicted_better_than_by_the_mean_of_all(songs: SongTable) -> None:
    (_, first), (_, last) = pretrained(songs, epochs=1), pretrained(songs, epochs=30)
    assert first > 0.9  # Always answering the mean gets 1.
    assert last < 0.5


def test_the_same_seed_pretrains_the_same_network(songs: SongTable) -> None:
    (one, error), (same, same_error) = (pretrained(songs, epochs=2) for _ in range(2))
    assert error == same_error
    for name, tensor in one.state_dict().items():
        np.testing.assert_array_equal(tensor, same.state_dict()[name])
