"""Verbs whose standard streams were closed, or whose readers went away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segue.data.table import SongTable

SYNTH = [sys.executable, "-m", "segue", "synth"]


def shell(command: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", f'"$@" {command}', "bash", *SYNTH, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_verb_works_without_its_streams(tmp_path: Path, closed: str) -> None:
    out = tmp_path / "songs.arrow"
    assert shell(closed, out, "--songs", "3").returncode == 0
    assert len(SongTable(out)) == 3
    assert shell(closed, out, "--songs", "0").returncode == 1


@pytest.mark.parametrize(("songs", "code"), [("0", 1), ("3", 0)])
def test_nobody_reads_what_a_verb_says(tmp_path: Path, songs: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*SYNTH, str(tmp_path / "songs.arrow"), "--songs", songs]
    assert subprocess.run(command, stdout=writer, stderr=writer, check=False, timeout=60).returncode == code
    os.close(writer)
    assert (tmp_path / "songs.arrow").exists() == (code == 0)


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    out = tmp_path / "caf\udce9.arrow"
    found = shell("", out, "--songs", "3", "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["out"] == str(out)
    assert out.exists()
