"""Where verbs may write: whatever a glob matched, and by whatever name, nothing that is read is ever lost."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from segue.atomic import atomic_file
from segue.errors import ConfigError
from segue.places import check_folder, check_last, check_out, made_by

CSV = '"song_id","genre","cross_entropy_nats","answered_by","probability_Jazz"\n"a","Jazz",0.5,"student",1\n'
PAGE = '<!doctype html>\n<meta name="generator" content="segue describe">\n'


def file(path: Path, content: str = "somebody's work") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


OTHER_NAMES: dict[str, Callable[[Path], Path]] = {
    "the same": lambda path: path,
    "with ./": lambda path: path.parent / "." / path.name,
    "with ..": lambda path: path.parent / "elsewhere" / ".." / path.name,
    "a link": lambda path: link(path.with_name("link.csv"), path),
    "a link to a link": lambda path: link(path.with_name("second.csv"), link(path.with_name("link.csv"), path)),
    "through a linked folder": lambda path: link(path.parent.with_name("linked"), path.parent) / path.name,
    "a hard link": lambda path: hard_link(path.with_name("hard.csv"), path),
    "in upper case": lambda path: path.with_name(path.name.upper().replace(".CSV", ".csv")),
}


def link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def hard_link(path: Path, target: Path) -> Path:
    os.link(target, path)
    return path


@pytest.mark.parametrize("name", OTHER_NAMES.values(), ids=OTHER_NAMES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_read_is_never_written_by_any_name(
    tmp_path: Path, name: Callable[[Path], Path], overwrite: bool
) -> None:
    (tmp_path / "in/elsewhere").mkdir(parents=True)
    read = file(tmp_path / "in/songs.csv", CSV)
    out = name(read)
    with pytest.raises(ConfigError, match="than what is read, found the same file"):
        check_out(out, "score", [tmp_path / "other.arrow", read], overwrite=overwrite)
    with pytest.raises(ConfigError, match="than what is read, found the same file"):
        check_last([read], out, "score", [read], [".csv"], overwrite=overwrite)
    with pytest.raises(ConfigError, match="than what is read, found the same file"):
        check_out(read, "score", [out], overwrite=overwrite)


def test_two_ways_to_write_a_letter_are_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the same file"):
        check_out(tmp_path / "caf\u00e9.csv", "score", [tmp_path / "cafe\u0301.csv"], overwrite=True)


def test_nothing_is_written_into_a_folder_that_is_read(tmp_path: Path) -> None:
    file(tmp_path / "bundle/manifest.json")
    linked = link(tmp_path / "current", tmp_path / "bundle")
    for out in (tmp_path / "bundle/new.csv", linked / "new.csv", tmp_path / "bundle/deep/new.csv"):
        with pytest.raises(ConfigError, match=r"expected a place to write outside .*, all of which is read"):
            check_out(out, "score", [tmp_path / "bundle"], overwrite=True)
    check_out(tmp_path / "bundle.csv", "score", [tmp_path / "bundle"], overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_named_output_replaces_what_the_same_verb_made_and_else_only_what_it_is_told_to(
    tmp_path: Path, overwrite: bool
) -> None:
    check_out(tmp_path / "new.csv", "score", [], overwrite=overwrite)
    check_out(file(tmp_path / "own.csv", CSV), "score", [], overwrite=overwrite)
    for name, content, found in (
        ("work.csv", "id,grade\n", "found a file of 9 bytes that no verb made, which would be lost"),
        ("page.html", PAGE, "found what `segue describe` made, which would be lost"),
    ):
        out = file(tmp_path / name, content)
        if overwrite:
            check_out(out, "score", [], overwrite=True)
        else:
            with pytest.raises(ConfigError, match=f"{found}. Choose another place, or say --overwrite"):
                check_out(out, "score", [], overwrite=False)


def last(*paths: Path, overwrite: bool = False) -> None:
    check_last(paths[:-1], paths[-1], "score", paths[:-1], [".csv"], overwrite=overwrite)


def test_a_last_path_is_written_where_nothing_is(tmp_path: Path) -> None:
    last(tmp_path / "a.arrow", tmp_path / "new.csv")
    with pytest.raises(ConfigError, match=r"p3\.npz: expected a name that ends in \.csv, for the last path is what is"):
        last(tmp_path / "p1.npz", tmp_path / "p2.npz", tmp_path / "p3.npz")


def test_a_last_path_that_is_there_is_kept_whoever_made_it(tmp_path: Path) -> None:
    own, work, source = (file(tmp_path / name, text) for name, text in (("own.csv", CSV), ("w.csv", "x"), ("s", "y")))
    for paths in ([source, own], [source, work], [source, file(tmp_path / "t"), own], [work, own]):
        with pytest.raises(ConfigError, match=r"expected nothing there, for it is the last path .* `--out "):
            last(*paths)
    with pytest.raises(ConfigError, match="expected nothing there"):  # What a glob matched, and a flag forgotten in it.
        last(source, work, own, overwrite=True)
    last(source, work, overwrite=True)


def test_a_command_can_be_repeated(tmp_path: Path) -> None:
    out, source = file(tmp_path / "out/genres.csv", CSV), file(tmp_path / "in/songs.arrow")
    last(source, out)
    for other in (
        file(tmp_path / "in/scored.csv", CSV),  # made by the same verb: it may be an output too
        file(tmp_path / "elsewhere/Genres.csv", "x"),  # of the same name: a part of it may be meant
        file(tmp_path / "out/songs.arrow", "x"),  # in the same folder: a glob may have matched both
    ):
        with pytest.raises(ConfigError, match="expected nothing there"):
            last(other, out)
    with pytest.raises(ConfigError, match="expected nothing there"):
        last(source, file(tmp_path / "in/more.arrow"), out)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: os.mkfifo(path), "something that is neither file nor folder"),
        (lambda path: path.symlink_to(path), "a link that leads nowhere"),
    ],
)
def test_what_cannot_be_a_file_is_refused_before_any_work(
    tmp_path: Path, make: Callable[[Path], None], found: str
) -> None:
    make(tmp_path / "out.csv")
    with pytest.raises(ConfigError, match=rf"out\.csv: expected a place for a file, found {found}"):
        check_out(tmp_path / "out.csv", "score", [], overwrite=True)


def test_behind_a_link_the_file_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    target, out = file(tmp_path / "disk/t.csv", CSV), tmp_path / "l.csv"
    out.symlink_to("disk/t.csv")
    check_out(out, "score", [], overwrite=False)
    with atomic_file(out) as draft:
        assert draft.parent == target.parent
        draft.write_text("new")
    assert (target.read_text(), out.readlink()) == ("new", Path("disk/t.csv"))
    note, table = file(tmp_path / "disk/note.csv", "old"), tmp_path / "disk/t.arrow"
    check_out(link(tmp_path / "note.csv", note), "score", [], overwrite=False)
    table.write_bytes(b"ARROW1\0\0")
    with pytest.raises(ConfigError, match="that no verb made"):
        check_out(link(tmp_path / "table.csv", table), "score", [], overwrite=False)
    dangling = link(tmp_path / "d.csv", tmp_path / "disk/none.csv")
    with atomic_file(dangling) as draft:
        draft.write_text("new")
    assert (tmp_path / "disk/none.csv").read_text() == "new"


def test_a_folder_replaces_neither_what_is_read_nor_what_holds_it(tmp_path: Path) -> None:
    run = file(tmp_path / "run/run.json", "{}").parent
    songs = file(run / "songs.arrow")
    with pytest.raises(ConfigError, match=r"run: expected a place apart from .*songs\.arrow, which is read, lies"):
        check_folder(run, "run.json", [songs])
    with pytest.raises(ConfigError, match="expected another place to write than what is read"):
        check_folder(link(tmp_path / "again", run), "run.json", [run])
    with pytest.raises(ConfigError, match="expected a place to write outside"):
        check_folder(run / "student", "run.json", [run])
    check_folder(run, "run.json", [tmp_path / "songs.arrow"])


@pytest.mark.parametrize(
    ("content", "verb"),
    [
        (CSV, "score"),
        (CSV.replace('"', ""), "score"),
        (PAGE, "describe"),
        ("song_id,genre\n", None),
        ("", None),
        ("ARROW1\0\0 and then nothing", None),
        ("PAR1 and then nothing", None),
    ],
)
def test_the_verb_that_made_a_file_is_told_by_its_content(tmp_path: Path, content: str, verb: str | None) -> None:
    assert made_by(file(tmp_path / "file", content)) == verb
    assert made_by(tmp_path / "nothing") is None
    assert made_by(tmp_path) is None
