"""BentoML, as its first pages show it: one service with batches, two workers."""

from typing import Any

import bentoml
import numpy as np

from segue.bench.peers.servers.plain_cascade import PlainCascade


@bentoml.service(workers=2)
class Cascade:
    """Both models in one service."""

    def __init__(self) -> None:
        """Load both models."""
        self.cascade = PlainCascade()

    @bentoml.api(batchable=True)
    def classify(self, songs: np.ndarray) -> list[dict[str, Any]]:
        """Return an answer for each of `songs`, (n_songs, 120, 25)."""
        found: list[dict[str, Any]] = self.cascade.to_json(self.cascade.answer(songs.astype(np.float32)))["songs"]
        return found
