"""Curricula: the songs in levels, from those a trained network finds easy to those it finds hard, or the other way."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from segue.data.metrics import accuracy, log_softmax, nll, softmax
from segue.data.song import Floats, Ints
from segue.errors import ConfigError, RunError
from segue.training.fit.feed import open_feed
from segue.training.fit.journal import Epoch
from segue.training.fit.loop import EpochTrainer, LoopConfig, predict
from segue.training.fit.losses import LabelConfig, LabelLoss, Targets
from segue.training.fit.optimisers import Optimiser
from segue.training.networks.build import SingleConfig, build
from segue.training.networks.network import Network
from segue.training.networks.standardise import Standardise
from segue.training.studies.fits import LabelFit
from segue.training.studies.study import Bench, Outcome

SHOWN = 10  # Songs in the tables of the easiest and of the hardest.


@dataclass(frozen=True)
class Curriculum:
    """In which order songs are learnt from."""

    step: int = 50  # Batches that a level adds.
    repetitions: int = 1  # Epochs a level.
    keep: bool = False  # Learn from the songs of the levels before too.
    shuffle: bool = True  # Learn from the songs of a level in random order, and not by their cross-entropy.
    reverse: bool = False  # From hard to easy.
    advance: Literal["by count", "self-paced"] = "by count"  # To the next level; self-paced: once the error rises.
    most_repetitions: int = 20  # Self-paced: epochs after which the next level comes all the same.
    by_hand: tuple[float, ...] = ()  # Shares of the songs at which levels end, in place of the steps.

    def __post_init__(self) -> None:
        """Refuse levels without songs."""
        if min(self.step, self.repetitions, self.most_repetitions) < 1:
            raise ConfigError(f"expected steps and repetitions of at least 1, found {self}")
        if list(self.by_hand) != sorted({*self.by_hand}) or any(not 0 < share <= 1 for share in self.by_hand):
            raise ConfigError(f"by_hand: expected rising shares above 0, up to 1, found {self.by_hand}")


def levels(cross_entropy: Floats, batch_songs: int, curriculum: Curriculum) -> list[Ints]:
    """Return the songs of each level, by their places in `cross_entropy` (n,), in its order.

    A level has `step` batches of songs; the last one what is left. With `keep`, it begins with all levels before it.
    """
    order = np.argsort(cross_entropy, kind="stable")
    if curriculum.reverse:
        order = order[::-1].copy()
    n, size = len(order), curriculum.step * batch_songs
    ends = [round(share * n) for share in curriculum.by_hand] or [*range(size, n, size), n]
    return [order[0 if curriculum.keep else start : end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True)
class CurriculumFit:
    """A network learns from levels of songs."""

    network: SingleConfig
    loop: LoopConfig  # Its epochs are those of the network that orders the songs.
    curriculum: Curriculum

    def cross_entropies(self, bench: Bench) -> Floats:
        """Return the cross-entropy in nats of each training song, (n,), by a network that has learnt from all."""

        def make() -> Floats:
            rows, table = bench.train, bench.songs
            torch.manual_seed(0)
            network = build(self.network, len(table.classes), Standardise.of(table, rows))
            self._learn(network, bench, replace(self.loop, seed=0), [np.arange(len(rows))] * self.loop.n_epochs, True)
            answers = log_softmax(predict(network, table, rows, self.loop.windows))
            found: Floats = -answers[np.arange(len(rows)), table.labels[rows]].astype(np.float32)
            return found

        return bench.array("cross-entropy", [self.network, self.loop], make)

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Train level by level, and tell how it went."""
        hardness = self.cross_entropies(bench)
        table, rows = bench.songs, bench.train
        torch.manual_seed(seed)
        network = build(self.network, len(table.classes), Standardise.of(table, rows))
        ordered = levels(hardness, self.loop.batch_songs, self.curriculum)
        paced = self.curriculum.advance == "self-paced"
        times = self.curriculum.most_repetitions if paced else self.curriculum.repetitions
        try:
            epochs = self._learn(
                network, bench, replace(self.loop, seed=seed), ordered, self.curriculum.shuffle, times, paced
            )
        except RunError as error:
            return Outcome(0.0, notes=[str(error)])
        figures = {"epochs": len(epochs), "levels": len(ordered), "last epoch": epochs[-1].validation_accuracy}
        return Outcome(max(epoch.validation_accuracy for epoch in epochs), epochs, figures)

    def _learn(
        self, network: Network, bench: Bench, loop: LoopConfig, ordered: list[Ints], shuffle: bool,
        times: int = 1, paced: bool = False,
    ) -> list[Epoch]:  # fmt: skip
        """Train on each of the ordered sets of songs, `times` epochs each, or until the validation error rises."""
        table, labels = bench.songs, bench.songs.labels
        optimiser = Optimiser(
            loop.optimiser, network.parameters(), loop.weight_decay, momentum=loop.momentum, decay=loop.decay
        )
        loss = LabelLoss(LabelConfig(), labels[bench.train], len(table.classes))
        feed = open_feed(table, torch.device("cpu"))
        epochs: list[Epoch] = []
        for level in ordered:
            if len(level) < 2:
                continue
            some = bench.train[level]
            trainer = EpochTrainer(
                "curriculum", some, table.lengths[some], Targets(torch.from_numpy(labels[some])), feed, loss, loop,
                shuffle=shuffle,
            )  # fmt: skip
            errors: list[float] = []
            steps = trainer.steps(network, optimiser)
            for _ in range(times):
                learnt = trainer.learn(steps, len(epochs) + 1, tqdm(disable=True))
                logits = predict(network, table, bench.validation, loop.windows)
                right, wrong = (
                    accuracy(logits, labels[bench.validation]),
                    nll(softmax(logits), labels[bench.validation]),
                )
                epochs.append(Epoch(len(epochs) + 1, learnt.loss, learnt.accuracy, right, wrong, learnt.rate, 0.0))
                errors.append(1 - right)
                if paced and len(errors) > 1 and errors[-1] > errors[-2]:
                    break
        return epochs


@dataclass(frozen=True)
class Order:
    """The network that orders the songs, and what it finds easy and hard."""

    fit: CurriculumFit

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Train it as any network, and list the easiest and the hardest songs."""
        hardness = self.fit.cross_entropies(bench)
        outcome = LabelFit(self.fit.network, self.fit.loop).run(bench, seed)
        order = np.argsort(hardness, kind="stable")
        table = bench.songs

        def told(places: Ints) -> str:
            return "; ".join(
                f"{table.song_ids[row]} ({table.classes[table.labels[row]]}, {hardness[at]:.4g})"
                for at, row in zip(places, bench.train[places], strict=True)
            )

        figures = {
            "cross-entropy, mean": float(hardness.mean()),
            "cross-entropy, variance": float(hardness.var()),
            "cross-entropy, least": float(hardness.min()),
            "cross-entropy, most": float(hardness.max()),
        }
        notes = [f"easiest songs (genre, nats): {told(order[:SHOWN])}", f"hardest songs: {told(order[::-1][:SHOWN])}"]
        return replace(outcome, figures=outcome.figures | figures, notes=notes)
