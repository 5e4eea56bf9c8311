"""Put a running service under load over HTTP, and tell what came of it.

In a closed loop so many connections send a request each once they have the answer to the last one. In an open loop
(--rates, --p99-ms) requests come at random moments, so many a second on average, whether or not the service keeps up;
a latency counts from the moment at which its request was due, so that a service that stalls does not hide it.

With --p99-ms the highest rate is looked for at which 99 of 100 requests are answered within so many milliseconds, and
none is refused. The load generator uses up to one core; where it was late itself, the report says so.

The bearer token of a service that wants one is read from the environment variable SEGUE_TOKEN.

Examples:
    segue load http://127.0.0.1:3000
    segue load http://127.0.0.1:3000 --bodies raw json --sizes 1 64 --connections 1 16 64 --out load.json
    segue load http://127.0.0.1:3000 --rates 200 400 800 --seconds 20
    segue load http://127.0.0.1:3000 --p99-ms 25
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.bundle_speed import synthetic
from segue.bench.generator import Address, Load, closed_loop, open_loop
from segue.bench.request_bodies import requests
from segue.bench.results import Figure, Results, Watch, command_of, results
from segue.command import run
from segue.data.song import Floats
from segue.data.table import SongTable
from segue.errors import ConfigError, ServiceError, SongError

Body = Literal["raw", "json", "npy", "arrow"]
GROUP = "load"
DISTINCT_SONGS = 1024
WARM_UP_S = 1.0
SATURATING = 64  # Connections; with more, a closed loop gets no more answers a second.
PRECISION = 0.05  # Of the highest rate that keeps a p99.
MOST_TRIALS = 12  # To find it.
LATE_MS = 5.0  # A generator whose p99 of lateness is above that was too slow for the rate.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    body: Body
    songs: int  # A request.
    connections: int | None = None  # Of a closed loop.
    offered: float | None = None  # Requests a second, of an open one.

    @property
    def conditions(self) -> dict[str, str | int | float]:
        """The conditions of its figures."""
        shape: dict[str, str | int | float] = {"body": self.body, "songs": self.songs}
        if self.offered is not None:
            return {"loop": "open", "offered": self.offered, **shape}
        return {"loop": "closed", "connections": self.connections or 0, **shape}

    def __str__(self) -> str:
        loop = f"{self.connections} connections" if self.offered is None else f"{self.offered:,.0f} requests/s offered"
        return f"{self.body}, {self.songs} song{'s' * (self.songs > 1)} a request, {loop}"


@dataclass(frozen=True)
class LoadBenchmark:
    """What came of the load."""

    results: Results

    def __str__(self) -> str:
        rows = []
        for one in self.results.select(GROUP, "throughput"):
            figures = {each.name: each for each in self.results.figures if each.conditions == one.conditions}
            load = one.conditions.get("connections") or one.conditions["offered"]
            names = ("goodput", *QUANTILES, "errors", "fallback rate", "degraded")
            values = [figures[name].value if name in figures else None for name in names]
            rows.append(
                [one.conditions["body"], one.conditions["songs"], one.conditions["loop"], load, one.value, *values]
            )
        head = ("body", "songs", "loop", "load", "requests/s", "songs/s", "p50 ms", "p90", "p99", "p99.9", "errors")
        formats = ("", "", "", ",.0f", ",.0f", ",.0f", ".1f", ".1f", ".1f", ".1f", ",.0f", ".1%", ".1%")
        table = tabulate(rows, (*head, "fell back", "degraded"), floatfmt=formats, tablefmt="github")
        highest = [
            f"{one.conditions['body']}, {one.conditions['songs']} a request: {one.value:,.0f} requests/s keep a p99 of "
            f"{one.conditions['p99_ms']:g} ms"
            for one in self.results.select(GROUP, "highest rate")
        ]
        parts = [table, *highest, *self.results.notes, *filter(None, [self.results.warning]), self.results.origin]
        return "\n\n".join(parts)


def load(
    url: Positional[str],
    songs: Path | None = None,
    bodies: tuple[Body, ...] = ("raw",),
    sizes: tuple[int, ...] = (1,),
    connections: tuple[int, ...] = (16,),
    rates: tuple[float, ...] = (),
    p99_ms: float | None = None,
    seconds: float = 10.0,
    requests_at_most: int | None = None,
    rounds: int = 3,
    out: Path | None = None,
) -> LoadBenchmark:
    """Put a running service under load.

    Args:
        url: Where the service listens, as `segue serve` prints it.
        songs: A song table to ask about; of each song the central window is sent. Default: synthetic songs.
        bodies: Bodies to send: raw, json, npy, arrow.
        sizes: Songs in a request.
        connections: Connections of a closed loop, each a load of its own.
        rates: Requests a second of an open loop, each a load of its own, instead of a closed loop.
        p99_ms: Look for the highest rate that keeps this p99, in an open loop.
        seconds: How long each load lasts, in each round.
        requests_at_most: Requests that each load sends at most, in each round.
        rounds: Rounds; in each, every load has its turn.
        out: A file to write the results to, as JSON.
    """
    least = min([*sizes, *connections, rounds, requests_at_most or 1], default=0)
    if least < 1 or min([seconds, p99_ms or 1.0, *rates], default=1.0) <= 0 or not (bodies and sizes and connections):
        raise ConfigError("expected bodies, and sizes, connections, rates, rounds, seconds and counts above 0")
    target, token = Address.of(url), os.environ.get("SEGUE_TOKEN", "")
    sample = _sample(url, token, songs)
    made = {
        (body, size): requests(sample, body, size, host=str(target), path=_path(url), token=token)
        for body in bodies
        for size in sizes
    }
    cases = [
        case
        for body, size in made
        for case in (
            [Case(body, size, offered=rate) for rate in rates]
            or ([] if p99_ms else [Case(body, size, connections=each) for each in connections])
        )
    ]
    found: dict[Case, list[Load]] = {}
    highest: list[Figure] = []
    with Watch() as watch:
        for some in made.values():
            closed_loop(target, some, connections=min(connections), seconds=WARM_UP_S)
        turns = [case for _ in range(rounds) for case in cases]
        for case in tqdm(turns, unit=" loads", disable=None, file=sys.stderr):
            loads = found.setdefault(case, [])
            loads.append(_under(case, target, made[case.body, case.songs], seconds, requests_at_most, len(loads)))
        if p99_ms:
            for (body, size), some in made.items():
                rate = _highest_rate(Case(body, size), target, some, p99_ms, seconds, requests_at_most, found)
                highest.append(
                    Figure.of(
                        GROUP, "highest rate", "requests/s", [rate],
                        better="higher", body=body, songs=size, p99_ms=p99_ms,
                    )
                )  # fmt: skip
    watch.others_share = None  # The service is one of the others.
    figures = [figure for case, loads in found.items() for figure in _figures(case, loads)]
    notes = [note for case, loads in found.items() for note in _notes(case, loads)]
    measured = results("load", command_of("segue load", *sys.argv[2:]), figures + highest, watch, notes)
    if out is not None:
        measured.write(out)
    return LoadBenchmark(measured)


def _path(url: str) -> str:
    return f"{httpx.URL(url).path.rstrip('/')}/v1/classify"


def _sample(url: str, token: str, songs: Path | None) -> Floats:
    """Return windows to ask about, (1024, 120, 25), in the units that the service says it takes."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{url.rstrip('/')}/v1/model", headers=headers)
        card = answer.raise_for_status().json()
        units, features, classes = card["units"], card["features"], card["classes"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        why = f"{error or type(error)}. `segue serve BUNDLE` starts one."
        raise ServiceError(f"{url}: expected a service that answers GET /v1/model; {why}") from None
    if songs is None:
        if (units, features) != ("raw", "echonest"):
            raise SongError(
                f"{url}: takes {units} {features} songs, and synthetic ones are raw echonest; name a table with --songs"
            )
        return synthetic(DISTINCT_SONGS, len(classes)).windows()[0]
    table = SongTable(songs)
    if (table.units, table.features) != (units, features):
        raise SongError(f"{songs}: expected {units} {features} songs for {url}, found {table.units} {table.features}")
    if not len(table):
        raise SongError(f"{songs}: expected songs to ask about, found none")
    return table.songs(np.resize(np.arange(len(table)), DISTINCT_SONGS)).windows()[0]


def _under(case: Case, target: Address, some: Sequence[bytes], seconds: float, most: int | None, seed: int = 0) -> Load:
    if case.offered is not None:
        return open_loop(target, some, per_s=case.offered, seconds=seconds, most=most, seed=seed)
    return closed_loop(target, some, connections=case.connections or 1, seconds=seconds, most=most)


def _highest_rate(
    case: Case,
    target: Address,
    some: Sequence[bytes],
    p99_ms: float,
    seconds: float,
    most: int | None,
    found: dict[Case, list[Load]],
) -> float:
    """Return the highest rate that was tried at which p99 is kept and nobody refused; 0 where none was."""
    rate = closed_loop(target, some, connections=SATURATING, seconds=seconds, most=most).good_per_s
    kept, missed = 0.0, float("inf")
    for _ in range(MOST_TRIALS):
        rate = float(f"{rate:.3g}")
        if rate <= 0 or missed <= kept * (1 + PRECISION):
            break
        trial = Case(case.body, case.songs, offered=rate)
        loaded = _under(trial, target, some, seconds, most)
        found.setdefault(trial, []).append(loaded)
        if not loaded.failed and loaded.quantile_ms(0.99) <= p99_ms:
            kept = max(kept, rate)
        else:
            missed = min(missed, rate)
        rate = kept * 1.25 if missed == float("inf") else (kept + missed) / 2
    return kept


def _figures(case: Case, loads: Sequence[Load]) -> Iterator[Figure]:
    def figure(name: str, unit: str, values: Sequence[float], better: Literal["higher", "lower"]) -> Figure:
        return Figure.of(GROUP, name, unit, values, better=better, **case.conditions)

    yield figure("throughput", "requests/s", [one.good_per_s for one in loads], "higher")
    yield figure("goodput", "songs/s", [one.songs_per_s for one in loads], "higher")
    yield figure("errors", "requests", [one.failed for one in loads], "lower")
    answered = [one for one in loads if len(one.latencies_ms)]
    if answered:
        for name, q in QUANTILES.items():
            yield figure(name, "ms", [one.quantile_ms(q) for one in answered], "lower")
    with_songs = [one for one in loads if one.songs]
    if with_songs:
        yield figure(
            "fallback rate", "share", [(one.by_teacher + one.degraded) / one.songs for one in with_songs], "lower"
        )
        yield figure("degraded", "share", [one.degraded / one.songs for one in with_songs], "lower")


def _notes(case: Case, loads: Sequence[Load]) -> Iterator[str]:
    errors: dict[str, int] = {}
    for one in loads:
        for kind, count in one.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    if any(errors.values()):
        kinds = ", ".join(f"{count} x {kind}" for kind, count in errors.items() if count)
        yield f"{case}: of {sum(one.sent for one in loads):,} requests {kinds}."
    song_errors = sum(one.song_errors for one in loads)
    if song_errors:
        yield f"{case}: {song_errors:,} songs got an error."
    late_ms = max((float(np.quantile(one.late_ms, 0.99)) for one in loads if len(one.late_ms)), default=0.0)
    if late_ms > LATE_MS:
        yield f"{case}: the load generator itself was late, by {late_ms:.0f} ms at its p99; the latencies have that in."


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue load`."""
    return run(load, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
