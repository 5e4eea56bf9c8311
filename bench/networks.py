"""The networks that `segue.bench.models` measures: graphs of the study's sizes, and the study's teacher in eager torch.

The eager teacher runs as the study ran it: cell by cell, with the input and the state of a step joined before one
product.
"""

import time
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from segue.data.song import N_FEATURES, Floats
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

    def __init__(self, *, state: int) -> None:
        """Make an untrained teacher."""
        super().__init__()
        self.affine = nn.Linear(N_FEATURES + state, state)
        self.norm = nn.BatchNorm1d(state, eps=EPS)
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
