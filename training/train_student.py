"""Distil the student: a network with one hidden layer learns the logits that teachers gave to songs they never saw.

By default the loss is the mean squared error between the student's logits and the held-out logits of the teacher run
(Ba and Caruana, NIPS 2014); the splits are the teacher's. Where the teacher was trained with `--unlabelled`, songs
without a label are learnt from too. With `--start RUN` the student begins with the weights of an earlier one.

Example:
    segue train-student artifacts/songs.arrow --teacher artifacts/teacher --out artifacts/student
    segue train-student artifacts/songs.arrow --teacher artifacts/teacher --out artifacts/flat --look flat
"""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from tyro.conf import Positional

from segue.atomic import atomic_folder
from segue.command import run, unset
from segue.data.metrics import agreement
from segue.errors import ConfigError, RunError
from segue.places import check_folder
from segue.training.fit.execution import Execution
from segue.training.fit.feed import check_songs
from segue.training.fit.journal import RECORD, journal
from segue.training.fit.loop import LoopConfig, fit, predict
from segue.training.fit.losses import DistillationConfig, DistillationLoss, Targets
from segue.training.networks.build import build
from segue.training.networks.dense import DenseConfig
from segue.training.networks.standardise import Standardise
from segue.training.runs import describe, load_held_out, load_run, load_splits, open_songs_of, save_run, unlabelled_rows
from segue.training.warm_start import warm_start

STUDENT_LOOP = LoopConfig(epochs=30, learning_rate=2e-3)


@dataclass(frozen=True)
class TrainedStudent:
    """What `segue train-student` made."""

    out: Path
    validation_accuracy: float
    teacher_validation_accuracy: float
    validation_agreement: float
    seconds: float
    start: str | None = None  # The run whose weights it began with.

    def __str__(self) -> str:
        start = f", from {self.start}" if self.start else ""
        return (
            f"{self.out}: a student, trained in {self.seconds:.0f} s{start}\n"
            f"  validation accuracy: {self.validation_accuracy:.3f} (teacher {self.teacher_validation_accuracy:.3f})\n"
            f"  agreement with the teacher: {self.validation_agreement:.3f}"
        )


def train_student(
    songs: Positional[Path],
    teacher: Path,
    out: Path,
    network: DenseConfig = DenseConfig(),
    loop: LoopConfig = STUDENT_LOOP,
    distillation: DistillationConfig = DistillationConfig(),
    start: Annotated[Path | None, unset("RUN")] = None,
    execution: Execution = Execution(),
) -> TrainedStudent:
    """Distil the student.

    Args:
        songs: The song table the teacher was trained on.
        teacher: The teacher's run folder, with held-out logits.
        out: The run folder to write.
        network: The shape of the student; one hidden layer.
        loop: The training settings.
        distillation: How the teacher's logits are learnt from.
        start: Begin with the weights of this student run, of the same shape and trained on other songs.
        execution: How the run is executed.
    """
    if len(network.hidden) != 1:
        raise ConfigError(f"hidden: expected one hidden layer, which is what makes a student, found {network.hidden}")
    check_folder(out, RECORD, [songs, teacher])
    started = time.perf_counter()
    execution.prepare()
    teacher_run, teacher_network = load_run(teacher, "teacher")
    held_out = load_held_out(teacher)
    table = open_songs_of(teacher_run, songs)
    splits = load_splits(teacher, teacher_run, table)
    check_songs(table, splits.validation)  # Before the training and not in the middle of it.
    without_label = unlabelled_rows(table, splits)[: None if len(held_out.unlabelled) else 0]
    rows, logits = np.concatenate([splits.train, without_label]), np.concatenate([held_out.logits, held_out.unlabelled])
    if logits.shape != (len(rows), len(table.classes)):
        raise RunError(
            f"{teacher}: expected held-out logits of shape {(len(rows), len(table.classes))}, found {logits.shape}"
        )
    held_out_rows = np.concatenate([splits.validation, splits.calibration, splits.test])
    begin = warm_start(start, "student", network, table, held_out_rows) if start else None
    settings = {
        "songs": table.fingerprint(), "teacher": teacher_run, "network": network, "loop": loop,
        "distillation": distillation, **({"start": begin.record} if begin else {}),
    }  # fmt: skip
    with journal(out, settings, resume=execution.resume, tensorboard=execution.tensorboard) as kept:
        torch.manual_seed(loop.seed)
        student = build(network, len(table.classes), Standardise.of(table, splits.train))
        if begin:
            begin.apply(student)
        fitted = fit(
            student,
            table,
            rows=rows,
            targets=Targets(torch.from_numpy(table.labels[rows]), torch.from_numpy(logits)),
            loss=DistillationLoss(distillation, table.labels[rows], len(table.classes)),
            validation_rows=splits.validation,
            config=loop,
            name="student",
            execution=execution,
            journal=kept,
        )
        record = describe(
            "student", network, loop, table, splits, student, distillation=distillation,
            unlabelled_songs=len(without_label), start=begin.record if begin else None,
        )  # fmt: skip
        with atomic_folder(out, RECORD) as folder:
            save_run(folder, record, student, table, splits)
            kept.hand_over(folder)
            (folder / "teacher").mkdir()
            for file in (RECORD, "model.safetensors"):
                shutil.copy2(teacher / file, folder / "teacher" / file)
    teacher_logits = predict(teacher_network, table, splits.validation, teacher_run.loop.windows)
    return TrainedStudent(
        out,
        record.validation_accuracy,
        teacher_run.validation_accuracy,
        agreement(fitted.validation_logits, teacher_logits),
        time.perf_counter() - started,
        record.start.run if record.start else None,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue train-student`."""
    return run(train_student, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
