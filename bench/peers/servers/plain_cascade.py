"""The cascade as somebody would write it who has two ONNX files and no Segue: what every peer serves.

It needs numpy and onnxruntime and nothing else, since each peer runs in an environment of its own. The folder that the
environment variable PEER_MODELS names has `student.onnx`, `teacher.onnx` and `cascade.json`.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

MODELS = "PEER_MODELS"
SONG_SHAPE = (120, 25)


class Answers(NamedTuple):
    """What is answered about some songs."""

    probs: NDArray[np.float64]  # (n_songs, n_classes)
    cross_entropy_nats: NDArray[np.float64]  # (n_songs,)
    by_teacher: NDArray[np.bool_]  # (n_songs,)


class Model:
    """One of the two models, with one thread."""

    def __init__(self, file: Path, temperature: float) -> None:
        """Load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._temperature = temperature

    def probs(self, songs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities (n_songs, n_classes) of songs (n_songs, 120, 25)."""
        logits = self._session.run(["logits"], {"segments": songs})[0].astype(np.float64) / self._temperature
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return found


class PlainCascade:
    """Student, teacher and the threshold between them."""

    def __init__(self, folder: Path | None = None) -> None:
        """Load both models."""
        folder = folder or Path(os.environ[MODELS])
        config = json.loads((folder / "cascade.json").read_text())
        self.classes: list[str] = config["classes"]
        self.threshold_nats: float = config["threshold_nats"]
        self.student = Model(folder / "student.onnx", config["student_temperature"])
        self.teacher = Model(folder / "teacher.onnx", config["teacher_temperature"])

    def answer(self, songs: NDArray[np.float32]) -> Answers:
        """Ask the student about songs (n_songs, 120, 25), and the teacher about those it is not sure of."""
        probs = self.student.probs(songs)
        hard = self.is_hard(probs)
        if hard.any():
            probs[hard] = self.teacher.probs(songs[hard])
        return Answers(probs, -np.log(probs.max(axis=1)), hard)

    def is_hard(self, probs: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which songs the student, with these probabilities, is not sure of."""
        hard: NDArray[np.bool_] = ~(-np.log(probs.max(axis=1)) <= self.threshold_nats)
        return hard

    def to_json(self, answers: Answers) -> dict[str, Any]:
        """Return answers as Segue has them in JSON."""
        songs = [
            {
                "genre": self.classes[max(range(len(probs)), key=probs.__getitem__)],
                "probabilities": dict(zip(self.classes, probs, strict=True)),
                "cross_entropy_nats": cross_entropy,
                "answered_by": "teacher" if by_teacher else "student",
            }
            for probs, cross_entropy, by_teacher in zip(*(each.tolist() for each in answers), strict=True)
        ]
        return {"songs": songs}


def songs_from_bytes(body: bytes) -> NDArray[np.float32]:
    """Return songs (n_songs, 120, 25) from float32 numbers, little-endian."""
    return np.frombuffer(body, "<f4").reshape(-1, *SONG_SHAPE)
