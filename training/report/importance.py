"""Which features matter for which class: permutation importance of timbre, chroma and loudness.

Breiman, *Random Forests*, 2001, with a whole block of features permuted at once: every song gets the block of another
song, and keeps the rest. What a class loses in recall is what the network read in the block about it.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from segue.data.describe.description import BLOCKS
from segue.data.metrics import mean_over_windows
from segue.data.song import Floats, Ints, Songs
from segue.data.table import SongTable
from segue.training.fit.loop import SONGS_AT_A_TIME
from segue.training.networks.network import Network


@dataclass(frozen=True)
class Drop:
    """What is lost without a block, over the repeats."""

    mean: float  # NaN where a class has no songs.
    sd: float


@dataclass(frozen=True)
class Importance:
    """What a block of features is worth."""

    block: str
    accuracy: Drop
    recall: dict[str, Drop]  # By class.


def importances(
    network: Network, songs: SongTable, rows: Ints, labels: Ints, logits: Floats, *, n_windows: int, repeats: int
) -> tuple[Importance, ...]:
    """Return what each block of features is worth.

    Args:
        network: what answers.
        songs: the table that the rows count in.
        rows: (n,) songs.
        labels: (n,) their labels.
        logits: (n, n_classes), what the network says of them as they are.
        n_windows: windows of a song, at most.
        repeats: how often each block is permuted.
    """
    rng = np.random.default_rng(0)
    right = logits.argmax(axis=1) == labels
    found = []
    with tqdm(
        total=len(BLOCKS) * repeats * len(rows), desc="blocks", unit=" songs", disable=None, file=sys.stderr
    ) as bar:
        for name, block in BLOCKS.items():
            lost = np.empty((repeats, len(rows)))
            for repeat in range(repeats):
                said = _swapped(network, songs, rows, rng.permutation(rows), block, n_windows).argmax(axis=1)
                lost[repeat] = right.astype(float) - (said == labels)
                bar.update(len(rows))
            recall = {one: _drop(lost[:, labels == i]) for i, one in enumerate(songs.classes)}
            found.append(Importance(name, _drop(lost), recall))
    return tuple(found)


def _drop(lost: np.ndarray) -> Drop:
    """Return the drop from what each repeat (rows) lost on each song (columns)."""
    if not lost.shape[1]:
        return Drop(float("nan"), float("nan"))
    each = lost.mean(axis=1)
    return Drop(float(each.mean()), float(each.std()))


def _swapped(network: Network, songs: SongTable, rows: Ints, others: Ints, block: slice, n_windows: int) -> Floats:
    """Return logits (n, n_classes) of songs with a block of the features of `others` (n,)."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), SONGS_AT_A_TIME):
            at = slice(start, start + SONGS_AT_A_TIME)
            mixed = list(_mixed(songs, rows[at], others[at], block, n_windows))
            counts = np.array([len(one) for one in mixed])
            said = network(torch.from_numpy(np.concatenate(mixed))).numpy()
            parts.append(mean_over_windows(said, counts))
    return np.concatenate(parts)


def _mixed(songs: SongTable, rows: Ints, others: Ints, block: slice, n_windows: int) -> Iterator[Floats]:
    """Yield the windows of each song, each with a block of the features of a window of another song."""
    for song, other in zip(songs.songs(rows), songs.songs(others), strict=True):
        (own, _), (foreign, _) = (Songs.of([one]).windows(n_windows) for one in (song, other))
        own = own.copy()
        own[:, :, block] = foreign[np.arange(len(own)) % len(foreign)][:, :, block]
        yield own
