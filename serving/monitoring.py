"""Metrics for Prometheus. Every label takes values from a fixed list, so the number of series is bounded."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from serving.batching import Ran
from serving.cascade import Answers
from serving.refusal import Reason

ModelName = Literal["student", "teacher"]
MODELS: tuple[ModelName, ...] = ("student", "teacher")

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SONGS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NATS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0)


class ManyHistogram(Histogram):
    """A histogram that takes many values at once."""

    def observe_many(self, values: NDArray[np.float64]) -> None:
        """Do what `observe` does for each of `values`, for the price of one; NaN among them count nowhere."""
        known = values[~np.isnan(values)]
        places, counts = np.unique(np.searchsorted(self._upper_bounds, known), return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            self._buckets[place].inc(count)
        self._sum.inc(float(known.sum()))


class Monitoring:
    """The metrics of one worker process. Make it once BentoML has set PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics in `registry`."""
        at: Any = {"registry": registry}
        self._requests = Counter("segue_requests", "Requests by path and status.", ["path", "status"], **at)
        self._request_s = Histogram(
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
        self._batch_songs = Histogram("segue_batch_songs", "Songs of a batch.", ["model"], buckets=SONGS, **at)
        self._model_s = Histogram("segue_model_seconds", "A model on a batch.", ["model"], buckets=SECONDS, **at)
        self._queue_s = ManyHistogram(
            "segue_queue_seconds", "How long a request waited for a model.", ["model"], buckets=SECONDS, **at
        )
        self._waiting = Gauge(
            "segue_waiting_songs", "Songs that wait for a model.", ["model"], multiprocess_mode="livesum", **at
        )
        self._teachers = Gauge(
            "segue_workers_with_teacher", "Workers whose teacher is loaded.", multiprocess_mode="livesum", **at
        )
        self._reloads = Counter("segue_reloads", "Bundles that a worker was told to load.", ["result"], **at)
        self._children: dict[tuple[int, tuple[object, ...]], Any] = {}

    def requested(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is one of the service's."""
        self._of(self._requests, path, status).inc()
        self._of(self._request_s, path).observe(seconds)

    def refused(self, reason: Reason) -> None:
        """Count a request without an answer."""
        self._of(self._refusals, reason).inc()

    def bad_songs(self, count: int) -> None:
        """Count songs that broke the contract."""
        self._bad_songs.inc(count)

    def answered(
        self, answers: Answers, student_cross_entropy_nats: NDArray[np.float64], classes: Sequence[str]
    ) -> None:
        """Count the songs of one request."""
        kinds = answers.choice * 2 + answers.by_teacher
        found, counts = np.unique(kinds, return_counts=True)
        for kind, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._of(self._songs, MODELS[kind % 2], classes[kind // 2]).inc(count)
        self._fallbacks.inc(int(answers.fell_back.sum()))
        self._cross_entropy.observe_many(student_cross_entropy_nats)

    def teacher_trouble(self, trouble: str, songs: int) -> None:
        """Count songs that fell back in vain."""
        self._of(self._without_teacher, trouble).inc(songs)

    def ran(self, model: ModelName, ran: Ran) -> None:
        """Record one batch of a model, and what waits for the next."""
        self._of(self._batch_songs, model).observe(ran.size)
        self._of(self._model_s, model).observe(ran.seconds)
        self._of(self._queue_s, model).observe_many(np.array(ran.queued_s))
        self._of(self._waiting, model).set(ran.waiting)

    def loaded(self, *, has_teacher: bool) -> None:
        """Record whether the teacher of the open bundle was loaded."""
        self._teachers.set(has_teacher)

    def reloaded(self, result: Literal["swapped", "refused"]) -> None:
        """Count a reload."""
        self._reloads.labels(result).inc()

    def _of(self, metric: Any, *labels: object) -> Any:
        """Return the series of `labels`; looking it up in the metric itself takes longer than counting."""
        key = (id(metric), labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found
