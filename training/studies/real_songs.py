"""Variants of the networks on whole songs: each fold held out once, songs judged by networks that never saw them.

The variants are those of `segue.training.studies.variants`. A network learns from the balanced songs of three folds and
nothing about the fourth is used: all epochs are trained and the last one is kept. Students learn the logits of teachers
that saw neither the song nor the fold held out. A song is looked at through its central window, and through nine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from segue.data.metrics import log_softmax
from segue.data.song import Floats, Ints
from segue.data.splits import deal
from segue.data.table import NO_LABEL
from segue.training.fit.loop import fit, predict
from segue.training.fit.losses import DistillationLoss, LabelLoss, Loss, Targets
from segue.training.networks.build import build
from segue.training.networks.network import Network
from segue.training.networks.standardise import Standardise
from segue.training.studies.pretraining import pretrain
from segue.training.studies.study import Bench, Cell, Claim, Found, Outcome, Scale, Study
from segue.training.studies.variants import VARIANTS, Distilled, Joined, Trained, Variant

FOLDS, WINDOWS = 4, 9
FEW = ("flat", "pooled", "pooled-distilled")  # Of a quick run.


@dataclass(frozen=True)
class Dealt:
    """The songs, by fold."""

    fold: Ints  # (n_songs,); -1 of songs without a label whose artist has none with one.
    balanced: Ints  # Rows of labelled songs in which no genre has more than the second most frequent one.

    @classmethod
    def of(cls, bench: Bench) -> "Dealt":
        """Deal the labelled songs of the bench; songs without a label go with their artist."""
        table, rows = bench.songs, np.sort(np.concatenate([bench.train, bench.validation]))
        fold = np.full(len(table), -1)
        fold[rows] = deal(table, rows, FOLDS, 0)
        of_artist = {table.groups[row]: fold[row] for row in rows if table.groups[row] is not None}
        for row in np.flatnonzero(table.labels == NO_LABEL):
            fold[row] = of_artist.get(table.groups[row], -1)
        most = np.sort(np.bincount(table.labels[rows]))[-2]
        drawn = np.random.default_rng(0).permutation(rows)
        kept = [drawn[table.labels[drawn] == label][:most] for label in range(len(table.classes))]
        return cls(fold, np.sort(np.concatenate(kept)))


@dataclass(frozen=True)
class VariantFit:
    """A variant, from the songs of all folds but those held out."""

    variant: Variant
    others: tuple[tuple[str, Variant], ...]  # The variants that it is made from, by name; theirs too.

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Judge the balanced songs of each fold by the variant that never saw it."""
        table, dealt = bench.songs, Dealt.of(bench)
        right = np.empty((2, len(dealt.balanced)))
        for held in range(FOLDS):
            of_fold = dealt.fold[dealt.balanced] == held
            rows = dealt.balanced[of_fold]
            for at, logits in enumerate(self.said(bench, dealt, seed, (held,))):
                right[at, of_fold] = logits[rows].argmax(axis=1) == table.labels[rows]
        central, nine = right.mean(axis=1)
        error = right[1].std(ddof=1) / np.sqrt(right.shape[1])
        return Outcome(
            float(nine), figures={"central window": float(central), "standard error over songs": float(error)}
        )

    def said(self, bench: Bench, dealt: Dealt, seed: int, held: tuple[int, ...]) -> Floats:
        """Return the logits of every song through the central window and through nine, (2, n_songs, n_classes)."""
        variant = self.variant
        if isinstance(variant, Joined):
            members = [
                self._other(name).said(bench, dealt, seed + add, held)
                for name in variant.members
                for add in variant.seeds
            ]
            return np.stack([_mean([one[at] for one in members]) for at in range(2)])

        def make() -> Floats:
            network = self._trained(bench, dealt, seed, held)
            everything = np.arange(len(bench.songs))
            return np.stack([predict(network, bench.songs, everything, windows) for windows in (1, WINDOWS)])

        return bench.array("said", [self._lineage(), seed, sorted(held)], make)

    def _lineage(self) -> list[object]:
        """Return the variant and what it is made from: all that decides on what it says."""
        variant = self.variant
        parents = variant.members if isinstance(variant, Joined) else ()
        parents = (variant.teacher,) if isinstance(variant, Distilled) else parents
        return [variant, *(self._other(name)._lineage() for name in parents)]

    def _other(self, name: str) -> "VariantFit":
        return VariantFit(dict(self.others)[name], self.others)

    def _trained(self, bench: Bench, dealt: Dealt, seed: int, held: tuple[int, ...]) -> Network:
        variant, table = self.variant, bench.songs
        assert isinstance(variant, Trained | Distilled)
        free = ~np.isin(dealt.fold, held)
        everyone = isinstance(variant, Trained) and variant.all_labelled
        rows = np.flatnonzero(free & (table.labels != NO_LABEL)) if everyone else dealt.balanced[free[dealt.balanced]]
        rows = rows[dealt.fold[rows] >= 0]
        labels, n_classes = table.labels[rows], len(table.classes)
        loss: Loss
        if isinstance(variant, Trained):
            targets, loss = Targets(torch.from_numpy(labels)), LabelLoss(variant.labels, labels, n_classes)
        else:
            teacher = self._other(variant.teacher)
            logits = np.empty((len(rows), n_classes), dtype=np.float32)
            for fold in set(dealt.fold[rows].tolist()):
                of_fold = dealt.fold[rows] == fold
                logits[of_fold] = teacher.said(bench, dealt, seed, (*held, fold))[1, rows[of_fold]]
            if variant.unlabelled:
                others = np.setdiff1d(np.flatnonzero(free), dealt.balanced)
                without = [(*held, fold) for fold in range(FOLDS) if fold not in held]
                more = _mean([teacher.said(bench, dealt, seed, one)[1, others] for one in without])
                rows, logits = np.concatenate([rows, others]), np.concatenate([logits, more])
                labels = np.concatenate([labels, np.full(len(others), NO_LABEL)])
            targets = Targets(torch.from_numpy(labels), torch.from_numpy(logits))
            loss = DistillationLoss(variant.loss, labels, n_classes)
        torch.manual_seed(seed)
        network = build(variant.network, n_classes, Standardise.of(table, rows))
        if isinstance(variant, Trained) and variant.pretrain_epochs:
            pretrain(network, table, np.flatnonzero(free), variant.pretrain_epochs, seed)
        # The last epoch is kept whatever validation says of it, so one song is enough.
        held_rows = dealt.balanced[~free[dealt.balanced]][:1]
        config = replace(variant.loop, seed=seed, keep="last", windows=WINDOWS)
        fit(
            network, table, rows=rows, targets=targets, loss=loss, validation_rows=held_rows, config=config,
            name=variant.network.shape, execution=bench.execution,
        )  # fmt: skip
        return network


def _mean(logits: Sequence[Floats]) -> Floats:
    mean: Floats = np.mean([log_softmax(one) for one in logits], axis=0).astype(np.float32)
    return mean


def _scaled(variant: Variant, scale: Scale) -> Variant:
    if isinstance(variant, Joined):
        return variant
    return replace(variant, network=scale.network(variant.network), loop=scale.loop(variant.loop))  # type: ignore[arg-type]


def _made_from(name: str) -> set[str]:
    """Return the names of the variants that one is made from, itself among them."""
    variant = VARIANTS[name]
    if isinstance(variant, Joined):
        return {name, *chain.from_iterable(_made_from(member) for member in variant.members)}
    return {name, *(_made_from(variant.teacher) if isinstance(variant, Distilled) else ())}


def cells(scale: Scale) -> list[Cell]:
    """Return all variants; those that are made from others come after them, so that nothing is trained twice."""
    # A quick run distils from a network that is quick to train.
    variants = dict(VARIANTS)
    if scale.quick:
        distilled = variants["pooled-distilled"]
        assert isinstance(distilled, Distilled)
        variants["pooled-distilled"] = replace(distilled, teacher="pooled")
    found = []
    for name in FEW if scale.quick else variants:
        needed = {"pooled", name} if scale.quick else _made_from(name)
        others = tuple((other, _scaled(variants[other], scale)) for other in sorted(needed))
        wave = 0 if isinstance(variants[name], Trained) else 1 if isinstance(variants[name], Joined) else 2
        fit_ = VariantFit(_scaled(variants[name], scale), others if wave else ())
        found += [Cell(name, seed, fit_, wave) for seed in range(scale.seeds)]
    return found


def words(found: Found) -> list[str]:
    """Tell the best variants through nine windows and through one."""
    mean = {name: float(np.mean(found.accuracies(name))) for name in found.outcomes}
    best = sorted(mean, key=lambda name: -mean[name])[:3]
    told = []
    for name in best:
        central = np.mean([one.figures["central window"] for one in found.outcomes[name]])
        about = VARIANTS[name].about
        told.append(f"{name} ({about}): {mean[name]:.3f} through nine windows, {central:.3f} through the central one.")
    return told


STUDY = Study(
    title="Variants of the networks on whole songs, four folds, artists apart",
    varies="networks, features, augmentation, labels or teachers learnt from: the variants of "
    "training/studies/variants.py",
    fixed="four folds, each held out once; the last epoch; random windows in training, nine windows and one when "
    "judged",
    original="earlier here, on 923 balanced Million Song Dataset songs: docs/real-songs.md",
    cells=cells,
    claims=(
        Claim("pooled", "flat", "Summary statistics beat the flat window on few songs"),
        Claim("pooled", "pooled-distilled", "On few songs, labels teach more than teachers"),
        Claim("pooled-more", "pooled", "More songs, weighted, and transposed chroma help"),
        Claim("bn-rnn", "rnn", "Batch norm helps the recurrence"),
    ),
    words=words,
    pictures=("bars",),
    least_segments=1,
    needs_artists=True,
)
