"""Source: Echo Nest and Spotify audio analyses in JSON: one in a file, a folder tree of such files, or one on a line.

An analysis is an object with `segments`, each with `timbre` (12 numbers), `pitches` (12 numbers) and `loudness_start`
(dB); everything else but its names is ignored (Jehan and DesRoches, Analyzer Documentation, The Echo Nest 2014). The
first of `IDS` that it has names the song, else the name of its file, with the number of its line where there are many.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from segue.data.song import Songs, Units, check_segments
from segue.data.sources.folder import Listing, has_file, list_files, names_of
from segue.data.sources.source import Kind, Options, Skipped, Source, in_batches, readable
from segue.data.table import SongBatch
from segue.errors import SongError

IDS = ("track.id", "id", "track_id", "meta.id", "meta.track_id")
ARTISTS = ("artist_id", "artist", "track.artist_id", "track.artist", "meta.artist_id", "meta.artist")
GENRES = ("genre", "track.genre", "meta.genre")

ONE_A_LINE = (".jsonl", ".ndjson")
SUFFIXES = (".json", *ONE_A_LINE)
NUMBERS = {int, float}
BLANKS = b"\xef\xbb\xbf \t\r\n"  # with the byte order mark that some editors put first


class AnalysisFiles:
    """The analyses of a file, or of all JSON files of a folder tree in the order of their names."""

    units: Units = "raw"
    classes: tuple[str, ...] = ()

    def __init__(self, path: Path, name: str | None = None) -> None:
        """List the files under `path`; in a folder, only those that end in `.jsonl` or `.ndjson` hold one a line."""
        if not recognises(path):
            raise SongError(
                f"{path}: expected audio analyses, JSON objects with 'segments', or a folder with files of them "
                f"({', '.join(SUFFIXES)}); found none"
            )
        self._root = path
        listing = list_files(path, SUFFIXES) if path.is_dir() else Listing([path], {})
        self._files, self.passed_over = listing.files, listing.passed_over
        names = names_of(self._files, path if path.is_dir() else path.parent)
        self._names = {path: name} if name and path.is_file() else dict(zip(self._files, names, strict=True))
        self._one_a_line = {file for file in self._files if file.suffix.lower() in ONE_A_LINE}
        if path.is_file() and _looks_like_lines(path):
            self._one_a_line.add(path)

    def __len__(self) -> int:
        return sum(_count_lines(file) if file in self._one_a_line else 1 for file in self._files)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start`; an analysis that cannot be read is yielded as `Skipped`."""
        return in_batches(read() for read in islice(self._unread(), start, None))

    def _unread(self) -> Iterator[Callable[[], SongBatch | Skipped]]:
        """Yield what reads each analysis: those before `start` are passed over unread."""
        for file in self._files:
            name = readable(str(file.relative_to(self._root)) if file != self._root else file.name)
            if file not in self._one_a_line:
                yield partial(_song_of_file, file, name, self._names[file])
                continue
            try:
                with file.open("rb") as lines:
                    for number, line in enumerate(lines, start=1):
                        if line.strip(BLANKS):
                            yield partial(_song, line, f"{name}, line {number}", f"{self._names[file]}-{number:06d}")
            except OSError as error:
                yield partial(Skipped, name, f"not a readable file: {error}")


def recognises(path: Path) -> bool:
    """Tell whether `path` is a file that begins like a JSON object, or a folder with JSON files."""
    if path.is_dir():
        return has_file(path, SUFFIXES)
    try:
        with path.open("rb") as file:
            return file.read(4096).lstrip(BLANKS).startswith(b"{")
    except OSError:
        return False


def _looks_like_lines(file: Path) -> bool:
    """Tell by the first two lines: within one JSON object, no line that begins with { follows one that ends with }."""
    with file.open("rb") as lines:
        filled = filter(None, (line.strip(BLANKS) for line in lines))
        first, second = next(filled, b""), next(filled, b"")
    return first.endswith(b"}") and second.startswith(b"{")


def _count_lines(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return sum(1 for line in lines if line.strip(BLANKS))
    except OSError:
        return 1  # it will be skipped as one


def _song_of_file(file: Path, name: str, default_id: str) -> SongBatch | Skipped:
    try:
        return _song(file.read_bytes(), name, default_id)
    except OSError as error:
        return Skipped(name, f"not a readable file: {error}")


def _song(text: bytes, place: str, default_id: str) -> SongBatch | Skipped:
    try:
        analysis = _parse(text)
        song_id = _name(analysis, IDS) or default_id
        segments = check_segments(_rows(analysis, f"song {song_id!r}"), song_id)
    except SongError as error:
        return Skipped(place, str(error))
    return SongBatch([song_id], Songs.of([segments]), [_name(analysis, GENRES)], [_name(analysis, ARTISTS)])


def _parse(text: bytes) -> dict[str, Any]:
    try:
        analysis = json.loads(text)
    except (ValueError, RecursionError) as error:
        advice = ". One analysis on a line needs a file that ends in .jsonl" if "Extra data" in str(error) else ""
        raise SongError(f"not a readable audio analysis in JSON, it may be cut short: {error}{advice}") from None
    if not isinstance(analysis, dict):
        raise SongError(f"expected an audio analysis, a JSON object, found {_shown(analysis)}")
    return analysis


def _name(analysis: Mapping[str, Any], places: Sequence[str]) -> str | None:
    """Return the first text or whole number at one of `places`, such as `track.id`; None where there is none."""
    for place in places:
        parent, _, key = place.rpartition(".")
        holder = analysis.get(parent) if parent else analysis
        value = holder.get(key) if isinstance(holder, dict) else None
        if type(value) in (str, int) and str(value).strip():
            return str(value).encode(errors="replace").decode()  # JSON can spell half characters, Arrow cannot
    return None


def _rows(analysis: Mapping[str, Any], song: str) -> list[list[float]]:
    segments = analysis.get("segments")
    if not isinstance(segments, list):
        raise SongError(f"{song}: expected a list in 'segments', found {_found(analysis, 'segments')}")
    return [_row(segment, f"{song}, segment {number}") for number, segment in enumerate(segments)]


def _row(segment: Any, where: str) -> list[float]:
    if not isinstance(segment, dict):
        raise SongError(f"{where}: expected an object with timbre, pitches and loudness_start, found {_shown(segment)}")
    loudness: Any = segment.get("loudness_start")
    if type(loudness) not in NUMBERS:
        raise SongError(f"{where}: expected a number in 'loudness_start', found {_found(segment, 'loudness_start')}")
    return [*_twelve(segment, "timbre", where), *_twelve(segment, "pitches", where), loudness]


def _twelve(segment: Mapping[str, Any], key: str, where: str) -> list[float]:
    values = segment.get(key)
    if isinstance(values, list) and len(values) == 12 and set(map(type, values)) <= NUMBERS:
        return values
    raise SongError(f"{where}: expected 12 numbers in {key!r}, found {_found(segment, key)}")


def _found(holder: Mapping[str, Any], key: str) -> str:
    if key not in holder:
        return "no such key"
    value = holder[key]
    if not isinstance(value, list):
        return _shown(value)
    strange = [_shown(one) for one in value if type(one) not in NUMBERS]
    return f"{len(value)} values" + (f", one of them {strange[0]}" if strange else "")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _open(path: Path, options: Options) -> Source:
    return AnalysisFiles(path, options.name)


KIND = Kind(
    "analysis",
    "Echo Nest or Spotify audio analyses in JSON, one in a file, a folder tree, or one on a line",
    recognises,
    _open,
)
