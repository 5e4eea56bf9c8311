"""Evaluation: the figures are those of every song, and unfit songs are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segue.data.song import Songs
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError, SegueError, SongError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.evaluate import evaluate, main
from tests.support.bundles import BOTH_ANSWER_NATS, CLASSES
from tests.support.random_songs import random_batch, save


def test_accuracy_and_fallback_rate_are_those_of_the_cascade_song_by_song(bundle: Path, mixed_songs: Path) -> None:
    table, cascade = SongTable(mixed_songs), open_cascade(load_bundle(bundle))
    right, fell_back = 0, 0
    for row in range(len(table)):
        answers = cascade.answer(Songs.of([table.segments(row)]), BOTH_ANSWER_NATS)
        right += CLASSES[answers.choice[0]] == table.classes[table.labels[row]]
        fell_back += bool(answers.fell_back[0])
    found = evaluate(bundle, mixed_songs, threshold=BOTH_ANSWER_NATS)
    assert found.evaluation.cascade.accuracy == pytest.approx(right / len(table))
    assert found.evaluation.fallback_rate == pytest.approx(fell_back / len(table))
    assert found.majority_accuracy == np.bincount(table.labels).max() / len(table)
    assert 0.1 < found.evaluation.fallback_rate < 0.9


def test_songs_without_a_label_are_left_out(bundle: Path, tmp_path: Path) -> None:
    labels = [CLASSES[3], None, CLASSES[1], None, CLASSES[3]]
    save(tmp_path / "songs.arrow", random_batch([120] * 5, labels))
    found = evaluate(bundle, tmp_path / "songs.arrow")
    assert (found.evaluation.songs, found.unlabelled) == (3, 2)
    assert found.majority_accuracy == pytest.approx(2 / 3)
    assert found.evaluation.threshold_nats == load_bundle(bundle).manifest.threshold_nats
    assert f"{bundle} on 3 labelled songs of {tmp_path / 'songs.arrow'} (2 without a label left out)" in str(found)


def test_songs_that_the_models_were_trained_on_are_told(bundle: Path, student_run: Path) -> None:
    found = evaluate(bundle, student_run.parent / "songs.arrow")
    assert found.trained_on == 420  # Of 600: the others are kept for calibration and test.
    assert "of which the models have seen 420 in training" in str(found)


def test_labels_are_counted_in_the_bundles_order(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    table = SongTable(mixed_songs)
    turned = save(tmp_path / "turned.arrow", table.batch(range(len(table))), classes=CLASSES[::-1])
    assert turned.labels.tolist() == (3 - table.labels).tolist()
    assert evaluate(bundle, turned.path).evaluation == evaluate(bundle, mixed_songs).evaluation


def test_the_verb_prints_a_table_or_one_json_document(
    bundle: Path, mixed_songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), str(mixed_songs), "--threshold", "0.5"]) == 0
    assert "threshold: 0.500 nats" in capsys.readouterr().out
    assert main([str(bundle), str(mixed_songs), "--threshold", "0.5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["evaluation"]["songs"] == 500
    assert printed["tradeoff"][0]["fallback_rate"] == 0


def other_label(folder: Path) -> Path:
    return save(folder / "songs.arrow", random_batch([120, 120], ["genre-00", "polka"])).path


def no_label(folder: Path) -> Path:
    return save(folder / "songs.arrow", random_batch([120, 120])).path


def other_units(folder: Path) -> Path:
    return save(folder / "songs.arrow", random_batch([120], ["genre-00"]), units="standardised").path


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (other_label, LabelError, "songs.arrow: labels polka are not among the expected classes: genre-00, genre-01"),
        (no_label, LabelError, "songs.arrow: expected labelled songs, found none among 2"),
        (other_units, SongError, "songs.arrow: expected raw songs for this bundle, found standardised ones"),
    ],
)
def test_songs_that_cannot_be_judged_are_refused(
    bundle: Path, tmp_path: Path, make: Callable[[Path], Path], kind: type[SegueError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        evaluate(bundle, make(tmp_path))


def test_both_models_see_as_many_windows_as_they_are_told_to(bundle: Path, mixed_songs: Path) -> None:
    table, cascade = SongTable(mixed_songs), open_cascade(load_bundle(bundle), windows=5)
    songs = table.songs(range(len(table)))
    windows = np.minimum(np.maximum(table.lengths - 119, 1), 5)
    found = evaluate(bundle, mixed_songs, windows=5).evaluation
    for model, scores in ((cascade.student, found.student), (cascade.teacher, found.teacher)):
        predictions = model.predict(songs)
        assert predictions.windows.tolist() == windows.tolist()
        assert scores.accuracy == (predictions.probs.argmax(axis=1) == table.labels).mean()


def test_no_window_is_refused(bundle: Path, mixed_songs: Path) -> None:
    with pytest.raises(ConfigError, match="windows: expected at least 1, found 0"):
        evaluate(bundle, mixed_songs, windows=0)


@pytest.mark.parametrize("threshold", [-0.1, np.nan])
def test_a_threshold_below_zero_is_refused(bundle: Path, mixed_songs: Path, threshold: float) -> None:
    with pytest.raises(ConfigError, match=f"threshold: expected at least 0 nats, found {threshold}"):
        evaluate(bundle, mixed_songs, threshold=threshold)
