"""A folder of music becomes an answer over HTTP, as somebody does it who has just installed Segue."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import segue
from segue.data.analyser.synthesiser import STYLES
from segue.serving.client import BadSong
from segue.serving.predictions import Answer
from tests.data.analyser.recordings import music, save
from tests.support.server import environment, free_port, serving

SONGS_A_GENRE, SECONDS = 24, 8
LOOP = ("--epochs", "15", "--batch-songs", "16")


def run(*words: str, cwd: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "segue", *words], cwd=cwd, env=environment(cwd / "home"), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.long
def test_a_folder_of_music_becomes_an_answer_over_http(tmp_path: Path) -> None:
    for number, genre in enumerate(STYLES):
        for song in range(SONGS_A_GENRE):
            save(tmp_path / "music" / genre / f"{song:02d}.flac", music(SECONDS, genre, seed=1000 * number + song))
    new = {
        genre: [
            save(tmp_path / f"{genre}-{song}.ogg", music(SECONDS, genre, seed=1000 * number + 500 + song))
            for song in range(3)
        ]
        for number, genre in enumerate(STYLES)
    }
    (tmp_path / "text.mp3").write_text("no music\n" * 100)
    told = json.loads(run("songs", "music", "songs.arrow", "--json", cwd=tmp_path))
    assert told["songs"] == SONGS_A_GENRE * len(STYLES)
    run("train-teacher", "songs.arrow", "--out", "teacher", "--folds", "2", *LOOP, "dense", cwd=tmp_path)
    run("train-student", "songs.arrow", "--teacher", "teacher", "--out", "student", *LOOP, cwd=tmp_path)
    run("export", "student", "--out", "bundle", cwd=tmp_path)
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["features"] == "segue-audio-1"
    files = [str(file) for of_genre in new.values() for file in of_genre]
    offline = json.loads(run("classify", "bundle", *files, "--json", cwd=tmp_path))["songs"]

    port = free_port()
    env = environment(tmp_path / "home") | {"SEGUE_AUDIO": "true", "SEGUE_DEADLINE_S": "300"}
    words = ["segue", "serve", "bundle", "--port", str(port)]
    with serving(words, port, tmp_path, env) as server, segue.Client(server.url, timeout_s=300) as client:
        answers = [client.classify_audio(file) for file in files]
        bad = client.classify_audio(tmp_path / "text.mp3")
    assert isinstance(bad, BadSong)
    assert "expected an audio file" in bad.error
    found = [answer.genre for answer in answers if isinstance(answer, Answer)]
    assert found == [song["genre"] for song in offline]
    expected = [genre for genre, of_genre in new.items() for _ in of_genre]
    assert sum(one == other for one, other in zip(found, expected, strict=True)) >= len(expected) / 2  # Chance: 1/4.
