"""Metrics for Prometheus. Every label takes values from a fixed list, so the number of series is bounded."""

from collections import Counter as Counted
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import values as prometheus_values

from segue.serving.http.batching import Ran
from segue.serving.http.refusal import Reason
from segue.serving.http.shared_metrics import SharedMetrics
from segue.serving.predictions import MODELS, Answers

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SONGS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NATS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0)


class ManyHistogram(Histogram):
    """A histogram that takes many values at once."""

    def observe_many(self, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Do what `observe` does for each of `values`, for the price of one; NaN among them count nowhere."""
        found = np.asarray(values, dtype=np.float64)
        found = found[~np.isnan(found)]
        counts = np.bincount(np.searchsorted(self._upper_bounds, found), minlength=len(self._buckets))
        for place in np.flatnonzero(counts).tolist():
            self._buckets[place].inc(int(counts[place]))
        self._sum.inc(float(found.sum()))


class Monitoring:
    """The metrics of one worker process, and its share in those of its server."""

    def __init__(self, registry: CollectorRegistry | None = None, folder: Path | None = None) -> None:
        """Begin to count, from nothing.

        Args:
            registry: what the metrics are registered in; default: one of their own.
            folder: the server's, through which its workers tell each other; None: there are no others.
        """
        registry = registry or CollectorRegistry()
        # BentoML sets a variable that makes prometheus_client keep values in files: see `shared_metrics`.
        prometheus_values.ValueClass = prometheus_values.MutexValue
        at: Any = {"registry": registry}
        self._requests = Counter("segue_requests", "Requests by path and status.", ["path", "status"], **at)
        self._request_s = ManyHistogram(
            "segue_request_seconds", "From the first byte to the answer.", ["path"], buckets=SECONDS, **at
        )
        self._refusals = Counter("segue_refusals", "Requests without an answer.", ["reason"], **at)
        self._bad_songs = Counter("segue_bad_songs", "Songs that broke the contract.", **at)
        self._songs = Counter("segue_songs", "Songs that got an answer.", ["answered_by", "genre"], **at)
        self._fallbacks = Counter("segue_fallbacks", "Songs that fell back to the teacher.", **at)
        self._without_teacher = Counter(
            "segue_without_teacher", "Songs that fell back while the teacher was in trouble.", ["trouble"], **at
        )
        self._cross_entropy = ManyHistogram(
            "segue_cross_entropy_nats",
            "The student's cross-entropy: when its distribution moves, so have the songs.",
            buckets=NATS,
            **at,
        )
        self._batch_songs = ManyHistogram("segue_batch_songs", "Songs of a batch.", ["model"], buckets=SONGS, **at)
        self._model_s = ManyHistogram("segue_model_seconds", "A model on a batch.", ["model"], buckets=SECONDS, **at)
        self._queue_s = ManyHistogram(
            "segue_queue_seconds", "How long a request waited for a model.", ["model"], buckets=SECONDS, **at
        )
        self._waiting = Gauge("segue_waiting_songs", "Songs that wait for a model.", ["model"], **at)
        self._teachers = Gauge("segue_workers_with_teacher", "Workers whose teacher is loaded.", **at)
        self._reloads = Counter("segue_reloads", "Bundles that a worker was told to load.", ["result"], **at)
        self._shadow = Counter(
            "segue_shadow_songs",
            "Songs that the challenger in the shadow was offered, by the genre they were answered.",
            ["result", "genre"],
            **at,
        )
        self._shared = SharedMetrics(registry, folder)
        self._pending_requests: list[tuple[str, int, float, Reason | None]] = []
        self._pending_answers: list[tuple[Answers, NDArray[np.float64], Sequence[str]]] = []
        self._pending_batches: list[tuple[str, Ran]] = []

    def requested(self, path: str, status: int, seconds: float, refused: Reason | None) -> None:
        """Count a request, at the next `flush`; `path` is one of the service's, `refused` why it has no answer."""
        self._pending_requests.append((path, status, seconds, refused))

    def answered(
        self, answers: Answers, student_cross_entropy_nats: NDArray[np.float64], classes: Sequence[str]
    ) -> None:
        """Count the songs of one request, at the next `flush`."""
        self._pending_answers.append((answers, student_cross_entropy_nats, classes))

    def ran(self, model: str, ran: Ran) -> None:
        """Record one batch of a model, and what waits for the next, at the next `flush`."""
        self._pending_batches.append((model, ran))

    def bad_songs(self, count: int) -> None:
        """Count songs that broke the contract."""
        self._bad_songs.inc(count)

    def teacher_trouble(self, trouble: str, songs: int) -> None:
        """Count songs that fell back in vain."""
        self._without_teacher.labels(trouble).inc(songs)

    def loaded(self, *, has_teacher: bool) -> None:
        """Record whether the teacher of the open bundle was loaded."""
        self._teachers.set(has_teacher)

    def shadowed(self, results: Mapping[tuple[str, str], int]) -> None:
        """Count songs that a challenger was offered, by result and by the genre that they were answered."""
        for labels, songs in results.items():
            self._shadow.labels(*labels).inc(songs)

    def reloaded(self, result: Literal["swapped", "refused"]) -> None:
        """Count a reload."""
        self._reloads.labels(result).inc()

    def page(self) -> bytes:
        """Return the metrics of all workers, in Prometheus's text format."""
        self._count_pending()
        return self._shared.page()

    def flush(self) -> None:
        """Count what has gathered, and let the other workers know."""
        self._count_pending()
        self._shared.write()

    def _count_pending(self) -> None:
        """Count what has gathered; many requests at once take hardly longer than one."""
        requests, self._pending_requests = self._pending_requests, []
        answers, self._pending_answers = self._pending_answers, []
        batches, self._pending_batches = self._pending_batches, []
        for (path, status), count in Counted((path, status) for path, status, _, _ in requests).items():
            self._requests.labels(path, status).inc(count)
        for reason, count in Counted(reason for _, _, _, reason in requests if reason is not None).items():
            self._refusals.labels(reason).inc(count)
        for path in {path for path, _, _, _ in requests}:
            self._request_s.labels(path).observe_many([seconds for one, _, seconds, _ in requests if one == path])
        if answers:
            self._flush_answers(answers)
        for model in {model for model, _ in batches}:
            rans = [ran for one, ran in batches if one == model]
            self._batch_songs.labels(model).observe_many([ran.size for ran in rans])
            self._model_s.labels(model).observe_many([ran.seconds for ran in rans])
            self._queue_s.labels(model).observe_many([queued for ran in rans for queued in ran.queued_s])
            self._waiting.labels(model).set(rans[-1].waiting)

    def _flush_answers(self, pending: Sequence[tuple[Answers, NDArray[np.float64], Sequence[str]]]) -> None:
        songs = Counted(
            (who, classes[choice])
            for answers, _, classes in pending
            for who, choice in zip(answers.by_teacher.tolist(), answers.choice.tolist(), strict=True)
        )
        for (by_teacher, genre), count in songs.items():
            self._songs.labels(MODELS[by_teacher], genre).inc(count)
        self._fallbacks.inc(sum(int(answers.fell_back.sum()) for answers, _, _ in pending))
        self._cross_entropy.observe_many(np.concatenate([student for _, student, _ in pending]))
