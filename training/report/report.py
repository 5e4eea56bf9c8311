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
from pathlib import Path

from tyro.conf import Positional

from segue import command
from segue.data.describe.describe import page_of
from segue.errors import ConfigError, RunError
from segue.places import check_out
from segue.training.fit.journal import load_metrics
from segue.training.fit.loop import best_epoch, predict
from segue.training.report.findings import Curve, Report, Split
from segue.training.report.importance import importances
from segue.training.report.quality import measure
from segue.training.runs import Run, load_record, load_run, load_splits, open_songs_of


def report(
    run: Positional[Path],
    split: Split = "validation",
    songs: Path | None = None,
    page: Path | None = None,
    repeats: int = 10,
    overwrite: bool = False,
) -> Report:
    """Look at a training run.

    Args:
        run: The run folder.
        split: The songs to look at; those of calibration and test did not pick the epoch that is kept.
        songs: The song table it was trained on, if that has moved.
        page: The HTML page to write; by default it lies beside the run folder.
        repeats: How often each block of features is taken from other songs.
        overwrite: Replace the page that is there, whatever made it.
    """
    from segue.training.report.report_page import write_report

    if repeats < 1:
        raise ConfigError(f"repeats: expected at least 1, found {repeats}")
    record = load_record(run)
    page = page_of(run, page)
    check_out(page, "report", [songs or Path(record.songs)], overwrite=overwrite)
    curves = _curves(run, record)
    _, network = load_run(run, record.role)
    table = open_songs_of(record, songs)
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
