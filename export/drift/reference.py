"""The reference of a bundle: how the songs were that set its dial, to tell later whether others are of their kind.

Kept in the bundle as `reference.npz`: the values of one song of each artist, each column sorted by itself, so that they
are quantiles and no songs; counts of the genres that the cascade said; how many songs fell back.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segue.data.song import FEATURE_NAMES, Ints
from segue.data.table import SongTable
from segue.errors import BundleError
from segue.serving.bundle.load import Bundle
from segue.serving.ladder import Ladder
from segue.serving.predictions import Answers, Predictions

REFERENCE = "reference.npz"
MOST_SONGS = 2000
VALUES = (
    *(f"{name} mean" for name in FEATURE_NAMES),
    *(f"{name} spread" for name in FEATURE_NAMES),
    "segments",
    "cross-entropy",
)


@dataclass(frozen=True)
class Reference:
    """How some songs are, and what a bundle says of them."""

    values: NDArray[np.float32]  # (n_songs, len(VALUES)), each column sorted.
    genres: Ints  # (n_classes,) how often the cascade said each.
    fell_back: int

    @property
    def songs(self) -> int:
        """How many songs."""
        return len(self.values)

    @classmethod
    def of(
        cls, songs: SongTable, rows: Ints, said: Answers, doubt_nats: NDArray[np.float64], classes: int
    ) -> "Reference":
        """Describe songs.

        Args:
            songs: the table.
            rows: (n,) songs of it, each of another artist: see `one_of_each_artist`.
            said: what the cascade says of them.
            doubt_nats: (n,) the student's cross-entropy.
            classes: how many classes the bundle has.
        """
        values = np.empty((len(rows), len(VALUES)), dtype=np.float32)
        for place, row in enumerate(rows):
            segments = songs.segments(int(row)).astype(np.float64)
            values[place, :-1] = (*segments.mean(axis=0), *segments.std(axis=0), len(segments))
        values[:, -1] = doubt_nats
        genres = np.bincount(said.choice, minlength=classes)
        return cls(np.sort(values, axis=0), genres, int(said.fell_back.sum()))

    def write(self, folder: Path) -> None:
        """Write the reference into a bundle's folder."""
        np.savez_compressed(folder / REFERENCE, values=self.values, genres=self.genres, fell_back=self.fell_back)

    @classmethod
    def read(cls, bundle: Bundle) -> "Reference":
        """Read the reference of a bundle; a `BundleError` if it has none."""
        try:
            with np.load(io.BytesIO(bundle.contents[REFERENCE]), allow_pickle=False) as file:
                found = cls(file["values"], file["genres"], int(file["fell_back"]))
        except KeyError:
            raise BundleError(
                f"{bundle.path}: expected a {REFERENCE} to compare songs with, found none; the bundle is of an older "
                "Segue. `segue calibrate` writes one, and so does a new export."
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise BundleError(f"{bundle.path / REFERENCE}: expected quantiles of songs: {error}") from None
        if found.values.ndim != 2 or found.values.shape[1] != len(VALUES) or not len(found.values):
            raise BundleError(f"{bundle.path / REFERENCE}: expected {len(VALUES)} columns, found {found.values.shape}")
        return found


def write_reference(folder: Path, songs: SongTable, rows: Ints, says: Sequence[Predictions], ladder: Ladder) -> None:
    """Write the reference of the songs of `rows`, given what each rung says of them."""
    kept = one_of_each_artist(songs.groups, rows)
    order = np.argsort(rows)
    at = order[np.searchsorted(rows, kept, sorter=order)]
    says = [one.take(at) for one in says]
    said = ladder.climb(lambda rung, some: says[rung].take(some))
    Reference.of(songs, kept, said, says[0].cross_entropy_nats, says[0].probs.shape[1]).write(folder)


def one_of_each_artist(groups: Sequence[str | None], rows: Ints, most: int = MOST_SONGS, seed: int = 0) -> Ints:
    """Return at most `most` of `rows`, drawn at random, no two of one artist: songs of an artist are alike."""
    drawn = np.random.default_rng(seed).permutation(rows)
    taken: set[str] = set()
    kept = []
    for row in drawn.tolist():
        artist = groups[row]
        if artist is not None and artist in taken:
            continue
        if artist is not None:
            taken.add(artist)
        kept.append(row)
        if len(kept) == most:
            break
    return np.sort(np.array(kept, dtype=np.int64))
