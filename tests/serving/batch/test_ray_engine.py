"""The Ray engine: the same parts as the local one, whoever dies. On a cluster of two nodes on this machine."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.errors import ConfigError
from segue.serving.batch.catalogue import Catalogue
from segue.serving.batch.ray_engine import Actor, RayEngine
from segue.serving.batch.run import Columns, LocalEngine, Task
from segue.serving.batch.scorer import Part, Scorer
from segue.serving.bundle.load import load_bundle
from tests.support.bundles import BOTH_ANSWER_NATS

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        ray.init(address=found.address, log_to_driver=False)
        yield found
        ray.shutdown()
        found.shutdown()  # type: ignore[no-untyped-call]


def tasks(catalogue: Catalogue) -> list[Task]:
    nobody = np.zeros(0, np.int64)
    return [Task(at, part, BOTH_ANSWER_NATS, nobody) for at, part in enumerate(catalogue.ranges(50))]


def test_every_part_is_the_local_one_though_an_actor_is_killed_and_a_node_removed(
    cluster: Any, bundle: Path, mixed_songs: Path
) -> None:
    catalogue, opened = Catalogue.open([str(mixed_songs)]), load_bundle(bundle)
    with Scorer.of(opened, threads=1) as scorer:
        local = {task.index: part for task, part in LocalEngine(catalogue, scorer, Columns()).parts(tasks(catalogue))}
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    found: dict[int, Part] = {}
    with RayEngine(opened, catalogue, Columns(), actors=2) as engine:
        for task, part in engine.parts(tasks(catalogue)):
            found[task.index] = part
            if len(found) == 2:
                first = ray.get(engine._actors[0].__ray_call__.remote(lambda _: os.getpid()))
                os.kill(first, signal.SIGKILL)
            if len(found) == 4:
                cluster.remove_node(node)
    assert sorted(found) == sorted(local)
    for index, part in found.items():
        assert part.table.equals(local[index].table)
        assert (part.rejects, part.fell_back) == (local[index].rejects, local[index].fell_back)


def test_an_actor_that_dies_before_it_is_ready_is_replaced(cluster: Any, bundle: Path, mixed_songs: Path) -> None:
    catalogue = Catalogue.open([str(mixed_songs)])
    engine = RayEngine(load_bundle(bundle), catalogue, Columns(), actors=1)
    ray.kill(engine._actors[0])
    with engine:
        assert sorted(task.index for task, _ in engine.parts(tasks(catalogue))) == list(range(10))


def test_an_actor_that_cannot_read_the_songs_says_why(bundle: Path, mixed_songs: Path) -> None:
    catalogue = Catalogue.open([str(mixed_songs)])
    actor = Actor(load_bundle(bundle), catalogue.units, Columns(), None, "cpu", False)
    engine = RayEngine.__new__(RayEngine)
    engine._catalogue = catalogue
    (task, *_) = tasks(catalogue)
    order = engine._order(task)
    assert isinstance(actor.part(order), Part)
    gone = type(order)(task, str(mixed_songs.with_name("gone.arrow")), order.fingerprint)
    assert "gone.arrow: expected songs, found no such file" in str(actor.part(gone))


def test_a_cluster_that_is_not_there_is_named(bundle: Path, mixed_songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_: object) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConfigError, match=r"expected a Ray cluster at 127\.0\.0\.1:1, found none: nobody answers"):
        RayEngine(load_bundle(bundle), Catalogue.open([str(mixed_songs)]), Columns(), address="127.0.0.1:1")
