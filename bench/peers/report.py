"""What a comparison with peers found: figures in the form that all benchmarks share, tables, and who is first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from segue.bench.peers.bad_songs import Treatment
from segue.bench.results import Figure, Results

SEGUE = "Segue"  # The labels of all its entries begin with it.
GROUP = "peers"


@dataclass(frozen=True)
class Lane:
    """One kind of request to one server."""

    server: str
    body: str
    songs: int  # A request.


@dataclass(frozen=True)
class Measured:
    """A lane in one round."""

    requests: int  # Answered.
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float  # Of the server's processes, a request.
    others_share: float  # Of the cores, used by what is neither the server nor wrk.


@dataclass
class Found:
    """What was found so far: a figure a round."""

    lanes: dict[Lane, list[Measured]] = field(default_factory=dict)
    start_up_s: dict[str, list[float]] = field(default_factory=dict)
    memory_mb: dict[str, list[float]] = field(default_factory=dict)  # After all lanes.
    treatments: dict[str, list[Treatment]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)  # Why a server could not be measured, a round.

    def figures(self) -> Iterator[Figure]:
        """Yield the figures of all lanes and servers."""
        for lane, rounds in self.lanes.items():
            yield from _lane_figures(lane, rounds)
        for name, unit, found in (("start-up", "s", self.start_up_s), ("memory", "MB", self.memory_mb)):
            for server, values in found.items():
                yield Figure.of(GROUP, name, unit, values, better="lower", server=server)

    def notes(self) -> Iterator[str]:
        """Yield what the figures do not say."""
        yield from standings([*self.figures()])
        for server, some in self.treatments.items():
            for one in some:
                yield (
                    f"{server}, {one.body}, a {one.fault} song: it gets {one.bad_song}; the songs beside it: "
                    f"{one.same_request}; songs of other callers: {one.other_requests}."
                )
        measured = {lane.server for lane in self.lanes}
        for server, reasons in self.failures.items():
            what = f"failed in {len(reasons)} round{'s' * (len(reasons) > 1)}" if server in measured else "is left out"
            yield f"{server} {what}: {reasons[-1]}"


@dataclass(frozen=True)
class PeersBenchmark:
    """The comparison, for people and for programs."""

    results: Results

    def __str__(self) -> str:
        notes = "\n".join(f"- {note}" for note in self.results.notes)
        parts = [_lanes_table(self.results), _servers_table(self.results), notes]
        return "\n\n".join([*parts, *filter(None, [self.results.warning]), self.results.origin])


def standings(figures: Sequence[Figure]) -> Iterator[str]:
    """Yield, for each size and kind of body, who is first by requests/s and by p99, and how far Segue is from it."""
    sizes = sorted({int(one.conditions["songs"]) for one in figures if "songs" in one.conditions})
    for songs in sizes:
        for kind, bodies in (("JSON", ("json",)), ("binary bodies", ("raw", "binary"))):
            for name, better, word in (("throughput", max, "requests/s"), ("p99", min, "ms p99")):
                some = [
                    one
                    for one in figures
                    if one.name == name and one.conditions.get("songs") == songs and one.conditions["body"] in bodies
                ]
                ours = [one for one in some if _is_ours(one)]
                peers = [one for one in some if not _is_ours(one)]
                if ours and peers:
                    best, other = (better(each, key=lambda one: one.value) for each in (ours, peers))
                    first = better(best.value, other.value) == best.value
                    yield (
                        f"{songs} song{'s' * (songs > 1)}, {kind}: {best.conditions['server']} {best.value:,.0f} "
                        f"{word}, best peer {other.conditions['server']} {other.value:,.0f}: "
                        f"{best.value / other.value if other.value else float('inf'):.2f} times, "
                        f"{'Segue is first' if first else 'Segue is not first'}."
                    )


def _is_ours(figure: Figure) -> bool:
    return str(figure.conditions["server"]).startswith(SEGUE)


def _lane_figures(lane: Lane, rounds: Sequence[Measured]) -> Iterator[Figure]:
    conditions: Mapping[str, str | int] = {"server": lane.server, "body": lane.body, "songs": lane.songs}
    answered = [one for one in rounds if one.requests]
    yield Figure.of(
        GROUP, "throughput", "requests/s", [one.requests_per_s for one in rounds], better="higher", **conditions
    )
    if answered:
        for name, values in (
            ("p50", [one.p50_ms for one in answered]),
            ("p99", [one.p99_ms for one in answered]),
            ("CPU a request", [one.cpu_ms for one in answered]),
        ):
            yield Figure.of(GROUP, name, "ms", values, better="lower", **conditions)
    yield Figure.of(GROUP, "errors", "requests", [one.errors for one in rounds], better="lower", **conditions)
    yield Figure.of(GROUP, "others", "share", [one.others_share for one in rounds], better="lower", **conditions)


def _lanes_table(results: Results) -> str:
    rows: list[tuple[Any, ...]] = []
    for one in results.select(GROUP, "throughput"):
        figures = {each.name: each for each in results.figures if each.conditions == one.conditions}
        latencies = [figures[name].value if name in figures else None for name in ("p50", "p99", "CPU a request")]
        spread = f"{one.low:,.0f} to {one.high:,.0f}"
        errors, others = sum(figures["errors"].rounds), max(figures["others"].rounds)
        rows.append((*_by_songs(one), one.value, spread, *latencies, errors, others))
    rows.sort(key=lambda row: (row[0], -float(row[3])))
    names = ("songs", "server", "body", "requests/s", "rounds", "p50 ms", "p99 ms", "CPU ms", "errors", "others")
    formats = ("", "", "", ",.0f", "", ".1f", ".1f", ".2f", ".0f", ".1%")
    return tabulate(rows, names, floatfmt=formats, tablefmt="github")


def _by_songs(figure: Figure) -> tuple[int, str, str]:
    conditions = figure.conditions
    return int(conditions["songs"]), str(conditions["server"]), str(conditions["body"])


def _servers_table(results: Results) -> str:
    rows = [
        (one.conditions["server"], one.value, results.select(GROUP, "memory", server=one.conditions["server"])[0].value)
        for one in results.select(GROUP, "start-up")
    ]
    return tabulate(rows, ("server", "start-up s", "memory MB"), floatfmt=",.1f", tablefmt="github")
