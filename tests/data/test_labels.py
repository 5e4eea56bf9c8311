"""Genres: both genres of a track are read from every label file, and the two sets are spelled as in the files."""

import bz2
import csv
import gzip
import lzma
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.labels import MSD_10, MSD_25, label_of, read_labels
from segue.errors import LabelError

CD1 = "# tagtraum\n# CD1\n#\nTR1\tJazz\tVocal\nTR2\tPop_Rock\n"
CD2 = "# CD2\nTR1\tMetal\tNew Age\nTR2\tPunk\n"
CD2C = "# CD2C\nTR1\tRnB\nTR2\tRap\n"
MASD = "TR1\tBig_Band\nTR2\tRock_Neo_Psychedelia\n"
TOP_MAGD = "TR1\tNew_Age\r\nTR2\tPop_Rock\r\n"


def save(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(CD1, {"TR1": ("Jazz", "Vocal"), "TR2": ("Pop_Rock", None)}, id="CD1"),
        pytest.param(CD2, {"TR1": ("Metal", "New Age"), "TR2": ("Punk", None)}, id="CD2"),
        pytest.param(CD2C, {"TR1": ("RnB", None), "TR2": ("Rap", None)}, id="CD2C"),
        pytest.param(MASD, {"TR1": ("Big_Band", None), "TR2": ("Rock_Neo_Psychedelia", None)}, id="MASD"),
        pytest.param("TR1\tNew Age\n", {"TR1": ("New Age", None)}, id="spaces"),
        pytest.param(
            "TR1\tJazz\r\nTR2\tRock\tBlues\r\n", {"TR1": ("Jazz", None), "TR2": ("Rock", "Blues")}, id="Windows"
        ),
        pytest.param(TOP_MAGD, {"TR1": ("New_Age", None), "TR2": ("Pop_Rock", None)}, id="Top-MAGD"),
        pytest.param(
            "\ufeffTR1\tJazz \t\n\n  \nTR2\tPunk\t Ska", {"TR1": ("Jazz", None), "TR2": ("Punk", "Ska")}, id="odd"
        ),
    ],
)
def test_both_genres_of_every_track_are_read(
    tmp_path: Path, text: str, expected: dict[str, tuple[str, str | None]]
) -> None:
    path = save(tmp_path / "songs.cls", text)
    assert read_labels(path).pairs == expected


@pytest.mark.parametrize("line", ["TR2 Jazz", "TR2", "TR2\t", "\tJazz", "TR2\t\tJazz", "TR2\tJazz\tVocal\tFolk"])
def test_a_malformed_line_is_named_with_its_number(tmp_path: Path, line: str) -> None:
    path = save(tmp_path / "songs.cls", f"# comment\nTR1\tJazz\n{line}\n")
    with pytest.raises(LabelError) as raised:
        read_labels(path)
    assert str(raised.value).startswith(f"{path}, line 3: expected track id, tab, genre")
    assert f"found {line.rstrip()!r}" in str(raised.value)


@pytest.mark.parametrize("text", ["", "# nothing here\n"])
def test_a_file_without_labels_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabelError, match=r"songs\.cls: expected at least one labelled track, found none"):
        read_labels(save(tmp_path / "songs.cls", text))


def test_of_two_genres_of_a_track_the_first_counts_and_the_conflict_is_told(tmp_path: Path) -> None:
    text = "TR1\tRock\nTR2\tJazz\nTR1\tPop\nTR2\tJazz\tSwing\nTR1\tPunk\n"
    labels = read_labels(save(tmp_path / "songs.cls", text))
    assert labels.pairs == {"TR1": ("Rock", None), "TR2": ("Jazz", None)}
    assert labels.conflicts == {"TR1": ("Rock", "Pop")}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (gzip.compress(b"TR1\tJazz\n", mtime=0), "a gzip file. Unpack it first"),
        (bz2.compress(b"TR1\tJazz\n"), "a bzip2 file"),
        (lzma.compress(b"TR1\tJazz\n"), "an xz file"),
        ("TR1\tJazz\n".encode("utf-16"), "text in UTF-16. Convert it first"),
        ("\ufeffTR1\tJazz\n".encode("utf-16-be"), "text in UTF-16. Convert it first"),
        ("TR1\tJazz\n".encode("utf-16-le"), "a binary file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "a binary file"),
    ],
)
def test_a_file_that_is_no_text_in_utf_8_is_called_what_it_is(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "songs.cls").write_bytes(content)
    with pytest.raises(LabelError, match=rf"songs\.cls: expected a label file, found {found}"):
        read_labels(tmp_path / "songs.cls")


@pytest.mark.parametrize("name", ["M\xfasica", "Stra\xdfe", "\xe9"])
def test_latin_1_is_refused_by_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "songs.cls").write_bytes(f"TR1\tJazz\nTR2\t{name}\n".encode("latin-1"))
    with pytest.raises(LabelError, match=r"songs\.cls, line 2: expected text in UTF-8, found the byte b'.x[def]"):
        read_labels(tmp_path / "songs.cls")


@pytest.mark.parametrize(
    ("text", "label"), [("Pop", "Pop"), (" Pop\n", "Pop"), ("", None), (" \t\xa0", None), (None, None)]
)
def test_a_blank_label_is_none(text: str | None, label: str | None) -> None:
    assert label_of(text) == label


def test_a_folder_is_no_label_file(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="expected a label file, found something else"):
        read_labels(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"gone\.cls: expected a label file, found no such file"):
        read_labels(tmp_path / "gone.cls")


def test_the_archive_as_tagtraum_publishes_it_is_to_be_unzipped(tmp_path: Path) -> None:
    path = tmp_path / "msd_tagtraum_cd2c.cls.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("msd_tagtraum_cd2c.cls", CD2C)
    with pytest.raises(LabelError, match=r"cls\.zip: expected a label file, found a zip archive\. Unzip it first\."):
        read_labels(path)


GENRES = st.text("ABCdef_ ", min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(st.from_regex(r"TR[A-Z0-9]{4}", fullmatch=True), st.tuples(GENRES, GENRES | st.none())))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: dict[str, tuple[str, str | None]]
) -> None:
    lines = ["\t".join(filter(None, (track_id, *genres))) for track_id, genres in pairs.items()]
    path = save(tmp_path_factory.mktemp("labels") / "songs.cls", "\n".join([*lines, "TR0\tJazz"]))
    assert read_labels(path).pairs == {**pairs, "TR0": ("Jazz", None)}


def test_the_two_sets_are_those_of_the_study() -> None:
    assert (len(MSD_10), len(set(MSD_10)), len(MSD_25), len(set(MSD_25))) == (10, 10, 25, 25)
    assert list(MSD_25) == sorted(MSD_25, key=str.lower)
    assert all(word[0].isupper() for style in MSD_25 for word in style.split("_"))


@pytest.mark.parametrize("name", ["msd_tagtraum_cd1.cls", "msd_subset_magd_intersection.tsv"])
def test_published_files_are_read_as_a_plain_reader_does_and_spell_the_genres_alike(
    real_songs: Path, name: str
) -> None:
    pairs = read_labels(real_songs / "labels" / name).pairs
    with (real_songs / "labels" / name).open(newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if not row[0].startswith("#")]
    assert pairs == {track_id: (first, *second) if second else (first, None) for track_id, first, *second in rows}
    published = {first for first, _ in pairs.values()}
    assert published >= set(MSD_10) - {"Rock", "Pop", "Metal"}  # CD1 and Top-MAGD have these as Pop_Rock
