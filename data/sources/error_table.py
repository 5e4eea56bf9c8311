"""The songs that a conversion left out, one a line beside the table: `OUT.errors.tsv`, with its name and the reason."""

from pathlib import Path

from segue.data.sources.source import Skipped
from segue.places import ERROR_TABLE_HEAD


class ErrorTable:
    """Lists every song that could not be read; there is no file where there is no such song."""

    def __init__(self, out: Path, goes_on: bool) -> None:
        """Begin the list of the table `out`; a conversion that goes on keeps what an earlier run listed."""
        self._path = error_table_of(out)
        self._listed: set[str] = set()
        if not goes_on:
            self._path.unlink(missing_ok=True)
        elif self._path.is_file():
            self._listed = set(self._path.read_text(encoding="utf-8").splitlines())

    def append(self, song: Skipped) -> None:
        """Add a song, unless a run that was killed after it has listed it already."""
        line = "\t".join(" ".join(text.split()) for text in (song.name, song.reason))
        if line not in self._listed:
            with self._path.open("a", encoding="utf-8", errors="replace") as file:
                file.write((line if file.tell() else f"{ERROR_TABLE_HEAD}{line}") + "\n")


def error_table_of(out: Path) -> Path:
    """Return where the list of the table `out` lies."""
    return out.with_name(f"{out.name}.errors.tsv")
