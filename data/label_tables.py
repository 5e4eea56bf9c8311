"""Labels in tables with a heading: CSV or TSV of paths or ids, genres, artists and splits; FMA's and MTG-Jamendo's own.

- CSV, TSV: a column `path`, `file`, `filename`, `id`, `song_id` or `track_id`; `genre` or `label`; and, where known,
  `artist` (or `group`) and `split`: train, validation, calibration or test
- FMA: `fma_metadata/tracks.csv`, three lines of heading; the genre is `genre_top`, the split that of `set`
- MTG-Jamendo: `autotagging_genre.tsv`; the genre is the first tag that begins with `genre---`
"""

import csv
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from segue.data.labels import LabelFile, label_of
from segue.errors import LabelError

KEYS = ("path", "file", "filename", "id", "song_id", "track_id")
GENRES = ("genre", "label", "genre_top")
ARTISTS = ("artist", "group", "artist_id", "artist_name")
SPLITS = ("split",)
SPLIT_NAMES = {  # As people spell them.
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "calibration": "calibration", "test": "test", "testing": "test",
}  # fmt: skip
JAMENDO_TAG = "genre---"
FMA_GENRE, FMA_ARTIST, FMA_SPLIT = ("track", "genre_top"), ("artist", "name"), ("set", "split")


def read_label_table(path: Path) -> LabelFile | None:
    """Return what a table with a heading says; None if the file has none, and so is another kind of label file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            return _read(path, csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None  # Whoever reads the other kinds says what is wrong.


def _read(path: Path, lines: Iterator[list[str]]) -> LabelFile | None:
    first = next(lines, [])
    heading = [name.strip().lower() for name in first]
    if heading[:2] == ["track_id", "artist_id"] and "tags" in heading:
        at = heading.index("tags")
        rows = ((line[heading.index("path")], _jamendo(line[at:]), line[1], None) for line in lines if line)
        return _labels(path, rows)
    if len(first) > 2 and not first[0] and "track" in heading:
        second, _ = next(lines, []), next(lines, [])
        named = list(zip(heading, second, strict=False))
        if FMA_GENRE not in named:
            return None
        columns: list[int | None] = [
            0,
            *(named.index(one) if one in named else None for one in (FMA_GENRE, FMA_ARTIST, FMA_SPLIT)),
        ]
    else:
        columns = [_place(heading, names) for names in (KEYS, GENRES, ARTISTS, SPLITS)]
        if None in columns[:2]:
            return None
    return _labels(path, ([_at(line, place) for place in columns] for line in lines if line))


def _labels(path: Path, rows: Iterable[Sequence[str | None]]) -> LabelFile:
    """Return what rows of key, genre, artist and split say."""
    pairs: dict[str, tuple[str, str | None]] = {}
    artists: dict[str, str] = {}
    splits: dict[str, str] = {}
    conflicts: dict[str, tuple[str, str]] = {}
    for key, genre, artist, split in rows:
        name = (key or "").strip().replace("\\", "/").removeprefix("./")
        if not name:
            continue
        label, group = label_of(genre), label_of(artist)
        if group is not None:
            artists.setdefault(name, group)
        if (named := label_of(split)) is not None:
            splits.setdefault(name, _split(named, path, name))
        if label is not None:
            known = pairs.setdefault(name, (label, None))[0]
            if known != label:
                conflicts.setdefault(name, (known, label))
    if not pairs:
        raise LabelError(f"{path}: expected at least one row with a genre, found none")
    return LabelFile(pairs, conflicts, artists, splits)


def _split(text: str, path: Path, name: str) -> str:
    known = SPLIT_NAMES.get(text.lower())
    if known is None:
        raise LabelError(f"{path}, {name}: expected a split {', '.join(SPLIT_NAMES)}, found {text!r}")
    return known


def key_of(song_id: str, keys: Container[str]) -> str | None:
    """Return which of the keys of a label file a song is meant by: its id, the end of its path, or its number."""
    return next((key for key in _spellings(song_id) if key in keys), None)


def _spellings(song_id: str) -> Iterator[str]:
    yield song_id
    parts = song_id.split("/")
    stem = PurePosixPath(parts[-1]).stem.removesuffix(".low")
    for first in range(len(parts)):
        yield "/".join(parts[first:])
        yield "/".join([*parts[first:-1], stem])
        yield "/".join([*parts[first:-1], f"{stem}.mp3"])  # Jamendo's own spelling of a file of less quality.
    yield stem.lstrip("0")  # FMA: track 2 is in 000/000002.mp3.


def _jamendo(tags: Sequence[str]) -> str | None:
    return next((tag.removeprefix(JAMENDO_TAG) for tag in tags if tag.startswith(JAMENDO_TAG)), None)


def _place(heading: Sequence[str], names: Sequence[str]) -> int | None:
    return next((heading.index(name) for name in names if name in heading), None)


def _at(line: Sequence[str], place: int | None) -> str | None:
    return line[place] if place is not None and place < len(line) else None
