"""What docs/contributing tells people to do works as told: one file, one line, nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
FOLDERS = ("segue", "data", "training", "export", "serving", "bench")


def checkout(place: Path) -> Path:
    """Return a copy of the code, to be changed."""
    for folder in FOLDERS:
        shutil.copytree(CHECKOUT / folder, place / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def code_of(page: str, first_line: str) -> str:
    """Return the block of Python on a page of docs/contributing that begins with `first_line`."""
    text = (CHECKOUT / "docs" / "contributing" / page).read_text()
    blocks = [
        re.sub(f"^{indent}", "", block, flags=re.M)
        for indent, block in re.findall(r"^( *)```python\n(.*?)^ *```", text, re.M | re.S)
    ]
    (found,) = [block for block in blocks if block.startswith(first_line)]
    return found


def segue(code: Path, *words: object) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "segue", *map(str, words)],
        cwd=code,
        env=os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.long
def test_a_network_is_one_file_and_one_line(tmp_path: Path) -> None:
    code, run, bundle = checkout(tmp_path / "code"), tmp_path / "teacher", tmp_path / "bundle"
    (code / "training" / "networks" / "mean.py").write_text(code_of("networks.md", '"""The mean network'))
    registry = code / "training" / "networks" / "build.py"
    line = code_of("networks.md", "| Annotated").strip()
    text = registry.read_text().replace('subcommand("dense")]\n', f'subcommand("dense")]\n    {line}\n')
    registry.write_text(
        text.replace("from segue", "from segue.training.networks.mean import MeanConfig\nfrom segue", 1)
    )
    songs = tmp_path / "songs.arrow"
    segue(code, "synth", songs, "--songs", 600, "--classes", 4)
    segue(code, "train-teacher", songs, "--out", run, "--folds", 2, "--epochs", 2, "mean", "--neurons", 16)
    assert json.loads((run / "run.json").read_text())["network"] == {"shape": "mean", "neurons": 16}
    segue(code, "train-student", songs, "--teacher", run, "--out", tmp_path / "student", "--epochs", 1)
    exported = json.loads(segue(code, "export", tmp_path / "student", "--out", bundle, "--json"))
    assert (
        exported["manifest"]["teacher"]["network"]["shape"] == "mean"
    )  # Compared with the graph, or it would be refused.
    assert (bundle / "teacher.onnx").is_file()


@pytest.mark.long
def test_a_study_is_one_file_and_one_line(tmp_path: Path) -> None:
    code, out = checkout(tmp_path / "code"), tmp_path / "out"
    (code / "training" / "studies" / "width.py").write_text(code_of("studies.md", '"""How wide'))
    registry = code / "training" / "studies" / "registry.py"
    line = code_of("studies.md", '"width"').strip()
    registry.write_text(registry.read_text().replace("STUDIES = {\n", f"STUDIES = {{\n    {line}\n"))
    songs = tmp_path / "songs.arrow"
    segue(code, "synth", songs, "--songs", 300, "--classes", 3)
    assert "How wide a pooled student should be" in segue(code, "study", "--list")
    said = segue(code, "study", "width", songs, "--out", out, "--quick")
    assert "- Wider is better: " in said
    assert json.loads((out / "study.json").read_text())["found"]["outcomes"].keys() == {"8 neurons", "64 neurons"}
    own = tmp_path / "own.toml"
    own.write_text(
        re.findall(r"^```toml\n(.*?)^```", (CHECKOUT / "docs/contributing/studies.md").read_text(), re.M | re.S)[0]
    )
    assert "hidden 1784, learning_rate 0.0001" in segue(code, "study", own, songs, "--out", tmp_path / "own", "--quick")
