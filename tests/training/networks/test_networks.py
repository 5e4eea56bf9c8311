"""Dense, convolutional and joined networks and summary statistics: against plain float64 references, both ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import Tensor, nn
from torch.func import functional_call

from segue.errors import ConfigError
from segue.training.networks.build import Config, EnsembleConfig, SingleConfig, build
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig, DenseNetwork
from segue.training.networks.ensemble import Ensemble
from segue.training.networks.layers import Init
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise
from segue.training.networks.summary import LAGS, N_STATISTICS, mean_and_spread, summary
from tests.support.plain_networks import plain_logits
from tests.support.random_networks import CLASSES, Array, arrays, random_network, random_windows

SONGS = 5
CONVOLUTIONAL = ConvolutionalConfig(channels=(6, 5), kernel=5, hidden=(8,))
DENSE: dict[str, SingleConfig] = {
    "flat": DenseConfig(look="flat", hidden=(7,)),
    "flat, the study's three layers": DenseConfig(look="flat", hidden=(9, 8, 5)),
    "pooled": DenseConfig(look="pooled", hidden=(7,)),
    "convolution": ConvolutionalConfig(channels=(6,), kernel=3, summary=False, hidden=()),
    "two convolutions": replace(CONVOLUTIONAL, summary=False),
    "convolutions with summary": CONVOLUTIONAL,
    "layer norm, selu": DenseConfig(look="flat", hidden=(9, 8), norm="layer", activation="selu", norm_eps=1e-3),
    "no norm, relu": DenseConfig(look="pooled", hidden=(9, 8), norm="none", activation="relu"),
    "batch norm, elu, its epsilon": DenseConfig(look="flat", hidden=(9, 8), activation="elu", norm_eps=0.1),
    "convolutions, layer norm, elu": ConvolutionalConfig(
        channels=(6, 5), kernel=3, hidden=(7,), norm="layer", activation="relu", filter_activation="elu"
    ),
    "convolutions, no norm, tanh": ConvolutionalConfig(
        channels=(6, 5), kernel=3, hidden=(7,), norm="none", filter_activation="tanh"
    ),
}
JOINED = EnsembleConfig((DENSE["pooled"], CONVOLUTIONAL, RecurrentConfig(state=4, bptt_steps=40)))
every_shape = pytest.mark.parametrize("config", DENSE.values(), ids=DENSE)


def without_dropout(config: SingleConfig) -> SingleConfig:
    assert isinstance(config, DenseConfig | ConvolutionalConfig)
    return replace(config, input_dropout=0.0, hidden_dropout=0.0)


@pytest.mark.parametrize("config", [*DENSE.values(), JOINED], ids=[*DENSE, "joined"])
def test_a_network_is_the_plain_reference(config: Config) -> None:
    network, segments = random_network(config), random_windows(SONGS)
    with torch.no_grad():
        found = network(segments)
    np.testing.assert_allclose(found, plain_logits(config, network, segments.numpy()), atol=1e-9, rtol=0)


@every_shape
def test_gradients_pass_gradcheck_in_training(config: SingleConfig) -> None:
    network, segments = random_network(without_dropout(config)).train(), random_windows(SONGS)
    parameters = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}

    def logits(*values: Tensor) -> Tensor:
        found: Tensor = functional_call(network, dict(zip(parameters, values, strict=True)), (segments,))
        return found

    assert torch.autograd.gradcheck(logits, [*parameters.values()], eps=1e-6, atol=1e-5, rtol=1e-5, fast_mode=True)


@every_shape
@pytest.mark.parametrize("momentum", [0.1, 0.02])
def test_running_statistics_are_the_exponential_moving_average(config: SingleConfig, momentum: float) -> None:
    config = replace(config, norm_momentum=momentum)
    network = random_network(without_dropout(config)).train()
    expected = arrays(network)
    seen: dict[str, list[Array]] = {}
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm1d)}
    for name, module in norms.items():
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0].detach().numpy().copy())
        )
    for seed in (1, 2, 3):
        network(random_windows(SONGS, seed=seed))
    step = config.norm_momentum
    for name in norms:
        mean, variance = expected[f"{name}.running_mean"], expected[f"{name}.running_var"]
        for batch in seen[name]:
            rows = np.moveaxis(batch, 1, -1).reshape(-1, batch.shape[1])  # Convolutions put channels second.
            mean = (1 - step) * mean + step * rows.mean(axis=0)
            variance = (1 - step) * variance + step * rows.var(axis=0, ddof=1)
        found = arrays(network)
        np.testing.assert_allclose(found[f"{name}.running_mean"], mean, atol=1e-9, rtol=1e-9)
        np.testing.assert_allclose(found[f"{name}.running_var"], variance, atol=1e-9, rtol=1e-9)


def test_dropout_leaves_out_its_share_in_training_alone() -> None:
    network = random_network(DenseConfig(look="flat", hidden=(4000,), input_dropout=0.25, hidden_dropout=0.6)).double()
    shares = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(
                lambda _, inputs, output, name=name: shares.update({name: float((output == 0).double().mean())})
            )
    torch.manual_seed(0)
    segments = random_windows(SONGS)
    network(segments)
    assert set(shares.values()) == {0.0}
    network.train()(segments)
    assert shares["head.input_dropout"] == pytest.approx(0.25, abs=0.02)
    assert shares["head.layers.0.dropout"] == pytest.approx(0.6, abs=0.02)


def test_an_ensemble_says_the_mean_log_probability_of_its_members() -> None:
    network, segments = random_network(JOINED), random_windows(SONGS)
    assert isinstance(network, Ensemble)
    with torch.no_grad():
        said = np.stack([member(segments).numpy() for member in network.networks()])
        found = network(segments).numpy()
    expected = (said - np.log(np.exp(said).sum(axis=2, keepdims=True))).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_summary_statistics_are_those_of_numpy_and_scipy() -> None:
    standard = random_windows(3)
    found = summary(standard).numpy()
    assert found.shape == (3, N_STATISTICS)
    for song, values in zip(standard.numpy(), found, strict=True):
        level, spread, change, *rest = np.split(values[: 25 * (3 + len(LAGS))], 3 + len(LAGS))
        np.testing.assert_allclose(level, song.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(spread, np.log(song.std(axis=0)), atol=1e-12)
        np.testing.assert_allclose(change, np.log(np.abs(np.diff(song, axis=0)).mean(axis=0) + 1e-2), atol=1e-12)
        unit = (song - song.mean(axis=0)) / song.std(axis=0)
        for lag, autocorrelation in zip(LAGS, rest, strict=True):
            expected = [unit[lag:, i] @ unit[:-lag, i] / (120 - lag) for i in range(25)]
            np.testing.assert_allclose(autocorrelation, expected, atol=1e-12)
        pairs = [pearsonr(song[:, i], song[:, j]).statistic for i in range(25) for j in range(i + 1, 25)]
        np.testing.assert_allclose(values[25 * (3 + len(LAGS)) :], pairs, atol=1e-12)


def test_a_window_that_never_changes_has_finite_statistics_and_gradients() -> None:
    standard = torch.ones(2, 120, 25, dtype=torch.float64, requires_grad=True)
    found = torch.cat([summary(standard), mean_and_spread(standard)], dim=1)
    torch.autograd.backward(found.sum())
    assert found.isfinite().all()
    assert standard.grad is not None
    assert standard.grad.isfinite().all()


@pytest.mark.parametrize(
    ("config", "setting", "told"),
    [
        (DenseConfig, {"hidden": ()}, "hidden: expected at least one layer, found none"),
        (DenseConfig, {"hidden": (0,)}, "hidden: expected at least 1 neuron a layer, found 0"),
        (DenseConfig, {"norm_eps": 0.0}, r"norm_eps: expected a number above 0, found 0\.0"),
        (ConvolutionalConfig, {"norm_momentum": 2.0}, r"norm_momentum: expected a number above 0, up to 1, found 2\.0"),
        (RecurrentConfig, {"init_sigma": -1.0}, r"init_sigma: expected a number above 0, found -1\.0"),
        (RecurrentConfig, {"readout": "none", "hidden": (5,)}, "readout: expected an rnn without hidden layers"),
        (DenseConfig, {"input_dropout": 1.0}, r"input_dropout: expected a share from 0 up to 1, found 1\.0"),
        (ConvolutionalConfig, {"channels": ()}, "channels: expected at least one layer, found none"),
        (ConvolutionalConfig, {"channels": (8, 0)}, "channels: expected at least 1 a layer, found 8 0"),
        (ConvolutionalConfig, {"kernel": 4}, "kernel: expected an odd number of segments, at least 1, found 4"),
        (
            ConvolutionalConfig,
            {"hidden_dropout": -0.1},
            r"hidden_dropout: expected a share from 0 up to 1, found -0\.1",
        ),
    ],
)
def test_a_network_that_cannot_learn_is_refused(config: type, setting: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(**setting)


@pytest.mark.parametrize(
    ("init", "variance"), [("he", 2 / 3000), ("xavier", 2 / (3000 + 400)), ("normal", 0.05**2), ("default", 1 / 9000)]
)
def test_weights_begin_with_the_variance_that_was_asked_for(init: Init, variance: float) -> None:
    torch.manual_seed(0)
    network = build(DenseConfig(look="flat", hidden=(400,), init=init, init_sigma=0.05), CLASSES, Standardise())
    assert isinstance(network, DenseNetwork)
    affine = network.head.layers[0].affine
    assert isinstance(affine, nn.Linear)
    assert float(affine.weight.var()) == pytest.approx(variance, rel=0.01)
    assert (init == "default") == bool(affine.bias.any())


def test_the_recurrence_begins_as_it_was_asked_to() -> None:
    for init, variance in (("default", 1 / 300), ("he", 2 / 300), ("normal", 1e-4)):
        torch.manual_seed(0)
        network = build(RecurrentConfig(state=300, init=init), CLASSES, Standardise())  # type: ignore[arg-type]
        weight = network.state_dict()["cell.recurrent.weight"]
        assert float(weight.var()) == pytest.approx(variance, rel=0.02)


def test_every_network_has_as_many_logits_as_classes() -> None:
    for config in DENSE.values():
        assert random_network(config)(random_windows(2)).shape == (2, CLASSES)
