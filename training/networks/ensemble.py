"""An ensemble: several networks that answer as one, by the mean of their log-probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segue.training.networks.graph import Graph
from segue.training.networks.network import Network


class Ensemble(Network):
    """Several trained networks as one."""

    def __init__(self, members: Sequence[Network]) -> None:
        """Join `members`, networks for the same classes."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def networks(self) -> list[Network]:
        """Return the members."""
        return [member for member in self.members if isinstance(member, Network)]

    def forward(self, segments: Tensor) -> Tensor:
        """Return the mean log-probability (n, n_classes) over the members for raw windows (n, 120, 25)."""
        return torch.stack([member(segments).log_softmax(dim=1) for member in self.members]).mean(dim=0)

    def graph(self, graph: Graph) -> str:
        """Write what `forward` computes."""
        return graph.joined([member.graph(graph) for member in self.networks()])
