"""No number of README.md is typed by hand: its figures are those of the committed results."""

import json
from pathlib import Path

import pytest

from segue.bench import figures
from segue.bench.figures import COMMAND, RESULTS, figures_text
from segue.publish import END

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.partition(f"<!-- written by `{COMMAND}`, do not edit -->\n")[2].partition(END)[0]
    assert block.strip() == figures_text(ROOT / RESULTS).strip()


def test_other_results_make_other_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = json.loads((ROOT / RESULTS / "speed.json").read_text())
    speed["figures"][0]["value"] = 12345.6
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "docs/results/speed.json").write_text(json.dumps(speed))
    (tmp_path / "docs/results/demo.json").write_text((ROOT / RESULTS / "demo.json").read_text())
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text())
    monkeypatch.chdir(tmp_path)
    figures.figures()
    assert "| student | 0.676      | 12,346 " in (tmp_path / "README.md").read_text()


def test_committed_results_tell_no_folder_of_anyone() -> None:
    for path in (ROOT / RESULTS).rglob("*.json"):
        text = path.read_text()
        assert not any(folder in text for folder in ("/home/", "/root/", "/tmp/", "/Users/")), path
