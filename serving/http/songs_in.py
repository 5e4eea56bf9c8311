"""The songs of a request, whatever its body: what all readers return, and what they refuse alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segue.data.song import N_FEATURES, WINDOW, Songs
from segue.errors import SongError
from segue.serving.http.refusal import Refusal

SONG_BYTES = WINDOW * N_FEATURES * 4
JSON, RAW, NPY, ARROW = (
    "application/json",
    "application/octet-stream",
    "application/x-npy",
    "application/vnd.apache.arrow.stream",
)


@dataclass(frozen=True)
class SongsIn:
    """The songs of a request."""

    song_ids: Sequence[str]
    sound: Songs  # Those that can be answered, in their order.
    errors: dict[int, SongError]  # What is wrong with each of the others, by its place.
    mode: Any = None  # What the body says of the dial, unchecked.
    threshold: Any = None
    features: Any = None  # Which analyser made the segments, as the body says; None: it does not.


def counted(found: int, max_songs: int) -> None:
    """Refuse no songs, and too many."""
    if not found:
        raise Refusal(422, "bad body", "songs: expected at least one, found none")
    if found > max_songs:
        raise Refusal(413, "too many songs", f"songs: expected at most {max_songs} in a request, found {found}")
