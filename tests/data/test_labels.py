"""Label files: both layouts are read, and a malformed line is named."""

from pathlib import Path

import pytest

from data.errors import LabelError
from data.labels import read_labels


def save(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("TR1\tJazz\nTR2\tPop_Rock\n", id="id and genre"),
        pytest.param("TR1\tJazz\tVocal\nTR2\tPop_Rock\n", id="second genre"),
        pytest.param("# tagtraum\n#\n\nTR1\tJazz\n  \nTR2\tPop_Rock", id="comments and blank lines"),
        pytest.param("TR1\tJazz\r\nTR2\tPop_Rock\tBlues\r\n", id="Windows lines"),
    ],
)
def test_the_first_genre_of_every_track_is_read(tmp_path: Path, text: str) -> None:
    assert read_labels(save(tmp_path / "songs.cls", text)) == {"TR1": "Jazz", "TR2": "Pop_Rock"}


def test_a_genre_may_hold_spaces(tmp_path: Path) -> None:
    assert read_labels(save(tmp_path / "songs.cls", "TR1\tNew Age\n")) == {"TR1": "New Age"}


@pytest.mark.parametrize("line", ["TR2 Jazz", "TR2", "TR2\t", "\tJazz", "TR2\t\tJazz"])
def test_a_malformed_line_is_named_with_its_number(tmp_path: Path, line: str) -> None:
    path = save(tmp_path / "songs.cls", f"# comment\nTR1\tJazz\n{line}\n")
    with pytest.raises(LabelError) as raised:
        read_labels(path)
    assert str(raised.value).startswith(f"{path}, line 3: expected track id, tab, genre")
    assert f"found {line.rstrip()!r}" in str(raised.value)


def test_a_file_of_comments_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"songs\.cls: expected at least one labelled track, found none"):
        read_labels(save(tmp_path / "songs.cls", "# nothing here\n"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"gone\.cls: expected a label file, found no such file"):
        read_labels(tmp_path / "gone.cls")
