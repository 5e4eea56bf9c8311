"""A server to compare with: the same models as a BentoML service in its simplest form, with BentoML's own batches."""

from typing import Any

import bentoml
import numpy as np

from segue.data.song import Songs
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.settings import Settings


@bentoml.service
class PlainBentoML:
    """Answers in JSON, with BentoML's default settings."""

    def __init__(self) -> None:
        """Load both models."""
        settings = Settings.from_environment()
        bundle = load_bundle(settings.bundle)
        self._classes = bundle.manifest.classes
        self._cascade = open_cascade(bundle, threads=settings.threads)

    @bentoml.api(batchable=True)
    def classify(self, songs: np.ndarray) -> list[dict[str, Any]]:
        """Return an answer for each of `songs`, (n, 120, 25)."""
        answers = self._cascade.answer(Songs.of(songs))
        return [
            {
                "genre": self._classes[choice],
                "probabilities": dict(zip(self._classes, probs, strict=True)),
                "cross_entropy_nats": cross_entropy,
            }
            for choice, probs, cross_entropy in zip(
                answers.choice.tolist(), answers.probs.tolist(), answers.cross_entropy_nats.tolist(), strict=True
            )
        ]
