"""Autoencoders: a layer and its gradient against plain float64, and layers below that stand still."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segue.data.synth import synth
from segue.data.table import SongTable
from segue.training.fit.autoencoder import Autoencoder, pretrain, squared_error
from segue.training.fit.loop import LoopConfig
from segue.training.fit.losses import Targets
from segue.training.networks.build import build
from segue.training.networks.dense import DenseConfig, DenseNetwork
from segue.training.networks.standardise import Standardise
from tests.support.random_networks import arrays, random_network, random_windows, randomise

CONFIG = DenseConfig(look="flat", hidden=(6, 4), norm="none", input_dropout=0.0, hidden_dropout=0.0)


@pytest.mark.parametrize("depth", [0, 1])
def test_an_autoencoder_layer_and_its_gradient_are_the_plain_reference(depth: int) -> None:
    network = random_network(CONFIG)
    assert isinstance(network, DenseNetwork)
    torch.manual_seed(0)
    autoencoder = Autoencoder(network, depth).double()
    randomise(autoencoder.decoder)
    weights, segments = arrays(network), random_windows(5)
    flat = (segments.numpy() - weights["standardise.mean"]) / weights["standardise.deviation"]
    values = flat.reshape(5, -1)
    for at in range(depth):
        values = np.tanh(
            values @ weights[f"head.layers.{at}.affine.weight"].T + weights[f"head.layers.{at}.affine.bias"]
        )
    encoder = weights[f"head.layers.{depth}.affine.weight"], weights[f"head.layers.{depth}.affine.bias"]
    decoder = arrays(autoencoder.decoder)
    code = np.tanh(values @ encoder[0].T + encoder[1])
    residual = code @ decoder["weight"].T + decoder["bias"] - values
    autoencoder.train()
    found = autoencoder(segments)
    np.testing.assert_allclose(found.detach(), residual, atol=1e-10)
    torch.autograd.backward(squared_error(found, Targets(torch.zeros(5))))
    of_residual = 2 * residual / residual.size
    of_code = of_residual @ decoder["weight"] * (1 - code**2)
    affine = network.head.layers[depth].affine
    assert isinstance(affine, nn.Linear)
    assert affine.weight.grad is not None
    np.testing.assert_allclose(affine.weight.grad, of_code.T @ values, atol=1e-10)
    assert autoencoder.decoder.weight.grad is not None
    np.testing.assert_allclose(autoencoder.decoder.weight.grad, of_residual.T @ code, atol=1e-10)


def test_layers_learn_one_after_the_other_and_the_readout_stays(tmp_path: Path) -> None:
    synth(tmp_path / "songs.arrow", 120, classes=3)
    songs, rows = SongTable(tmp_path / "songs.arrow"), np.arange(120)
    loop = LoopConfig(epochs=1, batch_songs=20, optimiser="adam", schedule="constant", learning_rate=1e-3)
    config = DenseConfig(look="pooled", hidden=(32, 16), input_dropout=0.0, hidden_dropout=0.0)
    torch.manual_seed(0)
    network = build(config, 3, Standardise.of(songs, rows))
    assert isinstance(network, DenseNetwork)
    before = arrays(network)
    short, long = pretrain(network, songs, rows, loop), []
    after = arrays(network)
    for name in before:
        changed = not np.array_equal(before[name], after[name])
        assert changed == (not name.startswith(("head.readout", "standardise"))), name
    for epochs in (1, 30):
        torch.manual_seed(0)
        network = build(config, 3, Standardise.of(songs, rows))
        assert isinstance(network, DenseNetwork)
        long = pretrain(network, songs, rows, LoopConfig(**{**vars(loop), "epochs": epochs}))
        if epochs == 1:
            assert long == short  # The same seed, the same layers.
    assert long[0] < short[0]  # The second layer's input is another one by then.
