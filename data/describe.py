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
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from data.command import run
from data.errors import ConfigError, MissingDependencyError, SongError
from data.song import CHROMA, FEATURE_NAMES, LOUDNESS, N_FEATURES, TIMBRE, WINDOW, Floats, Units, first_fault
from data.sources.recognise import open_source
from data.sources.source import Skipped
from data.synth import LOUDNESS_MEAN_DB, LOUDNESS_SD_DB, TIMBRE_MEAN, TIMBRE_SD
from data.table import SongBatch

BLOCKS = {"timbre": TIMBRE, "chroma": CHROMA, "loudness": slice(LOUDNESS, LOUDNESS + 1)}
KNOWN = (*zip(TIMBRE_MEAN, TIMBRE_SD, strict=True), *[None] * 12, (LOUDNESS_MEAN_DB, LOUDNESS_SD_DB))
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE_SEGMENTS = 50_000
RARE_SONGS = 20
LISTED = 10


@dataclass(frozen=True)
class Figures:
    """How the values of a feature, or of a block of features, are distributed."""

    name: str
    mean: float
    sd: float
    min: float
    max: float
    quantiles: tuple[float, ...]  # At QUANTILES.
    known: tuple[float, float] | None = None  # Mean and sd over the Million Song Dataset; raw timbre and loudness only.

    @property
    def off(self) -> str:
        """Say how a feature differs from what is known: its mean by over 1 sd, or its sd by over a factor of 2."""
        mean, sd = self.known or (self.mean, self.sd)
        near = abs(self.mean - mean) <= sd and sd / 2 <= self.sd <= 2 * sd
        return "" if near else f"{self.name} {self.mean:.3g} ± {self.sd:.3g} (known: {mean:g} ± {sd:g})"


@dataclass
class Findings:
    """How many songs have something in common, and what about the first of them."""

    count: int = 0
    listed: list[tuple[str, str]] = field(default_factory=list)  # Song id, and what about it.

    def add(self, song_id: str, what: str) -> None:
        """Count one more song."""
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append((song_id, what))


@dataclass(frozen=True)
class Lengths:
    """How long the songs are, in segments."""

    min: int
    quartiles: tuple[float, ...]
    max: int
    short: int  # Songs of fewer than WINDOW segments.


@dataclass(frozen=True)
class Description:
    """What `segue describe` found."""

    source: Path
    page: Path
    fingerprint: str | None  # sha256 of the file; None for a folder.
    units: Units
    songs: int  # Those that could be read.
    labelled: dict[str, int]  # Songs by class, in the source's order.
    unlabelled: int
    groups: int
    largest_group: tuple[str, int] | None
    ungrouped: int  # Songs without a group.
    lengths: Lengths
    blocks: tuple[Figures, ...]
    features: tuple[Figures, ...]
    faults: Findings  # Songs that cannot be read, break the contract, or have the id of an earlier one.
    duplicates: Findings  # Songs with the segments of an earlier one, under another id.

    def __str__(self) -> str:
        classes = [*self.ranked(), ("(no label)", self.unlabelled)]
        shares = [(name, songs, songs / self.songs) for name, songs in classes]
        blocks = [(block.name, block.mean, block.sd, block.min, block.max) for block in self.blocks]
        remarks = [f"  {text}: {'; '.join(some)}" if some else f"  {text}" for text, some in self.attention()]
        return "\n".join(
            [
                f"{self.source}: {', '.join(self.facts())}",
                *(f"{what}: {text}" for what, text in self.details().items()),
                "",
                tabulate(shares, ("class", "songs", "share"), floatfmt=".3f"),
                "",
                tabulate(blocks, ("block", "mean", "sd", "min", "max"), floatfmt=".2f"),
                "",
                *(["worth attention:", *remarks] if remarks else ["nothing to worry about"]),
                "",
                f"{self.page}   the page: look at it",
            ]
        )

    def facts(self) -> list[str]:
        """Return the few facts that matter, for a title line."""
        labelled = f"{self.songs - self.unlabelled:,} labelled in {_count(len(self.labelled), 'class')}"
        return [_count(self.songs, "song"), labelled, _count(self.groups, "artist"), self.units]

    def ranked(self) -> list[tuple[str, int]]:
        """Return the classes and how many songs they have, the largest first."""
        return sorted(self.labelled.items(), key=lambda one: -one[1])

    def details(self) -> dict[str, str]:
        """Return a line each about lengths and artists, and the fingerprint."""
        low, middle, high = (f"{quartile:,.0f}" for quartile in self.lengths.quartiles)
        spread = f"{self.lengths.min:,} to {self.lengths.max:,} segments, median {middle}, middle half {low} to {high}"
        name, most = self.largest_group or ("", 0)
        artists = f"{(self.songs - self.ungrouped) / max(self.groups, 1):.1f} songs each, {most:,} at most ({name})"
        unnamed = f"; {_count(self.ungrouped, 'song')} without one" if self.ungrouped else ""
        return {
            "lengths": spread if self.lengths.min < self.lengths.max else f"{middle} segments, all the same",
            "artists": artists + unnamed if self.groups else "none named",
            "fingerprint": f"sha256 {self.fingerprint}" if self.fingerprint else "none, it is a folder",
        }

    def attention(self) -> list[tuple[str, list[str]]]:
        """Return what deserves attention, the worst first, each with its first examples."""
        faults = [f"{name}: {reason}" for name, reason in self.faults.listed]
        off = [feature.off for feature in self.features if feature.off]
        twice = [f"{name} = {first}" for name, first in self.duplicates.listed]
        rare = [f"{name} {songs}" for name, songs in reversed(self.ranked()) if songs < RARE_SONGS]
        remarks: list[tuple[int, str, str, list[str]]] = [
            (self.faults.count, "song", "that `segue songs` would leave out", faults),
            (len(off), "feature", "off the ranges known from the Million Song Dataset", off),
            (self.duplicates.count, "song", "with the same segments as an earlier one", twice),
            (self.unlabelled, "song", f"without a label ({self.unlabelled / self.songs:.0%})", []),
            (len(rare), "class", f"of fewer than {RARE_SONGS} songs", rare),
            (self.lengths.short, "song", f"shorter than {WINDOW} segments, whose window repeats them", []),
        ]
        return [(f"{_count(count, noun)} {what}", some[:LISTED]) for count, noun, what, some in remarks if count]


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
        self.lengths += batch.lengths.tolist()
        sound = first_fault(batch.segments, self._units) is None
        for name, length, end in zip(batch.song_ids, batch.lengths, batch.lengths.cumsum(), strict=True):
            self._inspect(name, batch.segments[end - length : end], sound)
        finite = batch.segments if sound else batch.segments[np.isfinite(batch.segments).all(axis=1)]
        if len(finite):
            self.features.add(finite)

    def _inspect(self, name: str, song: Floats, sound: bool) -> None:
        fault = None if sound else first_fault(song, self._units)
        if name in self._ids:
            self.faults.add(name, "another song has the same id")
        elif not len(song):
            self.faults.add(name, "expected at least one segment, found none")
        elif fault is not None:
            self.faults.add(name, f"segment {fault[0]}: {fault[1]}")
        self._ids.add(name)
        if len(song):
            first = self._first_with.setdefault(hashlib.blake2b(song.data, digest_size=16).digest(), name)
            if first != name:
                self.duplicates.add(name, first)


def describe(songs: Positional[Path], page: Path | None = None) -> Description:
    """Describe songs.

    Args:
        songs: A song table, or any other source of songs.
        page: The HTML page to write.
    """
    source = open_source(songs, None, {})
    page = page or _page_of(songs)
    if page.suffix != ".html" or page.is_dir():
        raise ConfigError(f"--page: expected a file that ends in .html, found {page}")
    try:
        from data.describe_page import write_page
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; the page needs it. `pip install 'segue-genres[report]'`"
        ) from None
    tally = SongTally(source.units, source.classes)
    with tqdm(total=len(source), unit=" songs", disable=None, file=sys.stderr) as progress:
        for item in source.batches():
            if isinstance(item, Skipped):
                tally.faults.add(item.name, item.reason)
            else:
                tally.add(item)
            progress.update(1 if isinstance(item, Skipped) else len(item))
    if not tally.features.segments:
        found = "; ".join([_count(len(tally.lengths), "song"), *map(": ".join, tally.faults.listed)])
        raise SongError(f"{songs}: expected songs to describe, with at least one finite segment; found {found}")
    description = _description(songs, page, source.units, tally)
    try:
        write_page(description, np.array(tally.lengths))
    except OSError as error:
        raise ConfigError(f"{page}: expected a place to write the page, found: {error.strerror}") from None
    return description


def _page_of(songs: Path) -> Path:
    """Return the page's default place; `resolve` gives `.` and `songs/` a name."""
    songs = songs.resolve()
    return (songs.parent if os.access(songs.parent, os.W_OK) else Path("artifacts")) / f"{songs.stem}.html"


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


def _count(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue describe`."""
    return run(describe, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
