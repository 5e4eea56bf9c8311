"""The recipe of the study on tables shaped like the course's files, at a size that fits a test."""

from pathlib import Path

import numpy as np
import pytest

from segue.data.synth import Difficulty, draw_genres, draw_songs, genre_name
from segue.data.table import SongTable
from segue.export.retrain.retrain import retrain
from segue.serving.bundle.load import load_bundle
from segue.training.runs import load_record

RECIPE = Path(__file__).parents[3] / "export" / "recipes" / "study.toml"
CLASSES = 10
SIZES = {"train": 800, "valid": 200, "test": 200}  # The course's have 40,000, 10,000 and 9,991.
SMALLER = {
    "folds = 10": "folds = 3", "state = 341": "state = 24", "epochs = 30": "epochs = 2", "[1784]": "[64]",
    "epochs = 100": "epochs = 2",
}  # fmt: skip


def write_course_files(folder: Path) -> None:
    """Write training, validation and test songs as the course has them: (n, 3000), float16, standardised."""
    genres, difficulty = draw_genres(CLASSES, 0, Difficulty()), Difficulty()
    deviation = mean = None
    for seed, (name, songs) in enumerate(SIZES.items()):
        values, labels = draw_songs(songs, genres, difficulty, np.random.default_rng(seed))
        flat = values.reshape(songs, -1)
        if mean is None or deviation is None:
            mean, deviation = flat.mean(axis=0), flat.std(axis=0)
        np.savez(
            folder / f"msd-10-genre-{name}-fixed.npz",
            inputs=((flat - mean) / deviation).astype(np.float16),
            targets=labels,
            label_map=np.array([genre_name(label) for label in range(CLASSES)]),
        )


@pytest.mark.long
def test_the_chain_of_the_study_runs_on_course_files_to_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSD10", str(tmp_path))
    write_course_files(tmp_path)
    recipe = RECIPE.read_text().replace("artifacts/", f"{tmp_path}/")
    for large, small in SMALLER.items():
        assert large in recipe
        recipe = recipe.replace(large, small)
    (tmp_path / "study.toml").write_text(recipe)
    made = retrain(tmp_path / "study.toml")
    space = tmp_path / "study"
    assert made.ran == ("songs", "validation", "test", "teacher", "student", "export")
    assert len(SongTable(space / "songs.arrow")) == 1000
    teacher, student = load_record(space / "teacher", "teacher"), load_record(space / "student", "student")
    assert teacher.split_songs == student.split_songs == {"train": 950, "validation": 200, "calibration": 50, "test": 0}
    assert teacher.validation_songs == str(space / "validation.arrow")
    assert teacher.held_out_accuracy is not None
    manifest = load_bundle(space / "bundle").manifest
    assert manifest.units == "standardised"
    assert made.evaluation.songs == 200
    assert set(retrain(tmp_path / "study.toml").skipped) == set(made.ran)
