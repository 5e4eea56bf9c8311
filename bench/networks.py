"""The study's networks: as graphs, in every form that Segue writes, and in eager torch, as the study ran them.

The eager teacher runs cell by cell, with the input and the state of a step joined before one product.
"""

import time
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from segue.data.song import N_FEATURES, WINDOW, Floats
from segue.export.graphs.build import graph_of
from segue.export.graphs.int8 import Int8
from segue.training.networks.build import SingleConfig, build
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import EPS, RecurrentConfig
from segue.training.networks.standardise import Standardise

CLASSES = tuple(f"genre-{number:02d}" for number in range(10))
STUDENTS = {
    "flat-1784": DenseConfig(look="flat", hidden=(1784,)),
    "flat-828": DenseConfig(look="flat", hidden=(828,)),
    "pooled-512": DenseConfig(look="pooled", hidden=(512,)),
}


class EagerTeacher(nn.Module):
    """h' = tanh(BN(W [x, h])), a step at a time."""

    def __init__(self, *, state: int, batch_norm: bool = True) -> None:
        """Make an untrained teacher; the study measured the speed of one without batch normalisation."""
        super().__init__()
        self.affine = nn.Linear(N_FEATURES + state, state)
        self.norm = nn.BatchNorm1d(state, eps=EPS) if batch_norm else nn.Identity()
        self.readout = nn.Linear(state, len(CLASSES))

    def forward(self, segments: Tensor) -> Tensor:
        """Return logits (n, n_classes) for segments (n, 120, 25)."""
        h = segments.new_zeros(len(segments), self.affine.out_features)
        for step in range(segments.shape[1]):
            h = torch.tanh(self.norm(self.affine(torch.cat([segments[:, step], h], dim=1))))
        logits: Tensor = self.readout(h)
        return logits

    def seconds(self, batch: Tensor) -> float:
        """Return how long the answer to segments (n, 120, 25) takes."""
        with torch.inference_mode():
            started = time.perf_counter()
            self(batch)
            return time.perf_counter() - started


class EagerStudent(nn.Sequential):
    """The study's student: 3000 -> hidden -> classes, batch normalisation and tanh between."""

    def __init__(self, *, hidden: int) -> None:
        """Make an untrained student."""
        flat = WINDOW * N_FEATURES
        super().__init__(
            nn.Flatten(), nn.Linear(flat, hidden), nn.BatchNorm1d(hidden, eps=EPS), nn.Tanh(),
            nn.Linear(hidden, len(CLASSES)),
        )  # fmt: skip


def graphs(songs: Floats) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the names and graphs of the networks, standardised by `songs` (n, 120, 25), which int8 ranges come from."""
    torch.manual_seed(0)
    standardise = Standardise()
    standardise.mean.copy_(torch.from_numpy(songs.mean(axis=(0, 1))))
    standardise.deviation.copy_(torch.from_numpy(songs.std(axis=(0, 1))))
    networks: dict[str, SingleConfig] = {"teacher": RecurrentConfig(), **STUDENTS}
    for name, config in networks.items():
        network = build(config, len(CLASSES), standardise).eval()
        yield f"{name}-fp32", graph_of(network, CLASSES)
        yield f"{name}-int8", graph_of(network, CLASSES, int8=Int8("static", songs))
        if name == "teacher":
            yield f"{name}-unrolled", graph_of(network, CLASSES, "unrolled")
            yield f"{name}-operator", graph_of(network, CLASSES, "operator")
