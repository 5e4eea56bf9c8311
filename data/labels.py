"""Label files of the Million Song Dataset: one track a line, tab-separated `track_id<TAB>genre[<TAB>second genre]`.

The layout of the tagtraum `.cls` files (Schreiber 2015) and of the MASD / Top-MAGD files (Schindler et al. 2012); lines
that start with `#` are comments.
"""

from pathlib import Path

from data.errors import LabelError


def read_labels(path: Path) -> dict[str, str]:
    """Return the first genre of each track id in the file; a malformed line is a `LabelError` that names the line."""
    if not path.is_file():
        raise LabelError(f"{path}: expected a label file, found no such file")
    labels: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith("#") or not line.strip():
                continue
            track_id, *genres = line.rstrip("\r\n").split("\t")
            if not track_id or not genres or not genres[0]:
                raise LabelError(
                    f"{path}, line {number}: expected track id, tab, genre[, tab, genre]; found {line.rstrip()!r}"
                )
            labels[track_id] = genres[0]
    if not labels:
        raise LabelError(f"{path}: expected at least one labelled track, found none")
    return labels
