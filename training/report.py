"""Look at a training run: a short table, and one page with its learning curves, mistakes, calibration and features.

Takes the run folder of a teacher or a student and lets it answer for songs it did not train on. Those of validation
are the default; they picked the epoch that is kept, so they flatter it a little, and `--split calibration` does not.
Each block of features is then taken from other songs, several times, to see which classes are lost without it.

The page is one HTML file without scripts that loads nothing. It lies beside the run folder, or in artifacts/ where that
place is not writable.

Examples:
    segue report artifacts/teacher
    segue report artifacts/student --split calibration --page artifacts/student.html
    segue report artifacts/teacher --json
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabulate import tabulate
from tyro.conf import Positional

from data import command
from data.describe import page_of
from data.description import counted
from data.errors import ConfigError, RunError
from data.table import SongTable
from training.importance import Importance, importances
from training.journal import Epoch, load_metrics
from training.loop import best_epoch, predict
from training.quality import Quality, measure
from training.runs import Run, load_record, load_run, load_splits

Split = Literal["validation", "calibration", "test"]


@dataclass(frozen=True)
class Curve:
    """How one network of a run learnt."""

    fit: str
    epochs: tuple[Epoch, ...]
    kept: int  # The epoch whose weights were kept, counted from 1.


@dataclass(frozen=True)
class Report:
    """What `segue report` found."""

    folder: Path
    page: Path
    split: Split  # The songs that all but the curves are about.
    run: Run
    curves: tuple[Curve, ...]  # None of a run that was joined.
    quality: Quality
    importances: tuple[Importance, ...]

    def __str__(self) -> str:
        recall = self.quality.recall
        blocks = [one.block for one in self.importances]
        rows = [
            (name, share.songs, share.value, *(one.recall[name].mean for one in self.importances))
            for name, share in recall.items()
        ]
        every = ("all, accuracy", self.quality.songs, self.quality.accuracy)
        rows.append((*every, *(one.accuracy.mean for one in self.importances)))
        remarks = [f"  {text}: {'; '.join(some)}" if some else f"  {text}" for text, some in self.attention()]
        return "\n".join(
            [
                f"{self.folder}: {', '.join(self.facts())}",
                "",
                tabulate(
                    rows, ("class", "songs", "recall", *(f"lost without {one}" for one in blocks)), floatfmt=".3f"
                ),
                "",
                *(["worth attention:", *remarks] if remarks else ["nothing to worry about"]),
                "",
                f"{self.page}   the page: look at it",
            ]
        )

    def facts(self) -> list[str]:
        """Return the few facts that matter, for a title line."""
        found = self.quality
        return [
            f"{self.run.role}, {self.run.network.shape}",
            f"{counted(found.songs, 'song')} of {self.split}",
            f"accuracy {found.accuracy:.3f}",
            f"nll {found.nll:.3f} nats",
            f"ece {found.ece:.3f}",
        ]

    def attention(self) -> list[tuple[str, list[str]]]:
        """Return what deserves attention, each with its examples."""
        recall = self.quality.recall
        absent = [name for name, share in recall.items() if not share.songs]
        weak = [f"{name} {recall[name].value:.2f}" for name in self.weak()]
        unfinished = [curve.fit for curve in self.curves if 1 < len(curve.epochs) == curve.kept]
        remarks = [
            (len(absent), "class", f"without a song of {self.split}, so nothing is known of it", absent),
            (len(weak), "class", "recognised less often than songs are on the whole, beyond chance", weak),
            (len(unfinished), "fit", "whose last epoch is the one kept; more epochs may be better", unfinished),
            (not self.curves, "run", "without metrics, as joined ones are; there are no curves to draw", []),
        ]
        return [(f"{counted(int(count), noun)} {what}", some) for count, noun, what, some in remarks if count]

    def weak(self) -> list[str]:
        """Return the classes whose recall is below the accuracy, even at the upper end of its 95 % interval."""
        return [name for name, share in self.quality.recall.items() if share.interval[1] < self.quality.accuracy]


def report(
    run: Positional[Path],
    split: Split = "validation",
    songs: Path | None = None,
    page: Path | None = None,
    repeats: int = 10,
) -> Report:
    """Look at a training run.

    Args:
        run: The run folder.
        split: The songs to look at; those of calibration and test did not pick the epoch that is kept.
        songs: The song table it was trained on, if that has moved.
        page: The HTML page to write; by default it lies beside the run folder.
        repeats: How often each block of features is taken from other songs.
    """
    from training.report_page import write_report

    if repeats < 1:
        raise ConfigError(f"repeats: expected at least 1, found {repeats}")
    record = load_record(run)
    page = page_of(run, page)
    curves = _curves(run, record)
    _, network = load_run(run, record.role)
    table = SongTable(songs or Path(record.songs))
    rows = vars(load_splits(run, record, table))[split]
    if not len(rows):
        filled = [name for name, count in record.split_songs.items() if count and name != "train"]
        raise RunError(f"{run}: expected songs of {split}, found none; it has songs of {' and '.join(filled)}")
    labels, windows = table.labels[rows], record.loop.windows
    logits = predict(network, table, rows, windows)
    found = Report(
        folder=run,
        page=page,
        split=split,
        run=record,
        curves=curves,
        quality=measure(
            logits, labels, table.classes, [table.song_ids[row] for row in rows], [table.groups[row] for row in rows]
        ),
        importances=importances(network, table, rows, labels, logits, n_windows=windows, repeats=repeats),
    )
    write_report(found)
    return found


def _curves(folder: Path, record: Run) -> tuple[Curve, ...]:
    keep_best = record.loop.keep == "best"
    return tuple(
        Curve(fit, tuple(epochs), (best_epoch(epochs) if keep_best else epochs[-1]).epoch)
        for fit, epochs in load_metrics(folder).items()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue report`."""
    return command.run(report, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
