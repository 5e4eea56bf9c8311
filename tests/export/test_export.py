"""Export: a run goes in, a whole bundle comes out, or nothing does."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from segue.data.song import FEATURE_NAMES, Floats, Ints
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError, RunError, SegueError, SongError
from segue.export.calibration.thresholds import deal_parts
from segue.export.export import WindowsConfig, export, main
from segue.export.forms import FormsConfig
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.seen import were_seen
from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.runs import load_run
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher
from tests.support.bundles import CLASSES, EASY
from tests.support.random_songs import save

FILES = (
    "student.onnx", "teacher.onnx", "tradeoff.csv", "tradeoff.png", "reliability.png", "trained_on.npy", "README.md",
    "reference.npz",
)  # fmt: skip


@pytest.fixture
def run(student_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the student's run, to be damaged."""
    return shutil.copytree(student_run, tmp_path / "student")


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def plain_log_probs(bundle: Path, kind: str, songs: Floats) -> NDArray[np.float64]:
    """Return the log-probabilities (n, n_classes) of windows by bare ONNX Runtime and the manifest's temperature."""
    session = onnxruntime.InferenceSession(bundle / f"{kind}.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"segments": songs})[0].astype(np.float64)
    logits /= json.loads((bundle / "manifest.json").read_text())[kind]["temperature"]["value"]
    log_probs: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs


def split_of(run: Path, name: str) -> tuple[Floats, Ints]:
    """Return the segments (n, 120, 25) and labels of the songs of one split."""
    table = SongTable(run.parent / "songs.arrow")
    ids = set(json.loads((run / "splits.json").read_text())[name])
    rows = [row for row, song_id in enumerate(table.song_ids) if song_id in ids]
    return np.stack(table.songs(rows)), table.labels[rows]


def test_every_file_of_a_bundle_has_its_hash_in_the_manifest(bundle: Path) -> None:
    files = files_of(bundle)
    assert set(files) == {"manifest.json", *FILES}
    stated = json.loads(files.pop("manifest.json"))["sha256"]
    assert stated == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert all(files[name].startswith(b"\x89PNG") for name in ("tradeoff.png", "reliability.png"))


def test_the_manifest_says_what_was_exported(bundle: Path, student_run: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    songs_sha256 = hashlib.sha256((student_run.parent / "songs.arrow").read_bytes()).hexdigest()
    assert manifest["format_version"] == 4
    assert manifest["classes"] == list(CLASSES)
    assert (manifest["units"], manifest["features"]) == ("raw", "echonest")
    assert manifest["feature_names"] == list(FEATURE_NAMES)
    assert (manifest["student"]["windows"], manifest["teacher"]["windows"]) == (1, 3)
    assert (manifest["student"]["network"]["hidden"], manifest["teacher"]["network"]["state"]) == ([32], 16)
    for kind in ("student", "teacher"):
        parity = manifest[kind]["form"]["parity"]
        assert parity["difference"] < 1e-4
        assert (parity["agreement"], parity["songs"], parity["edge_songs"]) == (1, 120, 8)
        assert parity["batches"] == [1, 7, 256]
        assert manifest[kind]["provider"] == "CPUExecutionProvider"
    assert (manifest["student"]["form"]["lowering"], manifest["teacher"]["form"]["lowering"]) == (None, "scan")
    by_student_alone = load_bundle(bundle).tradeoff[0]
    assert by_student_alone.us_per_song == pytest.approx(manifest["student"]["us_per_window"])
    assert manifest["songs_sha256"] == songs_sha256
    assert manifest["split_songs"] == {"train": 360, "validation": 60, "calibration": 120, "test": 60}
    assert manifest["guarantee"]["calibration_songs"] == 90
    assert manifest["provenance"]["libraries"]["onnxruntime"] == onnxruntime.__version__


def test_the_figures_of_a_bundle_are_those_of_its_test_songs(bundle: Path, student_run: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["metrics_split"] == "test"
    songs, labels = split_of(student_run, "test")
    found = manifest["metrics"]
    assert found["songs"] == len(labels) == 60
    for kind in ("student", "teacher"):
        log_probs = plain_log_probs(bundle, kind, songs)
        assert found[kind]["accuracy"] == pytest.approx((log_probs.argmax(axis=1) == labels).mean())
        assert found[kind]["nll"] == pytest.approx(-log_probs[np.arange(60), labels].mean(), abs=1e-5)


def test_the_temperature_is_the_best_one_on_a_quarter_of_the_calibration_songs_and_measured_on_the_others(
    bundle: Path, student_run: Path
) -> None:
    songs, labels = split_of(student_run, "calibration")
    shape, setting = deal_parts(len(labels))
    stated = json.loads((bundle / "manifest.json").read_text())
    for kind in ("student", "teacher"):
        log_probs, right = plain_log_probs(bundle, kind, songs[setting]), labels[setting]
        after = stated[kind]["temperature"]["after"]
        assert after["nll"] == pytest.approx(-log_probs[np.arange(len(right)), right].mean(), abs=1e-5)
        assert after["accuracy"] == (log_probs.argmax(axis=1) == right).mean()
    songs, labels = songs[shape], labels[shape]
    for kind in ("student", "teacher"):
        tempered = plain_log_probs(bundle, kind, songs)
        losses = []
        for factor in (0.97, 1.0, 1.03):
            scores = tempered / factor
            losses.append((np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]).mean())
        assert losses[1] == min(losses)


def test_without_test_songs_the_figures_are_those_of_the_calibration_songs(run: Path, tmp_path: Path) -> None:
    edit(run / "splits.json", lambda splits: splits.update(calibration=splits["calibration"] + splits["test"], test=[]))
    manifest = export(run, tmp_path / "bundle").manifest
    assert (manifest.metrics_split, manifest.metrics.songs) == ("calibration", 135)
    assert load_bundle(tmp_path / "bundle").manifest == manifest


def test_the_tradeoff_table_is_that_of_the_calibration_songs(bundle: Path, student_run: Path) -> None:
    songs, labels = split_of(student_run, "calibration")
    setting = deal_parts(len(labels))[1]
    songs, labels = songs[setting], labels[setting]
    student, teacher = (plain_log_probs(bundle, kind, songs) for kind in ("student", "teacher"))
    rows = load_bundle(bundle).tradeoff
    for row in rows:
        falls = -student.max(axis=1) > row.threshold_nats + 1e-6  # The thresholds are cross-entropies of songs.
        right = np.where(falls[:, None], teacher, student).argmax(axis=1) == labels
        assert row.fallback_rate == pytest.approx(falls.mean())
        assert row.accuracy == pytest.approx(right.mean())
    assert len(rows) == 41
    gains = [row.accuracy - row.random_accuracy for row in rows]
    rates = [row.fallback_rate for row in rows]
    area = sum((a + b) / 2 * (r - q) for a, b, q, r in zip(gains, gains[1:], rates, rates[1:], strict=False))
    assert load_bundle(bundle).manifest.area_above_random == pytest.approx(area)


def test_the_bundle_knows_the_songs_that_the_models_have_seen(bundle: Path, student_run: Path) -> None:
    splits = json.loads((student_run / "splits.json").read_text())
    for name, seen in (("train", True), ("validation", True), ("calibration", False), ("test", False)):
        assert (were_seen(load_bundle(bundle), splits[name]) == seen).all()


def test_models_see_as_many_windows_as_in_training_unless_told_otherwise(run: Path, tmp_path: Path) -> None:
    for record in (run / "run.json", run / "teacher" / "run.json"):
        edit(record, lambda fields: fields["loop"].update(windows=2))
    manifest = export(run, tmp_path / "bundle", windows=WindowsConfig(teacher_windows=3)).manifest
    assert (manifest.student.windows, manifest.teacher.windows) == (2, 3)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_songs_without_a_label_are_known_where_the_student_learnt_from_them(tmp_path: Path, unlabelled: bool) -> None:
    synth(tmp_path / "all.arrow", songs=400, classes=len(CLASSES), difficulty=EASY)
    batch = SongTable(tmp_path / "all.arrow").batch(range(400))
    table = save(tmp_path / "songs.arrow", replace(batch, labels=[*batch.labels[:300], *[None] * 100]), classes=CLASSES)
    network, loop = DenseConfig(look="flat", hidden=(8,)), LoopConfig(epochs=1)
    train_teacher(table.path, tmp_path / "teacher", folds=2, unlabelled=unlabelled, network=network, loop=loop)
    train_student(table.path, tmp_path / "teacher", tmp_path / "student", network, loop)
    export(tmp_path / "student", tmp_path / "bundle", forms=FormsConfig(int8="never"))
    assert (were_seen(load_bundle(tmp_path / "bundle"), table.song_ids[300:]) == unlabelled).all()


def test_the_verb_prints_one_json_document_and_replaces_a_bundle(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, moved = tmp_path / "bundle", run.parent / "elsewhere.arrow"
    out.mkdir()
    for name in ("manifest.json", "old"):
        (out / name).touch()
    shutil.copy(SongTable(Path(load_run(run, "student")[0].songs)).path, moved)
    edit(run / "run.json", lambda record: record.update(songs="/gone/songs.arrow"))
    options = ["--songs", str(moved), "--student-windows", "2", "--points", "20", "--json"]
    assert main([str(run), "--out", str(out), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert printed["manifest"] == manifest
    assert (manifest["student"]["windows"], manifest["guarantee"]["asked"]) == (2, 20)
    assert not (out / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "elsewhere.arrow", "student"]


def test_a_run_is_not_replaced_by_its_bundle(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert main([str(run), "--out", str(run)]) == 1
    assert f"{run}: expected nothing there, or a folder with manifest.json to replace" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def no_calibration(run: Path) -> None:
    edit(run / "splits.json", lambda splits: splits.update(calibration=[]))


def songs_gone(run: Path) -> None:
    edit(run / "run.json", lambda record: record.update(songs="/gone/songs.arrow"))


def other_songs(run: Path) -> None:
    synth(run.parent / "other.arrow", songs=600, classes=len(CLASSES), seed=1, difficulty=EASY)
    edit(run / "run.json", lambda record: record.update(songs=str(run.parent / "other.arrow")))


def cut_weights(run: Path) -> None:
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def other_shape(run: Path) -> None:
    edit(run / "run.json", lambda record: record.update(network={**record["network"], "hidden": [31]}))


def a_teacher(run: Path) -> None:
    teacher = run / "teacher"
    teacher.rename(run.parent / "teacher")
    shutil.rmtree(run)
    (run.parent / "teacher").rename(run)


def no_teacher(run: Path) -> None:
    shutil.rmtree(run / "teacher")


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (shutil.rmtree, RunError, "student: expected a student run, found no such folder. `segue train-student` makes"),
        (a_teacher, RunError, "student: expected a student run, found a teacher run"),
        (no_teacher, RunError, "student/teacher: expected a teacher run, found no such folder"),
        (no_calibration, RunError, "student: expected calibration songs, found none"),
        (songs_gone, SongError, "/gone/songs.arrow: expected a song table, found no such file"),
        (other_songs, RunError, r"student: was trained on .*other.arrow \(sha256 .*holds other songs"),
        (cut_weights, RunError, "student: the weights cannot be read or do not fit run.json"),
        (other_shape, RunError, "student: the weights cannot be read or do not fit run.json"),
    ],
)
def test_a_run_that_cannot_be_exported_is_refused_and_the_old_bundle_stays(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], kind: type[SegueError], message: str
) -> None:
    damage(run)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").touch()
    with pytest.raises(kind, match=message):
        export(run, tmp_path / "bundle")
    assert list((tmp_path / "bundle").iterdir()) == [tmp_path / "bundle" / "manifest.json"]
    assert not list(tmp_path.glob(".*"))


def test_a_stop_halfway_leaves_the_old_bundle(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").touch()
    monkeypatch.setattr("segue.export.calibration.dial.draw_tradeoff", stop)
    assert main([str(run), "--out", str(tmp_path / "bundle")]) == 130
    assert list((tmp_path / "bundle").iterdir()) == [tmp_path / "bundle" / "manifest.json"]
    assert not list(tmp_path.glob(".*"))


def test_a_model_that_sees_no_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected at least one window for each model, found .*teacher_windows 0"):
        WindowsConfig(teacher_windows=0)
