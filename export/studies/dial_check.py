"""Check what the dial says: set it with every option, and see what comes of it on songs that nothing has seen.

A set is written NAME=BUNDLE:SONGS:TEST: the bundle, the songs that set its dial, and the songs that tell. What is asked
for follows from the bundle's own figures, so that it can be had.

Example:
    python -m segue.export.studies.dial_check synthetic=artifacts/bundle:artifacts/songs.arrow:artifacts/test.arrow
"""

import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tyro.conf import Positional

from segue.atomic import atomic_file
from segue.command import run, to_json
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.export.calibrate import calibrate
from segue.export.calibration.thresholds import UnsupportedError
from segue.provenance import Provenance, provenance
from segue.publish import write_block
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import Guarantee
from segue.serving.cascade import open_cascade
from segue.serving.evaluate import evaluate
from segue.serving.timing import SERVING_BATCH, seconds_per_call

COMMAND = "python -m segue.export.studies.dial_check"
POINTS = (1.0, 5.0, 15.0)
FALLBACK_RATE = 0.3
CAUTION = 0.07  # The accuracy that is asked for is so far below the one the bundle has.


@dataclass(frozen=True)
class Check:
    """One setting of the dial, and what came of it."""

    songs: str
    option: str
    said: str  # In short.
    guarantee: Guarantee | None  # None: refused, and `said` has the reason.
    came_out: str
    unseen_songs: int


@dataclass(frozen=True)
class Checked:
    """All settings on all sets."""

    checks: tuple[Check, ...]
    provenance: Provenance

    def __str__(self) -> str:
        """Return the table as Markdown."""
        rows = [(one.songs, f"`{one.option}`", one.said, one.came_out) for one in self.checks]
        made = self.provenance
        return (
            f"{tabulate(rows, ('songs', 'asked', 'said', 'came out on unseen songs'), tablefmt='github')}\n\n"
            f"{made.time[:10]}, commit {made.commit}, {made.machine}."
        )


def dial_check(
    sets: Positional[tuple[str, ...]],
    results: Path = Path("docs/results/dial.json"),
    page: Path = Path("docs/dial.md"),
) -> Checked:
    """Check what the dial says.

    Args:
        sets: NAME=BUNDLE:SONGS:TEST, one or more.
        results: The file for the figures.
        page: The page whose table is written anew.
    """
    checks: list[Check] = []
    for one in sets:
        name, _, paths = one.partition("=")
        if paths.count(":") != 2:
            raise ConfigError(f"sets: expected NAME=BUNDLE:SONGS:TEST, found {one!r}")
        bundle, songs, test = map(Path, paths.split(":"))
        checks += [_check(name, bundle, songs, test, options) for options in _options(bundle)]
    checked = Checked(tuple(checks), provenance())
    with atomic_file(results) as draft:
        draft.write_text(to_json(checked) + "\n")
    write_block(page, COMMAND, str(checked))
    return checked


def _options(bundle: Path) -> list[dict[str, Any]]:
    """Return what to ask for: every option, each in reach of the bundle, and a promise of one point."""
    loaded = load_bundle(bundle)
    accuracy = round(loaded.manifest.metrics.cascade.accuracy - CAUTION, 2)
    us = statistics.mean((loaded.tradeoff[0].us_per_song, loaded.tradeoff[-1].us_per_song))
    return [
        *({"within": points} for points in POINTS),
        {"within": POINTS[-1], "per_class": True},
        {"accuracy": accuracy},
        {"fallback_rate": FALLBACK_RATE},
        {"songs_per_s": float(f"{1e6 / us:.2g}")},
    ]


def _check(name: str, bundle: Path, songs: Path, test: Path, options: dict[str, Any]) -> Check:
    words = " ".join(
        f"--{key.replace('_', '-')}" + ("" if value is True else f" {value:g}") for key, value in options.items()
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bundle"
        try:
            guarantee = calibrate(bundle, songs, **options, out=out).manifest.guarantee
        except UnsupportedError as error:
            return Check(name, words, f"refused: {str(error).rpartition('confidence, ')[2]}", None, "", 0)
        found = evaluate(out, test).evaluation
        below = 100 * (found.teacher.accuracy - found.cascade.accuracy)
        came_out = {
            "within": f"{abs(below):.1f} points {'below' if below >= 0 else 'above'} the teacher",
            "accuracy": f"an accuracy of {found.cascade.accuracy:.3f}",
            "fallback_rate": f"{found.fallback_rate:.1%} fall back",
            "songs_per_s": f"{_songs_per_s(out, test):,.0f} songs/s",
        }[guarantee.target]
    said = (
        f"promised, from {guarantee.calibration_songs:,} songs" if guarantee.kept else str(guarantee).partition(";")[0]
    )
    return Check(name, words, said, guarantee, came_out, found.songs)


def _songs_per_s(bundle: Path, songs: Path) -> float:
    """Return the median speed of the cascade from songs in memory to answers, a serving batch at a time."""
    table, cascade = SongTable(songs), open_cascade(load_bundle(bundle))
    sample = table.songs(range(min(SERVING_BATCH, len(table))))
    return len(sample) / statistics.median(seconds_per_call(lambda: cascade.answer(sample)))


def main(argv: Sequence[str] | None = None) -> int:
    """Check the dial."""
    logging.getLogger().setLevel(logging.WARNING)
    return run(dial_check, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
