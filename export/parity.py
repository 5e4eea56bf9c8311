"""Parity: an exported graph says what the trained network says, or there is no bundle."""

import numpy as np
import torch

from segue.data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, N_FEATURES, WINDOW, Floats
from segue.errors import SegueError
from segue.serving.bundle.manifest import Parity
from segue.serving.cascade import Model
from segue.training.networks.network import Network

TOLERANCE = 1e-4  # Of a logit, absolute.
BATCHES = (1, 7, 256)


class ParityError(SegueError):
    """An exported graph and the trained network disagree; nothing was written."""


def check_parity(name: str, network: Network, model: Model, windows: Floats) -> Parity:
    """Compare the logits of the exported `model` with those of `network` in eval mode.

    On the given raw windows (n, 120, 25) and on edge cases, in batches of 1, 7 and 256.

    Raises:
        ParityError: a difference is above 1e-4, or not a number.
    """
    largest, agreement = 0.0, 1.0
    for songs in (windows, edge_windows()):
        expected = network_logits(network, songs)
        for batch in BATCHES:
            # Songs that are fewer than a batch are repeated until they fill it.
            rows = np.arange(max(batch, len(songs))) % len(songs)
            few = [rows[at : at + batch] for at in range(0, len(rows), batch)]
            found = np.concatenate([model.logits(songs[one]) for one in few])
            difference = np.abs(found - expected[rows])
            worst, where = float(difference.max()), int(rows[difference.max(axis=1).argmax()])
            if not worst <= TOLERANCE:
                raise ParityError(
                    f"{name}: expected logits within {TOLERANCE:g} of the trained network's at batch {batch}, "
                    f"found a difference of {worst:g} in song {where} of {len(songs)}"
                )
            largest = max(largest, worst)
            if songs is windows:
                same = found.argmax(axis=1) == expected[rows].argmax(axis=1)
                agreement = min(agreement, float(same[: len(songs)].mean()))
    return Parity(largest, agreement, len(windows), len(edge_windows()), BATCHES)


def network_logits(network: Network, windows: Floats) -> Floats:
    """Return the logits (n, n_classes) of a torch network in eval mode."""
    network.eval()
    with torch.inference_mode():
        parts = [network(part) for part in torch.split(torch.from_numpy(windows), max(BATCHES))]
        logits: Floats = torch.cat(parts).numpy()
    return logits


def edge_windows() -> Floats:
    """Return legal but unusual raw windows, (8, 120, 25).

    Silence, nothing but zeros, the loudest there is, changes from end to end of the ranges, one note held, one whose
    timbre is far from any mean, a song so quiet that only its last bits change, and one sound in the middle of silence.
    """
    silence = np.zeros((WINDOW, N_FEATURES), dtype=np.float32)
    silence[:, LOUDNESS] = LOUDNESS_RANGE_DB[0]
    loudest = np.ones((WINDOW, N_FEATURES), dtype=np.float32)
    loudest[:, LOUDNESS] = LOUDNESS_RANGE_DB[1]
    odd = (np.arange(WINDOW) % 2)[:, None]
    extreme = silence.copy()
    extreme[:, :12] = np.where(odd, 500.0, -500.0)
    extreme[:, CHROMA] = odd
    held = np.full((WINDOW, N_FEATURES), 0.5, dtype=np.float32)
    held[:, LOUDNESS] = -10
    far = held.copy()
    far[:, :12] = 300
    quiet = silence.copy()
    quiet[:, :12] += 1e-3 * odd
    quiet[:, LOUDNESS] += 1e-3 * odd[:, 0]
    click = silence.copy()
    click[WINDOW // 2] = loudest[0]
    return np.stack([silence, np.zeros_like(silence), loudest, extreme, held, far, quiet, click])
