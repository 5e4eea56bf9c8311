"""The student: its two looks and its one hidden layer, against numpy in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from training.standardise import Standardise
from training.student import Look, PooledLook, Student, StudentConfig

from data.errors import ConfigError

Array = NDArray[np.float64]

CLASSES, EPS = 4, 1e-5


def random_windows(n_songs: int = 6) -> Tensor:
    """Return windows (n_songs, 120, 25) whose features have different means, spreads and correlations."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(n_songs, 120, 25)) @ rng.normal(size=(25, 25)) + rng.normal(0, 5, 25))


def random_student(look: Look) -> Student:
    """Return a student in float64, in eval mode, whose every weight and statistic is a random number."""
    generator = torch.Generator().manual_seed(0)
    student = Student(StudentConfig(look=look, hidden=9), n_classes=CLASSES, standardise=Standardise()).double()
    for name, tensor in student.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            positive = name.endswith(("running_var", "deviation"))
            tensor.copy_(0.5 + drawn.abs() if positive else 0.1 * drawn)
    return student.eval()


def plain_flat(windows: Array) -> Array:
    return np.array([window.reshape(-1) for window in windows])


def plain_pooled(windows: Array) -> Array:
    rows = []
    for window in windows:
        covariance = np.cov(window.T, bias=True)
        above = [covariance[i, j] for i in range(25) for j in range(i + 1, 25)]
        rows.append(
            [*np.mean(window, axis=0), *np.std(window, axis=0), *np.abs(np.diff(window, axis=0)).mean(axis=0), *above]
        )
    return np.array(rows)


@pytest.mark.parametrize(("look", "plain_look"), [("flat", plain_flat), ("pooled", plain_pooled)])
def test_a_student_is_the_plain_reference(look: Look, plain_look: Callable[[Array], Array]) -> None:
    student, windows = random_student(look), random_windows()
    weights = {name: tensor.numpy() for name, tensor in student.state_dict().items()}

    def normed(values: Array, layer: str) -> Array:
        scaled: Array = (values - weights[f"{layer}.running_mean"]) / np.sqrt(weights[f"{layer}.running_var"] + EPS)
        return scaled

    seen = plain_look((windows.numpy() - weights["standardise.mean"]) / weights["standardise.deviation"])
    affine = normed(seen, "input_norm") @ weights["hidden.weight"].T + weights["hidden.bias"]
    hidden = np.tanh(normed(affine, "hidden_norm") * weights["hidden_norm.weight"] + weights["hidden_norm.bias"])
    expected = hidden @ weights["readout.weight"].T + weights["readout.bias"]
    np.testing.assert_allclose(student(windows).detach(), expected, atol=1e-10)


def test_the_pooled_look_is_mean_deviation_change_and_covariance() -> None:
    windows = random_windows()
    found = PooledLook()(windows)
    assert found.shape == (6, PooledLook.n_outputs) == (6, 375)
    np.testing.assert_allclose(found, plain_pooled(windows.numpy()), rtol=1e-10, atol=1e-10)


def test_the_pooled_look_of_a_constant_feature_has_a_finite_gradient() -> None:
    windows = random_windows()
    windows[..., 3] = 2.5
    windows.requires_grad_()
    found = PooledLook()(windows)
    np.testing.assert_allclose(found[:, 25 + 3].detach(), 0, atol=1e-3)
    found.sum().backward()
    assert windows.grad is not None
    assert windows.grad.isfinite().all()


@pytest.mark.parametrize("look", ["flat", "pooled"])
def test_a_student_learns_from_the_whole_window_at_once(look: Look) -> None:
    student, windows = random_student(look), random_windows()
    (logits,) = student.parts(windows)
    np.testing.assert_array_equal(logits.detach(), student(windows).detach())


@pytest.mark.parametrize(
    ("setting", "value"), [("hidden", 0), ("input_dropout", 1.0), ("hidden_dropout", -0.1), ("input_dropout", np.nan)]
)
def test_a_student_that_cannot_learn_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{setting}: expected .*, found {value}"):
        StudentConfig(**{setting: value})
