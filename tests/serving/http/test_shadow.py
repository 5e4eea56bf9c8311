"""A challenger in the shadow: counted, never returned, never felt."""

import threading
from pathlib import Path

import numpy as np
import pytest

from segue.data.song import Songs
from segue.errors import BundleError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.settings import Settings
from segue.serving.http.shadow import WAITING_REQUESTS, Shadow
from tests.serving.conftest import OwnService


class Counts(Monitoring):
    """Remembers what was counted, and tells when `wanted` songs were."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.counts: dict[tuple[str, str], int] = {}
        self.wanted, self.done = wanted, threading.Event()

    def shadowed(self, results: object) -> None:
        for labels, songs in dict(results).items():  # type: ignore[call-overload]
            self.counts[labels] = self.counts.get(labels, 0) + songs
        if sum(self.counts.values()) >= self.wanted:
            self.done.set()


SONGS = Songs.of(np.random.default_rng(0).random((6, 120, 25)).astype(np.float32))


def test_agreement_is_counted_by_genre(bundle: Path) -> None:
    opened = load_bundle(bundle)
    cascade, classes = open_cascade(opened), opened.manifest.classes
    said = [classes[choice] for choice in cascade.answer(SONGS).choice]
    others = [next(name for name in classes if name != genre) for genre in said]
    counts = Counts(12)
    shadow = Shadow(cascade, classes, 1.0, counts)
    shadow.offer(SONGS, said)
    shadow.offer(SONGS, others)
    assert counts.done.wait(60)
    results = {result for result, _ in counts.counts}
    assert results == {"agrees", "differs"}
    assert sum(count for (result, _), count in counts.counts.items() if result == "agrees") == 6
    assert all(counts.counts["differs", genre] == others.count(genre) for genre in set(others))


def test_a_share_of_nothing_asks_nobody_and_a_failure_is_only_counted() -> None:
    class Broken:
        def answer(self, songs: Songs) -> None:
            raise RuntimeError("out of order")

    counts = Counts(6)
    Shadow(Broken(), ("a",), 0.0, counts).offer(SONGS, ["a"] * 6)  # type: ignore[arg-type]
    Shadow(Broken(), ("a",), 1.0, counts).offer(SONGS, ["a"] * 6)  # type: ignore[arg-type]
    assert counts.done.wait(60)
    assert counts.counts == {("failed", "a"): 6}


def test_songs_that_find_it_busy_are_passed_over_and_nobody_waits() -> None:
    go_on = threading.Event()

    class Slow:
        def answer(self, songs: Songs) -> None:
            go_on.wait(60)
            raise RuntimeError

    counts = Counts(6)
    shadow = Shadow(Slow(), ("a",), 1.0, counts)  # type: ignore[arg-type]
    for _ in range(WAITING_REQUESTS + 2):  # One more than wait and one is being answered.
        shadow.offer(SONGS, ["a"] * 6)
    assert counts.done.wait(60)
    assert ("passed over", "a") in counts.counts
    go_on.set()


def test_the_service_answers_as_without_it(bundle: Path, own_service: OwnService) -> None:
    songs = [{"id": "a", "segments": [[10.0] * 12 + [0.5] * 12 + [-20.0]] * 120}]
    alone, shadowed = own_service(), own_service(shadow=bundle, shadow_share=1.0)
    assert shadowed.classify(songs).json() == alone.classify(songs).json()


def test_a_challenger_for_other_units_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle for standardised songs, as those that are served"):
        Shadow.open(Settings(shadow=bundle), Monitoring(), "standardised")
    assert Shadow.open(Settings(), Monitoring(), "raw") is None
