"""Run a study: an experiment of the study behind Segue, or one of your own, on your songs.

A study varies some settings and holds the rest fixed. It ends in OUT/study.html and OUT/study.json: what the original
found, what was found here with intervals over the seeds, and a verdict in words. Every cell, one setting from one seed,
is kept in OUT as soon as it is done: a study that was stopped goes on when the same command is given again. Cells run
side by side, one thread each.

Without --validation-songs a fifth of the songs validates, artists kept apart. --quick shows within a minute that a
study runs; it finds nothing. A study of your own is a TOML file: docs/contributing/studies.md.

Examples:
    segue study --list
    segue study batch-norm artifacts/songs.arrow --out artifacts/batch-norm
    segue study mine.toml artifacts/songs.arrow --out artifacts/mine --seeds 5
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tyro.conf import Positional

from segue.atomic import atomic_file
from segue.command import run, to_json
from segue.errors import ConfigError
from segue.machine import usable_cores
from segue.provenance import Provenance, provenance
from segue.training.fit.execution import Device
from segue.training.studies.own import read_study
from segue.training.studies.registry import STUDIES, load_study
from segue.training.studies.run_cells import Songs, check_artists, run_cells
from segue.training.studies.study import Found, Scale, Study
from segue.training.studies.study_page import write_study_page
from segue.training.studies.verdict import interval, verdict

log = logging.getLogger(__name__)

QUICK_TRAIN, QUICK_VALIDATION = 300, 200


@dataclass(frozen=True)
class Listed:
    """The studies there are."""

    studies: dict[str, str]

    def __str__(self) -> str:
        return "\n".join(f"  {name:<16} {title}" for name, title in self.studies.items())


@dataclass(frozen=True)
class Studied:
    """What a study found: the content of `study.json`."""

    name: str
    title: str
    varies: str
    fixed: str
    original: str
    found: Found
    verdicts: list[str]
    notes: list[str]
    seconds: float  # Of this run; cells that were run before cost nothing.
    provenance: Provenance

    def __str__(self) -> str:
        """Return the table and the verdicts as Markdown."""
        found, scale = self.found, self.found.scale
        size = "quick: it shows that the study runs, and finds nothing" if scale.quick else "in full"
        size = f"{scale.epochs} epochs each" if scale.epochs and not scale.quick else size
        seeds = f"{scale.seeds} seed{'s' * (scale.seeds > 1)}"
        return "\n".join(
            [
                f"{found.n_train:,} training and {found.n_validation:,} validation songs, {seeds}, {size}. "
                f"The most frequent class has {found.majority:.3f}.",
                "",
                tabulate(rows_of(found), ("setting", "accuracy (95 %)"), tablefmt="github", disable_numparse=True),
                "",
                *(f"- {line}" for line in self.verdicts),
            ]
        )


def rows_of(found: Found, most: int = 40) -> list[tuple[str, str]]:
    """Return each setting and its accuracy in words, the best `most` of them."""
    rows = []
    for setting, outcomes in found.outcomes.items():
        values = [one.accuracy for one in outcomes]
        text = str(interval(values)) if len(values) > 1 else f"{values[0]:.3f}"
        failed = sum(not one.epochs for one in outcomes)
        rows.append((max(values), setting, text + (f", {failed} diverged" if failed else "")))
    kept = sorted(rows, key=lambda row: -row[0])[:most]
    return [(setting, text) for _, setting, text in rows if (_, setting, text) in kept]


def study(
    name: Positional[str] = "",
    songs: Positional[Path | None] = None,
    out: Path | None = None,
    validation_songs: Path | None = None,
    quick: bool = False,
    seeds: int | None = None,
    epochs: int | None = None,
    most_songs: int | None = None,
    jobs: int = usable_cores(),
    device: Device = "cpu",
    list: bool = False,
) -> Listed | Studied:
    """Run a study.

    Args:
        name: The name of a study, or a TOML file with one of your own.
        songs: The song table, with labels.
        out: The folder for its cells, its figures and its page.
        validation_songs: A table of songs that validate, in place of a fifth of the others.
        quick: Few songs, few epochs, small layers, few settings: show in a minute that the study runs.
        seeds: Seeds of each setting. Default: those of the study.
        epochs: Epochs of each training, in place of those of the study.
        most_songs: Learn from so many songs at most, and validate on a fourth as many.
        jobs: Cells that run side by side, one thread each.
        device: Where they train; cells side by side share a GPU.
        list: List the studies and do nothing else.
    """
    if list:
        return Listed({one: load_study(one).title for one in STUDIES})
    if not name or songs is None or out is None:
        raise ConfigError("expected NAME SONGS --out FOLDER, or --list for the names; found too little")
    for option, number, least in (
        ("seeds", seeds, 1),
        ("epochs", epochs, 1),
        ("most_songs", most_songs, 20),
        ("jobs", jobs, 1),
    ):
        if number is not None and number < least:
            raise ConfigError(f"{option}: expected at least {least}, found {number}")
    started = time.perf_counter()
    chosen = read_study(Path(name)) if name.endswith(".toml") else load_study(name)
    most_train = QUICK_TRAIN if quick else most_songs
    most_validation = QUICK_VALIDATION if quick else most_songs and max(most_songs // 4, 10)
    of_study = Songs(songs, validation_songs, most_train, most_validation, chosen.least_segments)
    table, train, validation = of_study.open()
    if chosen.needs_artists:
        check_artists(table)
    scale = Scale(seeds or (1 if quick else chosen.seeds), len(table.classes), len(train), quick, epochs)
    cells = chosen.cells(scale)
    log.info("%s: %d cells on %d songs", name, len(cells), len(train))
    outcomes = run_cells(cells, of_study, out, jobs, device)
    majority = np.bincount(table.labels[validation]).max() / len(validation)
    found = Found(name, str(songs), len(train), len(validation), float(majority), scale, outcomes)
    studied = conclude(chosen, found, time.perf_counter() - started)
    with atomic_file(out / "study.json") as draft:
        draft.write_text(to_json(studied) + "\n")
    write_study_page(studied, chosen.pictures, out / "study.html")
    return studied


def conclude(chosen: Study, found: Found, seconds: float) -> Studied:
    """Return what a study found, with its verdicts."""
    verdicts = [verdict(found, claim) for claim in chosen.claims] + (chosen.words(found) if chosen.words else [])
    notes = [f"{setting}: {note}" for setting, outcome in found.each() for note in outcome.notes]
    return Studied(
        found.study, chosen.title, chosen.varies, chosen.fixed, chosen.original, found, verdicts, notes, seconds,
        provenance(),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue study`."""
    return run(study, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
