"""A bundle for the suites: the study's teacher and a pooled student, trained for an epoch, exported, calibrated.

Speed does not depend on what models know; only the fallback rate would, and that is set.
"""

from pathlib import Path

from segue.data.synth import synth
from segue.export.calibrate import calibrate
from segue.export.export import export
from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher

SONGS = 1000
FALLBACK_RATE = 0.3


def make_bundle(folder: Path) -> Path:
    """Make the bundle in a folder and return its path."""
    songs, teacher, student, bundle = (folder / name for name in ("songs.arrow", "teacher", "student", "bundle"))
    folder.mkdir()
    synth(songs, SONGS)
    train_teacher(songs, teacher, folds=2, network=RecurrentConfig(), loop=LoopConfig(epochs=1))
    train_student(songs, teacher, student, network=DenseConfig(look="pooled", hidden=(512,)), loop=LoopConfig(epochs=1))
    export(student, bundle)
    synth(folder / "others.arrow", SONGS, seed=1)
    calibrate(bundle, folder / "others.arrow", fallback_rate=FALLBACK_RATE)
    return bundle
