"""The feed: windows of songs, from the table on disk or from the memory of a GPU."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from segue.data.song import N_FEATURES, WINDOW, Ints, Songs
from segue.data.table import SongTable

SONGS_AT_A_TIME = 1024
GPU_SHARE = 0.5  # Of a GPU's free memory that songs may take.


class Feed(Protocol):
    """Windows of the songs of a table."""

    def windows(self, rows: Ints, starts: Ints) -> Tensor:
        """Return one raw window of each of the given songs, (n, 120, 25), from segment `starts` (n,) on.

        A song shorter than a window is repeated from its beginning.
        """


class TableFeed:
    """Reads windows from the table, so that memory holds a batch and no more."""

    def __init__(self, songs: SongTable, device: torch.device) -> None:
        """Read from `songs`, for networks on `device`."""
        self._songs = songs
        self._device = device

    def windows(self, rows: Ints, starts: Ints) -> Tensor:
        """Return one raw window of each song; see `Feed`."""
        cut = [
            self._songs.segments(row, start, WINDOW) for row, start in zip(rows.tolist(), starts.tolist(), strict=True)
        ]
        windows, _ = Songs.of(cut).windows()
        return torch.tensor(windows, device=self._device)


class ResidentFeed:
    """Holds all songs in the memory of a device, where windows are cut without a copy from outside."""

    def __init__(self, songs: SongTable, device: torch.device) -> None:
        """Copy the segments of `songs` to `device`."""
        lengths = songs.lengths
        ends = np.cumsum(lengths)
        self._segments = torch.empty((int(ends[-1]), N_FEATURES), device=device)
        for row, end in enumerate(ends.tolist()):
            self._segments[end - int(lengths[row]) : end] = torch.tensor(songs.segments(row))
        self._firsts = torch.from_numpy(ends - lengths).to(device)
        self._lengths = torch.from_numpy(lengths).to(device)

    def windows(self, rows: Ints, starts: Ints) -> Tensor:
        """Return one raw window of each song; see `Feed`."""
        device = self._segments.device
        songs, first = torch.from_numpy(rows).to(device), torch.from_numpy(starts).to(device)
        steps = first[:, None] + torch.arange(WINDOW, device=device)
        # A window of a song that is long enough ends before the song does, so only short ones wrap around.
        return self._segments[self._firsts[songs, None] + steps % self._lengths[songs, None]]


def open_feed(songs: SongTable, device: torch.device) -> Feed:
    """Return a feed for networks on `device`: songs go into the memory of a GPU where they fit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if songs.lengths.sum() * N_FEATURES * 4 < GPU_SHARE * free:
            return ResidentFeed(songs, device)
    return TableFeed(songs, device)


def random_starts(lengths: Ints, rng: np.random.Generator) -> Ints:
    """Return where a random window of each song of the given `lengths` (n,) starts."""
    return rng.integers(np.maximum(lengths - WINDOW, 0) + 1)


def central_starts(lengths: Ints) -> Ints:
    """Return where the central window of each song of the given `lengths` (n,) starts."""
    starts: Ints = np.maximum(lengths - WINDOW, 0) // 2
    return starts


def check_songs(songs: SongTable, rows: Ints | Sequence[int]) -> None:
    """Read the given songs once; the first that breaks the contract is a `SongError` that names it."""
    for start in range(0, len(rows), SONGS_AT_A_TIME):
        songs.songs(rows[start : start + SONGS_AT_A_TIME])
