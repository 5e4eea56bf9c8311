"""Atomic files and folders: the old one or the new one, never half of one."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segue.atomic import atomic_file, atomic_folder, only_writer
from segue.data.synth import synth
from segue.errors import ConfigError


def content(folder: Path) -> dict[str, str]:
    """Return every file below `folder` with its text, hidden ones included."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def save(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write_half(file: Path) -> None:
    file.write_text("ne")
    raise KeyboardInterrupt


@pytest.mark.parametrize("before", [{}, {"result.txt": "old"}])
def test_a_file_takes_the_place_of_the_old_one(tmp_path: Path, before: dict[str, str]) -> None:
    save(tmp_path, before)
    with atomic_file(tmp_path / "result.txt") as draft:
        draft.write_text("new")
        assert draft.suffix == ".txt"
        assert {name: text for name, text in content(tmp_path).items() if name != draft.name} == before
    assert content(tmp_path) == {"result.txt": "new"}


@pytest.mark.parametrize("before", [{}, {"result.txt": "old"}])
def test_a_file_that_fails_half_way_changes_nothing(tmp_path: Path, before: dict[str, str]) -> None:
    save(tmp_path, before)
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "result.txt") as draft:
        write_half(draft)
    assert content(tmp_path) == before


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a/b/result.txt") as draft:
        draft.write_text("new")
    with atomic_folder(tmp_path / "c/d/run", "run.json") as folder:
        (folder / "run.json").write_text("{}")
    assert content(tmp_path) == {"a/b/result.txt": "new", "c/d/run/run.json": "{}"}


@pytest.mark.parametrize("before", [{}, {"run/run.json": "old", "run/deep/extra.txt": "old"}])
def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path, before: dict[str, str]) -> None:
    save(tmp_path, before)
    with atomic_folder(tmp_path / "run", "run.json") as folder:
        (folder / "teacher").mkdir()
        (folder / "teacher/run.json").write_text("new")
    assert content(tmp_path) == {"run/teacher/run.json": "new"}
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


@pytest.mark.parametrize("before", [{}, {"run/run.json": "old"}])
def test_a_folder_that_fails_half_way_changes_nothing(tmp_path: Path, before: dict[str, str]) -> None:
    save(tmp_path, before)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "run", "run.json") as folder:
        write_half(folder / "run.json")
    assert content(tmp_path) == before


def test_a_folder_takes_the_place_of_another_where_names_cannot_be_exchanged_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, {"run/run.json": "old", "run/extra": "old"})
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with atomic_folder(tmp_path / "run", "run.json") as folder:
        (folder / "run.json").write_text("new")
    assert content(tmp_path) == {"run/run.json": "new"}


def test_a_folder_that_cannot_take_its_place_gives_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, {"run/run.json": "old"})
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    rename = os.rename

    def no_drafts(source: Any, target: Any) -> None:
        if Path(source).name.endswith(".draft"):
            raise OSError("the disk went away")
        rename(source, target)

    monkeypatch.setattr(os, "rename", no_drafts)
    with pytest.raises(OSError, match="the disk went away"), atomic_folder(tmp_path / "run", "run.json") as folder:
        (folder / "run.json").write_text("new")
    assert content(tmp_path) == {"run/run.json": "old"}


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ({"run": "a letter"}, "found a file"),
        ({"run/thesis.txt": "years"}, "found a folder of other files, no run.json"),
        ({"run/manifest.json": "{}"}, "found a folder of other files, no run.json"),
    ],
)
def test_nothing_but_one_of_its_kind_is_replaced(tmp_path: Path, before: dict[str, str], found: str) -> None:
    save(tmp_path, before)
    with (
        pytest.raises(ConfigError, match=f"run: expected nothing there, .* {found}"),
        atomic_folder(tmp_path / "run", "run.json"),
    ):
        pytest.fail("it begins to work on what it cannot write")
    assert content(tmp_path) == before


def test_behind_a_link_the_folder_is_replaced_and_the_link_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, {"v3/run.json": "old"})
    (tmp_path / "current").symlink_to("v3")
    with atomic_folder(tmp_path / "current", "run.json") as folder:
        (folder / "run.json").write_text("new")
    assert content(tmp_path / "v3") == {"run.json": "new"}
    assert (tmp_path / "current").readlink() == Path("v3")
    monkeypatch.chdir(tmp_path / "v3")
    with atomic_folder(Path(), "run.json") as folder:
        (folder / "run.json").write_text("newer")
    assert content(tmp_path / "v3") == {"run.json": "newer"}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["current", "v3"]


def test_drafts_of_processes_that_are_gone_are_removed_and_others_kept(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    pid = int(gone.stdout)
    drafts = [f".run.{pid}.draft", f".a.{pid}.draft.csv", f".a.{os.getppid()}.draft.csv", f".a.b.{pid}.draft.csv"]
    save(tmp_path, {drafts[0] + "/run.json": "half", **dict.fromkeys(drafts[1:], "half")})
    with atomic_file(tmp_path / "a.csv") as draft:
        draft.write_text("new")
    assert content(tmp_path).keys() == {"a.csv", drafts[0] + "/run.json", *drafts[2:]}
    with atomic_folder(tmp_path / "run", "run.json") as folder:
        (folder / "run.json").write_text("new")
    assert content(tmp_path).keys() == {"a.csv", "run/run.json", *drafts[2:]}


FULL_DISK = """
import resource, signal, sys
from segue.data.synth import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["songs.arrow", "songs.parquet"])
def test_on_a_full_disk_the_old_file_stays_and_the_message_names_the_new_one(tmp_path: Path, name: str) -> None:
    assert synth(tmp_path / name, songs=2).songs == 2
    before = (tmp_path / name).read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / name), "--songs", "300"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr == (
        f"segue synth: {tmp_path / name}: not written: File too large. What was there before is kept.\n"
    )
    assert (tmp_path / name).read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_where_nothing_can_be_written_the_place_is_named_and_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(ConfigError, match=r"file/out\.csv: nothing can be written there: "),
        atomic_file(tmp_path / "file/out.csv"),
    ):
        pytest.fail("it begins to work on what it cannot write")


def test_only_one_process_writes_a_place_and_the_other_is_told_which(tmp_path: Path) -> None:
    place = tmp_path / "songs.arrow"
    hold = (
        "import os, sys, pathlib; from segue.atomic import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])):\n"
        "    if not os.fork(): os.execvp('sleep', ['sleep', '60'])\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"songs\.arrow: process {holder.pid} is writing it"), only_writer(place):
            pytest.fail("two write at once")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with only_writer(place):  # Its child lives on.
            assert (tmp_path / ".songs.arrow.lock").exists()
            with pytest.raises(ConfigError, match="this process is writing it already"), only_writer(place):
                pytest.fail("two write at once")
        os.killpg(holder.pid, signal.SIGKILL)
    assert not list(tmp_path.iterdir())
