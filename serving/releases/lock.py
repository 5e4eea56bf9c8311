"""A lock on a folder that many processes and hosts share, local or in object storage, with its owner and its age.

Whoever wants the lock writes a claim, a file of its own, and then lists all claims. Alone there, it has the lock;
otherwise it takes its claim back and tries again later. Of two claims one is written last, and its owner sees the
other: so at most one has the lock, on any storage whose lists show what was written before (local disks, S3). Nothing
else is asked of the storage: no exclusive creation, no clock of the hosts.

An owner renews its claim while it works. A claim that is old by the storage's own clock, or of a process of this host
that is gone, is removed by whoever finds it. An owner that slept too long must `confirm` before it commits.
"""

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pyarrow import fs

from segue.errors import ReleaseError

RENEW_S = 10.0
STALE_S = 60.0
LONGEST_PAUSE_S = 0.5  # Between two tries, drawn at random so that two who collided do not collide again.


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, or wants to."""

    purpose: str
    host: str
    place: str  # Tells apart hosts and containers, in which a process number means something.
    pid: int
    claimed: float  # Seconds since 1970, by the owner's clock.

    def __str__(self) -> str:
        age_s = max(time.time() - self.claimed, 0.0)
        return f"process {self.pid} on {self.host} for {age_s:.0f} s, to {self.purpose}"

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this place that has ended."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


class Held:
    """A lock that this process holds."""

    def __init__(self, storage: fs.FileSystem, claim: str) -> None:
        """Remember the claim that stands for the lock."""
        self._storage = storage
        self._claim = claim

    def confirm(self) -> None:
        """Raise a `ReleaseError` if the lock was lost: this process was silent for so long that another took it."""
        if self._storage.get_file_info(self._claim).type != fs.FileType.File:
            raise ReleaseError(
                f"the lock was lost: this process was silent for over {STALE_S:g} s, and another took its place. "
                "Nothing was changed; start again."
            )


@contextmanager
def locked(storage: fs.FileSystem, folder: str, purpose: str, wait_s: float = 2 * STALE_S) -> Iterator[Held]:
    """Hold the lock of `folder` while the block lasts.

    Args:
        storage: where the folder lies.
        folder: the folder of claims, for nothing else.
        purpose: what the lock is for, for whoever waits: `publish`, `prune`.
        wait_s: how long to wait for another owner.

    Raises:
        ReleaseError: another owner has held the lock all the time; names it, and how long ago it claimed the lock.
    """
    storage.create_dir(folder, recursive=True)
    token = uuid.uuid4().hex
    claim = f"{folder}/{token}.json"
    owner = json.dumps(asdict(Owner(purpose, socket.gethostname(), _place(), os.getpid(), time.time()))).encode()
    deadline = time.monotonic() + wait_s
    while True:
        _write(storage, claim, owner)
        others = _others(storage, folder, claim)
        if not others:
            break
        _remove(storage, claim)
        if time.monotonic() >= deadline:
            raise ReleaseError(
                f"{folder}: locked by {others[0]}. Wait for it; a lock that nobody renews ends by itself."
            )
        time.sleep(random.uniform(0.1, 1) * LONGEST_PAUSE_S)
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(storage, claim, owner, stop), daemon=True, name="segue-lock")
    renewal.start()
    try:
        yield Held(storage, claim)
    finally:
        stop.set()
        renewal.join()
        _remove(storage, claim)


def _others(storage: fs.FileSystem, folder: str, mine: str) -> list[str]:
    """Return every other live claim in words; claims of owners that are gone are removed."""
    found = {info.path: info.mtime_ns or 0 for info in storage.get_file_info(fs.FileSelector(folder))}
    now_ns = found.get(mine, 0)  # The storage's clock, as of the moment when it took the claim.
    others = []
    for path in found.keys() - {mine}:
        owner, age_s = _owner(storage, path), max((now_ns - found[path]) / 1e9, 0.0)
        if age_s > STALE_S or (owner is not None and owner.is_gone):
            _remove(storage, path)
        else:
            others.append(f"{owner or 'an owner that has not yet said its name'}, renewed {age_s:.0f} s ago")
    return others


def _owner(storage: fs.FileSystem, path: str) -> Owner | None:
    try:
        with storage.open_input_stream(path, compression=None) as file:
            return Owner(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None


def _renew(storage: fs.FileSystem, claim: str, owner: bytes, stop: threading.Event) -> None:
    while not stop.wait(RENEW_S):
        with suppress(OSError):  # One renewal of six may fail.
            if storage.get_file_info(claim).type == fs.FileType.File:  # Else another took the lock.
                _write(storage, claim, owner)


def _write(storage: fs.FileSystem, path: str, content: bytes) -> None:
    try:
        with storage.open_output_stream(path, compression=None) as file:
            file.write(content)
    except OSError:  # Such as of a full disk: a claim without words would only keep others waiting.
        _remove(storage, path)
        raise


def _remove(storage: fs.FileSystem, path: str) -> None:
    with suppress(OSError):
        storage.delete_file(path)


def _place() -> str:
    """Return what tells hosts and containers apart."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
