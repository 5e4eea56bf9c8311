"""A service that follows a release store: no request is lost, and no answer mixes two releases."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.serving.bundle.load import load_bundle
from segue.serving.releases.store import ReleaseStore
from tests.support.server import environment, free_port, serving

CALLERS = 16


@pytest.mark.slow
def test_publish_and_rollback_under_16_callers_lose_no_request_and_mix_no_answer(
    tmp_path: Path, another: Callable[[int], Path]
) -> None:
    store, port = ReleaseStore(tmp_path / "releases"), free_port()
    bundles = [another(number) for number in range(3)]
    thresholds = {
        manifest.version: manifest.threshold_nats for manifest in (load_bundle(one).manifest for one in bundles)
    }
    store.publish(bundles[0], "")
    song = np.random.default_rng(0).random((120, 25)).astype(np.float32)
    song[:, 24] = -20
    body = [{"id": "a", "segments": song.tolist()}]
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []
    stop = threading.Event()
    words = ["segue", "serve", store.where, "--port", str(port), "--deadline-s", "120"]
    with serving(words, port, tmp_path, environment(tmp_path)) as server:

        def call() -> None:
            while not stop.is_set():
                try:
                    answers.append(server.classify(body))
                except Exception as error:
                    failures.append(error)
                    return

        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        changes: list[Callable[[], Any]] = [
            lambda: store.publish(bundles[1], ""),
            lambda: store.publish(bundles[2], ""),
            store.rollback,
            lambda: store.rollback("1"),
        ]
        for change in changes:
            change()
            wanted = store.index().find("latest").version
            while not failures and not any(one["bundle"] == wanted for one in answers[-CALLERS:]):
                stop.wait(0.05)
        stop.set()
        for caller in callers:
            caller.join()
    assert failures == []
    assert {one["bundle"] for one in answers} == set(thresholds)
    assert [one for one in answers if one["threshold"] != thresholds[one["bundle"]]] == []
