"""What every network offers: raw windows in, logits out, at once or part by part, and its graph."""

from collections.abc import Iterator

from torch import Tensor, nn

from segue.training.networks.graph import Graph
from segue.training.networks.head import Head
from segue.training.networks.standardise import Standardise


class Network(nn.Module):
    """A network from raw windows (n, 120, 25) to logits (n, n_classes)."""

    standardise: Standardise  # An ensemble has none; each of its members has its own.

    @property
    def n_parts(self) -> int:
        """How many logits `parts` yields for a window."""
        return 1

    def forward(self, segments: Tensor) -> Tensor:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""
        raise NotImplementedError

    def graph(self, graph: Graph) -> str:
        """Write what `forward` computes in eval mode, and return the logits (n, n_classes)."""
        raise NotImplementedError

    def parts(self, segments: Tensor) -> Iterator[Tensor]:
        """Yield logits (n, n_classes) that may each be learnt from; the last ones are those of the whole window.

        A network without a state learns from a window in one training step.
        """
        yield self(segments)

    def compile_parts(self) -> None:
        """Make `parts` faster where that is possible; a network that learns in one step is fast as it is."""


class HeadedNetwork(Network):
    """A network that ends in a head."""

    head: Head
