"""Ask two bundles about the same songs: how often they agree, and where they differ, by class and by doubt.

Songs need no labels; where some have one, and neither bundle has seen them, it is told who is right on those.

Example:
    segue compare artifacts/champion artifacts/challenger artifacts/catalogue.arrow
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tyro.conf import Positional

from segue.command import run
from segue.data.song import Bools
from segue.data.table import NO_LABEL, SongTable
from segue.errors import SongError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.bundle.seen import were_seen
from segue.serving.cascade import open_cascade
from segue.serving.predictions import Answers
from segue.serving.tables import check_units

SONGS_AT_A_TIME = 1024
DOUBTS = 4  # Groups of songs by how sure the first bundle is, of equal size.
LISTED = 10


@dataclass(frozen=True)
class Group:
    """Songs that have something in common, and on how many of them the bundles agree."""

    name: str
    songs: int
    agreement: float


@dataclass(frozen=True)
class Labelled:
    """Who is right on the labelled songs that neither has seen."""

    songs: int
    both: int
    only_first: int
    only_second: int


@dataclass(frozen=True)
class Compared:
    """What `segue compare` found."""

    first: str  # Versions.
    second: str
    songs: int
    agreement: float
    fallback_rates: tuple[float, float]
    by_class: tuple[Group, ...]  # By what the first bundle says.
    by_doubt: tuple[Group, ...]  # The surest songs of the first bundle first.
    changes: tuple[tuple[str, str, int], ...]  # From what, to what, how many songs; the most frequent first.
    differing: tuple[str, ...]  # Ids of songs on which they differ although both are sure, the surest first.
    labelled: Labelled | None

    def __str__(self) -> str:
        groups = tabulate(
            [(one.name, one.songs, one.agreement) for one in (*self.by_class, *self.by_doubt)],
            (f"{self.first} says", "songs", "agreement"),
            floatfmt=("", "", ".3f"),
        )
        changes = tabulate(self.changes[:LISTED], (f"{self.first} says", f"{self.second} says", "songs"))
        judged = self.labelled
        return "\n".join(
            [
                f"{self.first} and {self.second} agree on {self.agreement:.1%} of {self.songs:,} songs; "
                f"{self.fallback_rates[0]:.1%} and {self.fallback_rates[1]:.1%} of them fall back",
                "",
                groups,
                "",
                changes,
                *([f"\nSurely different: {', '.join(self.differing)}"] if self.differing else []),
                *(
                    [
                        f"\nOf {judged.songs:,} labelled songs that neither has seen: both right on {judged.both:,}, "
                        f"only {self.first} on {judged.only_first:,}, only {self.second} on {judged.only_second:,}"
                    ]
                    if judged
                    else []
                ),
            ]
        )


def compare(first: Positional[Path], second: Positional[Path], songs: Positional[Path]) -> Compared:
    """Ask two bundles about the same songs.

    Args:
        first: The folder of one bundle, such as the champion.
        second: The folder of the other, such as the challenger.
        songs: A song table.
    """
    bundles, table = (load_bundle(first), load_bundle(second)), SongTable(songs)
    if not len(table):
        raise SongError(f"{songs}: expected songs to compare the bundles on, found none")
    said = [_answers(bundle, table) for bundle in bundles]
    names = [
        np.array(bundle.manifest.classes, dtype=object)[one.choice] for bundle, one in zip(bundles, said, strict=True)
    ]
    same: Bools = names[0] == names[1]
    doubts = [one.cross_entropy_nats for one in said]
    quarters = np.array_split(np.argsort(doubts[0], kind="stable"), min(DOUBTS, len(table)))
    differing = np.flatnonzero(~same)
    surest = differing[np.argsort(np.maximum(doubts[0][differing], doubts[1][differing]), kind="stable")]
    changes = Counter(zip(names[0][differing], names[1][differing], strict=True))
    return Compared(
        bundles[0].manifest.version,
        bundles[1].manifest.version,
        len(table),
        float(same.mean()),
        (float(said[0].fell_back.mean()), float(said[1].fell_back.mean())),
        tuple(
            Group(name, int((names[0] == name).sum()), float(same[names[0] == name].mean()))
            for name in sorted(set(names[0]))
        ),
        tuple(
            Group(f"with {doubts[0][rows].max():.3f} nats at most", len(rows), float(same[rows].mean()))
            for rows in quarters
        ),
        tuple((before, after, count) for (before, after), count in changes.most_common()),
        tuple(table.song_ids[row] for row in surest[:LISTED]),
        _labelled(table, bundles, names),
    )


def _answers(bundle: Bundle, songs: SongTable) -> Answers:
    check_units(songs, bundle)
    cascade = open_cascade(bundle)
    spans = (range(at, min(at + SONGS_AT_A_TIME, len(songs))) for at in range(0, len(songs), SONGS_AT_A_TIME))
    return Answers.concat([cascade.answer(songs.songs(rows)) for rows in spans])


def _labelled(songs: SongTable, bundles: Sequence[Bundle], names: Sequence[NDArray[np.object_]]) -> Labelled | None:
    rows = songs.labels != NO_LABEL
    for bundle in bundles:
        rows &= ~were_seen(bundle, songs.song_ids)
    if not rows.any():
        return None
    labels = np.array(songs.classes, dtype=object)[songs.labels[rows]]
    right = [one[rows] == labels for one in names]
    return Labelled(
        int(rows.sum()),
        int((right[0] & right[1]).sum()),
        int((right[0] & ~right[1]).sum()),
        int((right[1] & ~right[0]).sum()),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue compare`."""
    return run(compare, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
