"""Atomic files and folders: the old one or the new one, never half of one."""

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from segue.atomic import atomic_file, atomic_folder
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
