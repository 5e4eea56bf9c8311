"""Files that are read at any place and must stay as they were, here or in an object store.

Nothing is mapped into memory: a mapped file that is cut short ends the process (SIGBUS).
"""

import io
import os
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs

from segue.errors import SongError

ONE_READ_BYTES = 2**30  # The kernel gives at most 2 GB at once.


class FileBytes(Protocol):
    """The bytes of a file."""

    name: str
    size: int

    def stream(self) -> pa.NativeFile:
        """Return it as Arrow reads files, from the beginning."""

    def read(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on; a `SongError` where the file ends before."""

    def read_into(self, values: "np.ndarray[Any, Any]", position: int) -> None:
        """Fill an array with what lies at `position`, in bytes; a `SongError` if the file is not what it was."""

    def check(self) -> None:
        """Check that nobody has written to the file since it was opened; a `SongError` if somebody has."""


class SteadyFile:
    """A file of this machine."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        self.name = str(path)
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)
        self._before = os.fstat(self._handle)
        self.size = self._before.st_size

    def stream(self) -> pa.PythonFile:
        """Return it as Arrow reads files, from the beginning."""
        return pa.PythonFile(_Stream(self), "r")

    def read(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on."""
        return self.array(position, count).tobytes()

    def array(self, position: int, count: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """Return `count` bytes from `position` on, as an array."""
        if not 0 <= position <= position + count <= self.size:
            raise SongError("the file cannot be read, it may be cut short")
        found = aligned(count)
        self.read_into(found, position)
        return found

    def read_into(self, values: "np.ndarray[Any, Any]", position: int) -> None:
        """Fill an array with what lies at `position`, in bytes; a `SongError` if the file is not what it was."""
        rest = values.reshape(-1).view(np.uint8).data
        try:
            while len(rest) and (count := os.preadv(self._handle, [rest[:ONE_READ_BYTES]], position)):
                rest, position = rest[count:], position + count
        except OSError as error:
            raise SongError(f"{self.name}: the file cannot be read: {error.strerror}") from None
        self.check()
        if len(rest):
            raise SongError(f"{self.name}: the file cannot be read, it may be cut short")

    def check(self) -> None:
        """Check that nobody has written to the file since it was opened."""
        now = os.fstat(self._handle)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            before = self._before.st_size
            sizes = f": expected {before} bytes, found {now.st_size}" if now.st_size != before else ""
            raise SongError(
                f"{self.name}: the file was written to while it was read{sizes}. Start again when it is whole; a file "
                "that is replaced by another does no harm."
            )


class RemoteFile:
    """A file of an object store."""

    def __init__(self, system: pyarrow.fs.FileSystem, path: str, name: str) -> None:
        """Open it; `name` is what messages call it."""
        self.name = name
        self._file = system.open_input_file(path)
        self.size: int = self._file.size()

    def stream(self) -> pa.NativeFile:
        """Return it as Arrow reads files: at any place, whoever else reads."""
        return self._file

    def read(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on."""
        found: bytes = self._file.read_at(count, position) if 0 <= position <= self.size and count >= 0 else b""
        if len(found) != count:
            raise SongError("the file cannot be read, it may be cut short")
        return found

    def read_into(self, values: "np.ndarray[Any, Any]", position: int) -> None:
        """Fill an array with what lies at `position`, in bytes."""
        values.reshape(-1).view(np.uint8)[:] = np.frombuffer(self.read(position, values.nbytes), np.uint8)

    def check(self) -> None:
        """Check nothing: an object is replaced, never written to."""


def aligned(count: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return room for so many bytes, at an address where the kernel copies several times as fast as at numpy's."""
    return np.frombuffer(pa.allocate_buffer(count), np.uint8) if count else np.empty(0, np.uint8)


class _Stream(io.RawIOBase):
    """A file from its beginning; each stream has a place of its own in it, so that threads can read side by side."""

    def __init__(self, file: SteadyFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        return self._at

    def read(self, count: int | None = -1) -> Any:
        """Return bytes as Arrow takes them, in an array of which it makes no copy."""
        rest = max(self._file.size - self._at, 0)
        wanted = rest if count is None or count < 0 else min(count, rest)
        found = self._file.array(self._at, wanted).data if wanted else b""
        self._at += wanted
        return found
