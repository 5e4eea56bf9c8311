import json
from pathlib import Path

import pytest

from segue.serving.classify import main
from tests.data.analyser.recordings import music, save


def test_audio_and_text_beside_it(audio_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "song.wav", music(8, "dance", seed=77))
    (tmp_path / "text.mp3").write_text("no music\n" * 100)
    capsys.readouterr()
    assert main([str(audio_bundle), str(file), str(tmp_path / "text.mp3"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (song,) = found["songs"]
    assert song["song_id"] == "song.wav"
    assert song["genre"].startswith("genre-")
    assert list(found["errors"]) == [str(tmp_path / "text.mp3")]


def test_segments_of_the_echo_nest_are_refused(
    audio_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = {"timbre": [0.0] * 12, "pitches": [0.5] * 12, "loudness_start": -10.0}
    (tmp_path / "a.json").write_text(json.dumps({"segments": [segment] * 130}))
    assert main([str(audio_bundle), str(tmp_path / "a.json")]) == 1
    assert "expected segue-audio-1 features for this bundle, found echonest" in capsys.readouterr().err


def test_a_bundle_of_audio_says_so(audio_bundle: Path) -> None:
    assert json.loads((audio_bundle / "manifest.json").read_text())["features"] == "segue-audio-1"
