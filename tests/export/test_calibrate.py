"""`segue calibrate`: a bundle with the dial set anew, whole and verified, or the old one and the reason."""

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segue.data.song import Songs
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError, SegueError, SongError
from segue.export.calibrate import Calibrated, calibrate, main
from segue.export.calibration.dial import Dial, set_dial
from segue.export.calibration.promise import songs_for_losses
from segue.export.calibration.thresholds import UnsupportedError, deal_parts
from segue.serving.batch.score import score
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.evaluate import evaluate
from tests.support.bundles import CLASSES, EASY
from tests.support.random_songs import random_batch, save


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 400 songs that the bundle's models have not seen."""
    path = tmp_path_factory.mktemp("songs") / "unseen.arrow"
    synth(path, songs=400, classes=len(CLASSES), seed=5, difficulty=EASY)
    return path


def test_a_fallback_rate_is_that_of_the_songs_that_set_it(bundle: Path, songs: Path, tmp_path: Path) -> None:
    found = calibrate(bundle, songs, fallback_rate=0.3, out=tmp_path / "bundle")
    loaded, table = load_bundle(tmp_path / "bundle"), SongTable(songs)
    assert loaded.manifest == found.manifest
    setting = deal_parts(400)[1]
    answers = open_cascade(loaded).answer(table.songs(setting))
    assert answers.fell_back.mean() == pytest.approx(0.3, abs=1 / 300)
    figures = found.manifest.metrics
    assert (figures.songs, found.manifest.metrics_split) == (300, "calibration")
    assert figures.fallback_rate == answers.fell_back.mean()
    assert figures.cascade.accuracy == (answers.choice == table.labels[setting]).mean()
    assert found.manifest.version != load_bundle(bundle).manifest.version
    assert found.manifest.calibration_sha256 == table.fingerprint()
    for name in ("student.onnx", "teacher.onnx", "trained_on.npy"):
        assert (tmp_path / "bundle" / name).read_bytes() == (bundle / name).read_bytes()
    for name in ("tradeoff.csv", "tradeoff.png", "reliability.png", "README.md"):
        assert (tmp_path / "bundle" / name).read_bytes() != (bundle / name).read_bytes()


def test_each_goal_says_what_may_be_said_of_it(bundle: Path, songs: Path, tmp_path: Path) -> None:
    goals: tuple[tuple[dict[str, Any], str], ...] = (
        ({"within": 30.0, "confidence": 0.9}, "promised: at most 30 points below the teacher, with 90% confidence"),
        ({"accuracy": 0.3}, "promised: an accuracy of at least 0.3, with 95% confidence, from 300 calibration songs"),
        ({"fallback_rate": 0.5}, "measured, not promised: 50.0% of 300 calibration songs fall back, 50.0% were asked"),
        ({"songs_per_s": 1.0}, "were asked for"),
    )
    for options, words in goals:
        text = str(calibrate(bundle, songs, out=tmp_path / "bundle", **options))
        assert words in text
        assert (
            f"{tmp_path / 'bundle'}: bundle {load_bundle(tmp_path / 'bundle').manifest.version}, dial set anew" in text
        )


def test_the_songs_of_the_training_table_that_no_model_has_seen_set_the_dial(
    bundle: Path, student_run: Path, tmp_path: Path
) -> None:
    found: Calibrated = calibrate(
        bundle, student_run.parent / "songs.arrow", fallback_rate=0.5, out=tmp_path / "bundle"
    )
    assert found.trained_on == 420
    assert found.manifest.guarantee.calibration_songs == 135
    assert "(left out: 420 that the models were trained on)" in str(found)


def test_no_confidence_is_rounded_up_and_the_quarter_for_temperatures_is_counted(
    bundle: Path, songs: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"within": 0.5, "confidence": 0.999}
    with pytest.raises(
        UnsupportedError, match=r"with 99\.9% confidence, about [\d,]+ like these would, a quarter"
    ) as said:
        calibrate(bundle, songs, **options, out=tmp_path / "bundle")
    (needed,) = re.findall(r"about ([\d,]+) like", str(said.value))
    alone = songs_for_losses(np.zeros(300), 0.005, 0.999)
    assert alone is not None
    assert int(needed.replace(",", "")) == pytest.approx(alone / 0.75, abs=2)


def test_a_place_that_is_taken_is_refused_before_any_song_is_heard(
    bundle: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    monkeypatch.setattr("segue.export.calibrate.predict_uncalibrated", lambda *_: pytest.fail("it listens for nothing"))
    with pytest.raises(ConfigError, match=r"found a folder of other files, no manifest.json, which would be lost"):
        calibrate(bundle, songs, fallback_rate=0.4, out=tmp_path)


def test_a_bundle_that_cannot_be_written_and_has_other_files_is_calibrated_elsewhere(
    bundle: Path, songs: Path, tmp_path: Path
) -> None:
    here = shutil.copytree(bundle, tmp_path / "here")
    (here / "notes").mkdir()
    for name in load_bundle(bundle).manifest.sha256:
        (here / name).chmod(0o444)
    manifest = calibrate(here, songs, fallback_rate=0.4, out=tmp_path / "there").manifest
    assert {file.name for file in (tmp_path / "there").iterdir()} == {"manifest.json", *manifest.sha256}
    assert all(file.stat().st_mode & stat.S_IWUSR for file in (tmp_path / "there").iterdir())
    assert load_bundle(tmp_path / "there").manifest == manifest


def test_the_models_of_a_calibrated_bundle_are_those_that_were_verified(
    bundle: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(bundle, tmp_path / "here")

    def change_then_set(*given: Any, **options: Any) -> Dial:
        (here / "teacher.onnx").write_bytes(b"of another bundle")
        return set_dial(*given, **options)

    monkeypatch.setattr("segue.export.calibrate.set_dial", change_then_set)
    calibrate(here, songs, fallback_rate=0.4, out=tmp_path / "there")
    assert load_bundle(tmp_path / "there").contents["teacher.onnx"] == (bundle / "teacher.onnx").read_bytes()


def test_thresholds_per_class_are_honoured_everywhere(bundle: Path, songs: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    manifest = calibrate(bundle, songs, fallback_rate=0.4, per_class=True, out=out).manifest
    scales = np.array(manifest.class_scales)
    assert scales.min() == 1
    assert scales.max() > 1.05
    table, cascade = SongTable(songs), open_cascade(load_bundle(out))
    student = cascade.student.predict(table.songs(range(400)))
    limits = manifest.threshold_nats * scales[student.probs.argmax(axis=1)]
    falls = student.cross_entropy_nats > limits
    assert (falls != (student.cross_entropy_nats > manifest.threshold_nats)).any()
    np.testing.assert_array_equal(cascade.answer(table.songs(range(400))).fell_back, falls)
    assert falls[deal_parts(400)[1]].mean() == pytest.approx(0.4, abs=1 / 300)
    assert evaluate(out, songs).evaluation.fallback_rate == falls.mean()
    scored = score(out, (str(songs),), tmp_path / "genres.parquet")
    assert scored.fallback_rate == falls.mean()
    assert pq.read_table(tmp_path / "genres.parquet").num_rows == 400


def test_long_songs_get_a_temperature_for_the_mean_over_their_windows(
    bundle: Path, mixed_songs: Path, tmp_path: Path
) -> None:
    manifest = calibrate(bundle, mixed_songs, fallback_rate=0.5, out=tmp_path / "bundle").manifest
    student, teacher = manifest.student, manifest.teacher
    assert student.mean_temperature is not None
    assert teacher.mean_temperature is not None
    assert (student.mean_temperature.windows, teacher.mean_temperature.windows) == (9, 3)
    table, loaded = SongTable(mixed_songs), load_bundle(tmp_path / "bundle")
    long, short = (int(np.flatnonzero(table.lengths == length)[0]) for length in (table.lengths.max(), 1))
    for windows, row, temperature in (
        (1, long, student.temperature),
        (5, long, student.mean_temperature),
        (5, short, student.temperature),
    ):
        predictions = open_cascade(loaded, windows=windows).student.predict(Songs.of([table.segments(row)]))
        tempered = predictions.logits.astype(np.float64) / temperature.value
        np.testing.assert_allclose(predictions.probs, np.exp(tempered) / np.exp(tempered).sum(), rtol=1e-6)


def test_a_promise_that_songs_cannot_support_leaves_the_bundle_as_it_is(
    bundle: Path, songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    table = SongTable(songs)
    few = save(tmp_path / "few.arrow", table.batch(range(60)), classes=table.classes).path
    assert main([str(copy), str(few), "--within", "0.5"]) == 1
    printed = capsys.readouterr().err
    assert f"segue calibrate: {copy}: not written. All that can be said is measured, not promised: " in printed
    assert "cannot support at most 0.5 points below the teacher with 95% confidence, " in printed
    assert load_bundle(copy).manifest == load_bundle(bundle).manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "few.arrow"]


def test_the_verb_turns_the_dial_in_place_and_prints_one_json_document(
    bundle: Path, songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    assert main([str(copy), str(songs), "--fallback-rate", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    manifest = load_bundle(copy).manifest
    assert printed["manifest"]["version"] == manifest.version
    assert manifest.threshold_nats == pytest.approx(np.log(4))
    assert manifest.metrics.fallback_rate == 0


def trained_on(folder: Path, student_run: Path) -> Path:
    table = SongTable(student_run.parent / "songs.arrow")
    ids = json.loads((student_run / "splits.json").read_text())["train"]
    rows = [row for row, song_id in enumerate(table.song_ids) if song_id in set(ids)]
    return save(folder / "seen.arrow", table.batch(rows), classes=CLASSES).path


def one_song(folder: Path, _: Path) -> Path:
    return save(folder / "one.arrow", random_batch([120], [CLASSES[0]])).path


def no_label(folder: Path, _: Path) -> Path:
    return save(folder / "none.arrow", random_batch([120] * 30)).path


def test_songs_that_can_promise_nothing_are_refused(bundle: Path, student_run: Path, tmp_path: Path) -> None:
    cases: tuple[tuple[Path, type[SegueError], str], ...] = (
        (
            trained_on(tmp_path, student_run),
            LabelError,
            "seen.arrow: expected songs that the models have not seen, found 360",
        ),
        (one_song(tmp_path, student_run), SongError, "calibration: expected at least 20 labelled songs, found 1"),
        (no_label(tmp_path, student_run), LabelError, "none.arrow: expected labelled songs, found none among 30"),
    )
    for path, kind, message in cases:
        with pytest.raises(kind, match=message):
            calibrate(bundle, path, fallback_rate=0.5, out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_class_without_calibration_songs_is_named(
    bundle: Path, songs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = SongTable(songs)
    some = save(tmp_path / "three.arrow", table.batch(np.flatnonzero(table.labels != 2)), classes=CLASSES)
    calibrate(bundle, some.path, fallback_rate=0.5, out=tmp_path / "bundle")
    assert "three.arrow: no calibration song of genre-02; what is measured and promised says nothing of" in caplog.text


def test_what_the_models_give_no_number_for_is_refused(
    bundle: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "segue.serving.runtime.OnnxModel.logits", lambda _, windows: np.full((len(windows), 4), np.nan, "f4")
    )
    with pytest.raises(SongError, match="song 'synth-5-0000000': the models' answer is not a number"):
        calibrate(bundle, songs, fallback_rate=0.5, out=tmp_path / "bundle")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, ConfigError, "exactly one of --accuracy, --fallback-rate, --songs-per-s and --within, found none"),
        ({"within": 1.0, "accuracy": 0.5}, ConfigError, "found --within and --accuracy"),
        ({"accuracy": 80.0}, ConfigError, "accuracy: expected above 0 and below 1, found 80"),
        ({"accuracy": 0.999}, UnsupportedError, "which is the best that any threshold gives on 300 calibration songs"),
        ({"songs_per_s": 1e9}, UnsupportedError, "which is the student alone on this machine, found 1,000,000,000"),
    ],
)
def test_goals_that_cannot_be_are_refused(
    bundle: Path, songs: Path, tmp_path: Path, options: dict[str, Any], kind: type[SegueError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        calibrate(bundle, songs, out=tmp_path / "bundle", **options)
    assert not list(tmp_path.iterdir())


def test_calibration_needs_no_torch() -> None:
    heavy = "'torch', 'onnx', 'sklearn', 'segue.training'"
    script = f"import sys, segue.export.calibrate; print(*sorted({{{heavy}}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
