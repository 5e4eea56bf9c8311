"""Source: Echo Nest and Spotify audio analyses in JSON: one in a file, a folder tree of such files, or one on a line.

An analysis is an object with `segments`, each with `timbre` (12 numbers), `pitches` (12 numbers) and `loudness_start`
(dB); everything else but its names is ignored (Jehan and DesRoches, Analyzer Documentation, The Echo Nest 2014). It may
lie in other objects, as in `{"audio_analysis": {...}}` or `{"response": {"track": {...}}}`, and several may lie in a
list or an object that has them by their ids. Files may be packed by gzip.

The first of `IDS` that an analysis has names the song, then one of an object around it, then its key, then the name of
its file, with the number of its line or its place in the list where there are many.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.data.song import Songs, Units, check_segments
from segue.data.sources.folder import Listing, has_file, list_files, names_of
from segue.data.sources.json_documents import holds_json, holds_lines, parse, read_documents
from segue.data.sources.source import Kind, Options, Skipped, Source, Tally, clean, in_batches, readable
from segue.data.table import SongBatch
from segue.errors import SongError

IDS = ("track.id", "id", "track_id", "meta.id", "meta.track_id")
ARTISTS = ("artist_id", "artist", "track.artist_id", "track.artist", "meta.artist_id", "meta.artist")
GENRES = ("genre", "track.genre", "meta.genre")

ONE_A_LINE = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = (".json", ".json.gz", *ONE_A_LINE)
NOT_OF_SONGS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # Of a data set's folder.
WRAPPERS = {"analysis", "audio_analysis", "body", "data", "response", "result", "song", "songs", "track", "tracks"}
DEEPEST = 4  # Objects and lists around an analysis.
NUMBERS = {int, float}


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
        alone = path.is_file()
        listing = Listing([path], {}) if alone else list_files(path, SUFFIXES, NOT_OF_SONGS)
        self.passed_over = listing.passed_over
        self._root = path
        self._files = listing.files
        names = [name] if name and alone else names_of(self._files, path.parent if alone else path)
        self._names = dict(zip(self._files, names, strict=True))
        named_so = [file for file in self._files if file.name.lower().endswith(ONE_A_LINE)]
        self._one_a_line = {
            file for file in (self._files if alone else named_so) if holds_lines(file, file in named_so)
        }

    def __len__(self) -> int:
        return sum(self._about(file) for file in self._files)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start`; an analysis that cannot be read is yielded as `Skipped`."""
        return in_batches(self._songs(start))

    def _songs(self, start: int) -> Iterator[SongBatch | Skipped]:
        for document in self._documents():
            if isinstance(document, Skipped):
                found: Sequence[SongBatch | Skipped] = [document]
            elif start and document.text.count(b'"segments"') < 2:
                start -= 1
                continue
            else:
                found = self._read(document)
            yield from found[start:]
            start = max(start - len(found), 0)

    def _documents(self) -> "Iterator[_Document | Skipped]":
        for file in self._files:
            place = readable(str(file.relative_to(self._root)) if file != self._root else file.name)
            one_a_line, name = file in self._one_a_line, self._names[file]
            try:
                for number, text in read_documents(file, one_a_line):
                    if one_a_line:
                        yield _Document(text, f"{place}, line {number}", f"{name}-{number:06d}")
                    else:
                        yield _Document(text, place, name)
            except SongError as error:
                yield Skipped(place, str(error))

    def _read(self, document: "_Document") -> list[SongBatch | Skipped]:
        """Return the songs of a document, and what is none though it should be."""
        try:
            content, replaced = parse(document.text)
            found = _analyses(content)
            if not found:
                raise SongError(f"expected an audio analysis, a JSON object, found {_shown(content)}")
        except SongError as error:
            return [Skipped(document.place, str(error))]
        if replaced:
            reason = "bytes that are not UTF-8, read as U+FFFD"
            self.passed_over.setdefault(reason, Tally()).add([document.place])
        names = [document.name if len(found) == 1 else f"{document.name}-{row:06d}" for row in range(len(found))]
        return [_song(one, document.place, name) for one, name in zip(found, names, strict=True)]

    def _about(self, file: Path) -> int:
        """Return how many analyses a file has; a file of a folder with one document is taken to have one."""
        one_a_line = file in self._one_a_line
        if not one_a_line and file != self._root:
            return 1
        try:
            texts = [text.count(b'"segments"') for _, text in read_documents(file, one_a_line)]
        except SongError:
            return 1  # It will be skipped as one.
        return len(texts) if one_a_line else max(*texts, 1)


@dataclass(frozen=True)
class _Document:
    """One JSON document."""

    text: bytes
    place: str  # For messages.
    name: str  # The id of a song that has no other.


@dataclass(frozen=True)
class _Analysis:
    """An analysis, or what stands in the place of one, and what lies around it."""

    content: Any
    around: tuple[Mapping[str, Any], ...] = ()  # The objects that have only this one within, the innermost first.
    key: str | None = None  # What the object around it calls it, where that is no word for an analysis.

    def name(self, places: Sequence[str]) -> str | None:
        """Return the first name at one of `places`, here or around."""
        named = (_name(holder, places) for holder in (self.content, *self.around))
        return next((name for name in named if name), None)


def _analyses(content: Any, depth: int = 0) -> list[_Analysis]:
    """Return the analyses within a document; of several side by side, also what stands among them and is none."""
    if isinstance(content, dict) and ("segments" in content or (depth == 0 and not _nested(content))):
        return [_Analysis(content)]
    if depth > DEEPEST or not isinstance(content, dict | list):
        return []
    by_key = content if isinstance(content, dict) else {str(row): value for row, value in enumerate(content)}
    found = {key: _analyses(value, depth + 1) for key, value in by_key.items() if isinstance(value, dict | list)}
    holders = [key for key, within in found.items() if within]
    if not holders:
        return []
    if isinstance(content, list):
        return [one for row, value in enumerate(content) for one in found.get(str(row)) or [_Analysis(value)]]
    if len(holders) == 1 and len(found[holders[0]]) == 1:
        (key,), ((one,),) = holders, (found[holders[0]],)
        own_key = None if key.lower() in WRAPPERS else key
        return [_Analysis(one.content, (*one.around, content), one.key or own_key)]
    if len(holders) == 1:
        return found[holders[0]]
    return [
        _Analysis(one.content, one.around, one.key or key)
        for key, within in found.items()
        for one in within or [_Analysis(content[key])]
    ]


def _nested(content: Mapping[str, Any]) -> bool:
    """Tell whether there is an analysis somewhere in an object that is none."""
    return any(_analyses(value, 1) for value in content.values())


def recognises(path: Path) -> bool:
    """Tell whether `path` is a file that begins like JSON, or a folder with JSON files."""
    return has_file(path, SUFFIXES, NOT_OF_SONGS) if path.is_dir() else holds_json(path)


def _song(found: _Analysis, place: str, default_id: str) -> SongBatch | Skipped:
    song_id = found.name(IDS) or clean(found.key or "").strip() or default_id
    try:
        if not isinstance(found.content, dict):
            raise SongError(f"expected an audio analysis, a JSON object, found {_shown(found.content)}")
        segments = check_segments(_rows(found.content, f"song {song_id!r}"), song_id)
    except SongError as error:
        return Skipped(place, str(error))
    return SongBatch([song_id], Songs.of([segments]), [found.name(GENRES)], [found.name(ARTISTS)])


def _name(analysis: Any, places: Sequence[str]) -> str | None:
    """Return the first text or whole number at one of `places`, such as `track.id`; None where there is none."""
    for place in places:
        parent, _, key = place.rpartition(".")
        holder = analysis.get(parent) if parent and isinstance(analysis, dict) else analysis
        value = holder.get(key) if isinstance(holder, dict) else None
        if type(value) in (str, int) and str(value).strip():
            return clean(str(value).strip())
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
        return f"no such key among {_shown(list(holder))}" if holder else "no such key"
    value = holder[key]
    if not isinstance(value, list):
        return _shown(value)
    strange = [_shown(one) for one in value if type(one) not in NUMBERS]
    return f"{len(value)} values" + (f", one of them {strange[0]}" if strange else "")


def _shown(value: Any) -> str:
    text = json.dumps(_start(value))
    return text if len(text) <= 80 else f"{text[:80]}..."


def _start(value: Any, depth: int = 2) -> Any:
    """Return the first few things in a value, so that it can be shown whatever its size and depth."""
    if isinstance(value, dict | list) and not depth:
        return "..."
    if isinstance(value, dict):
        return {key: _start(value[key], depth - 1) for key in list(value)[:9]}
    if isinstance(value, list):
        return [_start(one, depth - 1) for one in value[:9]]
    return value[:80] if isinstance(value, str) else value


def _open(path: Path, options: Options) -> Source:
    return AnalysisFiles(path, options.name)


KIND = Kind(
    "analysis",
    "Echo Nest or Spotify audio analyses in JSON, one in a file, a folder tree, or one on a line",
    recognises,
    _open,
)
