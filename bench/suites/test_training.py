"""The training step: the whole training loop beside the plainest one that learns the same."""

import numpy as np
import pytest
import torch

from segue.bench.plain_training import NETWORK, Lesson, PlainLesson
from segue.bench.suites.conftest import Measure
from segue.data.table import SongTable

SONGS = 200  # Of an epoch.


@pytest.mark.parametrize("loop", [Lesson, PlainLesson])
def test_epoch(measure: Measure, table: SongTable, loop: "type[Lesson] | type[PlainLesson]", threads: int) -> None:
    """An epoch of the study's teacher."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        lesson = loop(table, np.arange(SONGS))
        measure(
            f"training, {NETWORK.bptt_steps} steps, {threads} threads", lesson.epoch, SONGS,
            loop=loop.title, threads=threads, least=3,
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
