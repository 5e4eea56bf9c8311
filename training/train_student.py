"""Distil the student: it learns the logits that teachers gave to songs they never saw.

The loss is the mean squared error between the student's logits and the held-out logits of the teacher run (Ba and
Caruana, NIPS 2014); the splits are the teacher's.

Example:
    segue train-student artifacts/songs.arrow --teacher artifacts/teacher --out artifacts/student
"""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from tyro.conf import Positional

from data.atomic import atomic_folder
from data.command import run
from data.errors import RunError
from data.metrics import agreement
from data.table import SongTable
from training.loop import LoopConfig, fit, predict
from training.networks import build
from training.runs import describe, load_held_out, load_run, load_splits, save_run
from training.standardise import Standardise
from training.student import StudentConfig

STUDENT_LOOP = LoopConfig(epochs=30, learning_rate=2e-3)


@dataclass(frozen=True)
class TrainedStudent:
    """What `segue train-student` made."""

    out: Path
    validation_accuracy: float
    teacher_validation_accuracy: float
    validation_agreement: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.out}: a student, trained in {self.seconds:.0f} s\n"
            f"  validation accuracy: {self.validation_accuracy:.3f} (teacher {self.teacher_validation_accuracy:.3f})\n"
            f"  agreement with the teacher: {self.validation_agreement:.3f}"
        )


def train_student(
    songs: Positional[Path],
    teacher: Path,
    out: Path,
    network: StudentConfig = StudentConfig(),
    loop: LoopConfig = STUDENT_LOOP,
) -> TrainedStudent:
    """Distil the student.

    Args:
        songs: The song table the teacher was trained on.
        teacher: The teacher's run folder, with held-out logits.
        out: The run folder to write.
        network: The shape of the student.
        loop: The training settings.
    """
    started = time.perf_counter()
    teacher_run, teacher_network = load_run(teacher, "teacher")
    held_out = load_held_out(teacher)
    table = SongTable(songs)
    splits = load_splits(teacher, teacher_run, table)
    if held_out.shape != (len(splits.train), len(table.classes)):
        raise RunError(
            f"{teacher}: expected held-out logits of shape {(len(splits.train), len(table.classes))}, "
            f"found {held_out.shape}"
        )
    torch.manual_seed(loop.seed)
    student = build(network, len(table.classes), Standardise.of(table, splits.train))
    fitted = fit(
        student,
        table,
        rows=splits.train,
        targets=torch.from_numpy(held_out),
        loss=functional.mse_loss,
        validation_rows=splits.validation,
        config=loop,
        name="student",
    )
    record = describe("student", network, loop, table, splits, fitted)
    with atomic_folder(out) as folder:
        save_run(folder, record, student, table, splits)
        (folder / "teacher").mkdir()
        for file in ("run.json", "model.safetensors"):
            shutil.copy2(teacher / file, folder / "teacher" / file)
    teacher_logits = predict(teacher_network, table, splits.validation, teacher_run.loop.windows)
    return TrainedStudent(
        out,
        record.best.validation_accuracy,
        teacher_run.best.validation_accuracy,
        agreement(fitted.validation_logits, teacher_logits),
        time.perf_counter() - started,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue train-student`."""
    return run(train_student, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
