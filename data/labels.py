"""The two sets of genres of the study, and label files of the Million Song Dataset with both genres of a track.

A label file has one track a line, tab-separated `track_id<TAB>genre[<TAB>second genre]`: tagtraum's `.cls` files, where
CD1 and CD2 have a second genre for some tracks and CD2C for none (Schreiber 2015), and MASD, MAGD and Top-MAGD
(Schindler et al. 2012). Lines that start with `#` are comments.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from segue.errors import LabelError

# The ten of tagtraum CD2C's fifteen genres with at least 5,000 songs, as `msd_tagtraum_cd2c.cls` spells them. Left out:
# World, Latin, Punk, Folk, New Age. http://www.tagtraum.com/msd_genre_datasets.html
MSD_10 = ("Rap", "Rock", "RnB", "Electronic", "Metal", "Blues", "Pop", "Jazz", "Country", "Reggae")

# The MSD Allmusic Style Dataset's 25 styles, as `msd-MASD-styleAssignment.cls` spells them.
# http://www.ifs.tuwien.ac.at/mir/msd/MASD.html
MSD_25 = (
    "Big_Band",
    "Blues_Contemporary",
    "Country_Traditional",
    "Dance",
    "Electronica",
    "Experimental",
    "Folk_International",
    "Gospel",
    "Grunge_Emo",
    "Hip_Hop_Rap",
    "Jazz_Classic",
    "Metal_Alternative",
    "Metal_Death",
    "Metal_Heavy",
    "Pop_Contemporary",
    "Pop_Indie",
    "Pop_Latin",
    "Punk",
    "Reggae",
    "RnB_Soul",
    "Rock_Alternative",
    "Rock_College",
    "Rock_Contemporary",
    "Rock_Hard",
    "Rock_Neo_Psychedelia",
)


# What people hand in as a label file and is none, by its first bytes.
PACKED = {
    b"PK": "a zip archive. Unzip it first.",
    b"\x1f\x8b": "a gzip file. Unpack it first: gunzip FILE.",
    b"BZh": "a bzip2 file. Unpack it first: bunzip2 FILE.",
    b"\xfd7zXZ": "an xz file. Unpack it first: unxz FILE.",
    b"\x28\xb5\x2f\xfd": "a Zstandard file. Unpack it first: unzstd FILE.",
    b"\xff\xfe": "text in UTF-16. Convert it first: iconv -f UTF-16 -t UTF-8 FILE.",
    b"\xfe\xff": "text in UTF-16. Convert it first: iconv -f UTF-16 -t UTF-8 FILE.",
}


@dataclass(frozen=True)
class LabelFile:
    """What a label file says."""

    pairs: dict[str, tuple[str, str | None]]  # The genre and the second genre, if any, by track id.
    conflicts: dict[str, tuple[str, str]]  # Tracks that have two genres on two lines: the first, which counts, and
    # the other.
    artists: dict[str, str] = field(default_factory=dict)  # By track id, where the file says it.
    splits: dict[str, str] = field(default_factory=dict)  # Likewise: train, validation, calibration or test.

    @cached_property
    def keys(self) -> frozenset[str]:
        """All track ids of which the file says anything."""
        return frozenset().union(self.pairs, self.artists, self.splits)


def label_of(text: str | None) -> str | None:
    """Return a label as it counts: without space around it, and None where it is empty or blank."""
    return (text or "").strip() or None


def read_labels(path: Path) -> LabelFile:
    """Return the genre and the second genre, if any, of each track id in the file; see the module.

    A file that is no text in UTF-8, and a malformed line, is a `LabelError` that names the line.
    """
    if not path.is_file():
        found = "something else" if path.exists() else "no such file"
        raise LabelError(f"{path}: expected a label file, found {found}")
    with path.open("rb") as file:
        start = file.read(4096)
    _check_text(path, start)
    pairs: dict[str, tuple[str, str | None]] = {}
    conflicts: dict[str, tuple[str, str]] = {}
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith("#") or not line.strip():
                continue
            track_id, genres = _label(line, f"{path}, line {number}")
            first = pairs.setdefault(track_id, genres)
            if first[0] != genres[0]:
                conflicts.setdefault(track_id, (first[0], genres[0]))
    if not pairs:
        raise LabelError(f"{path}: expected at least one labelled track, found none")
    return LabelFile(pairs, conflicts)


def _check_text(path: Path, start: bytes) -> None:
    packed = next((what for magic, what in PACKED.items() if start.startswith(magic)), None)
    if packed or b"\0" in start:
        raise LabelError(f"{path}: expected a label file, found {packed or 'a binary file'}")


def _label(line: str, where: str) -> tuple[str, tuple[str, str | None]]:
    try:
        line.encode()
    except UnicodeEncodeError as error:
        odd = line[error.start].encode(errors="surrogateescape")
        raise LabelError(
            f"{where}: expected text in UTF-8, found the byte {odd!r}. "
            "If the file is in Latin-1, convert it first: iconv -f LATIN1 -t UTF-8 FILE."
        ) from None
    track_id, *genres = (field.strip() for field in line.split("\t"))
    if not track_id or not genres or not genres[0] or len(genres) > 2:
        raise LabelError(f"{where}: expected track id, tab, genre[, tab, genre]; found {line.rstrip()!r}")
    return track_id, (genres[0], genres[1] or None if len(genres) == 2 else None)
