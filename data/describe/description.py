"""What `segue describe` found: the figures, and how they read."""

from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from segue.data.song import CHROMA, LOUDNESS, TIMBRE, WINDOW, Units

BLOCKS = {"timbre": TIMBRE, "chroma": CHROMA, "loudness": slice(LOUDNESS, LOUDNESS + 1)}
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
        labelled = f"{self.songs - self.unlabelled:,} labelled in {counted(len(self.labelled), 'class')}"
        return [counted(self.songs, "song"), labelled, counted(self.groups, "artist"), self.units]

    def ranked(self) -> list[tuple[str, int]]:
        """Return the classes and how many songs they have, the largest first."""
        return sorted(self.labelled.items(), key=lambda one: -one[1])

    def details(self) -> dict[str, str]:
        """Return a line each about lengths and artists, and the fingerprint."""
        low, middle, high = (f"{quartile:,.0f}" for quartile in self.lengths.quartiles)
        spread = f"{self.lengths.min:,} to {self.lengths.max:,} segments, median {middle}, middle half {low} to {high}"
        name, most = self.largest_group or ("", 0)
        artists = f"{(self.songs - self.ungrouped) / max(self.groups, 1):.1f} songs each, {most:,} at most ({name})"
        unnamed = f"; {counted(self.ungrouped, 'song')} without one" if self.ungrouped else ""
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
        return [(f"{counted(count, noun)} {what}", some[:LISTED]) for count, noun, what, some in remarks if count]


def counted(count: int, noun: str) -> str:
    """Return a number of things in words that agree."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"
