"""The folder that the processes of one server share: a mark that says when to reload, and the metrics of every worker.

It is a server's own, in the temporary folder. The first process of the server makes it, and holds a lock on it for as
long as it lives: a folder that nobody holds is what a killed server left, and the next server removes it.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PREFIX = "segue-server-"
YOUNG_S = 60.0  # A folder may be this old before its lock is taken; a younger one is not looked at.


@dataclass(frozen=True)
class ServerFolder:
    """The folder of a server that runs."""

    path: Path

    @classmethod
    def make(cls) -> Self:
        """Make a folder for the server of which this is the first process; it goes when this process ends."""
        _remove_abandoned(Path(tempfile.gettempdir()))
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock(path)
        atexit.register(shutil.rmtree, path, ignore_errors=True)
        return cls(path)

    def ask_for_reload(self) -> None:
        """Let every worker reload."""
        self.path.mkdir(mode=0o700, exist_ok=True)  # Whatever tidies temporary folders may have been here.
        self._mark.touch()

    def reload_asked_at(self) -> int:
        """Return when a reload was last asked for, in nanoseconds; 0: never."""
        try:
            return self._mark.stat().st_mtime_ns
        except OSError:
            return 0

    def remove(self) -> None:
        """Remove the folder; for a worker whose server was killed."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _mark(self) -> Path:
        return self.path / "reload"


def lock(path: Path) -> None:
    """Lock a file or a folder until this process ends, however it does."""
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)  # Never closed: that is what holds it.


def is_locked(path: Path) -> bool:
    """Return whether a process that lives has locked a file or a folder; false where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove_abandoned(temporary: Path) -> None:
    """Remove the folders of servers that were killed."""
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError):  # Of another user, or another server is as tidy as this one.
            is_old = folder.stat().st_mtime < time.time() - YOUNG_S
            if is_old and folder.stat().st_uid == os.getuid() and not is_locked(folder):
                shutil.rmtree(folder, ignore_errors=True)
