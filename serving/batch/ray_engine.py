"""Makes parts on a Ray cluster: the same scorer, one to an actor, and the same parts.

Where an actor dies, or its node goes, the others make its parts, and a new actor joins them as soon as there is room.
What a part holds depends on its range alone, so it does not matter who makes it. Every node must be able to read the
songs: a shared folder, or an object store. The bundle travels with the actors.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segue.data.song import Units
from segue.errors import ConfigError, MissingDependencyError, SegueError, SongError
from segue.machine import usable_cores
from segue.serving.batch.catalogue import Catalogue
from segue.serving.batch.run import Columns, Task
from segue.serving.batch.scorer import Part, Scorer
from segue.serving.bundle.load import Bundle
from segue.serving.runtime import Provider

TASKS_AN_ACTOR = 2  # Under way: the next one is there when a part is done.


@dataclass(frozen=True)
class Order:
    """A part that an actor is to make."""

    task: Task
    file: str  # Its name.
    fingerprint: str  # Of the file, when the run began.


class Actor:
    """One scorer, in a process of its own somewhere in the cluster."""

    def __init__(
        self, bundle: Bundle, units: Units, columns: Columns, windows: int | None, provider: Provider, ends_only: bool
    ) -> None:
        """Open the models of a bundle."""
        pa.set_memory_pool(pa.system_memory_pool())  # See `segue score`.
        self._scorer = Scorer.of(bundle, windows=windows, provider=provider, threads=1, ends_only=ends_only)
        self._units = units
        self._columns = columns
        self._open: tuple[str, Catalogue] | None = None

    def ready(self) -> bool:
        """Return that the models are open."""
        return True

    def part(self, order: Order) -> Part | str:
        """Return the part of a task; the message, where the songs cannot be read."""
        try:
            if self._open is None or self._open[0] != order.file:
                self._open = order.file, Catalogue.open([order.file], self._units)
            catalogue, task = self._open[1], order.task
            if catalogue.fingerprints[0] != order.fingerprint:
                return f"{order.file}: was changed since the run began; score it again once it is whole"
            batches = catalogue.read(task.range.of_file(0), self._columns.keep)
            return self._scorer.score(batches, task.threshold_nats, probs=self._columns.probs, going_on=task.going_on)
        except SegueError as error:
            return str(error)


class RayEngine:
    """Makes parts on a Ray cluster; a context manager, which leaves the cluster."""

    def __init__(
        self,
        bundle: Bundle,
        catalogue: Catalogue,
        columns: Columns,
        *,
        windows: int | None = None,
        provider: Provider = "auto",
        address: str | None = None,
        actors: int | None = None,
        ends_only: bool = False,
    ) -> None:
        """Join a cluster and start its actors.

        Args:
            bundle: the bundle, with its contents.
            catalogue: the songs.
            columns: what is written besides the answers.
            windows: windows of a song that both models see, at most.
            provider: where the models run; an actor takes a GPU for cuda, a core for cpu.
            address: of the cluster; None: this machine becomes one.
            actors: how many; by default one for each core or GPU of the cluster.
            ends_only: climb from the first rung to the last, without those between.

        Raises:
            MissingDependencyError: Ray is not installed.
            ConfigError: there is no such cluster, or no place for an actor in it.
        """
        self._ray = _ray()
        self._catalogue = catalogue
        self._joined = not self._ray.is_initialized()
        if self._joined:
            _join(self._ray, address)
        resource = "GPU" if provider == "cuda" else "CPU"
        room = int(self._ray.cluster_resources().get(resource, 0))
        if not room:
            raise ConfigError(f"engine: expected a Ray cluster with a {resource} to score on, found none")
        options = {"num_gpus": 1} if provider == "cuda" else {"num_cpus": 1}
        actor = self._ray.remote(**options)(Actor)
        self._bundle = self._ray.put(bundle)  # Kept here: an actor that is started later asks for it then.
        self._start: Callable[[], Any] = lambda: actor.remote(
            self._bundle, catalogue.units, columns, windows, provider, ends_only
        )
        self._actors = [self._start() for _ in range(actors or room)]

    def __enter__(self) -> "RayEngine":
        """Wait until one of the actors is there."""
        self._ray.wait([actor.ready.remote() for actor in self._actors], num_returns=1)
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        if self._joined:
            self._ray.shutdown()

    def parts(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Part]]:
        """Yield the part of each task, in the order in which they are done."""
        orders = (self._order(task) for task in tasks)
        again: list[Order] = []  # Of actors that died.
        idle: list[Any] = []  # An actor as often as it can take another task.
        under_way: dict[Any, tuple[Order | None, Any]] = {actor.ready.remote(): (None, actor) for actor in self._actors}
        all_given = False
        while under_way:
            (reference,) = self._ray.wait(list(under_way), num_returns=1)[0]
            order, actor = under_way.pop(reference)
            try:
                part = self._ray.get(reference)
                idle += [actor] * (1 if order else TASKS_AN_ACTOR)
            except self._ray.exceptions.RayActorError as error:
                if error.actor_init_failed:  # And so would the next one.
                    raise ConfigError(f"engine: an actor cannot begin: {error}") from None
                part, idle = None, [other for other in idle if other is not actor]
                again += [order] if order else []
                if actor in self._actors:  # Both tasks of a dead actor end here.
                    self._actors.remove(actor)
                    self._actors.append(self._start())
                    under_way[self._actors[-1].ready.remote()] = None, self._actors[-1]
            while idle and (again or not all_given):
                following = again.pop() if again else next(orders, None)
                all_given = all_given or following is None
                if following:
                    taker = idle.pop()
                    under_way[taker.part.remote(following)] = following, taker
            if isinstance(part, str):
                raise SongError(part)
            if order and part:
                yield order.task, part
            if all_given and not again and not any(order for order, _ in under_way.values()):
                return  # Whoever is still starting is not needed any more.

    def _order(self, task: Task) -> Order:
        index = task.range.file
        return Order(task, self._catalogue.files[index].name, self._catalogue.fingerprints[index])


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray is not installed: `pip install 'segue-genres[cluster]'`") from None
    return ray


def _join(ray: Any, address: str | None) -> None:
    try:
        if address is None:
            ray.init(num_cpus=usable_cores(), include_dashboard=False, log_to_driver=False)
        else:
            ray.init(address=address, log_to_driver=False)
    except Exception as error:  # Ray raises bare ones, where a node does not start in time, say.
        where = "on this machine" if address is None else f"at {address}"
        raise ConfigError(f"address: expected a Ray cluster {where}, found none: {error}") from None
