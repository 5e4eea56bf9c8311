"""Export a student and its teacher as a bundle: ONNX, parity, calibration, manifest.

Batch normalisation and standardisation are folded into the weights, the graphs are compared with the trained networks,
and nothing is written unless they agree. Recurrences can be written in three ways and products rounded to int8; the
fastest that is right is kept, see `segue.export.forms`. The calibration songs, which neither model trained on, give
each model its temperature and the cascade its trade-off table and default threshold.

Example:
    segue export artifacts/student --out artifacts/bundle
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from segue.atomic import atomic_folder
from segue.command import run as run_verb
from segue.command import to_json, unset
from segue.data.song import FEATURE_NAMES, Ints
from segue.data.splits import Splits
from segue.data.table import SongTable
from segue.errors import ConfigError, RunError
from segue.export.calibration.dial import Dial, Step, check_calibration_songs, parse_rungs, set_dial
from segue.export.calibration.temperature import Temperatures, UncalibratedPredictions, predict_uncalibrated
from segue.export.calibration.thresholds import CalibrationConfig, Goal
from segue.export.card import form_name, how_right, seal
from segue.export.drift.reference import write_reference
from segue.export.forms import FormsConfig, Job, Shipped, ship
from segue.places import check_folder
from segue.provenance import provenance
from segue.serving.bundle.manifest import FORMAT_VERSION, MANIFEST, Evaluation, Manifest, ModelEntry, Rung
from segue.serving.bundle.seen import write_seen
from segue.serving.ladder import OnFallback
from segue.serving.predictions import ModelName
from segue.serving.runtime import Provider
from segue.serving.timing import SERVING_BATCH, us_per_window
from segue.serving.tradeoff import area_above_random, evaluation
from segue.training.networks.network import Network
from segue.training.runs import Run, load_run, load_splits, open_songs_of, unlabelled_rows

PARITY_SONGS = 1000


@dataclass(frozen=True)
class WindowsConfig:
    """How many windows of a song each model sees, at most."""

    student_windows: Annotated[int | None, unset("INT")] = None  # The first look. Default: as many as in training.
    # A second look may be a longer look. Default: as many as in training.
    teacher_windows: Annotated[int | None, unset("INT")] = None

    def __post_init__(self) -> None:
        """Refuse a model that sees nothing."""
        if any(one is not None and one < 1 for one in (self.student_windows, self.teacher_windows)):
            raise ConfigError(
                "expected at least one window for each model, found student_windows "
                f"{self.student_windows} and teacher_windows {self.teacher_windows}"
            )


@dataclass(frozen=True)
class Exported:
    """What `segue export` made."""

    out: Path
    manifest: Manifest
    seconds: float

    def __str__(self) -> str:
        manifest, found = self.manifest, self.manifest.metrics
        student, teacher = manifest.student, manifest.teacher
        return (
            f"{self.out}: bundle {manifest.version}, exported in {self.seconds:.0f} s\n"
            f"  student: {form_name(student.form)}: {how_right(student.form)}\n"
            f"  teacher: {form_name(teacher.form)}: {how_right(teacher.form)}\n"
            f"  cost: student {student.us_per_window:.0f} us a window, teacher {teacher.us_per_window:.0f}\n"
            f"  threshold: {manifest.threshold_nats:.3f} nats ({manifest.guarantee})\n"
            f"  accuracy on {found.songs} {manifest.metrics_split} songs: student {found.student.accuracy:.3f}, "
            f"teacher {found.teacher.accuracy:.3f}, cascade {found.cascade.accuracy:.3f} "
            f"with {found.fallback_rate:.0%} falling back"
        )


@dataclass(frozen=True)
class _Written:
    """A model that is in the bundle, not yet calibrated."""

    file: Path
    network: dict[str, Any]
    shipped: Shipped
    windows: int
    heard: UncalibratedPredictions  # What it says of the calibration songs.
    us_per_window: float  # At the serving batch.

    def entry(self, rung: Rung) -> ModelEntry:
        """Return what the manifest says of it, as it answers on a rung."""
        return ModelEntry(
            file=self.file.name,
            network=self.network,
            provider=self.shipped.model.provider,
            form=self.shipped.form,
            rejected=self.shipped.rejected,
            windows=rung.windows,
            temperature=rung.temperature,
            mean_temperature=rung.mean_temperature,
            us_per_window=self.us_per_window,
        )

    def step(self, name: ModelName, windows: int, songs: SongTable, rows: Ints) -> Step:
        """Return it as a rung with so many windows, asked about the calibration songs."""
        heard = self.heard
        if windows != self.windows:
            heard = predict_uncalibrated(self.shipped.model, windows, songs, rows, f"{name}:{windows}")
        return Step(name, windows, self.us_per_window, heard)


def export(
    run: Positional[Path],
    out: Path,
    songs: Path | None = None,
    windows: WindowsConfig = WindowsConfig(),
    forms: FormsConfig = FormsConfig(),
    calibration: CalibrationConfig = CalibrationConfig(),
    rungs: tuple[str, ...] = (),
    on_fallback: OnFallback = "teacher",
    licence: str = "unspecified",
    provider: Provider = "auto",
) -> Exported:
    """Export a student and its teacher as a bundle.

    Args:
        run: The student's run folder.
        out: The bundle to write.
        songs: The song table it was trained on, if that has moved.
        windows: How much of a song the models see.
        forms: Which forms of the models are tried.
        calibration: What the default threshold promises.
        rungs: Of the ladder, first to last, as MODEL:WINDOWS: student:1 student:9 teacher:9. One that cannot pay is
            left out. Default: the student, then the teacher.
        on_fallback: What stands of a song that went on: teacher, the last rung's answer; surer, the one with the
            smallest cross-entropy; mean, the mean of the log-probabilities.
        licence: Of the models, for the model card; they may be no freer than the songs they learnt from.
        provider: Where the bundle will be served: forms and costs are measured there. One bundle is for one provider.
    """
    started = time.perf_counter()
    asked = parse_rungs(rungs) if rungs else ()
    student_run, student_network = load_run(run, "student")
    teacher_run, teacher_network = load_run(run / "teacher", "teacher")
    check_folder(out, MANIFEST, [run, songs or Path(student_run.songs)])
    table = open_songs_of(student_run, songs)
    splits = load_splits(run, student_run, table)
    if not len(splits.calibration):
        raise RunError(
            f"{run}: expected calibration songs, found none: without them there is no threshold and no bundle. "
            "Train the teacher with --calibration above 0."
        )
    labels = table.labels[splits.calibration]
    with atomic_folder(out, MANIFEST) as folder:
        student, teacher = (
            _write(folder, one, network, seen or one.loop.windows, table, splits, forms, provider)
            for one, network, seen in (
                (student_run, student_network, asked[0][1] if asked else windows.student_windows),
                (teacher_run, teacher_network, asked[-1][1] if asked else windows.teacher_windows),
            )
        )
        check_calibration_songs(
            table, splits.calibration, labels, student_run.classes, (student.heard.serves, teacher.heard.serves)
        )
        goal = Goal("within", calibration.points, calibration.confidence)
        written: dict[ModelName, _Written] = {"student": student, "teacher": teacher}
        steps = [
            written[name].step(name, seen, table, splits.calibration)
            for name, seen in asked or (("student", student.windows), ("teacher", teacher.windows))
        ]
        dial = set_dial(steps, labels, goal, folder, on_fallback=on_fallback)
        write_reference(folder, table, splits.calibration, dial.says, dial.ladder)
        without_label = unlabelled_rows(table, splits) if student_run.unlabelled_songs else ()
        write_seen(folder, [table.song_ids[row] for row in (*splits.train, *splits.validation, *without_label)])
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            version="",
            classes=student_run.classes,
            units=student_run.units,
            features=student_run.features,
            feature_names=FEATURE_NAMES,
            student=student.entry(dial.rungs[0]),
            teacher=teacher.entry(dial.rungs[-1]),
            threshold_nats=dial.ladder.thresholds_nats[0],
            class_scales=dial.class_scales,
            guarantee=dial.guarantee,
            area_above_random=area_above_random(dial.rows),
            metrics=_evaluate(written, table, splits, dial),
            metrics_split="test" if len(splits.test) else "calibration",
            licence=licence,
            songs_sha256=student_run.songs_sha256,
            split_songs=student_run.split_songs,
            calibration_sha256=student_run.songs_sha256,
            provenance=provenance(),
            sha256={},
        )
        manifest = seal(folder, dial.on_manifest(manifest))
    return Exported(out, manifest, time.perf_counter() - started)


def _write(
    folder: Path,
    run: Run,
    network: Network,
    windows: int,
    songs: SongTable,
    splits: Splits,
    forms: FormsConfig,
    provider: Provider,
) -> _Written:
    """Write the ONNX file of one model and ask it about the calibration songs."""
    file = folder / f"{run.role}.onnx"
    job = Job(
        role=run.role,
        network=network,
        classes=run.classes,
        parity_windows=songs.songs(splits.calibration[:PARITY_SONGS]).windows()[0],
        validation_windows=songs.songs(splits.validation).windows()[0],
        validation_labels=songs.labels[splits.validation],
    )
    shipped = ship(job, file, forms, provider)
    return _Written(
        file=file,
        network=json.loads(to_json(run.network)),
        shipped=shipped,
        windows=windows,
        heard=predict_uncalibrated(shipped.model, windows, songs, splits.calibration, run.role),
        us_per_window=us_per_window(shipped.model, songs.songs(splits.calibration[:SERVING_BATCH]), windows),
    )


def _evaluate(written: dict[ModelName, _Written], songs: SongTable, splits: Splits, dial: Dial) -> Evaluation:
    """Measure the bundle on the test songs, or, where none were kept, on the calibration songs that set the dial."""
    if not len(splits.test):
        return dial.evaluation
    says = []
    for rung in dial.rungs:
        heard = predict_uncalibrated(written[rung.model].shipped.model, rung.windows, songs, splits.test, "test")
        says.append(Temperatures(rung.temperature, rung.mean_temperature).predict(heard))
    return evaluation(says, songs.labels[splits.test], dial.ladder)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue export`."""
    return run_verb(export, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
