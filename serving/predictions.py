"""What models say of songs: the predictions of one, and the answers that a cascade makes of several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from segue.data.metrics import cross_entropy_nats, softmax
from segue.data.song import Bools, Floats, Ints

ModelName = Literal["student", "teacher"]
MODELS: tuple[ModelName, ...] = ("student", "teacher")
NOT_A_NUMBER = "the models' answer is not a number; are the song's values in range?"

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Arrays that have one row a song."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, rows: Ints | slice) -> Self:
        """Return what is said of the songs of the given rows, in that order."""
        return type(self)(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})

    def put(self, rows: Ints, others: Self) -> Self:
        """Return the same with what `others` says of the songs of the given rows."""
        found = {one.name: np.array(getattr(self, one.name)) for one in fields(self)}
        for name, values in found.items():
            values[rows] = getattr(others, name)
        return type(self)(**found)

    def split(self, sizes: Sequence[int]) -> list[Self]:
        """Return what is said of the first `sizes[0]` songs, of the next `sizes[1]`, and so on."""
        ends = np.cumsum(sizes).tolist()
        return [self.take(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return what is said of the songs of all parts, of which there is one at least."""
        return cls(**{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)})


@dataclass(frozen=True, eq=False)
class Predictions(Rows):
    """What one model says of some songs."""

    logits: Floats  # (n_songs, n_classes), the mean log-probability over each song's windows.
    probs: Doubles  # (n_songs, n_classes), of logits / temperature.
    cross_entropy_nats: Doubles  # (n_songs,)
    doubt_nats: Doubles  # (n_songs,) what a threshold is compared with: cross-entropy / class scale.
    windows: Ints  # (n_songs,) how many windows the model saw.

    @classmethod
    def of(
        cls,
        logits: Floats,
        temperature: float | Doubles,
        windows: Ints,
        class_scales: Sequence[float] | None = None,
    ) -> Self:
        """Read predictions from songs' logits (n_songs, n_classes).

        Args:
            logits: the mean log-probability over each song's windows.
            temperature: one for all songs, or one a song, (n_songs,).
            windows: (n_songs,) how many windows of each song the logits come from.
            class_scales: (n_classes,) for a student with thresholds per class: the threshold of a song is multiplied
                by the scale of the class it is said to be.
        """
        probs = softmax(logits, temperature)
        cross_entropy = cross_entropy_nats(probs)
        scale = 1.0 if class_scales is None else np.array(class_scales)[probs.argmax(axis=1)]
        return cls(logits, probs, cross_entropy, cross_entropy / scale, windows)

    @classmethod
    def none(cls, n_songs: int, n_classes: int) -> Self:
        """Return what a model that fails says of `n_songs` songs: not a number, from no window."""
        logits = np.full((n_songs, n_classes), np.nan, dtype=np.float32)
        return cls.of(logits, 1.0, np.zeros(n_songs, dtype=np.int64))


@dataclass(frozen=True)
class Answer:
    """The answer for one song, in Python and over HTTP."""

    song_id: str
    genre: str
    probabilities: dict[str, float]
    cross_entropy_nats: float  # -log of the largest probability: 0 is certain.
    answered_by: ModelName
    rung: int  # Of the ladder, which the answer comes from; 1 is the first.
    windows: int  # How many windows of 120 segments that rung looked at.
    degraded: bool  # The song went on to a rung that was in trouble: this is the answer of one below.


@dataclass(frozen=True, eq=False)
class Answers(Rows):
    """What a cascade says of some songs."""

    probs: Doubles  # (n_songs, n_classes)
    cross_entropy_nats: Doubles  # (n_songs,); NaN where no model knows, which the caller must refuse.
    doubt_nats: Doubles  # (n_songs,) what the threshold of the last rung was compared with; NaN where it did not know.
    rung: Ints  # (n_songs,) the rung that the answer comes from, 0 for the first.
    reached: Ints  # (n_songs,) the last rung that was asked.
    missing: Ints  # (n_songs,) how many of the rungs that were asked had no answer.
    by_teacher: Bools  # (n_songs,) whether the rung that the answer comes from is a teacher's.
    fell_back: Bools  # (n_songs,) whether the last rung of all was asked, which is the teacher's.
    windows: Ints  # (n_songs,) how many windows the model that answered saw.

    @property
    def choice(self) -> Ints:
        """The index of each song's class, (n_songs,)."""
        best: Ints = self.probs.argmax(axis=1)
        return best

    @property
    def degraded(self) -> Bools:
        """Whether a song went on to a rung that had no answer, (n_songs,)."""
        degraded: Bools = (self.reached > 0) & np.isnan(self.doubt_nats)
        return degraded

    def answered_by(self, row: int) -> ModelName:
        """Return which model answered for one song."""
        return MODELS[int(self.by_teacher[row])]

    def named(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return, for each song, the fields of its `Answer` but for its id."""
        columns = (self.choice, self.probs, self.cross_entropy_nats, self.by_teacher)
        more = (self.rung + 1, self.windows, self.degraded)
        return [
            {
                "genre": classes[choice],
                "probabilities": dict(zip(classes, probs, strict=True)),
                "cross_entropy_nats": nats,
                "answered_by": MODELS[by_teacher],
                "rung": rung,
                "windows": windows,
                "degraded": degraded,
            }
            for choice, probs, nats, by_teacher, rung, windows, degraded in zip(
                *(column.tolist() for column in (*columns, *more)), strict=True
            )
        ]

    def one_by_one(self, song_ids: Sequence[str], classes: Sequence[str]) -> Iterator[Answer]:
        """Yield the answer for each song."""
        for song_id, fields_of_one in zip(song_ids, self.named(classes), strict=True):
            yield Answer(song_id, **fields_of_one)
