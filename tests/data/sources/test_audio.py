import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from segue.data.analyser.analyse import analyse
from segue.data.label_tables import read_label_table
from segue.data.song import Songs
from segue.data.songs import main
from segue.data.table import SongBatch, SongTable, write_table
from segue.errors import LabelError
from tests.data.analyser.recordings import music, save

FMA = (
    ",album,set,set,track,track,artist\n,title,split,subset,genre_top,title,name\ntrack_id,,,,,,\n"
    "2,A,training,small,Hip-Hop,Food,AWOL\n3,A,validation,small,,Elsewhere,AWOL\n5,A,test,large,Rock,That,Other\n"
)
JAMENDO = (
    "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
    "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tinstrument---bass\tgenre---punkrock\n"
)


def gtzan(root: Path) -> Path:
    for n, genre in enumerate(("blues", "rock")):
        for number in range(2):
            save(root / "genres" / genre / f"{genre}.{number:05d}.wav", music(3, seed=10 * n + number))
    return root


def test_folders_are_genres_and_ids_are_paths(tmp_path: Path) -> None:
    root = gtzan(tmp_path / "gtzan")
    assert main([str(root), str(tmp_path / "songs.arrow")]) == 0
    table = SongTable(tmp_path / "songs.arrow")
    assert table.song_ids == [f"gtzan/genres/{g}/{g}.0000{n}.wav" for g in ("blues", "rock") for n in (0, 1)]
    assert (table.classes, table.labels.tolist()) == (("blues", "rock"), [0, 0, 1, 1])
    assert (table.units, table.features) == ("raw", "segue-audio-1")
    np.testing.assert_array_equal(table.segments(2), analyse(root / "genres/rock/rock.00000.wav").segments)


def test_a_second_folder_is_the_artist(tmp_path: Path) -> None:
    for genre, artist in (("rock", "a"), ("rock", "b"), ("jazz", "c")):
        save(tmp_path / "music" / genre / artist / "1.wav", music(2))
    assert main([str(tmp_path / "music"), str(tmp_path / "songs.arrow")]) == 0
    assert SongTable(tmp_path / "songs.arrow").groups == ["c", "a", "b"]


def test_a_csv_names_genres_and_artists_by_path(tmp_path: Path) -> None:
    root = gtzan(tmp_path / "music")
    (tmp_path / "labels.csv").write_text(
        "path,genre,artist\ngenres/blues/blues.00000.wav,Blues,John\nrock.00001.wav,Rock,Anna\n"
    )
    assert main([str(root), str(tmp_path / "songs.arrow"), "--labels", str(tmp_path / "labels.csv")]) == 0
    table = SongTable(tmp_path / "songs.arrow")
    assert [table.classes[label] if label >= 0 else None for label in table.labels] == ["Blues", None, None, "Rock"]
    assert table.groups == ["John", None, None, "Anna"]


@pytest.mark.parametrize(
    ("name", "content", "file", "genre", "artist", "split"),
    [
        ("tracks.csv", FMA, "000/000002.mp3", "Hip-Hop", "AWOL", "train"),
        ("tracks.csv", FMA, "000/000003.mp3", None, "AWOL", "validation"),
        ("tracks.csv", FMA, "000/000005.mp3", "Rock", "Other", "test"),
        ("autotagging.tsv", JAMENDO, "14/214.low.mp3", "punkrock", "artist_000014", None),
        ("own.tsv", "id\tlabel\nsong-1\tFunk\n", "song-1.flac", "Funk", None, None),
        ("own.csv", "path,genre,artist,split\na/b.wav,Funk,Jo, Valid \n", "a/b.wav", "Funk", "Jo", "validation"),
    ],
)
def test_fma_jamendo_and_own_tables(
    tmp_path: Path, name: str, content: str, file: str, genre: str | None, artist: str | None, split: str | None
) -> None:
    (tmp_path / name).write_text(content)
    save((tmp_path / "music" / file).with_suffix(".wav"), music(2)).rename(tmp_path / "music" / file)
    assert main([str(tmp_path / "music"), str(tmp_path / "songs.arrow"), "--labels", str(tmp_path / name)]) == 0
    table = SongTable(tmp_path / "songs.arrow")
    assert [table.classes[label] if label >= 0 else None for label in table.labels] == [genre]
    assert (table.groups, table.splits) == ([artist], [split])


def test_a_split_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,genre,split\na.mp3,Funk,fold-3\n")
    with pytest.raises(LabelError, match=r"a\.mp3: expected a split train.*found 'fold-3'"):
        read_label_table(tmp_path / "a.csv")


def test_a_table_without_genres_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,genre\na.mp3,\n")
    with pytest.raises(LabelError, match="at least one row with a genre"):
        read_label_table(tmp_path / "a.csv")


def test_bad_files_are_left_out_and_listed(tmp_path: Path) -> None:
    root = gtzan(tmp_path / "music")
    (root / "genres/rock/text.mp3").write_text("no music\n" * 100)
    save(root / "genres/rock/silent.wav", np.zeros(30_000))
    (root / "genres/rock/cut.wav").write_bytes((root / "genres/rock/rock.00000.wav").read_bytes()[:60_000])
    os.mkfifo(root / "genres/rock/fifo.wav")
    out = tmp_path / "songs.arrow"
    assert main([str(root), str(out)]) == 0
    assert len(SongTable(out)) == 4
    lines = [line.split("\t") for line in (tmp_path / "songs.arrow.errors.tsv").read_text().splitlines()]
    assert lines.pop(0) == ["song", "reason"]
    reasons = {Path(name).name: reason for name, reason in lines}
    assert set(reasons) == {"text.mp3", "silent.wav", "cut.wav"}
    assert "cut short" in reasons["cut.wav"]


def test_features_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with write_table(tmp_path / "old.arrow", "raw") as table:
        table.write(SongBatch(["a"], Songs.of([np.zeros((3, 25), np.float32)]), [None], [None]))
    save(tmp_path / "new.wav", music(2))
    assert main([str(tmp_path / "old.arrow"), str(tmp_path / "new.wav"), str(tmp_path / "out.arrow")]) == 1
    assert "expected echonest features" in capsys.readouterr().err


@pytest.mark.long
def test_a_conversion_that_is_killed_goes_on(tmp_path: Path) -> None:
    sound = save(tmp_path / "sound.wav", np.tile(music(20), 6)).read_bytes()
    root = tmp_path / "music"
    root.mkdir()
    for number in range(150):
        (root / f"{number:03d}.wav").write_bytes(sound)
    out = tmp_path / "songs.arrow"
    words = [sys.executable, "-m", "segue", "songs", str(root), str(out)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as first:
        journal = out.with_name(f".{out.name}.journal")
        while not journal.exists():
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    assert json.loads(journal.read_text())["state"]["done"] >= 32
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "going on after" in ended.stderr
    assert len(SongTable(out)) == 150


@pytest.mark.long
def test_ten_thousand_files_of_which_three_are_bad(tmp_path: Path) -> None:
    sound = save(tmp_path / "sound.wav", music(0.6))
    names = [f"{number % 100:02d}/{number:05d}.wav" for number in range(10_000)]
    bad = {names[17]: "expected an audio file", names[5_000]: "found silence", names[9_999]: "it is cut short"}
    silent = save(tmp_path / "silent.wav", np.zeros(13_230))
    root = tmp_path / "music"
    for folder in range(100):
        (root / f"{folder:02d}").mkdir(parents=True)
    for name in names:
        if name not in bad:
            (root / name).hardlink_to(sound)
    (root / names[17]).write_text("no music\n" * 100)
    (root / names[5_000]).hardlink_to(silent)
    (root / names[9_999]).write_bytes(sound.read_bytes()[:10_000])
    assert main([str(root), str(tmp_path / "songs.arrow")]) == 0
    table = SongTable(tmp_path / "songs.arrow")
    assert table.song_ids == sorted(f"music/{name}" for name in set(names) - set(bad))
    lines = [line.split("\t") for line in (tmp_path / "songs.arrow.errors.tsv").read_text().splitlines()]
    assert lines.pop(0) == ["song", "reason"]
    assert {name for name, _ in lines} == {f"music/{name}" for name in bad}
    assert all(bad[name.removeprefix("music/")] in reason for name, reason in lines)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_left_out(tmp_path: Path) -> None:
    root = gtzan(tmp_path / "music")
    (root / "genres/rock/rock.00001.wav").chmod(0)
    assert main([str(root), str(tmp_path / "songs.arrow")]) == 0
    assert len(SongTable(tmp_path / "songs.arrow")) == 3
    assert "not a readable file" in (tmp_path / "songs.arrow.errors.tsv").read_text()
