"""How the networks fare on the real songs: every variant that was tried, artists never shared.

The songs are those of `msd_songs.npz` and `msd_songs_full_length.npz` in the folder SEGUE_SONGS. Each of the four folds
is held out once, the networks learn from the balanced songs of the other three, and nothing about the held-out fold is
used: all epochs are trained and the last one is kept. Students learn the logits of teachers that saw neither the song
nor the fold held out. A song is looked at through its central window, and through nine.

Logits are kept under --workspace, so that a variant is trained once. Figures are added to --results and written into
--page.

Examples:
    python -m segue.training.studies.real_songs pooled bn-rnn --seeds 3
    python -m segue.training.studies.real_songs flat-distilled --against flat --seeds 3
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from scipy.stats import ttest_1samp
from tabulate import tabulate
from tyro.conf import Positional

from segue.atomic import atomic_file
from segue.command import run, to_json
from segue.data.metrics import accuracy, log_softmax
from segue.data.song import Floats, Ints
from segue.data.songs import songs as convert_songs
from segue.data.table import NO_LABEL, SongTable
from segue.errors import ConfigError
from segue.provenance import Provenance, provenance
from segue.publish import write_block
from segue.training.fit.loop import fit, predict
from segue.training.fit.losses import DistillationLoss, LabelLoss, Loss, Targets
from segue.training.networks.build import build
from segue.training.networks.network import Network
from segue.training.networks.standardise import Standardise
from segue.training.studies.pretraining import pretrain
from segue.training.studies.variants import VARIANTS, Distilled, Joined, Trained

log = logging.getLogger(__name__)

FOLDS = 4
WINDOWS = 9
COMMAND = "python -m segue.training.studies.real_songs"
SONGS_FILE, WHOLE_SONGS_FILE = "msd_songs.npz", "msd_songs_full_length.npz"


@dataclass(frozen=True)
class Said:
    """What a network says of every song, those it learnt from among them."""

    central: Floats  # (n_songs, n_classes), of the central window.
    nine: Floats  # (n_songs, n_classes), the mean log-probability over nine windows.


@dataclass(frozen=True)
class Songs:
    """The real songs, whole."""

    table: SongTable
    fold: Ints  # (n_songs,), 0 .. 3, artists never shared.
    balanced: Ints  # Rows of the labelled songs in which no genre is too frequent.

    def train_rows(self, held: Sequence[int], *, all_labelled: bool) -> Ints:
        """Return the labelled songs of the folds that are not held out: the balanced ones, or all."""
        rows = np.flatnonzero(self.table.labels != NO_LABEL) if all_labelled else self.balanced
        return rows[~np.isin(self.fold[rows], held)]

    def other_rows(self, held: Sequence[int]) -> Ints:
        """Return the songs of the folds that are not held out which are not among the balanced ones."""
        rows = np.setdiff1d(np.arange(len(self.table)), self.balanced)
        return rows[~np.isin(self.fold[rows], held)]


def open_songs(folder: Path, workspace: Path) -> Songs:
    """Return the real songs of `folder`; their table is made in `workspace` once."""
    path = workspace / "songs.arrow"
    if not path.is_file():
        convert_songs((folder / WHOLE_SONGS_FILE, path))
    arrays = np.load(folder / SONGS_FILE, allow_pickle=False)
    return Songs(SongTable(path), arrays["fold"].astype(np.int64), np.flatnonzero(arrays["balanced"]))


class Study:
    """Trains what is asked for, unless it was trained before."""

    def __init__(self, songs: Songs, workspace: Path) -> None:
        """Keep what the networks say under `workspace`."""
        self.songs = songs
        self._workspace = workspace

    def said(self, name: str, seed: int, held: Sequence[int]) -> Said:
        """Return what a variant says of all songs after learning from the folds that are not held out."""
        variant = VARIANTS[name]
        if isinstance(variant, Joined):
            members = [self.said(member, seed + add, held) for member in variant.members for add in variant.seeds]
            return Said(*(_mean(parts) for parts in zip(*(vars(one).values() for one in members), strict=True)))
        file = self._workspace / "said" / name / f"{seed}-{''.join(map(str, sorted(held)))}.npz"
        if not file.is_file():
            network = self._trained(name, seed, held)
            everything = np.arange(len(self.songs.table))
            said = Said(*(predict(network, self.songs.table, everything, windows) for windows in (1, WINDOWS)))
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **vars(said))
            log.info("%s, seed %d, without %s: %.3f", name, seed, held, self._accuracy(said.nine, held[0]))
        kept = np.load(file)
        return Said(kept["central"], kept["nine"])

    def figures(self, name: str, seeds: int) -> "Figures":
        """Return how a variant fares on the songs of each fold when that fold is held out."""
        right = np.array([[self._right(name, seed, nine) for nine in (False, True)] for seed in range(seeds)])
        central, nine = right.mean(axis=2).mean(axis=0)
        by_song = right[:, 1].mean(axis=0)
        return Figures(
            name,
            VARIANTS[name].about,
            seeds,
            float(central),
            float(nine),
            float(by_song.std(ddof=1) / np.sqrt(len(by_song))),
            float(right[:, 1].mean(axis=1).std(ddof=1)) if seeds > 1 else None,
        )

    def compare(self, name: str, other: str, seeds: int) -> "Comparison":
        """Return how far a variant is ahead of another one, song by song."""
        ahead = self._by_song(name, seeds) - self._by_song(other, seeds)
        p_value = float(ttest_1samp(ahead, 0).pvalue) if ahead.any() else 1.0
        return Comparison(name, other, seeds, 100 * float(ahead.mean()), p_value)

    def _by_song(self, name: str, seeds: int) -> Floats:
        """Return the share of seeds that were right about each balanced song through nine windows, (n,)."""
        share: Floats = np.stack([self._right(name, seed, True) for seed in range(seeds)]).mean(
            axis=0, dtype=np.float32
        )
        return share

    def _right(self, name: str, seed: int, nine: bool) -> Ints:
        """Return for each balanced song whether the variant that never saw its fold is right about it."""
        table, balanced = self.songs.table, self.songs.balanced
        right = np.empty(len(balanced), dtype=np.int64)
        for fold in range(FOLDS):
            said = self.said(name, seed, [fold])
            rows = self.songs.fold[balanced] == fold
            logits = said.nine if nine else said.central
            right[rows] = logits[balanced[rows]].argmax(axis=1) == table.labels[balanced[rows]]
        return right

    def _accuracy(self, logits: Floats, fold: int) -> float:
        rows = self.songs.balanced[self.songs.fold[self.songs.balanced] == fold]
        return accuracy(logits[rows], self.songs.table.labels[rows])

    def _trained(self, name: str, seed: int, held: Sequence[int]) -> Network:
        variant = VARIANTS[name]
        assert isinstance(variant, Trained | Distilled)
        table = self.songs.table
        rows = self.songs.train_rows(held, all_labelled=isinstance(variant, Trained) and variant.all_labelled)
        labels, n_classes = table.labels[rows], len(table.classes)
        loss: Loss
        if isinstance(variant, Trained):
            targets, loss = Targets(torch.from_numpy(labels)), LabelLoss(variant.labels, labels, n_classes)
        else:
            logits = self._lessons(variant.teacher, seed, held, rows)
            if variant.unlabelled:
                others = self.songs.other_rows(held)
                without = [[*held, fold] for fold in range(FOLDS) if fold not in held]
                logits = np.concatenate(
                    [logits, _mean([self.said(variant.teacher, seed, one).nine[others] for one in without])]
                )
                rows, labels = np.concatenate([rows, others]), np.concatenate([labels, np.full(len(others), NO_LABEL)])
            targets, loss = Targets(torch.from_numpy(labels), torch.from_numpy(logits)), DistillationLoss(variant.loss)
        torch.manual_seed(seed)
        network = build(variant.network, n_classes, Standardise.of(table, rows))
        if isinstance(variant, Trained) and variant.pretrain_epochs:
            pretrain(network, table, np.flatnonzero(~np.isin(self.songs.fold, held)), variant.pretrain_epochs, seed)
        held_rows = self.songs.balanced[np.isin(self.songs.fold[self.songs.balanced], held)]
        # The last epoch is kept whatever validation says of it, so one song is enough.
        config = replace(variant.loop, seed=seed, keep="last", windows=WINDOWS)
        fit(
            network,
            table,
            rows=rows,
            targets=targets,
            loss=loss,
            validation_rows=held_rows[:1],
            config=config,
            name=name,
        )
        return network

    def _lessons(self, teacher: str, seed: int, held: Sequence[int], rows: Ints) -> Floats:
        """Return the logits (n, n_classes) of the songs in `rows`, each by a teacher that saw neither it nor `held`."""
        logits = np.empty((len(rows), len(self.songs.table.classes)), dtype=np.float32)
        for fold in set(self.songs.fold[rows].tolist()):
            of_fold = self.songs.fold[rows] == fold
            logits[of_fold] = self.said(teacher, seed, [*held, fold]).nine[rows[of_fold]]
        return logits


@dataclass(frozen=True)
class Figures:
    """How a variant fares on the balanced songs, each when its fold is held out."""

    variant: str
    about: str
    seeds: int
    central_accuracy: float  # Through the central window.
    accuracy: float  # Through nine windows, mean over the seeds.
    standard_error: float  # Of the accuracy, over songs.
    deviation_of_seeds: float | None  # Standard deviation of the accuracy from seed to seed.


@dataclass(frozen=True)
class Comparison:
    """Two variants on the same songs."""

    variant: str
    other: str
    seeds: int
    points: float  # By which the first is ahead.
    p_value: float  # Of a paired t-test over songs, two-sided; a song counts the share of seeds that are right.


@dataclass(frozen=True)
class Found:
    """What the study has found so far."""

    figures: tuple[Figures, ...]
    comparisons: tuple[Comparison, ...]
    songs: int
    provenance: Provenance

    def __str__(self) -> str:
        rows = [
            (
                f"`{one.variant}`", one.about, one.seeds, f"{one.central_accuracy:.3f}",
                f"{one.accuracy:.3f} ± {one.standard_error:.3f}",
                "" if one.deviation_of_seeds is None else f"{one.deviation_of_seeds:.3f}",
            )
            for one in sorted(self.figures, key=lambda one: one.accuracy)
        ]  # fmt: skip
        headers = ("variant", "what it is", "seeds", "central window", "nine windows", "from seed to seed")
        compared = [
            f"- `{one.variant}` is {abs(one.points):.1f} points {'ahead of' if one.points >= 0 else 'behind'} "
            f"`{one.other}` (p = {one.p_value:.2g}, {one.seeds} seeds)"
            for one in self.comparisons
        ]
        return "\n".join([tabulate(rows, headers, tablefmt="github", disable_numparse=True), "", *compared])


def real_songs(
    variants: Positional[tuple[str, ...]] = (),
    seeds: int = 1,
    against: str | None = None,
    workspace: Path = Path("artifacts/real_songs"),
    results: Path = Path("docs/results/real_songs.json"),
    page: Path = Path("docs/real-songs.md"),
) -> Found:
    """Train variants on the real songs and tell how they fare.

    Args:
        variants: Names from `training/studies/variants.py`.
        seeds: Seeds of each.
        against: A variant to compare them with, song by song.
        workspace: Folder for what the networks say.
        results: The JSON file that gathers the figures.
        page: The page whose table is written.
    """
    unknown = [name for name in (*variants, *([against] if against else [])) if name not in VARIANTS]
    if unknown:
        raise ConfigError(f"expected variants among {', '.join(VARIANTS)}; found {', '.join(unknown)}")
    if "SEGUE_SONGS" not in os.environ:
        raise ConfigError("expected the environment variable SEGUE_SONGS to name the folder of the real songs")
    study = Study(open_songs(Path(os.environ["SEGUE_SONGS"]), workspace), workspace)
    figures = [study.figures(name, seeds) for name in variants]
    comparisons = [study.compare(name, against, seeds) for name in variants] if against else []
    found = _gather(results, Found(tuple(figures), tuple(comparisons), len(study.songs.balanced), provenance()))
    with atomic_file(results) as draft:
        draft.write_text(to_json(found) + "\n")
    write_block(page, COMMAND, str(found))
    return found


def _gather(results: Path, new: Found) -> Found:
    """Return what was found before and what is new; the new figures take the place of older ones."""
    if not results.is_file():
        return new
    old = TypeAdapter(Found).validate_json(results.read_bytes())
    figures = {one.variant: one for one in (*old.figures, *new.figures)}
    comparisons = {(one.variant, one.other): one for one in (*old.comparisons, *new.comparisons)}
    return replace(new, figures=tuple(figures.values()), comparisons=tuple(comparisons.values()))


def _mean(logits: Sequence[Floats]) -> Floats:
    mean: Floats = np.mean([log_softmax(one) for one in logits], axis=0).astype(np.float32)
    return mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study."""
    return run(real_songs, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
