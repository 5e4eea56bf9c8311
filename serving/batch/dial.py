"""The dial of a scoring run: which threshold, and from what it follows."""

import logging
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tqdm import tqdm

from segue.data.song import Ints
from segue.errors import ConfigError
from segue.serving.batch.agreement import Agreement, agreed_threshold, best_sample_size, check_promise, sample_rows
from segue.serving.batch.budget import Budget
from segue.serving.batch.catalogue import Catalogue
from segue.serving.batch.scorer import Scorer
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import check_threshold
from segue.serving.ladder import ASK_ALL_NATS

log = logging.getLogger(__name__)

Mode = Literal["fast", "balanced", "accurate"]
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Asked:
    """What was asked of the dial; at most one of the first four."""

    threshold: float | None = None  # In nats.
    mode: Mode | None = None
    agree: float | None = None  # Share of the songs that get the teacher's answer.
    budget: float | None = None  # Seconds.
    confidence: float = 0.95  # Of the promise of `agree`.

    def __post_init__(self) -> None:
        """Refuse two settings at once."""
        check_threshold(self.threshold)
        given = [f"--{name}" for name in ("threshold", "mode", "agree", "budget") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"expected one setting of the dial, found {' and '.join(given)}")
        if self.agree is not None:
            check_promise(self.agree, self.confidence)


@dataclass(frozen=True)
class Dial:
    """How the songs of a run are routed."""

    threshold_nats: float | None  # None: the bundle's, of each rung.
    going_on: Ints  # Rows of the catalogue that go on to the teacher whatever the student says, in rising order.
    agreement: Agreement | None = None
    budget: Budget | None = None


def set_dial(asked: Asked, bundle: Bundle, catalogue: Catalogue, scorer: Scorer) -> Dial:
    """Return the dial for the songs of a catalogue; for a promise, a sample of them is shown to both models."""
    nobody = np.zeros(0, np.int64)
    if asked.agree is not None:
        agreement, rows = promise(catalogue, scorer, asked.agree, asked.confidence)
        log.info("%s; threshold %.3f nats", agreement, agreement.threshold_nats)
        return Dial(agreement.threshold_nats, rows, agreement)
    if asked.budget is not None:
        return Dial(np.inf, nobody, budget=Budget(asked.budget, bundle, scorer.threads))
    if asked.mode in ("fast", "accurate"):
        return Dial(np.inf if asked.mode == "fast" else ASK_ALL_NATS, nobody)
    return Dial(asked.threshold, nobody)


def promise(catalogue: Catalogue, scorer: Scorer, agree: float, confidence: float) -> tuple[Agreement, Ints]:
    """Return what can be promised about a catalogue, and the rows of the sample that it rests on."""
    rows = sample_rows(len(catalogue), best_sample_size(len(catalogue), agree, confidence), SAMPLE_SEED)
    progress = tqdm(total=len(rows), desc="sample", unit=" songs", disable=None, file=sys.stderr)
    doubts, disagree, rejected = [np.zeros(0)], [np.zeros(0, bool)], 0
    with progress:
        for batch in catalogue.take(rows):
            doubt, differs = scorer.compare(batch)
            doubts.append(doubt)
            disagree.append(differs)
            rejected += len(batch) - len(doubt)
            progress.update(len(batch))
    agreement = agreed_threshold(
        np.concatenate(doubts),
        np.concatenate(disagree),
        songs=len(catalogue),
        agree=agree,
        confidence=confidence,
        rejected=rejected,
    )
    return agreement, rows
