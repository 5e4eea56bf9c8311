"""Measure the service under load, beside plain servers of the same models, all in one run on one machine.

The load generator shares the cores with the servers. Absolute figures drift with the machine; the ratios are what to
quote. Takes about five minutes.

Example:
    python -m segue.bench.load artifacts/bundle --songs artifacts/demo/test.arrow
"""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import orjson
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.generator import Load, closed_loop, open_loop, post
from segue.bench.servers import Server, ServerName, serving
from segue.bench.speed import synthetic
from segue.command import run
from segue.data.song import Floats, Songs
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.provenance import Provenance, provenance
from segue.publish import write_block
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.bodies import JSON, RAW
from segue.serving.http.settings import Settings
from segue.serving.tables import check_units

COMMAND = "python -m segue.bench.load"
CALLERS = 16
BULK_SONGS, BULK_CALLERS = 64, 4
SATURATING_CALLERS = 128  # More callers who wait for their answers do not get more of them a second.
DISTINCT_SONGS = 1024
LESS_AT_A_TIME = 0.95  # Rates that are tried for the sustainable one, each so much of the one before.
OVERLOAD = 2.0  # Times the sustainable rate.
FIRST_REQUESTS, ALL_REQUESTS = 10_000, 100_000
UNBOUNDED_S = 3600.0


@dataclass(frozen=True)
class Throughput:
    """A server that is asked about one song at a time by 16 callers: medians over the rounds."""

    server: ServerName
    body: str
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class Steady:
    """The service under the same load for longer."""

    seconds: float
    requests: int
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class Bulk:
    """Songs a second at 64 songs a request, medians over the rounds."""

    in_process_songs_per_s: float  # The cascade, with as many threads as the service gives it.
    raw_songs_per_s: float
    json_songs_per_s: float
    failed: int


@dataclass(frozen=True)
class Overload:
    """The service at twice the rate that it sustains."""

    sustainable_per_s: float  # The highest rate that was tried, in an open loop, at which nobody was refused.
    offered_per_s: float
    seconds: float
    answered: int  # With 200.
    told_to_come_back: int  # With 503.
    otherwise: int  # With another status, or not at all.
    good_per_s: float
    p99_ms: float  # Of those answered, from when the request was due.
    early_bytes: int  # Memory after some seconds of it.
    late_bytes: int  # And at its end.


@dataclass(frozen=True)
class Endurance:
    """Memory over many requests."""

    first_requests: int
    first_bytes: int
    all_requests: int
    all_bytes: int
    failed: int


@dataclass(frozen=True)
class Target:
    """What was aimed at, and what was found."""

    what: str
    wanted: str
    found: float
    met: bool


@dataclass(frozen=True)
class LoadBenchmark:
    """What was measured."""

    bundle: Path
    version: str
    fallback_rate: float  # Of the songs it was measured on.
    others_share: float  # Of the machine's processor time, used by processes that have nothing to do with this.
    throughputs: tuple[Throughput, ...]
    steady: Steady
    bulk: Bulk
    overload: Overload
    endurance: Endurance
    targets: tuple[Target, ...]
    provenance: Provenance

    def __str__(self) -> str:
        servers = tabulate(
            [tuple(vars(one).values()) for one in self.throughputs],
            (f"one song a request, {CALLERS} callers", "body", "requests/s", "p50 ms", "p99 ms", "failed"),
            floatfmt=("", "", ",.0f", ".1f", ".1f", ""),
            tablefmt="github",
        )
        targets = tabulate(
            [(one.what, one.wanted, one.found, "yes" if one.met else "**no**") for one in self.targets],
            ("target", "wanted", "found", "met"),
            floatfmt=".2f",
            tablefmt="github",
        )
        bulk, over, last = self.bulk, self.overload, self.endurance
        return (
            f"{servers}\n\n{targets}\n\n"
            f"{BULK_SONGS} songs a request: {bulk.raw_songs_per_s:,.0f} songs/s raw, {bulk.json_songs_per_s:,.0f} in "
            f"JSON, {bulk.in_process_songs_per_s:,.0f} in process.\n"
            f"Overload: {over.sustainable_per_s:,.0f} requests/s are sustainable; of {over.offered_per_s:,.0f} offered "
            f"a second for {over.seconds:.0f} s, {over.answered:,} were answered, {over.told_to_come_back:,} told to "
            f"come back and {over.otherwise} lost; p99 of the answered {over.p99_ms:,.0f} ms.\n"
            f"Memory: {last.first_bytes / 1e6:.0f} MB after {last.first_requests:,} requests, "
            f"{last.all_bytes / 1e6:.0f} MB after {last.all_requests:,}.\n\n"
            f"{self.fallback_rate:.0%} of the songs fell back; other processes used {self.others_share:.0%} of the "
            f"machine meanwhile. {self.provenance.time[:10]}, commit "
            f"{self.provenance.commit}, {self.provenance.machine}"
        )


def load(
    bundle: Positional[Path],
    songs: Path | None = None,
    seconds: float = 4.0,
    rounds: int = 3,
    long_seconds: float = 30.0,
    page: Path | None = None,
) -> LoadBenchmark:
    """Measure the service under load.

    Args:
        bundle: The bundle's folder.
        songs: A song table to ask about; of each song the central window is sent. Default: synthetic songs.
        seconds: How long a round of a comparison takes.
        rounds: Rounds of each comparison.
        long_seconds: How long the long run and the overload last.
        page: A page whose block the result is written into.
    """
    if min(seconds, long_seconds) <= 0 or rounds < 1:
        raise ConfigError(f"expected seconds above 0 and at least 1 round, found {seconds}, {long_seconds}, {rounds}")
    opened, made_by = load_bundle(bundle), provenance()
    sample = _sample(opened, songs)
    before = _processor_seconds()
    with tqdm(total=5, unit=" parts", disable=None, file=sys.stderr) as progress:

        def done(part: str) -> None:
            progress.set_postfix_str(f"{part} measured")
            progress.update()

        throughputs = _throughputs(bundle, sample, seconds, rounds)
        done("throughput")
        with serving("service", bundle) as server:
            steady = _steady(server, sample, seconds, long_seconds)
            done("p99")
            bulk = _bulk(server, opened, sample, seconds, rounds)
            done("many songs")
            overload = _overload(server, sample, seconds, long_seconds)
            done("overload")
        endurance = _endurance(bundle, sample)
        done("memory")
    whole, busy, own = (now - then for now, then in zip(_processor_seconds(), before, strict=True))
    measured = LoadBenchmark(
        bundle=bundle,
        version=opened.manifest.version,
        fallback_rate=float(open_cascade(opened).answer(Songs.of(sample)).fell_back.mean()),
        others_share=(busy - own) / whole,
        throughputs=throughputs,
        steady=steady,
        bulk=bulk,
        overload=overload,
        endurance=endurance,
        targets=targets(throughputs, steady, bulk, overload, endurance),
        provenance=made_by,
    )
    if page is not None:
        write_block(page, COMMAND, str(measured))
    return measured


def targets(
    throughputs: Sequence[Throughput], steady: Steady, bulk: Bulk, overload: Overload, endurance: Endurance
) -> tuple[Target, ...]:
    """Compare what was found with what the service is meant to hold."""
    per_s = {one.server: one.requests_per_s for one in throughputs}

    def least(what: str, bound: float, found: float) -> Target:
        return Target(what, f"at least {bound:g}", found, found >= bound)

    def most(what: str, bound: float, found: float) -> Target:
        return Target(what, f"at most {bound:g}", found, found <= bound)

    failed = steady.failed + bulk.failed + endurance.failed + sum(one.failed for one in throughputs)
    in_process = bulk.in_process_songs_per_s
    return (
        least("one song: requests/s over plain BentoML's", 2.5, per_s["service"] / per_s["plain BentoML"]),
        least("one song: requests/s over bare uvicorn's", 0.6, per_s["service"] / per_s["bare uvicorn"]),
        least(
            "one song: requests/s over bare uvicorn's with the service's engine",
            0.6,
            per_s["service"] / per_s["bare uvicorn, batched"],
        ),
        most(f"p99 over p50, {steady.seconds:.0f} s", 4, steady.p99_ms / steady.p50_ms),
        most("requests that failed, but for the overload's", 0, failed),
        least(f"{BULK_SONGS} songs raw: songs/s over in process", 0.6, bulk.raw_songs_per_s / in_process),
        least(f"{BULK_SONGS} songs in JSON: songs/s over in process", 0.15, bulk.json_songs_per_s / in_process),
        most("overload: requests answered neither 200 nor 503", 0, overload.otherwise),
        least("overload: answers/s over the sustainable", 0.8, overload.good_per_s / overload.sustainable_per_s),
        most("overload: memory at the end over early", 1.1, overload.late_bytes / overload.early_bytes),
        most(
            f"memory after {endurance.all_requests:,} requests over {endurance.first_requests:,}",
            1.1,
            endurance.all_bytes / endurance.first_bytes,
        ),
    )


def _processor_seconds() -> tuple[float, float, float]:
    """Return the processor time of the machine, of all processes, and of this one with its ended children; Linux."""
    ticks = [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = sum(ticks[3:5])
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
    per_s = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / per_s, (sum(ticks) - idle) / per_s, own


def _sample(bundle: Bundle, songs: Path | None) -> Floats:
    """Return windows to ask about, (1024, 120, 25)."""
    if songs is None:
        return synthetic(DISTINCT_SONGS, len(bundle.manifest.classes)).windows()[0]
    table = SongTable(songs)
    check_units(table, bundle)
    if not len(table):
        raise ConfigError(f"{songs}: expected songs to ask about, found none")
    return table.songs(np.resize(np.arange(len(table)), DISTINCT_SONGS)).windows()[0]


def _requests(server: ServerName, sample: Floats, n_songs: int = 1) -> list[bytes]:
    """Return the sample as requests of `n_songs` each: in JSON for plain BentoML, raw for the others."""
    parts = [sample[at : at + n_songs] for at in range(0, len(sample) - n_songs + 1, n_songs)]
    if server == "plain BentoML":
        return [
            post("/classify", JSON, orjson.dumps({"songs": part}, option=orjson.OPT_SERIALIZE_NUMPY)) for part in parts
        ]
    path = "/v1/classify" if server == "service" else "/classify"
    return [post(path, RAW, part.astype("<f4").tobytes()) for part in parts]


def _requests_in_json(sample: Floats, n_songs: int) -> list[bytes]:
    """Return the sample as JSON requests to the service."""
    bodies = []
    for at in range(0, len(sample) - n_songs + 1, n_songs):
        songs = [{"id": str(place), "segments": song} for place, song in enumerate(sample[at : at + n_songs])]
        bodies.append(orjson.dumps({"songs": songs}, option=orjson.OPT_SERIALIZE_NUMPY))
    return [post("/v1/classify", JSON, body) for body in bodies]


def _throughputs(bundle: Path, sample: Floats, seconds: float, rounds: int) -> tuple[Throughput, ...]:
    """Ask all servers in turn; those whose turn it is not are idle."""
    names: tuple[ServerName, ...] = get_args(ServerName)
    requests = {name: _requests(name, sample) for name in names}
    with ExitStack() as running:
        servers = {name: running.enter_context(serving(name, bundle)) for name in names}
        for name, server in servers.items():
            closed_loop(server.port, requests[name], connections=CALLERS, seconds=1)
        loads: dict[ServerName, list[Load]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, server in servers.items():
                loads[name].append(closed_loop(server.port, requests[name], connections=CALLERS, seconds=seconds))
    return tuple(
        Throughput(
            server=name,
            body="JSON" if name == "plain BentoML" else "raw",
            requests_per_s=statistics.median(one.good_per_s for one in loads[name]),
            p50_ms=statistics.median(one.quantile_ms(0.5) for one in loads[name]),
            p99_ms=statistics.median(one.quantile_ms(0.99) for one in loads[name]),
            failed=sum(one.failed for one in loads[name]),
        )
        for name in names
    )


def _steady(server: Server, sample: Floats, seconds: float, long_seconds: float) -> Steady:
    requests = _requests("service", sample)
    closed_loop(server.port, requests, connections=CALLERS, seconds=seconds)
    found = closed_loop(server.port, requests, connections=CALLERS, seconds=long_seconds)
    return Steady(found.seconds, len(found.latencies_ms), found.quantile_ms(0.5), found.quantile_ms(0.99), found.failed)


def _bulk(server: Server, bundle: Bundle, sample: Floats, seconds: float, rounds: int) -> Bulk:
    cascade = open_cascade(bundle, threads=Settings().threads)
    parts = [Songs.of(sample[at : at + BULK_SONGS]) for at in range(0, len(sample), BULK_SONGS)]
    raw, in_json = _requests("service", sample, BULK_SONGS), _requests_in_json(sample, BULK_SONGS)

    def ask(requests: Sequence[bytes]) -> Load:
        return closed_loop(server.port, requests, connections=BULK_CALLERS, seconds=seconds)

    in_process: list[float] = []
    loads: dict[str, list[Load]] = {"raw": [], "json": []}
    for number in range(rounds + 1):  # The first does not count.
        found = _songs_per_s(lambda place: cascade.answer(parts[place % len(parts)]), seconds)
        some = {"raw": ask(raw), "json": ask(in_json)}
        if number:
            in_process.append(found)
            for kind, one in some.items():
                loads[kind].append(one)
    per_s = {kind: statistics.median(one.good_per_s for one in some) * BULK_SONGS for kind, some in loads.items()}
    failed = sum(one.failed for some in loads.values() for one in some)
    return Bulk(statistics.median(in_process), per_s["raw"], per_s["json"], failed)


def _songs_per_s(answer: Callable[[int], object], seconds: float) -> float:
    started, calls = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        answer(calls)
        calls += 1
    return calls * BULK_SONGS / (time.perf_counter() - started)


def _overload(server: Server, sample: Floats, seconds: float, long_seconds: float) -> Overload:
    requests = _requests("service", sample)
    sustainable = _sustainable_per_s(server, requests, seconds)
    offered = OVERLOAD * sustainable
    open_loop(server.port, requests, per_s=offered, seconds=seconds)
    early = server.resident_bytes()
    found = open_loop(server.port, requests, per_s=offered, seconds=long_seconds)
    answered, told = (found.statuses.get(status, 0) for status in (200, 503))
    return Overload(
        sustainable_per_s=sustainable,
        offered_per_s=offered,
        seconds=long_seconds,
        answered=answered,
        told_to_come_back=told,
        otherwise=sum(found.statuses.values()) - answered - told + found.unanswered,
        good_per_s=found.good_per_s,
        p99_ms=found.quantile_ms(0.99),
        early_bytes=early,
        late_bytes=server.resident_bytes(),
    )


def _sustainable_per_s(server: Server, requests: Sequence[bytes], seconds: float) -> float:
    """Go down from the rate that saturates the server to one at which it refuses nobody."""
    per_s = closed_loop(server.port, requests, connections=SATURATING_CALLERS, seconds=seconds).good_per_s
    while open_loop(server.port, requests, per_s=per_s, seconds=seconds).failed:
        per_s *= LESS_AT_A_TIME
    return per_s


def _endurance(bundle: Path, sample: Floats) -> Endurance:
    requests = _requests("service", sample)
    with serving("service", bundle) as server:

        def ask(most: int) -> tuple[int, int]:
            found = closed_loop(server.port, requests, connections=CALLERS, seconds=UNBOUNDED_S, most=most)
            return server.resident_bytes(), found.failed

        first_bytes, failed = ask(FIRST_REQUESTS)
        all_bytes, failed_later = ask(ALL_REQUESTS - FIRST_REQUESTS)
    return Endurance(FIRST_REQUESTS, first_bytes, ALL_REQUESTS, all_bytes, failed + failed_later)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    return run(load, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
