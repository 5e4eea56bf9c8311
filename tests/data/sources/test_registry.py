"""The registry of sources: one module and one line make a source, and a path opens as what it holds."""

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from segue.data.songs import main
from segue.data.sources import registry
from segue.data.sources.registry import SOURCES, list_of_kinds, open_source, recognise
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from tests.support.random_songs import random_segments

PAGE = Path(__file__).parents[3] / "docs/contributing/sources.md"


def module_of_the_page(folder: Path) -> ModuleType:
    """Return the module that the page shows."""
    text, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = folder / "toy.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("toy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_source_of_the_page_is_one_module_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = module_of_the_page(tmp_path)
    monkeypatch.setattr(registry, "SOURCES", (*SOURCES, toy.KIND))
    for name, seed in (("a/song", 1), ("b/song", 2), ("b/other", 3)):
        (tmp_path / "songs" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(tmp_path / f"songs/{name}.toy", random_segments(4, seed), fmt="%.9g")
    (tmp_path / "songs/bad.toy").write_text("1 2 3\n")
    (tmp_path / "songs/notes.txt").write_text("no song")

    assert main([str(tmp_path / "songs"), str(tmp_path / "out.arrow")]) == 0
    table = SongTable(tmp_path / "out.arrow")
    assert table.song_ids == ["a/song", "other", "b/song"]
    for row, seed in enumerate((1, 3, 2)):
        np.testing.assert_array_equal(table.segments(row), random_segments(4, seed))
    printed = capsys.readouterr().out
    assert "left out: 1\n" in printed
    assert "passed over, another kind of file (.txt): 1: notes.txt" in printed

    assert main([str(tmp_path / "songs/bad.toy"), str(tmp_path / "out.arrow"), "--from", "toy"]) == 1
    assert "(segments, 25)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "toy: songs in text files" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--where cannot select from a source of kind toy, only from table, parquet"):
        open_source(tmp_path / "songs", where={"id": ["1"]})


def test_names_are_unique_and_every_kind_is_listed() -> None:
    names = [kind.name for kind in SOURCES]
    assert len(set(names)) == len(names)
    assert [line.split(":")[0].removeprefix("- ") for line in list_of_kinds().splitlines()] == names


def test_a_kind_that_there_is_not_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--from: expected one of table, parquet, .*; found 'csv'"):
        open_source(tmp_path, kind="csv")


def test_a_folder_without_songs_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.txt", "b.TXT", "c.csv.gz", "d"):
        (tmp_path / name).touch()
    with pytest.raises(SongError, match=r"found a folder of 2 \.txt, 1 \.csv\.gz, 1 no suffix"):
        recognise(tmp_path)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "songs.arrow")
    with pytest.raises(SongError, match=r"songs\.arrow: expected a regular file or a folder, found a fifo"):
        open_source(tmp_path / "songs.arrow")
