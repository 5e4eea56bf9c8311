"""Measure a bundle on labelled songs: accuracy, nll and ece of student, teacher and cascade, and the trade-off table.

Example:
    segue evaluate artifacts/bundle artifacts/test.arrow
    segue evaluate artifacts/bundle artifacts/test.arrow --threshold 0.5
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tyro.conf import Positional

from segue.command import run
from segue.data.table import SongTable
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import Evaluation, TradeoffRow
from segue.serving.bundle.seen import were_seen
from segue.serving.cascade import check_threshold, open_cascade
from segue.serving.runtime import Provider
from segue.serving.tables import labelled, predict_rows
from segue.serving.tradeoff import area_above_random, evaluation, sweep, thresholds, tradeoff_text


@dataclass(frozen=True)
class Evaluated:
    """What `segue evaluate` found."""

    bundle: Path
    songs: Path
    unlabelled: int  # Left out.
    trained_on: int  # Songs that the models have seen in training, and so know better than any others; not left out.
    majority_accuracy: float  # Of always answering the most frequent class.
    evaluation: Evaluation
    tradeoff: tuple[TradeoffRow, ...]

    def __str__(self) -> str:
        found = self.evaluation
        rows = [
            (name, scores.accuracy, scores.nll, scores.ece)
            for name, scores in (("student", found.student), ("teacher", found.teacher), ("cascade", found.cascade))
        ]
        return "\n".join(
            [
                f"{self.bundle} on {found.songs} labelled songs of {self.songs}"
                + (f" ({self.unlabelled} without a label left out)" if self.unlabelled else ""),
                *(
                    [f"of which the models have seen {self.trained_on} in training: others they will know less well"]
                    if self.trained_on
                    else []
                ),
                "",
                tabulate(rows, ("", "accuracy", "nll", "ece"), floatfmt=".3f"),
                "",
                f"most frequent class: {self.majority_accuracy:.3f}   agreement: {found.agreement:.3f}   "
                f"threshold: {found.threshold_nats:.3f} nats   fallback rate: {found.fallback_rate:.3f}",
                "",
                tradeoff_text(self.tradeoff),
                "",
                f"area between the curve and the random line: {area_above_random(self.tradeoff):.4f}",
            ]
        )


def evaluate(
    bundle: Positional[Path],
    songs: Positional[Path],
    threshold: float | None = None,
    windows: int | None = None,
    provider: Provider = "auto",
) -> Evaluated:
    """Measure a bundle on labelled songs.

    Args:
        bundle: The bundle's folder.
        songs: A song table with labels; songs without one are left out.
        threshold: Cross-entropy in nats above which a song falls back to the teacher. Default: the bundle's.
        windows: Windows of a song that both models see, at most. Default: what the bundle says.
        provider: Where the models run; auto takes a GPU where there is one.
    """
    opened = load_bundle(bundle)
    manifest = opened.manifest
    check_threshold(threshold)
    table = SongTable(songs)
    rows, labels = labelled(table, opened)
    cascade = open_cascade(opened, windows=windows, provider=provider)
    named = zip(manifest.rung_names, cascade.models, strict=True)
    says = [predict_rows(model, table, rows, name) for name, model in named]
    settings = thresholds(says[0])[:, None]
    if len(says) > 2:
        settings = np.array([(row.threshold_nats, *row.next_thresholds_nats) for row in opened.tradeoff])
    costs = [manifest.entry(rung).us_per_window for rung in manifest.all_rungs]
    return Evaluated(
        bundle,
        songs,
        len(table) - len(rows),
        int(were_seen(opened, [table.song_ids[row] for row in rows]).sum()),
        float(np.bincount(labels).max() / len(labels)),
        evaluation(says, labels, cascade.ladder.at(threshold)),
        sweep(says, labels, cascade.ladder, settings, costs),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue evaluate`."""
    return run(evaluate, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
