"""Optimisers: torch's update formulas on lists of weights, without the bookkeeping that torch.optim does at each step.

A training step of a recurrence takes one or two milliseconds; that bookkeeping would be a tenth of it.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

# The constants below are what torch.optim takes where nothing else is said.
OptimiserName = Literal["sgd", "rmsprop", "adam", "adamw"]
Decay = Literal["all", "weights"]  # What is decayed: everything, or what multiplies inputs: no bias, no norm.
GATHERED: dict[OptimiserName, tuple[str, ...]] = {
    "sgd": ("momentum_buffer",),
    "rmsprop": ("square_avg", "step"),
    "adam": ("exp_avg", "exp_avg_sq", "step"),
    "adamw": ("exp_avg", "exp_avg_sq", "step"),
}


class Optimiser:
    """Changes weights against their gradients, by what it has gathered from earlier ones."""

    def __init__(
        self,
        name: OptimiserName,
        weights: Iterable[Tensor],
        weight_decay: float,
        *,
        momentum: float = 0.9,
        decay: Decay = "all",
    ) -> None:
        """Begin with nothing gathered for `weights`; every step must have a gradient of each."""
        self.weights = [*weights]
        self._name = name
        self._momentum = momentum
        places = range(len(self.weights))
        decayed = [at for at in places if decay == "all" or self.weights[at].ndim > 1]
        others = [at for at in places if at not in decayed]
        self._groups = [(at, rate) for at, rate in ((decayed, weight_decay), (others, 0.0)) if at]
        self._gathered = {
            key: [w.new_zeros(() if key == "step" else w.shape, requires_grad=False) for w in self.weights]
            for key in GATHERED[name]
        }

    @property
    def is_recordable(self) -> bool:
        """Tell whether a CUDA graph can hold a step: not of rmsprop, which reads its learning rate on the processor."""
        return self._name != "rmsprop"

    def step(self, cost: Tensor, rate: float | Tensor, clip_norm: float) -> None:
        """Take one step against the gradient of `cost`, a number, at a learning rate.

        A gradient that is longer than `clip_norm` is shortened to it.
        """
        for weight in self.weights:
            weight.grad = None
        torch.autograd.backward(cost)
        if clip_norm < float("inf"):
            nn.utils.clip_grad_norm_(self.weights, clip_norm)
        with torch.no_grad():
            for places, decay in self._groups:
                self._update(places, decay, rate)

    def _update(self, places: list[int], decay: float, rate: float | Tensor) -> None:
        weights = [self.weights[at] for at in places]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        gathered = {key: [tensors[at] for at in places] for key, tensors in self._gathered.items()}
        if self._name == "sgd":
            buffers: list[Tensor | None] = [*gathered["momentum_buffer"]] if self._momentum else [None for _ in weights]
            sgd(
                weights, gradients, buffers, fused=True, weight_decay=decay, lr=rate,  # type: ignore[arg-type]
                momentum=self._momentum, dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip
        elif self._name == "rmsprop":
            rmsprop(
                weights, gradients, gathered["square_avg"], [], [], gathered["step"], foreach=False,
                weight_decay=decay, lr=float(rate), alpha=0.99, eps=1e-8, momentum=0.0, centered=False,
            )  # fmt: skip
        else:
            formula = adamw if self._name == "adamw" else adam
            formula(
                weights, gradients, gathered["exp_avg"], gathered["exp_avg_sq"], [], gathered["step"], fused=True,
                weight_decay=decay, lr=rate, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """Return what was gathered, by the place of the weight and a name."""
        return {
            f"{place}.{key}": tensor for key, tensors in self._gathered.items() for place, tensor in enumerate(tensors)
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with what another optimiser of such weights had gathered."""
        for key, tensor in self.tensors().items():
            tensor.copy_(tensors[key])
