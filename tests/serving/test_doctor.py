"""The doctor: says what is there, and what is wrong with it."""

import json
import shutil
from pathlib import Path

import onnxruntime as ort
import pytest

from segue.errors import MissingDependencyError
from segue.serving.bundle.load import load_bundle
from segue.serving.doctor import doctor, main


@pytest.fixture(autouse=True)
def _healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that one wheel is installed, whatever is, and that it offers a processor."""
    monkeypatch.setattr("segue.serving.doctor.installed_wheels", lambda: {"onnxruntime": ort.__version__})
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])


def test_a_sound_installation_needs_no_advice(bundle: Path) -> None:
    found = doctor(bundle)
    assert found.advice == ()
    assert (found.libraries["onnxruntime"], found.providers) == (ort.__version__, ("CPUExecutionProvider",))
    assert found.bundle is not None
    assert load_bundle(bundle).manifest.version in found.bundle
    assert str(found).endswith("All is well.")


def test_two_wheels_that_clash_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "segue.serving.doctor.installed_wheels", lambda: {"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.31.0"}
    )
    clash, hidden = doctor().advice
    assert "Both onnxruntime and onnxruntime-gpu are installed" in clash
    assert "Uninstall both, then install one." in clash
    assert "onnxruntime-gpu is installed, but offers no CUDA" in hidden


def test_a_missing_runtime_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingDependencyError("onnxruntime is not installed.")

    monkeypatch.setattr("segue.serving.doctor.installed_wheels", dict)
    monkeypatch.setattr("segue.serving.doctor.onnxruntime", missing)
    found = doctor()
    assert (found.providers, found.advice) == ((), ("onnxruntime is not installed.",))


def test_the_verb_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["bundle"], printed["providers"]) == (None, ["CPUExecutionProvider"])


def test_a_bad_bundle_is_a_failure(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    (copy / "teacher.onnx").unlink()
    assert main([str(copy)]) == 1
    printed = capsys.readouterr()
    assert "segue doctor: " in printed.err
    assert "the file teacher.onnx is missing" in printed.err
    assert printed.out == ""
