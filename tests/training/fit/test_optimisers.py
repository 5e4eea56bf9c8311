"""Our optimisers against torch.optim, step by step."""

import itertools
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from segue.training.fit.optimisers import Optimiser, OptimiserName

RATES = (0.1, 0.003, 0.02, 0.02, 0.5, 0.0001)
DECAY = 0.03
OF_TORCH: dict[OptimiserName, Callable[[Iterable[Tensor]], Optimizer]] = {
    "sgd": partial(SGD, lr=1.0, momentum=0.9, weight_decay=DECAY),
    "rmsprop": partial(RMSprop, lr=1.0, weight_decay=DECAY),
    "adam": partial(Adam, lr=1.0, weight_decay=DECAY),
    "adamw": partial(AdamW, lr=1.0, weight_decay=DECAY),
}
every_optimiser = pytest.mark.parametrize("name", OF_TORCH)


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in [(3, 4), (5,), (1, 2)]
    ]


def cost_of(some: list[nn.Parameter], step: int) -> Tensor:
    """Return a cost whose gradient differs from step to step, and is large in some of them."""
    return (1 + 5 * step) * torch.stack([(weight.sin() + step * weight).square().sum() for weight in some]).sum()


@every_optimiser
@pytest.mark.parametrize("clip_norm", [float("inf"), 2.0])
def test_every_step_is_that_of_torch(name: OptimiserName, clip_norm: float) -> None:
    ours, theirs = weights(), weights()
    optimiser, other = Optimiser(name, ours, DECAY), OF_TORCH[name](theirs)
    for step, rate in enumerate(RATES):
        optimiser.step(cost_of(ours, step), rate, clip_norm)
        other.zero_grad()
        torch.autograd.backward(cost_of(theirs, step))
        gradient = torch.cat([weight.grad.flatten() for weight in theirs if weight.grad is not None])
        for weight in theirs:
            assert weight.grad is not None
            weight.grad *= min(1.0, clip_norm / float(gradient.norm()))
        other.param_groups[0]["lr"] = rate
        other.step()
        for one, same in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(
                one.detach(), same.detach(), atol=1e-5
            )  # torch clips to a norm that is 1e-6 off.


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_momentum_is_that_of_torch_and_plain_descent_has_none(momentum: float) -> None:
    ours, theirs = weights(), weights()
    optimiser = Optimiser("sgd", ours, DECAY, momentum=momentum)
    other = SGD(theirs, lr=0.01, momentum=momentum, weight_decay=DECAY)
    for step in range(3):
        optimiser.step(cost_of(ours, step), 0.01, float("inf"))
        other.zero_grad()
        torch.autograd.backward(cost_of(theirs, step))
        other.step()
    for one, same in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.detach(), same.detach(), rtol=1e-12)


@every_optimiser
def test_decay_of_weights_alone_leaves_vectors_as_they_are(name: OptimiserName) -> None:
    ours, theirs = weights(), weights()
    optimiser = Optimiser(name, ours, DECAY, decay="weights")
    other = OF_TORCH[name](theirs)
    vectors = [weight for weight in theirs if weight.ndim == 1]
    other.param_groups[0]["params"] = [weight for weight in theirs if weight.ndim > 1]
    other.param_groups[0]["lr"] = 0.01
    other.add_param_group({**other.param_groups[0], "params": vectors, "weight_decay": 0.0})
    for step in range(3):
        optimiser.step(cost_of(ours, step), 0.01, float("inf"))
        other.zero_grad()
        torch.autograd.backward(cost_of(theirs, step))
        other.step()
    for one, same in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.detach(), same.detach(), rtol=1e-6)


@every_optimiser
def test_another_goes_on_with_what_one_has_gathered(name: OptimiserName) -> None:
    ours = weights()
    optimiser = Optimiser(name, ours, DECAY)
    for step in range(3):
        optimiser.step(cost_of(ours, step), 0.01, 1.0)
    same = [nn.Parameter(weight.detach().clone()) for weight in ours]
    other = Optimiser(name, same, DECAY)
    other.load({key: tensor.clone() for key, tensor in optimiser.tensors().items()})
    for (some, one), step in itertools.product([(ours, optimiser), (same, other)], range(3, 5)):
        one.step(cost_of(some, step), 0.02, 1.0)
    for one_weight, other_weight in zip(ours, same, strict=True):
        np.testing.assert_array_equal(one_weight.detach(), other_weight.detach())
