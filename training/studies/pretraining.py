"""Pretraining: a recurrence learns to predict the next segment of songs, for which no label is needed."""

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from segue.data.song import N_FEATURES, WINDOW, Ints
from segue.data.table import SongTable
from segue.training.fit.feed import TableFeed, random_starts
from segue.training.fit.schedules import one_cycle
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentNetwork

BATCH_SONGS, PEAK_RATE, PART = 64, 2e-3, 40


def pretrain(network: Network, songs: SongTable, rows: Ints, epochs: int, seed: int) -> float:
    """Train the recurrence of `network` in place to predict each next segment, and return the last mean squared error.

    The error counts in standard deviations of the features; always answering their mean would get 1.
    """
    assert isinstance(network, RecurrentNetwork)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    feed = TableFeed(songs, torch.device("cpu"))
    predictor = nn.Linear(network.config.state, N_FEATURES)
    optimiser = AdamW([*network.parameters(), *predictor.parameters()], lr=PEAK_RATE, weight_decay=1e-2)
    batches = -(-len(rows) // BATCH_SONGS)
    network.train()
    errors: list[float] = []
    for step in range(epochs * batches):
        if step % batches == 0:
            order, errors = rng.permutation(len(rows)), []
        some = rows[order[step % batches :: batches]]
        segments = feed.windows(some, random_starts(songs.lengths[some], rng))
        start = int(rng.integers(WINDOW - PART + 1))
        part = segments[:, start : start + PART]
        predicted = predictor(network.states(part[:, :-1]))
        error = (predicted - network.standardise(part[:, 1:])).square().mean()
        optimiser.zero_grad()
        torch.autograd.backward(error)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = one_cycle(step, epochs * batches, PEAK_RATE)
        optimiser.step()
        errors.append(error.item())
    return float(np.mean(errors))
