"""The ladder: how a song climbs from rung to rung, and whose answer stands. The usual two are student and teacher.

Cascade, service, evaluation and calibration all climb by these functions, so that they agree on every song.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from segue.data.metrics import TINY, cross_entropy_nats, softmax
from segue.data.song import Bools, Ints
from segue.errors import ConfigError
from segue.serving.predictions import Answers, Doubles, ModelName, Predictions

OnFallback = Literal["teacher", "surer", "mean"]
ASK_ALL_NATS = -1.0  # A threshold that accepts nothing.


@dataclass(frozen=True)
class Ladder:
    """The rungs of a cascade, first to last, and when a song goes on to the next.

    The answer of a rung is accepted where its cross-entropy is at or below the threshold. What stands of a song that
    went on is, by `on_fallback`: `teacher`, what the last rung it was sent to says; `surer`, the answer with the
    smallest cross-entropy of all; `mean`, the mean of the calibrated log-probabilities of all.
    """

    models: tuple[ModelName, ...]  # Of each rung.
    thresholds_nats: tuple[float, ...]  # Of each rung but the last.
    on_fallback: OnFallback = "teacher"

    def __post_init__(self) -> None:
        """Refuse a ladder that cannot be climbed."""
        if len(self.thresholds_nats) != len(self.models) - 1:
            raise ConfigError(
                f"expected a threshold for each of {len(self.models)} rungs but the last, found "
                f"{len(self.thresholds_nats)}"
            )
        if self.on_fallback not in get_args(OnFallback):
            raise ConfigError(f"on-fallback: expected {', '.join(get_args(OnFallback))}, found {self.on_fallback!r}")

    def __len__(self) -> int:
        return len(self.models)

    def at(self, threshold_nats: float | None) -> "Ladder":
        """Return the ladder with one threshold for every rung; with its own for None."""
        if threshold_nats is None:
            return self
        return replace(self, thresholds_nats=(threshold_nats,) * (len(self) - 1))

    def climb(self, ask: Callable[[int, Ints | slice], Predictions]) -> Answers:
        """Return the answers for some songs; `ask` returns the predictions of a rung for the songs of some rows.

        The first rung is asked about all songs, every other about those that go on to it, if there are any.
        """
        answers = self.first(ask(0, slice(None)))
        for rung in range(1, len(self)):
            rows = self.going_on(answers, rung)
            if not len(rows):
                break
            answers = self.joined(answers, rows, ask(rung, rows), rung)
        return answers

    def standings(self, says: Sequence[Predictions]) -> list[Answers]:
        """Return, for each rung, the answers if all songs climbed to it and no further; a threshold changes none."""
        answers = [self.first(says[0])]
        rows = np.arange(len(says[0]))
        for rung, said in enumerate(says[1:], 1):
            answers.append(self.joined(answers[-1], rows, said, rung))
        return answers

    def first(self, said: Predictions) -> Answers:
        """Return the answers of the first rung."""
        none = np.zeros(len(said), dtype=np.int64)
        return Answers(
            probs=said.probs,
            cross_entropy_nats=said.cross_entropy_nats,
            doubt_nats=said.doubt_nats,
            rung=none,
            reached=none,
            missing=np.isnan(said.cross_entropy_nats).astype(np.int64),
            by_teacher=np.full(len(said), self.models[0] == "teacher"),
            fell_back=np.full(len(said), len(self) == 1),
            windows=said.windows,
        )

    def going_on(self, answers: Answers, rung: int, asked_nats: Doubles | None = None) -> Ints:
        """Return the rows of the songs that go on to `rung`: their doubt on the one below is not at its threshold.

        Args:
            answers: so far.
            rung: the one that songs may go on to.
            asked_nats: (n_songs,) thresholds instead of the ladder's own; the ladder's where one is NaN.
        """
        threshold: float | Doubles = self.thresholds_nats[rung - 1]
        if asked_nats is not None:
            threshold = np.where(np.isnan(asked_nats), threshold, asked_nats)
        below = answers.reached == rung - 1
        return np.flatnonzero(below & goes_on(answers.doubt_nats, threshold))

    def joined(self, answers: Answers, rows: Ints, said: Predictions, rung: int) -> Answers:
        """Return the answers after the songs of some `rows` went on to `rung`, which said so much of them.

        What is not a number changes no answer, but the song goes on.
        """
        before = answers.take(rows)
        probs, cross_entropy, doubt = said.probs, said.cross_entropy_nats, said.doubt_nats
        stands = ~np.isnan(cross_entropy)
        if self.on_fallback == "surer":
            stands &= ~(before.cross_entropy_nats <= cross_entropy)
        elif self.on_fallback == "mean":
            probs = _mean(before, said)
            cross_entropy = cross_entropy_nats(probs)
        if self.on_fallback != "teacher":
            kept = np.where(stands, cross_entropy, before.cross_entropy_nats)
            doubt = np.where(np.isnan(said.cross_entropy_nats), np.nan, kept)
        now = replace(
            before,
            probs=np.where(stands[:, None], probs, before.probs),
            cross_entropy_nats=np.where(stands, cross_entropy, before.cross_entropy_nats),
            doubt_nats=doubt,
            rung=np.where(stands, rung, before.rung),
            reached=np.full(len(rows), rung),
            missing=before.missing + np.isnan(said.cross_entropy_nats),
            by_teacher=np.where(stands, self.models[rung] == "teacher", before.by_teacher),
            fell_back=np.full(len(rows), rung == len(self) - 1),
            windows=np.where(stands, said.windows, before.windows),
        )
        return answers.put(rows, now)


def stops(standings: Sequence[Answers], settings: Doubles) -> Ints:
    """Return the rung at which each song stops at each setting of the thresholds, (n_settings, n_songs).

    Args:
        standings: of each rung, from `Ladder.standings`.
        settings: (n_settings, n_rungs - 1) thresholds in nats.
    """
    going = np.ones((len(settings), len(standings[0])), dtype=bool)
    stop = np.zeros(going.shape, dtype=np.int64)
    for rung, answers in enumerate(standings[:-1]):
        going &= goes_on(answers.doubt_nats, settings[:, rung, None])
        stop += going
    return stop


def goes_on(doubt_nats: Doubles, threshold_nats: float | Doubles) -> Bools:
    """Return which songs go on to the next rung, (n_songs,); one whose doubt is not a number does.

    For thresholds (k, 1) the answer is (k, n_songs).
    """
    on: Bools = ~(doubt_nats <= threshold_nats)
    return on


def _mean(before: Answers, said: Predictions) -> Doubles:
    """Return the probabilities of the mean log-probability of one more rung and of those that had an answer before."""
    joined = (before.reached + 1 - before.missing)[:, None]
    logs = [np.log(np.maximum(probs, TINY)) for probs in (before.probs, said.probs)]
    return softmax((np.where(joined > 0, joined * logs[0], 0.0) + logs[1]) / (joined + 1))
