"""The fits that studies are made of: a network that learns from labels, of all songs or around a fold."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from segue.data.describe.description import BLOCKS
from segue.data.joined import JoinedSongs
from segue.data.metrics import accuracy
from segue.data.parts import parts_of
from segue.data.song import Floats, Ints
from segue.data.splits import deal
from segue.data.table import SongTable, write_table
from segue.errors import RunError
from segue.stages import key
from segue.training.fit.autoencoder import pretrain
from segue.training.fit.journal import Epoch
from segue.training.fit.loop import Fit as Fitted
from segue.training.fit.loop import LoopConfig, fit
from segue.training.fit.losses import DistillationConfig, DistillationLoss, LabelConfig, LabelLoss, Targets
from segue.training.networks.build import SingleConfig, build
from segue.training.networks.dense import DenseConfig, DenseNetwork
from segue.training.networks.standardise import Standardise
from segue.training.report.importance import importances
from segue.training.studies.study import Bench, Outcome

Objective = Literal["best", "best tenth", "last"]


def objective(epochs: list[Epoch], kind: Objective) -> float:
    """Return what epochs come to: the best validation accuracy, the mean of the best tenth of them, or the last."""
    values = sorted((epoch.validation_accuracy for epoch in epochs), reverse=True)
    if kind == "last":
        return epochs[-1].validation_accuracy
    return float(np.mean(values[: max(1, len(values) // 10) if kind == "best tenth" else 1]))


def swing(epochs: list[Epoch]) -> float:
    """Return the standard deviation of the steps of validation accuracy between the epochs of the second half."""
    values = [epoch.validation_accuracy for epoch in epochs][len(epochs) // 2 :]
    return float(np.diff(values).std()) if len(values) > 2 else 0.0


@dataclass(frozen=True)
class LabelFit:
    """A network learns from labels."""

    network: SingleConfig
    loop: LoopConfig
    labels: LabelConfig = LabelConfig()
    compare: Objective = "best"  # What of its epochs counts.
    blocks: tuple[str, ...] = tuple(BLOCKS)  # Features that it sees; the others are 0.
    pretrain_epochs: int = 0  # Epochs of each autoencoder that a hidden layer of a dense network is pretrained as.
    songs: int | None = None  # Training songs it learns from; None: all.
    parts: bool = False  # Learn from every 120 segments of a song as a song of its own.
    by_class: bool = False  # Report the recall of each class, and what permuting each block of features loses.

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Train, and tell how it went; a training that diverges is an outcome too, of accuracy 0."""
        table, train, validation = bench.songs, bench.train[: self.songs], bench.validation
        if self.parts:
            table, train, validation = split_into_parts(bench)
        loop = replace(self.loop, seed=seed)
        torch.manual_seed(seed)
        network = build(self.network, len(table.classes), Standardise.of(table, train))
        for name, block in BLOCKS.items():
            if name not in self.blocks:
                network.standardise.deviation[block] = float("inf")  # Whatever a song has there becomes 0.
        figures = {}
        try:
            if self.pretrain_epochs:
                assert isinstance(network, DenseNetwork)
                errors = pretrain(network, table, train, replace(loop, epochs=self.pretrain_epochs))
                figures = {f"autoencoder {at}, error": error for at, error in enumerate(errors, 1)}
            targets = Targets(torch.from_numpy(table.labels[train]))
            loss = LabelLoss(self.labels, table.labels[train], len(table.classes))
            fitted = fit(
                network, table, rows=train, targets=targets, loss=loss, validation_rows=validation, config=loop,
                name=self.network.shape, execution=bench.execution,
            )  # fmt: skip
        except RunError as error:
            return Outcome(0.0, notes=[str(error)])
        outcome = outcome_of(fitted, self.compare)
        if self.by_class:
            labels = table.labels[validation]
            figures |= _by_class(table, labels, fitted.validation_logits)
            lost = importances(network, table, validation, labels, fitted.validation_logits, n_windows=1, repeats=3)
            figures |= {f"{one.block} permuted: {name}": drop.mean for one in lost for name, drop in one.recall.items()}
            figures |= {f"{one.block} permuted, all": one.accuracy.mean for one in lost}
        return replace(outcome, figures=outcome.figures | figures)


def outcome_of(fitted: Fitted, compare: Objective) -> Outcome:
    """Return what a training came to."""
    epochs = fitted.epochs
    half = epochs[: max(1, len(epochs) // 2)]
    figures = {"half of the epochs": objective(half, compare), "swing": swing(epochs)}
    return Outcome(objective(epochs, compare), epochs, figures)


def _by_class(table: SongTable, labels: Ints, logits: Floats) -> dict[str, float]:
    return {
        f"recall: {name}": accuracy(logits[labels == at], labels[labels == at])
        for at, name in enumerate(table.classes)
        if (labels == at).any()
    }


def split_into_parts(bench: Bench) -> tuple[SongTable, Ints, Ints]:
    """Return a table of the parts of the training songs and of all songs, the rows that train, those that validate."""
    songs = bench.songs
    made_from = {"songs": songs.fingerprint(), "train": bench.train.tolist()}
    path = bench.folder / f"parts-{key(made_from)[:16]}.arrow"
    if not path.is_file():
        with write_table(path, songs.units, songs.classes) as table:
            for start in range(0, len(bench.train), 256):
                table.write(parts_of(songs.batch(bench.train[start : start + 256])))
    joined = JoinedSongs(SongTable(path), songs)
    first = int(joined.second_rows[0])
    return joined, np.arange(first), first + bench.validation


@dataclass(frozen=True)
class FoldFit:
    """A network learns from all folds of the songs but one, and answers for that one."""

    network: SingleConfig
    loop: LoopConfig
    fold: int
    folds: int

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Train, keep the logits of the songs held out, and tell how it went."""
        rows, fold_of = fold_rows(bench, self.folds, seed)
        held_out = fold_of == self.fold
        loop = replace(self.loop, seed=seed * self.folds + self.fold)
        torch.manual_seed(loop.seed)
        table, n_classes = bench.songs, len(bench.songs.classes)
        network = build(self.network, n_classes, Standardise.of(table, rows[~held_out]))
        labels = table.labels[rows[~held_out]]
        fitted = fit(
            network, table, rows=rows[~held_out], targets=Targets(torch.from_numpy(labels)),
            loss=LabelLoss(LabelConfig(), labels, n_classes), validation_rows=rows[held_out], config=loop,
            name=f"fold {self.fold + 1}", execution=bench.execution,
        )  # fmt: skip
        bench.array("logits", [self, seed], lambda: fitted.validation_logits)
        return outcome_of(fitted, "best")

    def logits(self, bench: Bench, seed: int) -> Floats:
        """Return what it says of the songs held out, in its best epoch."""

        def make() -> Floats:
            self.run(bench, seed)
            return self.logits(bench, seed)

        return bench.array("logits", [self, seed], make)


def fold_rows(bench: Bench, folds: int, seed: int) -> tuple[Ints, Ints]:
    """Return the training songs (n,) and the fold of each: stratified, artists kept together."""
    return bench.train, deal(bench.songs, bench.train, folds, seed)


@dataclass(frozen=True)
class StudentFit:
    """A student learns the logits of teachers that never saw its songs."""

    network: DenseConfig
    loop: LoopConfig
    teachers: tuple[FoldFit, ...]
    distillation: DistillationConfig = DistillationConfig()
    compare: Objective = "best tenth"

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Train, and tell how it went."""
        table, n_classes = bench.songs, len(bench.songs.classes)
        rows, fold_of = fold_rows(bench, len(self.teachers), 0)
        logits = np.empty((len(rows), n_classes), dtype=np.float32)
        for teacher in self.teachers:
            logits[fold_of == teacher.fold] = teacher.logits(bench, 0)
        targets = Targets(torch.from_numpy(table.labels[rows]), torch.from_numpy(logits))
        torch.manual_seed(seed)
        network = build(self.network, n_classes, Standardise.of(table, rows))
        try:
            fitted = fit(
                network, table, rows=rows, targets=targets,
                loss=DistillationLoss(self.distillation, table.labels[rows], n_classes),
                validation_rows=bench.validation,
                config=replace(self.loop, seed=seed), name="student", execution=bench.execution,
            )  # fmt: skip
        except RunError as error:
            return Outcome(0.0, notes=[str(error)])
        return outcome_of(fitted, self.compare)
