"""What a server makes of a song that is wrong, of the sound songs beside it, and of the other callers meanwhile."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from segue.bench.peers.dialects import Dialect, Probs, Reply
from segue.bench.peers.running import RunningPeer, caller
from segue.bench.peers.workload import Workload
from segue.data.song import Floats

CALLERS, ROUNDS = 16, 8
TOLERANCE = 2e-3  # Of a probability. Graphs in int8 answer a little differently in another batch.


@dataclass(frozen=True)
class Treatment:
    """How a server treats one kind of wrong song."""

    body: str
    fault: str
    bad_song: str  # The answer to it, in a request with three sound ones.
    same_request: str  # The answers to those three.
    other_requests: str  # How many sound songs of other callers, at the same time, were not answered right.


def transposed(song: Floats) -> Floats:
    """Return a song whose axes are in the wrong order, (25, 120)."""
    return np.ascontiguousarray(song.T)


def with_nan(song: Floats) -> Floats:
    """Return a song with one number that is none."""
    bad = song.copy()
    bad[60, 3] = np.nan
    return bad


FAULTS: dict[str, Callable[[Floats], Floats]] = {"transposed": transposed, "NaN": with_nan}


def treatments(peer: RunningPeer, dialect: Dialect, work: Workload) -> list[Treatment]:
    """Send wrong songs with sound ones, in one request and beside others."""
    found = []
    for fault, spoil in FAULTS.items():
        songs: list[Floats] = list(work.songs[:4])
        songs[1] = spoil(songs[1])
        with caller() as client:
            reply = peer.ask(client, dialect, songs)
        bad_song, same_request = _judge(reply, dialect, work.probs[:4])
        found.append(Treatment(dialect.body, fault, bad_song, same_request, _beside(peer, dialect, work, spoil)))
    return found


def is_right(reply: Reply, dialect: Dialect, probs: Probs) -> bool:
    """Return whether an answer has these probabilities, (n_songs, n_classes)."""
    if reply.status != 200:
        return False
    found = dialect.probs(reply)
    return found.shape == probs.shape and bool((abs(found - probs) <= TOLERANCE).all())


def _judge(reply: Reply, dialect: Dialect, probs: Probs) -> tuple[str, str]:
    if reply.status != 200:
        return f"{reply.status}", f"{reply.status} for all"
    found = dialect.probs(reply)
    if found.shape != probs.shape:
        return "200, another number of answers", "200, another number of answers"
    if np.isfinite(found[1]).all():
        bad_song = "200, an answer"
    else:
        bad_song = "an error of its own" if b'"error"' in reply.body else "200, NaN"
    sound = np.delete(abs(found - probs), 1, axis=0)
    right = int((sound <= TOLERANCE).all(axis=1).sum())
    return bad_song, f"{right} of {len(sound)} right"


def _beside(peer: RunningPeer, dialect: Dialect, work: Workload, spoil: Callable[[Floats], Floats]) -> str:
    """Let 16 callers ask at a time, one of them about a wrong song, some times over."""
    wrong: Counter[str] = Counter()
    with caller() as client, ThreadPoolExecutor(CALLERS) as pool:
        for _ in range(ROUNDS):
            songs: Sequence[Floats] = [spoil(work.songs[0]), *work.songs[1:CALLERS]]
            replies = list(pool.map(lambda song: peer.ask(client, dialect, [song]), songs))
            for place, reply in enumerate(replies[1:], 1):
                if not is_right(reply, dialect, work.probs[place : place + 1]):
                    wrong["wrong" if reply.status == 200 else str(reply.status)] += 1
    asked = ROUNDS * (CALLERS - 1)
    if not wrong:
        return f"0 of {asked} failed"
    return f"{wrong.total()} of {asked} failed ({', '.join(f'{count} x {what}' for what, count in wrong.items())})"
