"""Compare the service with its peers: the same two ONNX models and the same cascade answer behind other servers.

Every server runs on the same two cores with one thread a model, in an environment of its own that `make peers` makes.
Half of the songs fall back. Each must answer right first; then wrk asks, a program that is none of ours, from 16
connections that each wait for their answer. A round takes every server in turn, alone on the machine, and a second
round begins with the first again. What cannot be run is left out, with the reason.

Examples:
    python -m segue.bench.peers artifacts/bundle
    python -m segue.bench.peers artifacts/bundle --only fastapi segue --rounds 1 --seconds 4 --bodies raw --sizes 1
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.peers.bad_songs import is_right, treatments
from segue.bench.peers.dialects import Dialect
from segue.bench.peers.processes import machine_busy_s
from segue.bench.peers.registry import PEERS, Peer
from segue.bench.peers.report import Found, Lane, Measured, PeersBenchmark
from segue.bench.peers.running import RunningPeer, caller, running
from segue.bench.peers.workload import Workload, make_workload
from segue.bench.peers.wrk import WrkRun, write_requests, wrk
from segue.bench.results import Watch, command_of, results
from segue.command import run
from segue.errors import ConfigError, SegueError, ServiceError
from segue.publish import write_block

COMMAND = "python -m segue.bench.peers"
CORES = 2
CONNECTIONS = 16
BODIES = {1: 256, 64: 16}  # Requests that are gone through by turns, by songs a request.
WARM_UP_S = 2.0


def compare(
    bundle: Positional[Path],
    songs: Path | None = None,
    only: tuple[str, ...] = (),
    bodies: tuple[str, ...] = ("raw", "json", "binary"),
    sizes: tuple[int, ...] = (1, 64),
    rounds: int = 3,
    seconds: float = 5.0,
    out: Path | None = None,
    page: Path | None = None,
    environments: Path = Path(".venv-peers"),
) -> PeersBenchmark:
    """Compare the service with its peers.

    Args:
        bundle: The bundle's folder.
        songs: A song table to ask about; of each song the central window is sent. Default: synthetic songs.
        only: Servers to run, by the beginnings of their names in `bench/peers/registry.py`. Default: all.
        bodies: Bodies to send.
        sizes: Songs in a request.
        rounds: Rounds.
        seconds: How long wrk asks, for each server, body, size and round.
        out: A file to write the results to, as JSON.
        page: A page whose block the result is written into.
        environments: The folder with the virtual environments of the peers.
    """
    chosen = {name: peer for name, peer in PEERS.items() if not only or name.startswith(only)}
    if not chosen or min(sizes, default=0) < 1 or rounds < 1 or seconds < 1:
        raise ConfigError(
            f"expected some of the servers {', '.join(PEERS)}, sizes and rounds of at least 1 and at least 1 second"
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found = Found()
    with Watch() as watch, TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work = make_workload(bundle, songs, folder)
        plan = {name: list(_lanes(peer, bodies, sizes)) for name, peer in chosen.items()}
        with tqdm(total=rounds * len(chosen), unit=" servers", disable=None, file=sys.stderr) as progress:
            for _ in range(rounds):
                for name, peer in chosen.items():
                    progress.set_postfix_str(peer.label)
                    if plan[name]:
                        _one(peer, plan[name], work, found, seconds, environments.absolute(), folder)
                    progress.update()
    # A server that left the family of this process is not another's, as the watch would have it.
    shares = [one.others_share for measured in found.lanes.values() for one in measured]
    watch.others_share = statistics.fmean(shares) if shares else None
    measured = results("peers", command_of(COMMAND, *sys.argv[1:]), [*found.figures()], watch, [*found.notes()])
    if out is not None:
        measured.write(out)
    benchmark = PeersBenchmark(measured)
    if page is not None:
        write_block(page, COMMAND, str(benchmark))
    return benchmark


def _lanes(peer: Peer, bodies: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[Lane, Dialect]]:
    for size in sizes:
        for dialect in peer.dialects:
            if dialect.body in bodies:
                yield Lane(peer.label, dialect.body, size), dialect


def _one(
    peer: Peer,
    lanes: Sequence[tuple[Lane, Dialect]],
    work: Workload,
    found: Found,
    seconds: float,
    environments: Path,
    folder: Path,
) -> None:
    """Run a server for one round; what fails is noted, and tried again in the next round."""
    try:
        with running(peer, environments, work.models, work.bundle, work.songs[0]) as server:
            if peer.label not in found.treatments:
                _check(server, lanes, work)
                dialects = {dialect.body: dialect for _, dialect in lanes}
                found.treatments[peer.label] = [
                    one for dialect in dialects.values() for one in treatments(server, dialect, work)
                ]
            for lane, dialect in lanes:
                measured = _measure(server, _requests_file(folder, lane, dialect, work), seconds)
                found.lanes.setdefault(lane, []).append(measured)
            found.start_up_s.setdefault(peer.label, []).append(server.start_up_s)
            found.memory_mb.setdefault(peer.label, []).append(server.processes.memory_bytes() / 1e6)
    except SegueError as error:
        found.failures.setdefault(peer.label, []).append(str(error))


def _check(server: RunningPeer, lanes: Sequence[tuple[Lane, Dialect]], work: Workload) -> None:
    """Refuse a server that does not answer as ONNX Runtime does in this process."""
    with caller() as client:
        for lane, dialect in lanes:
            for at in range(0, 4 * lane.songs, lane.songs):
                rows = slice(at, at + lane.songs)
                reply = server.ask(client, dialect, list(work.songs[rows]))
                if not is_right(reply, dialect, work.probs[rows]):
                    raise ServiceError(
                        f"{lane.server}, {lane.body}, {lane.songs} songs: expected the answers of the models in this "
                        f"process, found another one: status {reply.status}, {reply.body[:200]!r}"
                    )


def _requests_file(folder: Path, lane: Lane, dialect: Dialect, work: Workload) -> Path:
    path = folder / f"{dialect.path}-{dialect.body}-{lane.songs}-{dialect.encode.__name__}".replace("/", "_")
    if not path.exists():
        n_songs = len(work.songs) // lane.songs * lane.songs
        starts = range(0, n_songs, lane.songs)[: BODIES.get(lane.songs, 16)]
        write_requests(path, (dialect.request(list(work.songs[at : at + lane.songs])) for at in starts))
    return path


def _measure(server: RunningPeer, requests: Path, seconds: float) -> Measured:
    wrk(server.port, requests, connections=CONNECTIONS, seconds=WARM_UP_S)
    busy_s, cpu_s, own_s, started = machine_busy_s(), server.processes.cpu_s(), time.process_time(), time.monotonic()
    found: WrkRun = wrk(server.port, requests, connections=CONNECTIONS, seconds=seconds)
    cpu_s = server.processes.cpu_s() - cpu_s
    others_s = machine_busy_s() - busy_s - cpu_s - found.cpu_s - (time.process_time() - own_s)
    return Measured(
        requests=found.requests - found.refused,
        requests_per_s=found.requests_per_s,
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        errors=found.refused + found.broken,
        cpu_ms=1e3 * cpu_s / max(found.requests, 1),
        others_share=max(others_s, 0.0) / (CORES * (time.monotonic() - started)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    return run(compare, argv, __doc__)
