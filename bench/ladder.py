"""Measure what the rungs of a ladder between the first and the last are worth: accuracy over cost, beside two rungs.

Both models are timed on the songs in one run; a setting of the dial costs what its songs climb to. The cheapest setting
that reaches an accuracy is picked on these very songs, and so looks a bit better than it is, of either curve.

Example:
    python -m segue.bench.ladder artifacts/bundle artifacts/msd/test.arrow
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
from segue.errors import ConfigError
from segue.provenance import Provenance, provenance
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import TradeoffRow
from segue.serving.cascade import open_cascade, open_model
from segue.serving.ladder import Ladder
from segue.serving.predictions import ModelName
from segue.serving.tables import labelled, predict_rungs
from segue.serving.timing import SERVING_BATCH, us_per_window
from segue.serving.tradeoff import settings, sweep, thresholds

CLOSE_POINTS = 0.5  # Below the teacher, which is close enough.


@dataclass(frozen=True)
class Setting:
    """A way to answer the songs."""

    name: str
    accuracy: float
    us_per_song: float
    share_of_teacher: float  # Of what asking the teacher alone about every song costs.


@dataclass(frozen=True)
class Compared:
    """What the ladder is worth."""

    bundle: Path
    version: str
    songs: int
    settings: tuple[Setting, ...]
    times_two_rungs: float | None  # Songs/s over those of two rungs at the accuracy of the dial; None: they reach none.
    provenance: Provenance

    def __str__(self) -> str:
        table = tabulate(
            [(one.name, one.accuracy, one.us_per_song, one.share_of_teacher) for one in self.settings],
            ("", "accuracy", "us a song", "of the teacher's cost"),
            floatfmt=("", ".3f", ",.0f", ".1%"),
        )
        ratio = self.times_two_rungs
        return (
            f"{self.bundle} (version {self.version}) on {self.songs} labelled songs, {self.provenance.machine}"
            f"\n\n{table}\n\nat the accuracy of the dial, songs/s over those of two rungs: "
            + ("two rungs do not reach it" if ratio is None else f"{ratio:.1f}")
        )


def compare(bundle: Positional[Path], songs: Positional[Path]) -> Compared:
    """Measure a ladder.

    Args:
        bundle: A bundle with more than two rungs.
        songs: A table of labelled songs that the models have not seen.
    """
    opened = load_bundle(bundle)
    manifest, ladder = opened.manifest, opened.manifest.ladder
    if len(ladder) < 3:
        raise ConfigError(f"{bundle}: expected more than two rungs, found {len(ladder)}")
    table = SongTable(songs)
    rows, labels = labelled(table, opened)
    cascade = open_cascade(opened)
    sample = table.songs(np.sort(np.random.default_rng(0).permutation(rows)[:SERVING_BATCH]))
    us: dict[ModelName, float] = {
        name: us_per_window(open_model(opened, entry), sample, entry.windows)
        for name, entry in manifest.entries.items()
    }
    costs = [us[rung.model] for rung in manifest.all_rungs]
    says = predict_rungs(cascade, table, rows, manifest.rung_names)
    ends, of_ends = [says[0], says[-1]], [costs[0], costs[-1]]
    two = Ladder((ladder.models[0], ladder.models[-1]), (0.0,), ladder.on_fallback)
    two_rungs = sweep(ends, labels, two, thresholds(says[0])[:, None], of_ends)
    curve = sweep(says, labels, ladder, settings(says, opened.tradeoff), costs)
    (dial,) = sweep(says, labels, ladder, np.array([ladder.thresholds_nats]), costs)

    teacher_us = costs[-1] * float(says[-1].windows.mean())
    alone = [float((said.probs.argmax(axis=1) == labels).mean()) for said in says]
    close = alone[-1] - CLOSE_POINTS / 100
    found = [
        (f"{name} alone", accuracy, cost * float(said.windows.mean()))
        for name, accuracy, cost, said in zip(manifest.rung_names, alone, costs, says, strict=True)
    ]
    found.append(("the dial", dial.accuracy, dial.us_per_song))
    for name, rows_of in (("ladder", curve), ("two rungs", two_rungs)):
        for what, least in (
            (f"within {CLOSE_POINTS:g} points of the teacher", close),
            ("as good as the dial", dial.accuracy),
        ):
            best = _cheapest(rows_of, least)
            if best:
                found.append((f"{name}, cheapest {what}", best.accuracy, best.us_per_song))
    same = _cheapest(two_rungs, dial.accuracy)
    return Compared(
        bundle,
        manifest.version,
        len(rows),
        tuple(Setting(name, accuracy, cost, cost / teacher_us) for name, accuracy, cost in found),
        same.us_per_song / dial.us_per_song if same else None,
        provenance(),
    )


def _cheapest(rows: Sequence[TradeoffRow], accuracy: float) -> TradeoffRow | None:
    """Return the cheapest setting that is at least so accurate."""
    reached = [row for row in rows if row.accuracy >= accuracy - 1e-12]
    return min(reached, key=lambda row: row.us_per_song, default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    return run(compare, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
