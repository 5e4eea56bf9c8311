"""The steps of a batch-normed tanh recurrence, their gradient written out: fewer and larger kernels.

What autograd would do step by step is done once a part: the gradient of W_h is one product over all steps instead of a
product and a sum a step. A state that nothing reads costs nothing on the way back.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class BatchNormedSteps(torch.autograd.Function):
    """h_t = tanh(BN(W_x x_t + W_h h_{t-1})) for each of some steps, normalised over the batch (training mode).

    The gradient of batch normalisation is that of Ioffe and Szegedy, ICML 2015, section 3.
    """

    @staticmethod
    def forward(
        ctx: Any,
        seen: Tensor,
        h: Tensor,
        into: Tensor,
        recurrent: Tensor,
        scale: Tensor,
        shift: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, ...]:
        """Return the state (n, state) after each step.

        Args:
            ctx: what the gradient will need.
            seen: (steps, n, n_inputs), x_t of each step.
            h: (n, state), the state before the first step.
            into: (state, n_inputs), W_x.
            recurrent: (state, state), W_h.
            scale: (state,), of the norm.
            shift: (state,), of the norm.
            running_mean: (state,), moved towards the mean of each step in place.
            running_var: (state,), moved towards the variance of each step in place.
            momentum: how far they are moved.
            eps: added to a variance before its root is taken.
        """
        inputs = seen.flatten(0, 1)
        states = h.new_empty(len(seen) + 1, *h.shape)
        before, *after = states.unbind()
        before.copy_(h)
        sums = (inputs @ into.t()).view_as(states[1:]).unbind()
        moments = []
        for total, state in zip(sums, after, strict=True):
            total.addmm_(before, recurrent.t())
            normed, mean, inverse_sd = torch.native_batch_norm(
                total, scale, shift, running_mean, running_var, True, momentum, eps
            )
            moments.append((mean, inverse_sd))
            torch.tanh(normed, out=state)
            before = state
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(into, recurrent, scale)
        ctx.kept = inputs, states, after, sums, moments, eps
        # Views of their own: what is kept here must not be what is returned, or neither would be freed.
        return tuple(state.detach() for state in after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_states: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of what `forward` was given, from those of the states; None for a state unread."""
        into, recurrent, scale = ctx.saved_tensors
        inputs, states, after, sums, moments, eps = ctx.kept
        of_sums = torch.empty_like(states[1:])
        places = of_sums.unbind()
        of_scale, of_shift = torch.zeros_like(scale), torch.zeros_like(scale)
        later: Tensor | None = None  # What the steps after this one want of its state.
        for step in reversed(range(len(sums))):
            wanted = of_states[step]
            of_state = later if wanted is None else wanted if later is None else wanted + later
            if of_state is None:
                places[step].zero_()
                continue
            of_normed = torch.ops.aten.tanh_backward(of_state, after[step])
            of_sum, more_scale, more_shift = torch.ops.aten.native_batch_norm_backward(
                of_normed, sums[step], scale, None, None, *moments[step], True, eps, [True, True, True]
            )
            of_scale += more_scale
            of_shift += more_shift
            places[step].copy_(of_sum)
            later = of_sum @ recurrent if step or ctx.needs_input_grad[1] else None
        flat = of_sums.flatten(0, 1)
        of_seen = (flat @ into).unflatten(0, of_sums.shape[:2]) if ctx.needs_input_grad[0] else None
        of_into, of_recurrent = flat.t() @ inputs, flat.t() @ states[:-1].flatten(0, 1)
        return of_seen, later, of_into, of_recurrent, of_scale, of_shift, None, None, None, None
