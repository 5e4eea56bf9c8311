"""Losses against torch's own and against plain float64 formulas."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segue.errors import ConfigError
from segue.training.fit.losses import (
    DistillationConfig,
    DistillationLoss,
    LabelConfig,
    LabelLoss,
    Matching,
    Targets,
    class_weights,
    kl_of_probs,
    mse_of_logits,
)

SONGS, CLASSES = 30, 4


@pytest.fixture
def logits() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 2, (SONGS, CLASSES)))


@pytest.fixture
def teacher_logits() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(0, 2, (SONGS, CLASSES)))


@pytest.fixture
def labels() -> Tensor:
    """Return labels of classes of unequal size; every fifth song has none."""
    drawn = np.random.default_rng(2).choice(CLASSES, SONGS, p=[0.6, 0.2, 0.15, 0.05])
    drawn[::5] = -1
    return torch.from_numpy(drawn)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probs


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_are_those_of_torch(logits: Tensor, labels: Tensor, smoothing: float) -> None:
    loss = LabelLoss(LabelConfig(label_smoothing=smoothing), labels.numpy(), CLASSES)
    known = labels != -1
    expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(logits[known], labels[known])
    assert loss(logits, Targets(labels)).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_those_of_the_formula(logits: Tensor, labels: Tensor, smoothing: float) -> None:
    loss = LabelLoss(LabelConfig(label_smoothing=smoothing), labels.numpy(), CLASSES)
    known = np.flatnonzero(labels.numpy() != -1)
    aims = (1 - smoothing) * np.eye(CLASSES)[labels.numpy()[known]] + smoothing / CLASSES
    expected = -(aims * np.log(softmax(logits.numpy()[known]))).sum(axis=1).mean()
    assert loss(logits, Targets(labels)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_class_weights_fall_with_the_songs_of_a_class_and_are_1_on_average(labels: Tensor, exponent: float) -> None:
    weights = class_weights(labels.numpy(), CLASSES, exponent).numpy()
    known = labels.numpy()[labels.numpy() != -1]
    counts = np.bincount(known, minlength=CLASSES)
    assert weights[known].mean() == pytest.approx(1, abs=1e-6)
    for one in np.flatnonzero(counts):
        assert weights[one] / weights[0] == pytest.approx((counts[0] / counts[one]) ** exponent, rel=1e-6)


def test_with_full_weighting_every_class_counts_the_same(logits: Tensor, labels: Tensor) -> None:
    loss = LabelLoss(LabelConfig(class_weighting=1.0), labels.numpy(), CLASSES)
    each = -np.log(softmax(logits.numpy()))[np.arange(SONGS), labels.numpy()]
    of_classes = [each[labels.numpy() == one].mean() for one in range(CLASSES) if (labels.numpy() == one).any()]
    assert loss(logits.float(), Targets(labels)).item() == pytest.approx(np.mean(of_classes), rel=1e-6)


def test_a_class_without_songs_has_a_weight_all_the_same() -> None:
    assert class_weights(np.array([0, 0, 2]), 4, 1.0).isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_kl_is_that_of_torch_and_of_the_formula(logits: Tensor, teacher_logits: Tensor, temperature: float) -> None:
    found = kl_of_probs(logits, teacher_logits, temperature).item()
    student, teacher = (softmax(one.numpy() / temperature) for one in (logits, teacher_logits))
    plain = (teacher * np.log(teacher / student)).sum(axis=1).mean() * temperature**2
    of_torch = functional.kl_div(torch.from_numpy(student).log(), torch.from_numpy(teacher), reduction="batchmean")
    assert found == pytest.approx(plain, abs=1e-12)
    assert found == pytest.approx(of_torch.item() * temperature**2, abs=1e-12)


def test_at_a_high_temperature_the_gradient_of_kl_is_the_difference_of_centred_logits(
    logits: Tensor, teacher_logits: Tensor
) -> None:
    """Hinton et al. 2015, section 2.1, equation 4."""
    logits.requires_grad_()
    torch.autograd.backward(kl_of_probs(logits, teacher_logits, 1e4))
    difference = (logits - teacher_logits).detach().numpy()
    expected = (difference - difference.mean(axis=1, keepdims=True)) / (SONGS * CLASSES)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, expected, atol=1e-5)


def test_the_squared_error_of_logits_is_that_of_the_formula(logits: Tensor, teacher_logits: Tensor) -> None:
    expected = ((logits.numpy() - teacher_logits.numpy()) ** 2).mean()
    assert mse_of_logits(logits, teacher_logits).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("match", get_args(Matching))
def test_labels_and_logits_are_mixed_by_weight(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, match: Matching
) -> None:
    targets, weight = Targets(labels, teacher_logits), 0.3
    matched, mixed, labelled = (
        DistillationLoss(DistillationConfig(match, label_weight=one), labels.numpy(), CLASSES)(logits, targets).item()
        for one in (0.0, weight, 1.0)
    )
    known = labels != -1
    assert labelled == pytest.approx(functional.cross_entropy(logits[known], labels[known]).item(), abs=1e-12)
    assert mixed == pytest.approx((1 - weight) * matched + weight * labelled, abs=1e-12)


def test_the_labels_of_a_student_are_weighted_as_those_of_a_teacher(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> None:
    targets, logits = Targets(labels, teacher_logits), logits.float()
    weighted = DistillationConfig(label_weight=0.4, class_weighting=1.0)
    found = DistillationLoss(weighted, labels.numpy(), CLASSES)(logits, targets).item()
    each = -np.log(softmax(logits.numpy()))[np.arange(SONGS), labels.numpy()]
    of_classes = [each[labels.numpy() == one].mean() for one in range(CLASSES) if (labels.numpy() == one).any()]
    expected = 0.6 * mse_of_logits(logits, teacher_logits.float()).item() + 0.4 * np.mean(of_classes)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_labels_is_learnt_from_by_its_logits_alone(logits: Tensor, teacher_logits: Tensor) -> None:
    targets = Targets(torch.full((SONGS,), -1), teacher_logits)
    loss = DistillationLoss(DistillationConfig(label_weight=0.5), targets.labels.numpy(), CLASSES)
    found = loss(logits, targets).item()
    assert found == pytest.approx(0.5 * mse_of_logits(logits, teacher_logits).item(), abs=1e-12)


@pytest.mark.parametrize(
    ("config", "setting", "told"),
    [
        (LabelConfig, {"label_smoothing": 1.1}, r"label_smoothing: expected a share between 0 and 1, found 1\.1"),
        (LabelConfig, {"class_weighting": -0.5}, r"class_weighting: expected a share between 0 and 1, found -0\.5"),
        (DistillationConfig, {"match_temperature": 0.0}, r"match_temperature: expected a number above 0, found 0\.0"),
        (DistillationConfig, {"label_weight": 2.0}, r"label_weight: expected a share between 0 and 1, found 2\.0"),
        (DistillationConfig, {"class_weighting": 2}, r"class_weighting: expected a share between 0 and 1, found 2"),
    ],
)
def test_shares_that_are_none_are_refused(config: type, setting: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(**setting)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weighted_and_smoothed_labels_are_those_of_torch(logits: Tensor, labels: Tensor, smoothing: float) -> None:
    loss = LabelLoss(LabelConfig(class_weighting=0.5, label_smoothing=smoothing), labels.numpy(), CLASSES)
    weights = class_weights(labels.numpy(), CLASSES, 0.5).to(logits)
    expected = nn.CrossEntropyLoss(weights, ignore_index=-1, label_smoothing=smoothing)(logits, labels)
    torch.testing.assert_close(loss(logits, Targets(labels)), expected)
