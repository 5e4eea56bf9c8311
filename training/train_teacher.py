"""Train the teacher: a recurrent network with batch normalisation, by truncated backpropagation.

The labelled songs are split into train, validation, calibration and test, artists never shared. With `--folds K`, K
more teachers are trained, each on all but one fold of the training songs, and the logits of the songs each one never
saw are kept: they are what the student learns from.

Example:
    segue train-teacher artifacts/songs.arrow --out artifacts/teacher --folds 4
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tyro.conf import Positional

from data.atomic import atomic_folder
from data.command import run
from data.errors import ConfigError
from data.metrics import accuracy
from data.song import Floats, Ints
from data.splits import Shares, deal, split
from data.table import SongTable
from training.loop import Fit, LoopConfig, fit
from training.networks import Config, Network, build
from training.runs import describe, save_held_out, save_run
from training.standardise import Standardise
from training.teacher import TeacherConfig


@dataclass(frozen=True)
class TrainedTeacher:
    """What `segue train-teacher` made."""

    out: Path
    split_songs: dict[str, int]
    validation_accuracy: float
    held_out_accuracy: float | None
    seconds: float

    def __str__(self) -> str:
        songs = ", ".join(f"{name} {count}" for name, count in self.split_songs.items())
        held_out = "" if self.held_out_accuracy is None else f"\n  held-out accuracy: {self.held_out_accuracy:.3f}"
        return (
            f"{self.out}: a teacher, trained in {self.seconds:.0f} s\n"
            f"  songs: {songs}\n  validation accuracy: {self.validation_accuracy:.3f}{held_out}"
        )


def train_teacher(
    songs: Positional[Path],
    out: Path,
    folds: int = 4,
    network: TeacherConfig = TeacherConfig(),
    loop: LoopConfig = LoopConfig(),
    shares: Shares = Shares(),
) -> TrainedTeacher:
    """Train the teacher.

    Args:
        songs: The song table, with labels.
        out: The run folder to write.
        folds: Fold teachers for the held-out logits; 0 trains the teacher alone.
        network: The shape of the teacher.
        loop: The training settings.
        shares: How the songs are split.
    """
    if folds < 0 or folds == 1:
        raise ConfigError(f"folds: expected 0 or at least 2, found {folds}")
    started = time.perf_counter()
    table = SongTable(songs)
    splits = split(table, shares, loop.seed)
    teacher, fitted = fit_to_labels(table, splits.train, splits.validation, network, loop, "teacher")
    held_out = _held_out_logits(table, splits.train, folds, network, loop) if folds else None
    held_out_accuracy = None if held_out is None else accuracy(held_out, table.labels[splits.train])
    record = describe("teacher", network, loop, table, splits, fitted, held_out_accuracy)
    with atomic_folder(out) as folder:
        save_run(folder, record, teacher, table, splits)
        if held_out is not None:
            save_held_out(folder, held_out)
    return TrainedTeacher(
        out, record.split_songs, record.best.validation_accuracy, held_out_accuracy, time.perf_counter() - started
    )


def fit_to_labels(
    songs: SongTable, rows: Ints, validation_rows: Ints, config: Config, loop: LoopConfig, name: str
) -> tuple[Network, Fit]:
    """Return a network trained on the labels of `rows`, and how that went; see `training.loop.fit`."""
    torch.manual_seed(loop.seed)
    network = build(config, len(songs.classes), Standardise.of(songs, rows))
    fitted = fit(
        network,
        songs,
        rows=rows,
        targets=torch.from_numpy(songs.labels[rows]),
        loss=functional.cross_entropy,
        validation_rows=validation_rows,
        config=loop,
        name=name,
    )
    return network, fitted


def _held_out_logits(songs: SongTable, rows: Ints, folds: int, config: TeacherConfig, loop: LoopConfig) -> Floats:
    """Return logits (n, n_classes) of every one of `rows`, by a teacher that never saw it, at its best epoch."""
    fold_of = deal(songs, rows, folds, loop.seed)
    logits = np.empty((len(rows), len(songs.classes)), dtype=np.float32)
    for fold in range(folds):
        held_out = fold_of == fold
        settings = dataclasses.replace(loop, seed=loop.seed + 1 + fold)
        name = f"fold teacher {fold + 1} of {folds}"
        _, fitted = fit_to_labels(songs, rows[~held_out], rows[held_out], config, settings, name)
        logits[held_out] = fitted.validation_logits
    return logits


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue train-teacher`."""
    return run(train_teacher, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
