"""Train the teacher: a network that is accurate, however slow. The default is a batch-normed recurrent network.

The labelled songs are split into train, validation, calibration and test, artists never shared. With `--folds K`, K
more teachers are trained, each on all but one fold of the training songs, and the logits of the songs each one never
saw are kept: they are what the student learns from.

Three shapes of network can be trained; their options come after their name. `segue train-teacher recurrent --help`
tells those of one. While it trains, OUT.training/ keeps every finished epoch; after Ctrl-C, a full disk or a power cut
the same command with `--resume` goes on after the last one, to the very same result. With `--start RUN` every network
begins with the weights of an earlier run, of the same shape and on other songs.

Example:
    segue train-teacher artifacts/songs.arrow --out artifacts/teacher --folds 4
    segue train-teacher artifacts/songs.arrow --out artifacts/lstm --epochs 40 recurrent --cell lstm --readout pooled
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from tyro.conf import Positional

from segue.atomic import atomic_folder
from segue.command import run, unset
from segue.data.joined import open_songs
from segue.data.song import Ints
from segue.data.splits import Shares, deal, labelled_rows, split
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError
from segue.places import check_folder
from segue.training.fit.execution import Execution
from segue.training.fit.feed import check_songs
from segue.training.fit.journal import RECORD, Journal, journal
from segue.training.fit.loop import Fit, LoopConfig, fit, predict
from segue.training.fit.losses import LabelConfig, LabelLoss, Targets
from segue.training.networks.build import Config, EnsembleConfig, SingleConfig, build
from segue.training.networks.ensemble import Ensemble
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise
from segue.training.runs import HeldOut, describe, save_held_out, save_run, unlabelled_rows
from segue.training.warm_start import WarmStart, warm_start


@dataclass(frozen=True)
class TrainedTeacher:
    """What `segue train-teacher` made."""

    out: Path
    split_songs: dict[str, int]
    validation_accuracy: float
    held_out_accuracy: float | None
    seconds: float
    start: str | None = None  # The run whose weights it began with.
    chosen: tuple[str, ...] = ()  # Of each run that might have been joined, whether it was, and why.

    def __str__(self) -> str:
        songs = ", ".join(f"{name} {count}" for name, count in self.split_songs.items())
        held_out = "" if self.held_out_accuracy is None else f"\n  held-out accuracy: {self.held_out_accuracy:.3f}"
        start = f", from {self.start}" if self.start else ""
        return (
            f"{self.out}: a teacher, trained in {self.seconds:.0f} s{start}\n"
            f"  songs: {songs}\n  validation accuracy: {self.validation_accuracy:.3f}{held_out}\n"
            + "".join(f"  {one}\n" for one in self.chosen)
            + f"Look at it: segue report {self.out}"
        )


def train_teacher(
    songs: Positional[Path],
    out: Path,
    folds: int = 4,
    join_folds: bool = False,
    unlabelled: bool = False,
    split_seed: int = 0,
    validation_songs: Path | None = None,
    start: Annotated[Path | None, unset("RUN")] = None,
    network: SingleConfig = RecurrentConfig(),
    loop: LoopConfig = LoopConfig(),
    labels: LabelConfig = LabelConfig(),
    shares: Shares = Shares(),
    execution: Execution = Execution(),
) -> TrainedTeacher:
    """Train the teacher.

    Args:
        songs: The song table, with labels.
        out: The run folder to write.
        folds: Fold teachers, which each judge a part of the songs that they never heard, for the student; 0: none.
        join_folds: Let the fold teachers answer together as the teacher, instead of training one more on all songs.
        unlabelled: Let the fold teachers judge the songs without a label too; the student then learns from both.
        split_seed: Picks which songs go where; runs that are to be compared or joined need the same.
        validation_songs: A table of songs that validate, in place of a share of the others; it picks epochs alone.
        start: Begin with the weights of this teacher run, of the same shape and trained on other songs.
        network: The shape of the teacher.
        loop: The training settings.
        labels: How labels are learnt from.
        shares: How the songs are split.
        execution: How the run is executed.
    """
    if folds < 0 or folds == 1:
        raise ConfigError(f"folds: expected 0 or at least 2, found {folds}")
    if not folds and (join_folds or unlabelled):
        raise ConfigError("join_folds and unlabelled: expected fold teachers, found --folds 0")
    started = time.perf_counter()
    check_folder(out, RECORD, [songs])
    execution.prepare()
    table = open_songs(songs, validation_songs)
    splits = split(table, shares, split_seed)
    without_label = unlabelled_rows(table, splits)[: None if unlabelled else 0]
    # All songs that anything asks of later, when hours may have passed.
    check_songs(table, np.concatenate([labelled_rows(table), without_label]))
    fold_of = deal(table, splits.train, folds, split_seed) if folds else np.zeros(0, np.int64)
    if folds:
        check_folds(table, splits.train, fold_of)
    held_out_rows = [splits.validation, splits.calibration, splits.test, *([splits.train] if folds else [])]
    begin = warm_start(start, "teacher", network, table, np.concatenate(held_out_rows)) if start else None
    settings = {
        "songs": table.fingerprint(), "network": network, "loop": loop, "labels": labels, "shares": shares,
        "split_seed": split_seed, "folds": folds, "join_folds": join_folds, "unlabelled": unlabelled,
        **({"start": begin.record} if begin else {}),
    }  # fmt: skip
    with journal(out, settings, resume=execution.resume, tensorboard=execution.tensorboard) as kept:
        fitting: dict[str, Any] = {"labels": labels, "execution": execution, "journal": kept, "start": begin}
        members: list[Network] = []
        held_out = None
        if folds:
            members, held_out = _fold_teachers(table, splits.train, fold_of, without_label, network, loop, fitting)
        config: Config
        teacher: Network
        if join_folds:
            config, teacher = EnsembleConfig((network,) * folds), Ensemble(members)
        else:
            config = network
            teacher, _ = fit_to_labels(table, splits.train, splits.validation, network, loop, "teacher", **fitting)
        record = describe(
            "teacher", config, loop, table, splits, teacher, held_out, labels=labels,
            start=begin.record if begin else None,
        )  # fmt: skip
        with atomic_folder(out, RECORD) as folder:
            save_run(folder, record, teacher, table, splits)
            kept.hand_over(folder)
            if held_out is not None:
                save_held_out(folder, held_out)
    return TrainedTeacher(
        out,
        record.split_songs,
        record.validation_accuracy,
        record.held_out_accuracy,
        time.perf_counter() - started,
        record.start.run if record.start else None,
    )


def fit_to_labels(
    songs: SongTable,
    rows: Ints,
    validation_rows: Ints,
    config: SingleConfig,
    loop: LoopConfig,
    name: str,
    labels: LabelConfig = LabelConfig(),
    execution: Execution = Execution(device="cpu"),
    journal: Journal | None = None,
    start: WarmStart | None = None,
) -> tuple[Network, Fit]:
    """Return a network trained on the labels of `rows`, and how that went; see `segue.training.fit.loop.fit`."""
    torch.manual_seed(loop.seed)
    n_classes = len(songs.classes)
    network = build(config, n_classes, Standardise.of(songs, rows))
    if start:
        start.apply(network)
    fitted = fit(
        network,
        songs,
        rows=rows,
        targets=Targets(torch.from_numpy(songs.labels[rows])),
        loss=LabelLoss(labels, songs.labels[rows], n_classes),
        validation_rows=validation_rows,
        config=loop,
        name=name,
        execution=execution,
        journal=journal,
    )
    return network, fitted


def check_folds(songs: SongTable, rows: Ints, fold_of: Ints) -> None:
    """Refuse folds (n,) of training songs in which a class lies in one alone: who answers for it never heard of it."""
    for label in np.unique(songs.labels[rows]):
        of_class = songs.labels[rows] == label
        folds = np.unique(fold_of[of_class])
        if len(folds) == 1:
            raise LabelError(
                f"{songs.path}: expected training songs of {songs.classes[label]} in at least two folds, so that every "
                f"fold teacher hears some, found {of_class.sum()} in one; they may be of one artist. Find more, "
                "leave the class out (`segue songs --classes`), or train without --folds."
            )


def _fold_teachers(
    songs: SongTable,
    rows: Ints,
    fold_of: Ints,
    without_label: Ints,
    config: SingleConfig,
    loop: LoopConfig,
    fitting: dict[str, Any],
) -> tuple[list[Network], HeldOut]:
    """Train a teacher on all folds but one, for each fold, and let it say what it thinks of what it never saw.

    Args:
        songs: the table that the rows count in.
        rows: (n,) training songs.
        fold_of: (n,) the fold of each.
        without_label: songs that no fold teacher sees, and all answer for together.
        config: the shape of the teachers.
        loop: the training settings; each teacher has a seed of its own.
        fitting: more arguments of `fit_to_labels`.
    """
    members: list[Network] = []
    logits = np.empty((len(rows), len(songs.classes)), dtype=np.float32)
    for fold in range(fold_of.max() + 1):
        held_out = fold_of == fold
        settings = dataclasses.replace(loop, seed=loop.seed + 1 + fold)
        name = f"fold-{fold + 1}"
        network, fitted = fit_to_labels(songs, rows[~held_out], rows[held_out], config, settings, name, **fitting)
        logits[held_out] = fitted.validation_logits
        members.append(network)
    together = np.zeros((len(without_label), len(songs.classes)), dtype=np.float32)
    if len(without_label):
        together += np.mean([predict(one, songs, without_label, loop.windows) for one in members], axis=0)
    return members, HeldOut(logits, together)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue train-teacher`."""
    return run(train_teacher, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
