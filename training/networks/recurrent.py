"""Recurrent networks: the teacher of the study, a BN-RNN, and its relatives.

The published cell is h_t = tanh(BN(W_x x_t + W_h h_{t-1})), with the same BN parameters and running statistics at every
step. Batch normalisation is Ioffe and Szegedy, ICML 2015; layer normalisation, Ba, Kiros and Hinton, 2016; putting
either between the affine map and the non-linearity, with shared statistics, is the study's. GRU and LSTM cells
normalise the sum that goes into each of their gates in the same way. Where there is a norm, the affine map has no bias:
the norm subtracts it, and its own shift takes its place.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Suppress

from segue.data.song import N_FEATURES, WINDOW
from segue.errors import ConfigError
from segue.training.networks.batch_normed import BatchNormedSteps
from segue.training.networks.convolutional import Convolutions, check_convolutions
from segue.training.networks.graph import Graph
from segue.training.networks.head import Head, check_head
from segue.training.networks.layers import Init, Norm, check_init, check_norm, initialise
from segue.training.networks.network import HeadedNetwork, Network
from segue.training.networks.standardise import Standardise
from segue.training.networks.summary import N_STATISTICS, spread, summary

Cell = Literal["rnn", "gru", "lstm"]
Readout = Literal["last", "pooled", "none"]
Carry = tuple[Tensor, ...]  # What a step hands to the next: (h,), or (h, c) of an LSTM; each (n, state).

EPS = 1e-3  # The study's.
# A batch updates the running statistics once a step, 120 times, hence the slow average.
MOMENTUM = 0.01


class Progress(NamedTuple):
    """How far a recurrence has come in a window."""

    carry: Carry
    sums: tuple[Tensor, ...]  # Of the states so far and of their squares, (n, state), and their number; none if unread.


@dataclass(frozen=True)
class RecurrentConfig:
    """A recurrence over the segments; the defaults are the study's BN-RNN."""

    shape: Annotated[Literal["recurrent"], Suppress] = "recurrent"
    cell: Cell = "rnn"  # How it remembers: plain (rnn), or with gates that keep and forget (gru, lstm).
    norm: Norm = "batch"  # What keeps sums in range before the tanh: over the batch, over the neurons, or nothing.
    state: int = 341  # Neurons that remember; the study's search found 341.
    bptt_steps: int = 8  # Segments between two corrections; a divisor of 120, and 120 looks back over the whole window.
    readout: Readout = "last"  # Read from: the last state, mean and spread of all; none: the state is the logits.
    convolution: int = 0  # Filters over neighbouring segments in front of the recurrence; 0: none.
    kernel: int = 7  # Neighbouring segments that such a filter hears; odd.
    summary: bool = False  # Read means, spreads and correlations of the whole window beside the states.
    hidden: tuple[int, ...] = ()  # Neurons of each layer between the states and the genres; none: read directly.
    dropout: float = 0.0  # Share of what is read that training leaves out at random; 1 minus what the study keeps.
    norm_eps: float = EPS  # Added to a variance before its root is taken, in the recurrence.
    norm_momentum: float = MOMENTUM  # How far each step moves the averages of batch norm, which forget exponentially.
    init: Init = "default"  # Weights begin as torch's, orthogonal from state to state; He's, Xavier's, or N(0, sigma).
    init_sigma: float = 0.01  # The sigma of --init normal.

    def __post_init__(self) -> None:
        """Refuse a state without neurons and steps that do not divide the window."""
        if self.state < 1:
            raise ConfigError(f"state: expected at least 1 neuron, found {self.state}")
        if self.bptt_steps < 1 or WINDOW % self.bptt_steps:
            divisors = ", ".join(str(n) for n in range(1, WINDOW + 1) if WINDOW % n == 0)
            raise ConfigError(f"bptt_steps: expected a divisor of {WINDOW} ({divisors}), found {self.bptt_steps}")
        if self.readout == "none" and (self.hidden or self.summary or self.cell != "rnn"):
            raise ConfigError(
                "readout: expected an rnn without hidden layers and summary where the state is the logits, found "
                f"cell {self.cell}, hidden {self.hidden}, summary {self.summary}"
            )
        check_norm(self.norm_eps, self.norm_momentum)
        check_init(self.init_sigma)
        check_convolutions([self.convolution] * (self.convolution != 0), self.kernel)
        check_head(self.hidden, dropout=self.dropout)

    def build(self, n_classes: int, standardise: Standardise) -> Network:
        """Return the untrained network."""
        return RecurrentNetwork(self, n_classes=n_classes, standardise=standardise)


class GateNorm(nn.Module):
    """Layer normalisation of the neurons of each gate on their own."""

    def __init__(self, *, gates: int, state: int, eps: float = EPS) -> None:
        """Make a norm that changes neither scale nor shift."""
        super().__init__()
        self.gates = gates
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(gates * state))
        self.bias = nn.Parameter(torch.zeros(gates * state))

    def forward(self, sums: Tensor) -> Tensor:
        """Return (n, gates * state), for each song and gate with mean 0 and variance 1 before scale and shift."""
        by_gate = sums.view(len(sums), self.gates, -1)
        normed = functional.layer_norm(by_gate, by_gate.shape[-1:], eps=self.eps)
        return normed.flatten(1) * self.weight + self.bias


def norm_of(config: RecurrentConfig, *, gates: int) -> nn.Module:
    """Return what stands between affine map and non-linearity for so many gates."""
    if config.norm == "batch":
        return nn.BatchNorm1d(gates * config.state, eps=config.norm_eps, momentum=config.norm_momentum)
    if config.norm == "layer":
        return GateNorm(gates=gates, state=config.state, eps=config.norm_eps)
    return nn.Identity()


def recurrent_map(*, gates: int, state: int) -> nn.Linear:
    """Return W_h, each gate's part orthogonal so that states neither fade nor explode."""
    made = nn.Linear(state, gates * state, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.cat([nn.init.orthogonal_(torch.empty(state, state)) for _ in range(gates)]))
    return made


class RnnCell(nn.Module):
    """h' = tanh(norm(W_x x + W_h h))."""

    gates = 1

    def __init__(self, config: RecurrentConfig) -> None:
        """Make an untrained cell."""
        super().__init__()
        self.recurrent = recurrent_map(gates=1, state=config.state)
        self.norm = norm_of(config, gates=1)

    def forward(self, driven: Tensor, carry: Carry) -> Carry:
        """Return the next carry from W_x x, `driven` (n, state), and the present one."""
        return (torch.tanh(self.norm(driven + self.recurrent(carry[0]))),)

    def is_fused(self, seen: Tensor) -> bool:
        """Tell whether `steps` can stand for `forward`: in training, under batch norm, where nothing is compiled."""
        normed = isinstance(self.norm, nn.BatchNorm1d)
        return normed and self.training and not seen.is_cuda and not torch.compiler.is_compiling()

    def steps(self, seen: Tensor, into: Tensor, carry: Carry) -> list[Tensor]:
        """Return the state (n, state) after each step over `seen` (steps, n, n_inputs), faster than `forward` does."""
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(len(seen))
        states: tuple[Tensor, ...] = BatchNormedSteps.apply(  # type: ignore[no-untyped-call]
            seen, carry[0], into, self.recurrent.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var,
            norm.momentum, norm.eps,
        )  # fmt: skip
        return [*states]


class GruCell(nn.Module):
    """h' = (1 - z) * n + z * h with r, z = sigmoid(norm(W_x x + W_h h)), n = tanh(norm(W_x x + r * W_h h)).

    The reset gate r scales the product and not, as in Cho et al. 2014, the state, so that a step is one product.
    """

    gates = 3

    def __init__(self, config: RecurrentConfig) -> None:
        """Make an untrained cell."""
        super().__init__()
        self.recurrent = recurrent_map(gates=3, state=config.state)
        self.norm = norm_of(config, gates=2)
        self.candidate_norm = norm_of(config, gates=1)

    def forward(self, driven: Tensor, carry: Carry) -> Carry:
        """Return the next carry from W_x x, `driven` (n, 3 * state): reset, keep, candidate; and the present one."""
        (h,) = carry
        n = h.shape[1]
        products = self.recurrent(h)
        reset, keep = self.norm(driven[:, : 2 * n] + products[:, : 2 * n]).sigmoid().chunk(2, dim=1)
        candidate = torch.tanh(self.candidate_norm(driven[:, 2 * n :] + reset * products[:, 2 * n :]))
        return (candidate + keep * (h - candidate),)


class LstmCell(nn.Module):
    """c' = f * c + i * tanh(g), h' = o * tanh(c'); i, f, o = sigmoid, of norm(W_x x + W_h h) in four parts."""

    gates = 4

    def __init__(self, config: RecurrentConfig) -> None:
        """Make an untrained cell."""
        super().__init__()
        self.recurrent = recurrent_map(gates=4, state=config.state)
        self.norm = norm_of(config, gates=4)

    def forward(self, driven: Tensor, carry: Carry) -> Carry:
        """Return the next carry from W_x x, `driven` (n, 4 * state): i, f, o, g; and the present one."""
        h, c = carry
        entry, forget, output, content = self.norm(driven + self.recurrent(h)).chunk(4, dim=1)
        c = forget.sigmoid() * c + entry.sigmoid() * content.tanh()
        return output.sigmoid() * c.tanh(), c


CELLS: dict[Cell, type[RnnCell] | type[GruCell] | type[LstmCell]] = {"rnn": RnnCell, "gru": GruCell, "lstm": LstmCell}


class RecurrentNetwork(HeadedNetwork):
    """A recurrence over the segments, from raw windows to logits."""

    def __init__(self, config: RecurrentConfig, *, n_classes: int, standardise: Standardise) -> None:
        """Make an untrained network; `standardise` carries the mean and deviation of the training songs."""
        super().__init__()
        self.config = config
        self.standardise = standardise
        self._part: Callable[[Tensor, Progress, Tensor | None], tuple[Tensor, Progress]] = self._advance
        self.front = Convolutions(channels=[config.convolution], kernel=config.kernel) if config.convolution else None
        cell = CELLS[config.cell]
        self.input = nn.Linear(config.convolution or N_FEATURES, cell.gates * config.state, bias=config.norm == "none")
        self.cell = cell(config)
        if config.readout == "none" and config.state != n_classes:
            raise ConfigError(
                f"state: expected {n_classes} neurons, as many as classes, where the state is the logits "
                f"(readout none), found {config.state}"
            )
        self.n_read = config.state * (2 if config.readout == "pooled" else 1)  # Numbers that are read of the states.
        self.head = Head(
            n_inputs=self.n_read + config.summary * N_STATISTICS,
            hidden=config.hidden,
            n_classes=n_classes,
            input_dropout=config.dropout,
            hidden_dropout=config.dropout,
            reads=config.readout != "none",
        )
        initialise(self, config.init, config.init_sigma)

    def forward(self, segments: Tensor) -> Tensor:
        """Return logits (n, n_classes) for raw windows (n, steps, 25)."""
        return next(self._parts(segments, segments.shape[1]))

    def graph(self, graph: Graph) -> str:
        """Write what `forward` computes."""
        seen = graph.states(self)
        return graph.logits(
            self, graph.beside(seen, graph.statistics(self.standardise)) if self.config.summary else seen
        )

    @property
    def n_parts(self) -> int:
        """Parts of a window that are learnt from one by one."""
        return WINDOW // self.config.bptt_steps

    def parts(self, segments: Tensor) -> Iterator[Tensor]:
        """Yield the logits after each part of `bptt_steps` segments; the state goes on to the next part detached.

        Truncated backpropagation through time: the caller may take a training step between two parts.
        """
        return self._parts(segments, self.config.bptt_steps)

    def compile_parts(self) -> None:
        """Compile what is learnt from at once; a whole window, which a compiler would unroll, is never compiled."""
        self._part = torch.compile(self._advance)

    def _parts(self, segments: Tensor, n_steps: int) -> Iterator[Tensor]:
        # In memory one step after the other, so that the steps of a part are read without a copy.
        standard = self.standardise(segments.transpose(0, 1).contiguous()).transpose(0, 1)
        statistics = summary(standard) if self.config.summary else None
        progress = self._start(standard)
        part = self._part if self.training else self._advance
        for start in range(0, standard.shape[1], n_steps):
            logits, progress = part(self._seen(standard, start, start + n_steps), progress, statistics)
            yield logits
            progress = Progress(*(tuple(tensor.detach() for tensor in tensors) for tensors in progress))

    def _start(self, standard: Tensor) -> Progress:
        """Return the progress before the first segment: zeros."""
        zeros = standard.new_zeros(len(standard), self.config.state)
        return Progress(
            (zeros, zeros) if self.config.cell == "lstm" else (zeros,),
            (zeros, zeros, standard.new_zeros(())) if self.config.readout == "pooled" else (),
        )

    def _seen(self, standard: Tensor, start: int, stop: int) -> Tensor:
        """Return what the recurrence sees of the segments from `start` to `stop`, (n, stop - start, n_inputs)."""
        if self.front is None:
            return standard[:, start:stop]
        # The convolution of a part looks at the segments around it, so that parts and whole see the same.
        reach = self.config.kernel // 2
        first = max(start - reach, 0)
        seen: Tensor = self.front(standard[:, first : stop + reach])
        return seen[:, start - first : stop - first]

    def _advance(self, seen: Tensor, progress: Progress, statistics: Tensor | None) -> tuple[Tensor, Progress]:
        """Return the logits (n, n_classes) after stepping over `seen` (n, steps, n_inputs), and the progress then."""
        states, carry = self._steps(seen, progress.carry)
        readable = states[-1]
        sums = progress.sums
        if sums:
            stacked = torch.stack(states)
            total, squares, count = sums
            sums = (total + stacked.sum(dim=0), squares + stacked.square().sum(dim=0), count + len(states))
            mean = sums[0] / sums[2]
            readable = torch.cat([mean, spread(sums[1] / sums[2] - mean.square())], dim=1)
        if statistics is not None:
            readable = torch.cat([readable, statistics], dim=1)
        return self.head(readable), Progress(carry, sums)

    def _steps(self, seen: Tensor, carry: Carry) -> tuple[list[Tensor], Carry]:
        """Return the states (n, state) after each step over `seen`; the input product of all steps is done as one."""
        seen = seen.transpose(0, 1)
        if isinstance(self.cell, RnnCell) and self.cell.is_fused(seen):
            states = self.cell.steps(seen, self.input.weight, carry)
            return states, (states[-1],)
        states = []
        for driven in self.input(seen):
            carry = self.cell(driven, carry)
            states.append(carry[0])
        return states, carry

    def states(self, segments: Tensor) -> Tensor:
        """Return the state after each segment of raw windows (n, steps, 25), (n, steps, state)."""
        standard = self.standardise(segments)
        states, _ = self._steps(self._seen(standard, 0, standard.shape[1]), self._start(standard).carry)
        return torch.stack(states, dim=1)
