"""The two sets of genres of the study, and label files of the Million Song Dataset with both genres of a track.

A label file has one track a line, tab-separated `track_id<TAB>genre[<TAB>second genre]`: tagtraum's `.cls` files, where
CD1 and CD2 have a second genre for some tracks and CD2C for none (Schreiber 2015), and MASD, MAGD and Top-MAGD
(Schindler et al. 2012). Lines that start with `#` are comments.
"""

import zipfile
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


def read_label_pairs(path: Path) -> dict[str, tuple[str, str | None]]:
    """Return the genre and the second genre, if any, of each track id in the file; see the module.

    A malformed line is a `LabelError` that names the line.
    """
    if not path.is_file():
        raise LabelError(f"{path}: expected a label file, found no such file")
    if zipfile.is_zipfile(path):
        raise LabelError(f"{path}: expected a label file, found a zip archive. Unzip it first.")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        labels = dict(
            _label(line, f"{path}, line {number}")
            for number, line in enumerate(file, start=1)
            if line.strip() and not line.startswith("#")
        )
    if not labels:
        raise LabelError(f"{path}: expected at least one labelled track, found none")
    return labels


def _label(line: str, where: str) -> tuple[str, tuple[str, str | None]]:
    track_id, *genres = (field.strip() for field in line.split("\t"))
    if not track_id or not genres or not genres[0] or len(genres) > 2:
        raise LabelError(f"{where}: expected track id, tab, genre[, tab, genre]; found {line.rstrip()!r}")
    return track_id, (genres[0], genres[1] or None if len(genres) == 2 else None)
