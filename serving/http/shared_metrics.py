"""The metrics of all workers of a server on one page, whichever worker is asked.

Every worker counts in memory and writes what it has counted to a file of its own in the server's folder; the page adds
up. What a worker that has ended counted stays in the sums, and its gauges do not. A file that cannot be read is skipped
and counted; where files cannot be written, as on a full disk, the workers serve on and each knows its own metrics only.

Not prometheus_client's own way for several processes: there, values are in files mapped into memory, and a full disk
ends the process at the next write to them.
"""

import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from segue.serving.http.server_folder import is_locked, lock

LARGEST_BYTES = 10 * 2**20
UNREADABLE = "segue_unreadable_metric_files"

logger = logging.getLogger(__name__)

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric, of one worker or of all."""

    name: str
    kind: str  # counter, gauge, histogram
    help: str
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)  # By name and labels of the series.

    def add(self, other: "Family") -> None:
        """Add another worker's."""
        for series, value in other.values.items():
            self.values[series] = self.values.get(series, 0.0) + value

    def metric(self) -> Metric:
        """Return it as prometheus_client writes it."""
        metric = Metric(self.name, self.help, self.kind)
        for (name, labels), value in self.values.items():
            metric.add_sample(name, dict(labels), value)
        return metric


class SharedMetrics:
    """The metrics of one worker, and those that the others have written."""

    def __init__(self, registry: CollectorRegistry, folder: Path | None) -> None:
        """Share what `registry` collects with the other workers of a server, in its folder; None: there are none."""
        self._registry = registry
        self._folder = folder
        self._name = f"worker-{os.getpid()}-{secrets.token_hex(4)}"
        self._could_write = True
        if folder is not None:
            self._try(lambda: self._announce(folder))

    def write(self) -> None:
        """Let the other workers know what was counted so far."""
        folder = self._folder
        if folder is not None:
            self._try(lambda: self._write(folder))

    def page(self) -> bytes:
        """Return the metrics of all workers, in Prometheus's text format."""
        total = {family.name: family for family in _families(self._registry)}
        unreadable = 0
        for file in sorted(self._folder.glob("*.metrics")) if self._folder is not None else ():
            if file.stem == self._name:
                continue
            try:
                families = _read(file)
            except Exception:
                unreadable += 1
                continue
            alive = is_locked(file.with_suffix(".alive"))
            for family in families:
                if alive or family.kind != "gauge":
                    total.setdefault(family.name, Family(family.name, family.kind, family.help)).add(family)
        skipped = GaugeMetricFamily(UNREADABLE, "Metric files of workers that could not be read.", unreadable)
        return _text([*(family.metric() for family in total.values()), skipped])

    def _announce(self, folder: Path) -> None:
        alive = folder / f"{self._name}.alive"
        alive.touch()
        lock(alive)

    def _write(self, folder: Path) -> None:
        draft = folder / f"{self._name}.draft"
        families = [
            (one.name, one.kind, one.help, [(*series, value) for series, value in one.values.items()])
            for one in _families(self._registry)
        ]
        draft.write_bytes(orjson.dumps(families))
        os.replace(draft, folder / f"{self._name}.metrics")

    def _try(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            if self._could_write:
                logger.error("the other workers do not see the metrics of this one, which serves on: %s", error)
            self._could_write = False
        else:
            if not self._could_write:
                logger.info("the other workers see the metrics of this one again")
            self._could_write = True


class _Collected(Collector):
    """Metrics that are there already, as prometheus_client takes them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _families(registry: CollectorRegistry) -> Iterator[Family]:
    for metric in registry.collect():
        samples = [one for one in metric.samples if not one.name.endswith("_created")]  # When a worker began: of none.
        values = {(one.name, tuple(one.labels.items())): float(one.value) for one in samples}
        yield Family(metric.name, metric.type, metric.documentation, values)


def _read(file: Path) -> list[Family]:
    """Return what a worker has written; any exception if it cannot be read."""
    if not file.is_file() or file.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"{file}: expected the metrics of a worker")
    return [
        Family(
            str(name),
            {"counter": "counter", "gauge": "gauge", "histogram": "histogram"}[kind],
            str(text),
            {(str(series), tuple((str(k), str(v)) for k, v in labels)): float(value) for series, labels, value in rows},
        )
        for name, kind, text, rows in orjson.loads(file.read_bytes())
    ]


def _text(metrics: Iterable[Metric]) -> bytes:
    return generate_latest(_Collected(metrics))
