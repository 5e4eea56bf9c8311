"""Fixtures that every floor's tests may ask for."""

import dataclasses
import os
import shutil
from pathlib import Path

import hypothesis
import pytest

from segue.data.synth import synth

hypothesis.settings.register_profile("segue", deadline=None)  # A busy machine is no reason to fail.
hypothesis.settings.load_profile("segue")


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


@pytest.fixture(scope="session")
def student_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a tiny student, its teacher's inside and `songs.arrow` beside. Not to change."""
    from tests.support.bundles import train_runs  # Torch is slow to load, and the data floor's tests do without.

    return train_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def bundle(student_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny bundle of four genres. Not to change: copy it first."""
    from tests.support.bundles import make_bundle

    return make_bundle(student_run, tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="session")
def mixed_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 500 labelled songs of 1 to 400 segments, of the bundle's genres."""
    from tests.support.bundles import songs_of_all_lengths

    return songs_of_all_lengths(tmp_path_factory.mktemp("songs") / "mixed.arrow", 500).path


@pytest.fixture(scope="session")
def audio_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny bundle with a manifest that says its features are our analyser's. Not to change."""
    from segue.serving.bundle.load import load_bundle
    from segue.serving.bundle.write import write_manifest

    copy = tmp_path_factory.mktemp("bundles") / "audio"
    shutil.copytree(bundle, copy)
    write_manifest(copy, dataclasses.replace(load_bundle(bundle).manifest, features="segue-audio-1"))
    return copy
