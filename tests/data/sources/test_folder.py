"""Folder trees: links are followed once, suffixes count in any case, and whatever is not read is named."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.sources.folder import has_file, kind_of_file, list_files, names_of
from segue.data.sources.source import Tally


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_suffixes_count_in_any_case_and_the_rest_is_counted(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.json", "b.JSON", "c.Json.GZ", "d.txt", "deep/e.json", "f", "g.H5.gz")))
    listing = list_files(tmp_path, (".json", ".json.gz"))
    assert [str(file.relative_to(tmp_path)) for file in listing.files] == [
        "a.json",
        "b.JSON",
        "c.Json.GZ",
        "deep/e.json",
    ]
    assert listing.passed_over == {
        "another kind of file (.txt)": Tally(1, ["d.txt"]),
        "another kind of file (no suffix)": Tally(1, ["f"]),
        "another kind of file (.h5.gz)": Tally(1, ["g.H5.gz"]),
    }


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    touch(tmp_path / "disk/a.h5", tmp_path / "tree/b.h5", tmp_path / "one/c.h5")
    (tmp_path / "tree/disk").symlink_to(tmp_path / "disk")
    (tmp_path / "tree/again").symlink_to(tmp_path / "disk")
    (tmp_path / "tree/loop").symlink_to(tmp_path / "tree")
    (tmp_path / "tree/d.h5").symlink_to(tmp_path / "one/c.h5")
    listing = list_files(tmp_path / "tree", (".h5",))
    assert [file.name for file in listing.files] == ["a.h5", "b.h5", "d.h5"]
    assert listing.passed_over == {"a link to a folder that is read already": Tally(2, ["disk", "loop"])}


def test_a_deep_tree_and_odd_names_are_listed(tmp_path: Path) -> None:
    touch(tmp_path.joinpath(*["d"] * 300, "a.h5"))
    (tmp_path / os.fsdecode(b"caf\xe9.h5")).touch()
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).touch()
    listing = list_files(tmp_path, (".h5",))
    assert len(listing.files) == 2
    assert listing.passed_over == {"another kind of file (.txt)": Tally(1, ["caf�.txt"])}


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.h5", tmp_path / "closed/b.h5")
    (tmp_path / "closed").chmod(0)
    listing = list_files(tmp_path, (".h5",))
    (tmp_path / "closed").chmod(0o700)
    assert listing.passed_over == {"a folder that cannot be read (Permission denied)": Tally(1, ["closed"])}


def test_whether_there_is_one(tmp_path: Path) -> None:
    touch(tmp_path / "tree/deep/a.H5")
    os.mkfifo(tmp_path / "b.json")
    assert has_file(tmp_path, (".h5",))
    assert not has_file(tmp_path, (".json",))
    assert not has_file(tmp_path / "tree/deep/a.H5", (".h5",))


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    files = ["one.json", "TR1/analysis.json", "TR2/analysis.json", "x/b.json", "x/b.json.gz", "x/b.jsonl"]
    odd = [os.fsdecode(b"caf\xe8.json"), os.fsdecode(b"caf\xe9.json"), os.fsdecode(b"th\xe9.json")]
    assert names_of([tmp_path / name for name in [*files, *odd]], tmp_path) == [
        "one",
        "TR1/analysis",
        "TR2/analysis",
        "x/b.json",
        "x/b.json.gz",
        "x/b.jsonl",
        "caf\\xe8.json",
        "caf\\xe9.json",
        "th�",
    ]


@given(st.sets(st.from_regex(r"([ab]/){0,2}[ab]{1,2}\.(json|jsonl|json\.gz)", fullmatch=True), min_size=1))
def test_no_two_files_share_a_name(paths: set[str]) -> None:
    files = [Path("/root") / path for path in sorted(paths)]
    names = names_of(files, Path("/root"))
    assert len(set(names)) == len(files)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.JSON", ".json"), ("a.tar.GZ", ".tar.gz"), ("a", "no suffix"), (".hidden", "no suffix")]
)
def test_the_kind_of_a_file_is_its_suffix(name: str, kind: str) -> None:
    assert kind_of_file(Path(name)) == kind
