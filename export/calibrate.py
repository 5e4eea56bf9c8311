"""Set the dial of a bundle: to an accuracy, a share of songs for the teacher, a speed, or a promise.

The songs are labelled ones that the models have not seen; those they trained on are left out. A quarter of the others
fits the temperatures, the rest sets the threshold, and the bundle is written anew with its trade-off table and
pictures. `--within` is a promise with finite-sample confidence, and `--accuracy` is one where the songs support it; a
fallback rate and a speed are measured on the songs, and promise nothing.

Example:
    segue calibrate artifacts/bundle artifacts/songs.arrow --within 2 --confidence 0.95
    segue calibrate artifacts/bundle artifacts/songs.arrow --songs-per-s 10000 --out artifacts/fast
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tyro.conf import Positional

from segue.atomic import atomic_folder
from segue.command import run
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError
from segue.export.calibration.dial import Step, check_calibration_songs, set_dial
from segue.export.calibration.temperature import predict_uncalibrated
from segue.export.calibration.thresholds import Goal, UnsupportedError
from segue.export.card import seal
from segue.export.drift.reference import write_reference
from segue.places import check_folder
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import FORMAT_VERSION, MANIFEST, Manifest, Target
from segue.serving.bundle.seen import were_seen
from segue.serving.cascade import open_model
from segue.serving.ladder import OnFallback
from segue.serving.runtime import Provider
from segue.serving.tables import labelled
from segue.serving.timing import SERVING_BATCH, us_per_window


@dataclass(frozen=True)
class Calibrated:
    """What `segue calibrate` set."""

    out: Path
    manifest: Manifest
    previous_threshold_nats: float
    unlabelled: int  # Songs left out because they have no label ...
    trained_on: int  # ... or because the models have seen them in training.

    def __str__(self) -> str:
        manifest, found = self.manifest, self.manifest.metrics
        left_out = [
            text
            for count, text in (
                (self.unlabelled, f"{self.unlabelled:,} without a label"),
                (self.trained_on, f"{self.trained_on:,} that the models were trained on"),
            )
            if count
        ]
        fits = [(name, one.temperature) for name, one in (("student", manifest.student), ("teacher", manifest.teacher))]
        temperatures = ", ".join(
            f"{name} {fit.value:.2f} (ece {fit.before.ece:.3f} to {fit.after.ece:.3f})" for name, fit in fits
        )
        scales = (
            f" times {min(manifest.class_scales):.2g} to {max(manifest.class_scales):.2g} by class"
            if manifest.class_scales
            else ""
        )
        return (
            f"{self.out}: bundle {manifest.version}, dial set anew"
            + (f" (left out: {' and '.join(left_out)})" if left_out else "")
            + f"\n  {manifest.guarantee}\n"
            f"  threshold: {manifest.threshold_nats:.3f} nats{scales}, was {self.previous_threshold_nats:.3f}\n"
            f"  accuracy: student {found.student.accuracy:.3f}, teacher {found.teacher.accuracy:.3f}, "
            f"cascade {found.cascade.accuracy:.3f} with {found.fallback_rate:.0%} falling back\n"
            f"  temperatures: {temperatures}\n"
            f"  area between the curve and the random line: {manifest.area_above_random:.4f}"
        )


def calibrate(
    bundle: Positional[Path],
    songs: Positional[Path],
    accuracy: float | None = None,
    fallback_rate: float | None = None,
    songs_per_s: float | None = None,
    within: float | None = None,
    confidence: float = 0.95,
    per_class: bool = False,
    on_fallback: OnFallback | None = None,
    out: Path | None = None,
    provider: Provider = "auto",
) -> Calibrated:
    """Set the dial of a bundle.

    Args:
        bundle: The bundle's folder.
        songs: A song table with labels; songs without one, and songs the models were trained on, are left out.
        accuracy: The cheapest threshold with this accuracy (0..1), promised where the songs support it.
        fallback_rate: The threshold at which this share of the songs (0..1) goes on to the teacher.
        songs_per_s: The threshold at which this machine does so many songs a second in large batches.
        within: The cheapest threshold that is promised to be at most so many points (0.01) below the teacher.
        confidence: Share of calibration sets for which a promise holds.
        per_class: Give each class that the student may say a threshold of its own. The promise is one for all songs.
        on_fallback: What stands of a song that went on: teacher, the last rung's answer; surer, the one with the
            smallest cross-entropy; mean, the mean of the log-probabilities. Default: the bundle's.
        out: The bundle to write. Default: the same one.
        provider: Where the models run; auto takes a GPU where there is one.
    """
    goal = _goal(
        {"within": within, "accuracy": accuracy, "fallback_rate": fallback_rate, "songs_per_s": songs_per_s}, confidence
    )
    check_folder(out or bundle, MANIFEST, [songs] if out in (None, bundle) else [songs, bundle])  # Before any work.
    opened = load_bundle(bundle)
    manifest = opened.manifest
    table = SongTable(songs)
    all_rows, all_labels = labelled(table, opened)
    seen = were_seen(opened, [table.song_ids[row] for row in all_rows])
    if seen.all():
        raise LabelError(
            f"{songs}: expected songs that the models have not seen, found {len(seen)} labelled songs, all of which "
            "they were trained on; a threshold set on them would promise what it cannot keep"
        )
    rows, labels = all_rows[~seen], all_labels[~seen]
    steps = []
    sample = table.songs(rows[:SERVING_BATCH])
    models = {
        name: open_model(opened, entry, provider=provider)
        for name, entry in (("student", manifest.student), ("teacher", manifest.teacher))
    }
    costs = {
        name: us_per_window(models[name], sample, entry.windows)
        for name, entry in (("student", manifest.student), ("teacher", manifest.teacher))
    }
    for name, rung in zip(manifest.rung_names, manifest.all_rungs, strict=True):
        heard = predict_uncalibrated(models[rung.model], rung.windows, table, rows, name)
        steps.append(Step(rung.model, rung.windows, costs[rung.model], heard))
    check_calibration_songs(table, rows, labels, manifest.classes, [step.heard.serves for step in steps])
    with atomic_folder(out or bundle, MANIFEST) as folder:
        for name, content in opened.contents.items():
            (folder / name).write_bytes(content)
        dial = set_dial(
            steps, labels, goal, folder, on_fallback=on_fallback or manifest.on_fallback, per_class=per_class
        )
        if goal.target == "within" and not dial.guarantee.kept:
            raise UnsupportedError(f"{out or bundle}: not written. All that can be said is {dial.guarantee}.")
        write_reference(folder, table, rows, dial.says, dial.ladder)
        turned = dial.on_manifest(manifest)
        written = seal(
            folder,
            replace(
                turned,
                format_version=FORMAT_VERSION,
                student=replace(turned.student, us_per_window=costs["student"]),
                teacher=replace(turned.teacher, us_per_window=costs["teacher"]),
                left_out=(*manifest.left_out, *dial.left_out),
                metrics=dial.evaluation,
                metrics_split="calibration",
                calibration_sha256=table.fingerprint(),
            ),
        )
    return Calibrated(out or bundle, written, manifest.threshold_nats, len(table) - len(all_rows), int(seen.sum()))


def _goal(asked: dict[Target, float | None], confidence: float) -> Goal:
    """Return the one goal that was asked for."""
    given = {target: value for target, value in asked.items() if value is not None}
    if len(given) != 1:
        names = [f"--{target.replace('_', '-')}" for target in (given or asked)]
        raise ConfigError(
            f"expected exactly one of --accuracy, --fallback-rate, --songs-per-s and --within, found "
            f"{' and '.join(names) if given else 'none'}"
        )
    ((target, value),) = given.items()
    return Goal(target, value, confidence)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue calibrate`."""
    return run(calibrate, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
