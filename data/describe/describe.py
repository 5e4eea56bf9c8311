"""Describe songs before anything is made from them: a short table, and one page to look at.

Takes a song table (Arrow or Parquet) or any other source that `segue songs` reads, and streams it once. Tells how many
songs, classes and artists there are, how long the songs are, how the 25 features are distributed, and what deserves
attention: songs that break the contract, features off the ranges known from the Million Song Dataset, songs that occur
twice, missing labels, rare classes, short songs.

The page is one HTML file without scripts that loads nothing. It lies beside the source, or in artifacts/ where that
folder is not writable.

Examples:
    segue describe artifacts/songs.arrow
    segue describe msd_songs.npz --page artifacts/msd.html
    segue describe artifacts/songs.arrow --json
"""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tyro.conf import Positional

from segue.command import run
from segue.data.describe.describe_page import write_description
from segue.data.describe.description import BLOCKS, Description, Figures, Findings, Lengths, counted
from segue.data.song import FEATURE_NAMES, N_FEATURES, WINDOW, Fault, Floats, Units
from segue.data.sources.registry import open_source
from segue.data.sources.source import Skipped
from segue.data.synth import LOUDNESS_MEAN_DB, LOUDNESS_SD_DB, TIMBRE_MEAN, TIMBRE_SD
from segue.data.table import SongBatch
from segue.errors import ConfigError, SongError
from segue.places import check_out

KNOWN = (*zip(TIMBRE_MEAN, TIMBRE_SD, strict=True), *[None] * 12, (LOUDNESS_MEAN_DB, LOUDNESS_SD_DB))
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE_SEGMENTS = 50_000


class FeatureTally:
    """Adds up the features of segments: moments exactly, quantiles from a sample."""

    def __init__(self) -> None:
        """Start with no segments."""
        self.segments = 0
        self._mean, self._squares = np.zeros((2, N_FEATURES))
        self._min, self._max = np.full(N_FEATURES, np.inf), np.full(N_FEATURES, -np.inf)
        # Quantiles come from a seeded sample, the segments with the smallest random keys. Unlike a histogram it needs
        # no ends known beforehand, so standardised and broken songs are no special case; small tables fit in whole.
        self._rng = np.random.default_rng(0)
        self._keys, self._sample = np.zeros(0), np.zeros((0, N_FEATURES), np.float32)

    def add(self, segments: Floats) -> None:
        """Add finite segments, (n, 25), at least one."""
        # Moments of parts are merged (Chan, Golub & LeVeque 1979), which is stable however large the mean.
        n, total = len(segments), self.segments + len(segments)
        gap = segments.mean(axis=0, dtype=np.float64) - self._mean
        self._squares += n * segments.var(axis=0, dtype=np.float64) + gap**2 * self.segments * n / total
        self._mean += gap * n / total
        self._min = np.minimum(self._min, segments.min(axis=0))
        self._max = np.maximum(self._max, segments.max(axis=0))
        self.segments = total

        keys = self._rng.random(n)
        near = keys < (self._keys[-1] if len(self._keys) == SAMPLE_SEGMENTS else 1.0)
        keys, sample = np.concatenate([self._keys, keys[near]]), np.concatenate([self._sample, segments[near]])
        kept = np.argsort(keys)[:SAMPLE_SEGMENTS]
        self._keys, self._sample = keys[kept], sample[kept]

    def figures(self, name: str, columns: slice, known: tuple[float, float] | None = None) -> Figures:
        """Return the figures of some columns together."""
        variance = (self._squares[columns] / self.segments).mean() + self._mean[columns].var()
        return Figures(
            name,
            mean=float(self._mean[columns].mean()),
            sd=float(variance**0.5),
            min=float(self._min[columns].min()),
            max=float(self._max[columns].max()),
            quantiles=tuple(np.quantile(self._sample[:, columns].astype(np.float64), QUANTILES).tolist()),
            known=known,
        )


class SongTally:
    """Adds up songs: labels, groups, lengths, features, faults, duplicates. Keeps ids and hashes, never segments."""

    def __init__(self, units: Units, classes: Sequence[str]) -> None:
        """Start with no songs of the given classes."""
        self.labels: Counter[str | None] = Counter(dict.fromkeys(classes, 0))
        self.groups: Counter[str | None] = Counter()
        self.lengths: list[int] = []
        self.features = FeatureTally()
        self.faults, self.duplicates = Findings(), Findings()
        self._units: Units = units
        self._ids: set[str] = set()
        self._first_with: dict[bytes, str] = {}

    def add(self, batch: SongBatch) -> None:
        """Add a batch of songs; segments that are not finite stay out of the features."""
        self.labels.update(batch.labels)
        self.groups.update(batch.groups)
        self.lengths += batch.songs.lengths.tolist()
        faults = batch.songs.faults(self._units)
        for row, (name, song) in enumerate(zip(batch.song_ids, batch.songs, strict=True)):
            self._inspect(name, song, faults.get(row))
        segments = batch.songs.segments
        finite = segments[np.isfinite(segments).all(axis=1)] if faults else segments
        if len(finite):
            self.features.add(finite)

    def _inspect(self, name: str, song: Floats, fault: Fault | None) -> None:
        if name in self._ids:
            self.faults.add(name, "another song has the same id")
        elif fault is not None:
            self.faults.add(name, str(fault))
        self._ids.add(name)
        if len(song):
            first = self._first_with.setdefault(hashlib.blake2b(song.data, digest_size=16).digest(), name)
            if first != name:
                self.duplicates.add(name, first)


def describe(songs: Positional[Path], page: Path | None = None, overwrite: bool = False) -> Description:
    """Describe songs.

    Args:
        songs: A song table, or any other source of songs.
        page: The HTML page to write. One that this verb made is replaced.
        overwrite: Replace the file that is there, whatever made it.
    """
    source = open_source(songs, None, {})
    page = page_of(songs, page)
    check_out(page, "describe", [songs] if songs.is_file() else [], overwrite=overwrite)
    tally = SongTally(source.units, source.classes)
    with tqdm(total=len(source), unit=" songs", disable=None, file=sys.stderr) as progress:
        for item in source.batches():
            if isinstance(item, Skipped):
                tally.faults.add(item.name, item.reason)
            else:
                tally.add(item)
            progress.update(1 if isinstance(item, Skipped) else len(item))
    if not tally.features.segments:
        found = "; ".join([counted(len(tally.lengths), "song"), *map(": ".join, tally.faults.listed)])
        raise SongError(f"{songs}: expected songs to describe, with at least one finite segment; found {found}")
    description = _description(songs, page, source.units, tally)
    write_description(description, np.array(tally.lengths))
    return description


def page_of(source: Path, page: Path | None) -> Path:
    """Return where the page about `source` goes, by default beside it; what is no place for one is a `ConfigError`."""
    if page is None:
        source = source.resolve()  # Gives `.` and `songs/` a name.
        folder = source.parent if os.access(source.parent, os.W_OK) else Path("artifacts")
        return folder / f"{source.stem}.html"
    if page.suffix != ".html":
        raise ConfigError(f"--page: expected a file that ends in .html, found {page}")
    return page


def _description(songs: Path, page: Path, units: Units, tally: SongTally) -> Description:
    lengths = np.array(tally.lengths)
    artists = Counter({name: count for name, count in tally.groups.items() if name is not None})
    known = KNOWN if units == "raw" else (None,) * N_FEATURES
    return Description(
        source=songs,
        page=page,
        fingerprint=_fingerprint(songs),
        units=units,
        songs=len(lengths),
        labelled={name: count for name, count in tally.labels.items() if name is not None},
        unlabelled=tally.labels[None],
        groups=len(artists),
        largest_group=next(iter(artists.most_common(1)), None),
        ungrouped=tally.groups[None],
        lengths=Lengths(
            min=int(lengths.min()),
            quartiles=tuple(np.quantile(lengths, (0.25, 0.5, 0.75)).tolist()),
            max=int(lengths.max()),
            short=int((lengths < WINDOW).sum()),
        ),
        blocks=tuple(tally.features.figures(name, columns) for name, columns in BLOCKS.items()),
        features=tuple(tally.features.figures(name, slice(i, i + 1), known[i]) for i, name in enumerate(FEATURE_NAMES)),
        faults=tally.faults,
        duplicates=tally.duplicates,
    )


def _fingerprint(songs: Path) -> str | None:
    if songs.is_dir():
        return None
    with songs.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue describe`."""
    return run(describe, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
