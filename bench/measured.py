"""The networks that `segue.bench.models` measures: graphs in files, torch by request.

Writes graphs of untrained networks of the study's sizes to a folder and prints their names as one line of JSON. Then,
for each number of songs that comes in on a line, it runs the study's teacher on them as the study ran it and prints the
seconds: torch in eval mode, eager, cell by cell, with the input and the state of a step joined before one product.

Example:
    echo 50 | python -m segue.bench.measured artifacts/graphs
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from tyro.conf import Positional

from segue.command import run
from segue.data.song import N_FEATURES, Floats
from segue.data.synth import Difficulty, draw_genres, draw_songs
from segue.errors import ConfigError
from segue.export.graphs.build import graph_of
from segue.export.graphs.int8 import Int8
from segue.training.networks.build import SingleConfig, build
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import EPS, RecurrentConfig
from segue.training.networks.standardise import Standardise

CLASSES = tuple(f"genre-{number:02d}" for number in range(10))
SONGS = 1024
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


@dataclass(frozen=True)
class Measured:
    """How often the eager teacher ran."""

    runs: int

    def __str__(self) -> str:
        return f"{self.runs} runs"


def measured(folder: Positional[Path]) -> Measured:
    """Write the graphs, then run the eager teacher for every number of songs on stdin.

    Args:
        folder: Where the graphs go.
    """
    torch.manual_seed(0)
    difficulty = Difficulty()
    genres = draw_genres(len(CLASSES), 0, difficulty)
    songs = draw_songs(SONGS, genres, difficulty, np.random.default_rng(0))[0]
    names = []
    for name, graph in _graphs(songs):
        onnx.save(graph, folder / f"{name}.onnx")
        names.append(name)
    print(json.dumps(names), flush=True)
    teacher = EagerTeacher(state=RecurrentConfig().state).eval()
    runs = 0
    with torch.inference_mode():
        for line in sys.stdin:
            if not line.strip().isdecimal():
                raise ConfigError(f"stdin: expected a number of songs a line, found {line.strip()!r}")
            batch = torch.from_numpy(songs[: int(line)])
            started = time.perf_counter()
            teacher(batch)
            print(time.perf_counter() - started, flush=True)
            runs += 1
    return Measured(runs)


def _graphs(songs: Floats) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the graphs and their names."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Write the graphs and run the teacher."""
    return run(measured, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
