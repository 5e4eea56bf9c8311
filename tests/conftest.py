"""Fixtures that every floor's tests may ask for."""

import os
from pathlib import Path

import pytest

from data.synth import synth


@pytest.fixture(scope="session")
def real_songs() -> Path:
    """Return the folder of real songs: `h5/` with Million Song Dataset tracks and `labels/` with genre files."""
    folder = os.environ.get("SEGUE_SONGS")
    if not folder:
        pytest.skip("needs real songs: set SEGUE_SONGS to a folder with h5/ and labels/")
    return Path(folder)


@pytest.fixture(scope="session")
def synthetic_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a song table of 400 synthetic songs of 4 genres."""
    path = tmp_path_factory.mktemp("songs") / "synthetic.arrow"
    synth(path, songs=400, classes=4)
    return path
