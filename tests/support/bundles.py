"""Songs, runs and a bundle, small enough to be made anew for every session of tests."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from segue.data.song import Songs
from segue.data.splits import Shares
from segue.data.synth import Difficulty, draw_genres, draw_songs, genre_name, synth
from segue.data.table import SongBatch, SongTable
from segue.export.calibration.thresholds import CalibrationConfig
from segue.export.export import WindowsConfig, export
from segue.export.forms import FormsConfig
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import Rung
from segue.serving.bundle.tradeoff_table import write_tradeoff
from segue.serving.bundle.write import write_manifest
from segue.serving.ladder import OnFallback
from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher
from tests.support.random_songs import save

CLASSES = tuple(map(genre_name, range(4)))
EASY = Difficulty(states=10, stray=0.2, label_noise=0.05)
LONGEST = 400  # Segments.
# At these the three rungs of `three_rungs` all answer for some songs.
THREE_ANSWER_NATS: dict[OnFallback, tuple[float, float]] = {
    "teacher": (0.75, 0.6),
    "surer": (0.75, 0.6),
    "mean": (0.75, 0.9),
}
BOTH_ANSWER_NATS = 0.7  # At this threshold the student answers for some songs, and the teacher for others.


def train_runs(folder: Path) -> Path:
    """Train a teacher and a student on `folder/songs.arrow`, which is made too; return the student's run folder."""
    torch.set_num_threads(1)  # In networks this small a second thread only waits for the first.
    songs, teacher, student = folder / "songs.arrow", folder / "teacher", folder / "student"
    synth(songs, songs=600, classes=len(CLASSES), difficulty=EASY)
    loop = LoopConfig(epochs=2, batch_songs=32, learning_rate=1e-2)
    network = RecurrentConfig(state=16, bptt_steps=40)
    train_teacher(songs, teacher, folds=2, network=network, loop=loop, shares=Shares(test=0.1))
    look = DenseConfig(look="flat", hidden=(32,), input_dropout=0.2, hidden_dropout=0.2)
    train_student(songs, teacher, student, look, replace(loop, epochs=1))  # So that asking the teacher is worth it.
    return student


def make_bundle(student_run: Path, out: Path) -> Path:
    """Export a student's run to `out`; the teacher takes up to three looks at a song."""
    forms = FormsConfig(lowering="scan", int8="never")  # Not what this machine does fastest today.
    export(student_run, out, windows=WindowsConfig(1, 3), forms=forms, calibration=CalibrationConfig(points=10))
    return out


def another_bundle(bundle: Path, out: Path, number: int) -> Path:
    """Copy a bundle to `out` under a version of its own, with a threshold that tells it from others, by `number`."""
    shutil.copytree(bundle, out)
    manifest = load_bundle(out).manifest
    write_manifest(out, replace(manifest, threshold_nats=BOTH_ANSWER_NATS + number / 1000))
    return out


def three_rungs(bundle: Path, out: Path, on_fallback: OnFallback = "teacher") -> Path:
    """Write a bundle of the same models whose student looks once more, three times, before the teacher is asked."""
    opened = load_bundle(bundle)
    student, teacher = opened.manifest.all_rungs
    nats = THREE_ANSWER_NATS[on_fallback]
    rungs = (
        replace(student, threshold_nats=nats[0]),
        Rung("student", 3, nats[1], student.temperature, student.mean_temperature),
        teacher,
    )
    out.mkdir()
    for name, content in opened.contents.items():
        (out / name).write_bytes(content)
    write_tradeoff(
        out / "tradeoff.csv", tuple(replace(row, next_thresholds_nats=(row.threshold_nats,)) for row in opened.tradeoff)
    )
    write_manifest(out, replace(opened.manifest, threshold_nats=nats[0], rungs=rungs, on_fallback=on_fallback))
    return out


def songs_of_all_lengths(path: Path, n_songs: int) -> SongTable:
    """Write a table of labelled songs of 1 to 400 segments, of the genres that `train_runs` learns."""
    rng = np.random.default_rng(7)
    values, labels = draw_songs(n_songs, draw_genres(len(CLASSES), 0, EASY), EASY, rng, LONGEST)
    lengths = rng.integers(1, LONGEST + 1, n_songs)
    batch = SongBatch(
        song_ids=[f"song-{row}" for row in range(n_songs)],
        songs=Songs.of([song[:length] for song, length in zip(values, lengths, strict=True)]),
        labels=[CLASSES[label] for label in labels],
        groups=[None] * n_songs,
    )
    return save(path, batch, classes=CLASSES)
