"""Source: audio files, one or a folder tree of them, analysed by worker processes into `segue-audio-1` segments.

A song's id is its path from the folder that was named. In a tree of folders the first folder below the top is the
genre, as in GTZAN's `genres/rock/rock.00001.wav`, and a second one the artist; `--labels` says otherwise.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from segue.data.analyser.analyse import Analysis
from segue.data.analyser.complete import sniff
from segue.data.analyser.workers import Workers
from segue.data.song import Features, Songs, Units
from segue.data.sources.folder import Listing, has_file, list_files
from segue.data.sources.source import Kind, Options, Skipped, Source, join, readable
from segue.data.table import SongBatch

log = logging.getLogger(__name__)

SUFFIXES = (".mp3", ".flac", ".wav", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".m4a", ".mp4", ".aac", ".mka", ".wma")
BATCH_FILES = 32  # A run that is killed loses at most so many.


class AudioFiles:
    """The recordings of a file or of a folder tree, in the order of their paths."""

    units: Units = "raw"
    features: Features = "segue-audio-1"

    def __init__(self, path: Path, name: str | None = None) -> None:
        """List the files under `path`; nothing is decoded yet."""
        listing = list_files(path, SUFFIXES) if path.is_dir() else Listing([path], {})
        self.files, self.passed_over = listing.files, listing.passed_over
        root = name or readable(path.stem)
        if path.is_dir():
            below = [file.relative_to(path) for file in self.files]
            self.song_ids = [f"{root}/{readable(str(file))}" for file in below]
            folders = [[readable(part) for part in file.parts[:-1]] for file in below]
        else:
            self.song_ids, folders = [root + path.suffix], [[]]
        shared = _shared(folders)
        self._labels = [places[shared] if len(places) > shared else None for places in folders]
        self._groups = [places[shared + 1] if len(places) > shared + 1 else None for places in folders]
        self.classes = tuple(sorted({label for label in self._labels if label is not None}))

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start`; a file that cannot be analysed is yielded as `Skipped`."""
        held: list[SongBatch] = []
        with Workers() as workers:
            for row, found in enumerate(workers.map(self.files[start:]), start=start):
                if not isinstance(found, Analysis):
                    if held:  # Songs come in the order of the files, so that a run can go on after any of them.
                        yield join(held)
                        held = []
                    yield Skipped(self.song_ids[row], str(found))
                    continue
                for warning in found.warnings:
                    log.info("%s: %s", self.song_ids[row], warning)
                held.append(self._song(row, found))
                if len(held) == BATCH_FILES:
                    yield join(held)
                    held = []
        if held:
            yield join(held)

    def _song(self, row: int, found: Analysis) -> SongBatch:
        return SongBatch([self.song_ids[row]], Songs.of([found.segments]), [self._labels[row]], [self._groups[row]])


def recognises(path: Path) -> bool:
    """Tell whether `path` is a file that begins like sound, or a folder with files that are named like it."""
    if path.is_dir():
        return has_file(path, SUFFIXES)
    with path.open("rb") as file:
        return sniff(file.read(4096)) is not None


def _shared(folders: list[list[str]]) -> int:
    """Return how many folders lie above all files: they tell nothing apart."""
    first = folders[0] if folders else []
    shared = 0
    while shared < len(first) and all(places[shared : shared + 1] == [first[shared]] for places in folders):
        shared += 1
    return shared


def _open(path: Path, options: Options) -> Source:
    return AudioFiles(path, options.name)


KIND = Kind(
    name="audio",
    about="audio files (mp3, flac, wav, ogg, opus, aiff, m4a), one or a folder tree of them; the folder is the genre",
    recognises=recognises,
    open=_open,
)
