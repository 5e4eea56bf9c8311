"""BentoML with a service a model, as its pages on several models show it: `bentoml.depends`."""

from typing import Any

import bentoml
import numpy as np

from segue.bench.peers.servers.plain_cascade import Answers, PlainCascade


@bentoml.service
class Student:
    """Answers about every song."""

    def __init__(self) -> None:
        """Load it."""
        self.model = PlainCascade().student

    @bentoml.api(batchable=True)
    def probs(self, songs: np.ndarray) -> np.ndarray:
        """Return probabilities (n_songs, n_classes) of songs (n_songs, 120, 25)."""
        return self.model.probs(songs.astype(np.float32))


@bentoml.service
class Teacher:
    """Answers about hard songs."""

    def __init__(self) -> None:
        """Load it."""
        self.model = PlainCascade().teacher

    @bentoml.api(batchable=True)
    def probs(self, songs: np.ndarray) -> np.ndarray:
        """Return probabilities (n_songs, n_classes) of songs (n_songs, 120, 25)."""
        return self.model.probs(songs.astype(np.float32))


@bentoml.service
class Cascade:
    """Asks the student, and the teacher where the student is not sure."""

    student = bentoml.depends(Student)
    teacher = bentoml.depends(Teacher)

    def __init__(self) -> None:
        """Load what makes answers of probabilities."""
        self.plain = PlainCascade()

    @bentoml.api
    async def classify(self, songs: np.ndarray) -> dict[str, Any]:
        """Return an answer for each of `songs`, (n_songs, 120, 25)."""
        probs = np.array(await self.student.to_async.probs(songs))
        hard = self.plain.is_hard(probs)
        if hard.any():
            probs[hard] = await self.teacher.to_async.probs(songs[hard])
        return self.plain.to_json(Answers(probs, -np.log(probs.max(axis=1)), hard))
