"""How many callers each worker of a server has, so that whoever comes goes to one that has few.

Every worker writes its count at a place of its own in one small file of the server's folder. What a worker that was
killed wrote stays until the next one takes its place: then the others wait for it in vain, for moments.
"""

import array
import fcntl
import os
from contextlib import suppress
from pathlib import Path

BYTES = 4  # Of a count.
MOST_WORKERS = 1024


class Callers:
    """The callers of this worker, and what the others have written of theirs."""

    def __init__(self, path: Path | None = None) -> None:
        """Take a place in a file; with none, or where that cannot be, this worker is the only one it knows of."""
        self.own = 0
        self._file: int | None = None
        if path is not None:
            with suppress(OSError):
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._place = _take_place(file)
                self._file = file
                self.are(0)

    def are(self, own: int) -> None:
        """Let the others know how many callers this worker has."""
        self.own = own
        if self._file is not None:
            with suppress(OSError):  # A full disk, say.
                os.pwrite(self._file, own.to_bytes(BYTES, "little"), self._place * BYTES)

    def are_more_than_others(self) -> bool:
        """Tell whether another worker has fewer."""
        if self._file is None:
            return False
        counts = array.array("I", os.pread(self._file, MOST_WORKERS * BYTES, 0))
        return any(count < self.own for place, count in enumerate(counts) if place != self._place)


def _take_place(file: int) -> int:
    """Return the first place that no living worker has, and hold it until this process ends."""
    for place in range(MOST_WORKERS):
        with suppress(BlockingIOError, PermissionError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, BYTES, place * BYTES)
            return place
    raise OSError(f"expected at most {MOST_WORKERS} workers, found more")
