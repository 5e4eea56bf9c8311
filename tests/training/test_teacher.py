"""The teacher: against a plain float64 reference, forward and backward, and in parts."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from training.standardise import Standardise
from training.teacher import Teacher, TeacherConfig

from data.errors import ConfigError

Array = NDArray[np.float64]

STATE, CLASSES, SONGS = 5, 3, 6
TRAINED = ("input.weight", "cell.recurrent.weight", "cell.norm.weight", "cell.norm.bias")  # W_x, W_h, gamma, beta
EPS, MOMENTUM = 1e-3, 0.01


def random_teacher(bptt_steps: int = 40) -> Teacher:
    """Return a teacher in float64 whose every weight and statistic is a random number."""
    generator = torch.Generator().manual_seed(0)
    config = TeacherConfig(state=STATE, bptt_steps=bptt_steps)
    teacher = Teacher(config, n_classes=CLASSES, standardise=Standardise()).double()
    for name, tensor in teacher.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            positive = name.endswith(("running_var", "deviation"))
            tensor.copy_(0.5 + drawn.abs() if positive else 0.5 * drawn)
    return teacher


def random_windows(n_segments: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(SONGS, n_segments, 25)))


def weights_of(teacher: Teacher) -> dict[str, Array]:
    return {name: tensor.numpy().copy() for name, tensor in teacher.state_dict().items()}


def plain_steps(weights: Mapping[str, Array], segments: Array, *, training: bool) -> tuple[list[Array], Array]:
    """Return W_x x_t + W_h h_(t-1) of every step, each (n, state), and the last state, by the formulas of the paper."""
    scaled = (segments - weights["standardise.mean"]) / weights["standardise.deviation"]
    state = np.zeros((len(segments), STATE))
    affine_maps = []
    for step in range(segments.shape[1]):
        affine = scaled[:, step] @ weights["input.weight"].T + state @ weights["cell.recurrent.weight"].T
        mean = affine.mean(axis=0) if training else weights["cell.norm.running_mean"]
        variance = affine.var(axis=0) if training else weights["cell.norm.running_var"]
        normed = (affine - mean) / np.sqrt(variance + EPS)
        state = np.tanh(normed * weights["cell.norm.weight"] + weights["cell.norm.bias"])
        affine_maps.append(affine)
    return affine_maps, state


def plain_logits(weights: Mapping[str, Array], segments: Array, *, training: bool) -> Array:
    _, state = plain_steps(weights, segments, training=training)
    logits: Array = state @ weights["readout.weight"].T + weights["readout.bias"]
    return logits


@pytest.mark.parametrize("n_segments", [1, 8, 120])
def test_an_evaluated_teacher_is_the_plain_reference(n_segments: int) -> None:
    teacher, segments = random_teacher().eval(), random_windows(n_segments)
    expected = plain_logits(weights_of(teacher), segments.numpy(), training=False)
    np.testing.assert_allclose(teacher(segments).detach(), expected, atol=1e-12)


def test_a_teacher_in_training_normalises_by_the_batch() -> None:
    teacher, segments = random_teacher().train(), random_windows(8)
    expected = plain_logits(weights_of(teacher), segments.numpy(), training=True)
    np.testing.assert_allclose(teacher(segments).detach(), expected, atol=1e-12)


def test_gradients_through_eight_steps_pass_gradcheck() -> None:
    teacher, segments = random_teacher().train(), random_windows(8)
    trained = [dict(teacher.named_parameters())[name].detach().requires_grad_() for name in TRAINED]

    def logits(*values: Tensor) -> Tensor:
        found: Tensor = functional_call(teacher, dict(zip(TRAINED, values, strict=True)), (segments,))
        return found

    assert torch.autograd.gradcheck(logits, trained, eps=1e-6, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_through_eight_steps_are_the_central_differences_of_the_plain_reference(name: str) -> None:
    teacher, segments = random_teacher().train(), random_windows(8)
    weights = weights_of(teacher)
    direction = np.random.default_rng(2).normal(size=(SONGS, CLASSES))
    (teacher(segments) * torch.from_numpy(direction)).sum().backward()
    found = teacher.get_parameter(name).grad
    assert found is not None
    expected, half_step = np.empty_like(weights[name]), 1e-6
    for place in np.ndindex(expected.shape):
        ends = []
        for step in (half_step, -half_step):
            moved = weights[name].copy()
            moved[place] += step
            logits = plain_logits(weights | {name: moved}, segments.numpy(), training=True)
            ends.append((logits * direction).sum())
        expected[place] = (ends[0] - ends[1]) / (2 * half_step)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6)


def test_running_statistics_follow_the_exponential_moving_average() -> None:
    teacher = random_teacher().train()
    weights = weights_of(teacher)
    mean, variance = weights["cell.norm.running_mean"], weights["cell.norm.running_var"]
    for seed in range(3):
        segments = random_windows(8, seed)
        teacher(segments)
        for affine in plain_steps(weights, segments.numpy(), training=True)[0]:
            mean = (1 - MOMENTUM) * mean + MOMENTUM * affine.mean(axis=0)
            variance = (1 - MOMENTUM) * variance + MOMENTUM * affine.var(axis=0, ddof=1)
    found = weights_of(teacher)
    np.testing.assert_allclose(found["cell.norm.running_mean"], mean, atol=1e-8)
    np.testing.assert_allclose(found["cell.norm.running_var"], variance, atol=1e-8)


@pytest.mark.parametrize("bptt_steps", [8, 40, 120])
def test_a_part_answers_for_all_segments_so_far(bptt_steps: int) -> None:
    teacher, segments = random_teacher(bptt_steps).eval(), random_windows(120)
    parts = list(teacher.parts(segments))
    assert len(parts) == 120 // bptt_steps
    for number, logits in enumerate(parts, start=1):
        expected = teacher(segments[:, : number * bptt_steps])
        np.testing.assert_allclose(logits.detach(), expected.detach(), atol=1e-12)
    np.testing.assert_allclose(parts[-1].detach(), teacher(segments).detach(), atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_of_a_part_stays_within_the_part(training: bool) -> None:
    teacher, segments = random_teacher(bptt_steps=40).train(training), random_windows(120).requires_grad_()
    for number, logits in enumerate(teacher.parts(segments)):
        (gradient,) = torch.autograd.grad((logits * torch.arange(SONGS * CLASSES).view(SONGS, CLASSES)).sum(), segments)
        reached = np.flatnonzero(gradient.abs().amax(dim=(0, 2)))
        assert reached.tolist() == list(range(40 * number, 40 * (number + 1)))


@pytest.mark.parametrize("bptt_steps", [0, 7, 121, -8])
def test_steps_that_do_not_divide_the_window_are_refused(bptt_steps: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"bptt_steps: expected a divisor of 120 \(1, 2, .*120\), found {bptt_steps}"
    ):
        TeacherConfig(bptt_steps=bptt_steps)


def test_a_state_without_neurons_is_refused() -> None:
    with pytest.raises(ConfigError, match="state: expected at least 1 neuron, found 0"):
        TeacherConfig(state=0)
