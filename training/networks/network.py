"""What every network offers: raw windows in, logits out, in one go or part by part."""

from collections.abc import Iterator

from torch import Tensor, nn

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

    def parts(self, segments: Tensor) -> Iterator[Tensor]:
        """Yield logits (n, n_classes) that may each be learnt from; the last ones are those of the whole window.

        A network without a state learns from a window in one training step.
        """
        yield self(segments)

    def compile_parts(self) -> None:
        """Make `parts` faster where that is possible; a network that learns in one step is fast as it is."""
