"""The model card: what it says is what the manifest says, and its code runs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from segue.export.card import card
from segue.export.export import export
from segue.export.forms import FormsConfig
from segue.serving.bundle.load import load_bundle
from tests.support.random_songs import random_segments


def test_the_card_says_what_the_manifest_says(bundle: Path) -> None:
    text, manifest = (bundle / "README.md").read_text(), json.loads((bundle / "manifest.json").read_text())
    assert text == card(load_bundle(bundle).manifest)
    assert ", ".join(manifest["classes"]) in text
    assert f"On {manifest['metrics']['songs']} test songs, which nothing had seen" in text
    for name in ("student", "teacher", "cascade"):
        scores = manifest["metrics"][name]
        cells = [f"{scores[figure]:.3f}" for figure in ("accuracy", "nll", "ece")]
        assert re.search(rf"\| {name} *\| {' *. '.join(cells)} *\|", text)
    for kind in ("student", "teacher"):
        assert f"**{kind}.onnx**" in text
        assert f"{manifest[kind]['form']['songs_per_s']['256']:,.0f}" in text
    assert f"Songs: {', '.join(f'{n} {split}' for split, n in manifest['split_songs'].items())}" in text
    assert manifest["songs_sha256"][:12] in text
    assert "Licence: unspecified." in text
    assert all((bundle / name).exists() for name in re.findall(r"\]\((.*?)\)", text))


def test_the_code_of_the_card_names_genres(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(bundle)
    names = {"onnxruntime": onnxruntime, "windows": random_segments(120).reshape(1, 120, 25)}
    exec(code, names)
    assert names["genre"] in load_bundle(bundle).manifest.classes
    assert np.shape(names["logits"]) == (1, 4)


def test_a_licence_and_a_reason_reach_the_card(student_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(student_run, tmp_path / "run")
    found = export(run, tmp_path / "bundle", forms=FormsConfig(lowering="operator"), licence="CC BY 4.0")
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "Licence: CC BY 4.0." in text
    assert "operator fp32" in text
    for form in found.manifest.student.rejected:
        assert str(form.why_not) in text
