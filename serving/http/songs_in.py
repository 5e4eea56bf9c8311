"""The songs of a request, whatever its body: what all readers return, and what they refuse alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segue.data.song import N_FEATURES, WINDOW, Fault, Songs, Units
from segue.errors import SongError
from segue.serving.http.refusal import Refusal

SONG_BYTES = WINDOW * N_FEATURES * 4
MAX_NUMBERS = 2**23  # In a body of any type: as many as float32 takes 32 MB for.
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
    sound: Songs  # Those without an error, in their order. Until `checked`, nobody has looked at their values.
    errors: dict[int, SongError]  # What is wrong with each of the others, by its place.
    mode: Any = None  # What the body says of the dial, unchecked.
    threshold: Any = None
    features: Any = None  # Which analyser made the segments, as the body says; None: it does not.
    units: Any = None  # And their units.
    recordings: Mapping[int, Any] = field(default_factory=dict)  # What the answer says of an audio file, by its place.
    is_checked: bool = False

    def checked(self, units: Units) -> "SongsIn":
        """Return the same with an error for each song whose values are no song's."""
        return self if self.is_checked else self.without(self.sound.faults(units))

    def without(self, faults: Mapping[int, Fault]) -> "SongsIn":
        """Return the same, checked, with an error in place of some of the sound songs, by their rows among those."""
        if not faults:
            return replace(self, is_checked=True)
        places = [place for place in range(len(self.song_ids)) if place not in self.errors]
        wrong = {places[row]: SongError(fault.of_song(self.song_ids[places[row]])) for row, fault in faults.items()}
        rows = np.array([row for row in range(len(self.sound)) if row not in faults], dtype=np.int64)
        return replace(self, sound=self.sound.take(rows), errors=self.errors | wrong, is_checked=True)


def numbers_counted(found: int) -> None:
    """Refuse a body of more numbers than may be: where each is a byte, they are few bytes on arrival."""
    if found > MAX_NUMBERS:
        raise Refusal(413, "too large", f"body: expected at most {MAX_NUMBERS} numbers, found {found!s:.80}")


def counted(found: int, max_songs: int) -> None:
    """Refuse no songs, and too many."""
    if not found:
        raise Refusal(422, "bad body", "songs: expected at least one, found none")
    if found > max_songs:
        raise Refusal(413, "too many songs", f"songs: expected at most {max_songs} in a request, found {found}")
