"""Audio bodies: one file, or several as multipart/form-data, decoded by worker processes that can be killed.

The event loop hands the bytes on and waits. A worker has limits on memory, processor time, wall time and seconds of
sound; a file that breaks one has an error of its own, and the worker is replaced.
"""

import asyncio
import io
from collections.abc import Sequence
from typing import Any

from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from segue.data.analyser.analyse import Analysis
from segue.data.analyser.workers import Limits, Workers
from segue.data.song import Floats, Songs, check_songs
from segue.errors import AudioError, MissingDependencyError, SongError
from segue.serving.bundle.manifest import Manifest
from segue.serving.http.bodies import SongsIn
from segue.serving.http.refusal import Refusal, unavailable
from segue.serving.http.settings import Settings

AUDIO = (
    "audio/mpeg", "audio/flac", "audio/wav", "audio/ogg", "audio/mp3", "audio/x-flac", "audio/x-wav", "audio/wave",
    "audio/vnd.wave", "audio/aiff", "audio/x-aiff", "audio/opus", "audio/mp4", "audio/x-m4a", "audio/aac",
)  # fmt: skip
MULTIPART = "multipart/form-data"
MEMORY_BYTES = 2**30
WAITING = 8  # Files that may wait for each worker; more are told to come back.


def is_audio(content_type: str) -> bool:
    """Tell whether a body of this type is audio, or a form with files."""
    return content_type.partition(";")[0].strip().lower() in (*AUDIO, MULTIPART)


class Analysers:
    """The worker processes of a server process; they start with the first file."""

    def __init__(self, settings: Settings) -> None:
        """Prepare `settings.audio_workers` workers with the limits of the settings."""
        seconds = settings.deadline_s
        self._workers = Workers(
            settings.audio_workers,
            Limits(settings.max_audio_s, memory_bytes=MEMORY_BYTES, processor_s=seconds, wall_s=seconds),
        )
        self._waiting = 0

    async def analyse(self, contents: Sequence[bytes]) -> list[Analysis | AudioError]:
        """Return the analysis of each file, or why there is none; a `Refusal` if too many wait already."""
        if self._waiting and self._waiting + len(contents) > WAITING * self._workers.n:
            raise unavailable("queue full", "too many audio files wait to be analysed")
        self._waiting += len(contents)
        try:
            found = await asyncio.gather(
                *(asyncio.wrap_future(self._workers.submit_bytes(content)) for content in contents),
                return_exceptions=True,
            )
        finally:
            self._waiting -= len(contents)
        results: list[Analysis | AudioError] = []
        for one in found:
            if isinstance(one, MissingDependencyError):
                raise Refusal(415, "unsupported type", "audio cannot be read here: the `audio` extra is not installed")
            if not isinstance(one, Analysis | AudioError):
                raise one
            results.append(one)
        return results

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


async def read_audio(
    body: bytes, content_type: str, manifest: Manifest, max_songs: int, analysers: Analysers | None
) -> SongsIn:
    """Return the songs of an audio body; a `Refusal` if the server or its bundle does not take any."""
    if analysers is None:
        raise Refusal(415, "unsupported type", "audio is not taken here; SEGUE_AUDIO=true lets the server take it")
    if manifest.features != "segue-audio-1":
        raise Refusal(
            415, "unsupported type", f"this bundle is of {manifest.features} features: expected segments, found audio"
        )
    if content_type.partition(";")[0].strip().lower() == MULTIPART:
        names, contents = await asyncio.to_thread(_files, body, content_type)
    else:
        names, contents = ["0"], [body]
    if not contents:
        raise Refusal(422, "bad body", "body: expected at least one file in the form, found none")
    if len(contents) > max_songs:
        raise Refusal(413, "too many songs", f"body: expected at most {max_songs} files, found {len(contents)}")
    errors: dict[int, SongError] = {}
    recordings: dict[int, dict[str, Any]] = {}
    sound: list[Floats] = []
    sound_ids: list[str] = []
    for place, found in enumerate(await analysers.analyse(contents)):
        if isinstance(found, Analysis):
            sound.append(found.segments)
            sound_ids.append(names[place])
            recordings[place] = {
                "seconds": round(found.seconds, 3),
                "segment_starts_s": [round(start, 3) for start in found.starts_s.tolist()],
                "warnings": found.warnings,
            }
        else:
            errors[place] = SongError(f"song {names[place]!r}: {found}")
    checked = check_songs(sound, sound_ids, manifest.units)[0] if sound else Songs.of([])
    return SongsIn(names, checked, errors, recordings=recordings)


def _files(body: bytes, content_type: str) -> tuple[list[str], list[bytes]]:
    """Return the names and the contents of the files of a form."""
    names: list[str] = []
    contents: list[bytes] = []

    def take(file: File) -> None:
        file.file_object.seek(0)
        contents.append(file.file_object.read())
        names.append((file.file_name or b"").decode(errors="replace") or str(len(names)))
        file.close()

    def pass_over(_: Field) -> None:
        """Take no field that is not a file."""

    headers = {"Content-Type": content_type.encode(), "Content-Length": str(len(body)).encode()}
    try:
        parse_form(headers, io.BytesIO(body), pass_over, take)
    except (FormParserError, ValueError):
        raise Refusal(400, "malformed body", "body: expected multipart/form-data, found something else") from None
    return names, contents
