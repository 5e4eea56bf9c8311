"""A recipe in a folder of its own."""

from pathlib import Path

import pytest

from tests.support.recipes import RECIPE


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPACE", str(tmp_path))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path
