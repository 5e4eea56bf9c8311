"""Export a student and its teacher as a bundle: ONNX, parity, calibration, manifest.

Batch normalisation and standardisation are folded into the weights, the graphs are compared with the trained networks,
and nothing is written unless they agree. The calibration songs, which neither model trained on, give each model its
temperature and the cascade its trade-off table and default threshold.

Example:
    segue export artifacts/student --out artifacts/bundle
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from tyro.conf import Positional

from data.atomic import atomic_folder
from data.command import run as run_verb
from data.command import to_json
from data.errors import ConfigError, RunError
from data.metrics import accuracy
from data.provenance import provenance
from data.song import FEATURE_NAMES, stack_windows
from data.splits import Splits
from data.table import SongTable
from export.calibration import CalibrationConfig, choose_threshold, fit_temperature
from export.graphs.build import graph_of
from export.parity import check_parity
from export.picture import draw_tradeoff
from serving.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    PICTURE,
    TRADEOFF,
    Evaluation,
    Manifest,
    ModelEntry,
    sha256,
    write_tradeoff,
)
from serving.cascade import Opinion, Voice
from serving.evaluate import opinion_of
from serving.runtime import OnnxModel
from serving.timing import us_per_window
from serving.tradeoff import evaluation, tradeoff
from training.networks.network import Network
from training.runs import Run, load_run, load_splits

PARITY_SONGS = 1000


@dataclass(frozen=True)
class WindowsConfig:
    """How many windows of a song each model sees, at most."""

    student_windows: int | None = None  # The first look. Default: as many as in training.
    teacher_windows: int | None = None  # A second look may be a longer look. Default: as many as in training.

    def __post_init__(self) -> None:
        """Refuse a model that sees nothing."""
        if any(one is not None and one < 1 for one in (self.student_windows, self.teacher_windows)):
            raise ConfigError(f"expected at least one window for each model, found {self}")


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
            f"  parity with torch: student {student.parity:.1e}, teacher {teacher.parity:.1e}\n"
            f"  cost: student {student.us_per_window:.0f} us a window, teacher {teacher.us_per_window:.0f}\n"
            f"  threshold: {manifest.threshold_nats:.3f} nats ({manifest.guarantee})\n"
            f"  accuracy on {found.songs} {manifest.metrics_split} songs: student {found.student.accuracy:.3f}, "
            f"teacher {found.teacher.accuracy:.3f}, cascade {found.cascade.accuracy:.3f} "
            f"with {found.fallback_rate:.0%} falling back"
        )


@dataclass(frozen=True)
class _Written:
    """A model that is in the bundle."""

    entry: ModelEntry
    voice: Voice
    calibration: Opinion  # What it says of the calibration songs.


def export(
    run: Positional[Path],
    out: Path,
    songs: Path | None = None,
    windows: WindowsConfig = WindowsConfig(),
    calibration: CalibrationConfig = CalibrationConfig(),
) -> Exported:
    """Export a student and its teacher as a bundle.

    Args:
        run: The student's run folder.
        out: The bundle to write.
        songs: The song table it was trained on, if that has moved.
        windows: How much of a song the models see.
        calibration: What the default threshold promises.
    """
    started = time.perf_counter()
    student_run, student_network = load_run(run, "student")
    teacher_run, teacher_network = load_run(run / "teacher", "teacher")
    table = SongTable(songs or Path(student_run.songs))
    splits = load_splits(run, student_run, table)
    if not len(splits.calibration):
        raise RunError(f"{run}: expected calibration songs, found none. Train the teacher with --calibration above 0.")
    labels = table.labels[splits.calibration]
    with atomic_folder(out) as folder:
        student = _write(
            folder, student_run, student_network, windows.student_windows or student_run.loop.windows, table, splits
        )
        teacher = _write(
            folder, teacher_run, teacher_network, windows.teacher_windows or teacher_run.loop.windows, table, splits
        )
        threshold, guarantee = choose_threshold(student.calibration, teacher.calibration, labels, calibration)
        found = _evaluate(student, teacher, table, splits, threshold)
        rows = tradeoff(
            student.calibration,
            teacher.calibration,
            labels,
            student_us_per_window=student.entry.us_per_window,
            teacher_us_per_window=teacher.entry.us_per_window,
        )
        write_tradeoff(folder / TRADEOFF, rows)
        teacher_accuracy = accuracy(teacher.calibration.probs, labels)
        draw_tradeoff(
            folder / PICTURE, rows, threshold_nats=threshold, teacher_accuracy=teacher_accuracy, songs=len(labels)
        )
        hashes = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            version=hashlib.sha256(json.dumps([hashes, threshold]).encode()).hexdigest()[:12],
            classes=student_run.classes,
            units=student_run.units,
            features=FEATURE_NAMES,
            student=student.entry,
            teacher=teacher.entry,
            threshold_nats=threshold,
            guarantee=guarantee,
            metrics=found,
            metrics_split="test" if len(splits.test) else "calibration",
            songs_sha256=student_run.songs_sha256,
            split_songs=student_run.split_songs,
            provenance=provenance(),
            sha256=hashes,
        )
        (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")
    return Exported(out, manifest, time.perf_counter() - started)


def _write(folder: Path, run: Run, network: Network, windows: int, songs: SongTable, splits: Splits) -> _Written:
    """Write the ONNX file of one model, check it against the network, and calibrate and time it."""
    file = folder / f"{run.role}.onnx"
    onnx.save(graph_of(network, run.classes), file)
    model = OnnxModel(file, provider="cpu")
    sample = stack_windows(songs.songs(splits.calibration[:PARITY_SONGS]))[0]
    parity = check_parity(run.role, network, model, sample)
    raw = opinion_of(Voice(model, windows=windows, temperature=1.0), songs, splits.calibration, run.role)
    temperature = fit_temperature(raw.logits, songs.labels[splits.calibration])
    entry = ModelEntry(
        file=file.name,
        network=json.loads(to_json(run.network)),
        windows=windows,
        temperature=temperature,
        us_per_window=us_per_window(model, sample),
        parity=parity,
    )
    voice = Voice(model, windows=windows, temperature=temperature)
    return _Written(entry, voice, Opinion.of(raw.logits, temperature, raw.windows))


def _evaluate(
    student: _Written, teacher: _Written, songs: SongTable, splits: Splits, threshold_nats: float
) -> Evaluation:
    """Measure the bundle on the test songs, or, where none were kept, on the calibration songs."""
    if not len(splits.test):
        labels = songs.labels[splits.calibration]
        return evaluation(student.calibration, teacher.calibration, labels, threshold_nats)
    student_says = opinion_of(student.voice, songs, splits.test, "test, student")
    teacher_says = opinion_of(teacher.voice, songs, splits.test, "test, teacher")
    return evaluation(student_says, teacher_says, songs.labels[splits.test], threshold_nats)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue export`."""
    return run_verb(export, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
