"""Parity: an exported graph says what the trained network says, or there is no bundle."""

import numpy as np
import torch

from data.errors import SegueError
from data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, N_FEATURES, WINDOW, Floats
from serving.cascade import Model
from training.networks.network import Network

TOLERANCE = 1e-4  # Of a logit, absolute.
BATCHES = (1, 7, 256)


class ParityError(SegueError):
    """An exported graph and the trained network disagree; nothing was written."""


def check_parity(name: str, network: Network, model: Model, windows: Floats) -> float:
    """Return the largest |difference| of logits between `network` in eval mode and the exported `model`.

    Compared over batches of 1, 7 and 256, on the given raw windows (n, 120, 25) and on edge cases: silence, constants,
    the ends of the ranges.

    Raises:
        ParityError: the difference is above 1e-4, or not a number.
    """
    largest = 0.0
    for songs in (windows, edge_windows()):
        expected = network_logits(network, songs)
        for batch in BATCHES:
            few = songs[: max(batch, min(len(songs), 20 * batch))]
            found = np.concatenate([model.logits(few[at : at + batch]) for at in range(0, len(few), batch)])
            difference = np.abs(found - expected[: len(few)])
            worst = float(difference.max())
            if not worst <= TOLERANCE:
                raise ParityError(
                    f"{name}: expected logits within {TOLERANCE:g} of the trained network's at batch {batch}, "
                    f"found a difference of {worst:g} in song {int(difference.max(axis=1).argmax())} of {len(few)}"
                )
            largest = max(largest, worst)
    return largest


def network_logits(network: Network, windows: Floats) -> Floats:
    """Return the logits (n, n_classes) of a torch network in eval mode."""
    network.eval()
    with torch.inference_mode():
        parts = [network(part) for part in torch.split(torch.from_numpy(windows), max(BATCHES))]
        logits: Floats = torch.cat(parts).numpy()
    return logits


def edge_windows() -> Floats:
    """Return legal but unusual raw windows, (4, 120, 25)."""
    silence = np.zeros((WINDOW, N_FEATURES), dtype=np.float32)
    silence[:, LOUDNESS] = LOUDNESS_RANGE_DB[0]
    loudest = np.ones((WINDOW, N_FEATURES), dtype=np.float32)
    loudest[:, LOUDNESS] = LOUDNESS_RANGE_DB[1]
    extreme = silence.copy()
    extreme[:, :12] = np.where(np.arange(WINDOW)[:, None] % 2, 500.0, -500.0)
    extreme[:, CHROMA] = np.arange(WINDOW)[:, None] % 2
    return np.stack([silence, loudest, extreme, np.zeros_like(silence)])
