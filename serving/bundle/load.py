"""Reading a bundle: every file once, into memory, and nothing of it unverified.

The bytes that were hashed are the bytes that are used. A bundle that is exchanged, changed or deleted meanwhile is read
as a whole or refused; one version is never made of the files of two.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from segue.errors import BundleError
from segue.serving.bundle.manifest import MANIFEST, TRADEOFF, Manifest, ModelEntry, TradeoffRow, parse_manifest
from segue.serving.bundle.tradeoff_table import parse_tradeoff

MAX_FILE_BYTES = 2**31  # No ONNX file can be larger, and nothing else in a bundle comes near.
ATTEMPTS = 5  # To read a folder that is exchanged again and again.
BY_DESCRIPTOR = os.open in os.supports_dir_fd  # Whether a file can be opened in a folder that has been renamed.


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    path: Path  # Where it was read from: for messages. What it held then is in `contents`.
    manifest: Manifest
    tradeoff: tuple[TradeoffRow, ...]
    contents: Mapping[str, bytes] = field(repr=False)  # Of every file that the manifest lists, by name.

    def model(self, entry: ModelEntry) -> bytes:
        """Return the ONNX file of one of the models."""
        return self.contents[entry.file]

    def without_contents(self) -> Self:
        """Return this bundle without the bytes of its files, once the models are open: they are most of it."""
        return replace(self, contents={})


def load_bundle(path: Path) -> Bundle:
    """Read the bundle in folder `path` and verify every file of it; a `BundleError` says what is wrong.

    A folder that another took the place of in the meantime, so that its files were gone, is read again.
    """
    for _ in range(ATTEMPTS - 1):
        with _open_folder(path) as folder:
            try:
                return _load(folder)
            except BundleError:
                if not folder.was_exchanged():
                    raise
    with _open_folder(path) as folder:
        return _load(folder)


@dataclass(frozen=True)
class _Folder:
    """A folder that stays the same one when it is renamed."""

    path: Path
    descriptor: int | None  # None where the system cannot open files by it.

    def read(self, name: str) -> bytes:
        """Return the content of a file; a `BundleError` if it is no regular file or cannot be read."""
        try:
            with open(self.path / name if self.descriptor is None else name, "rb", opener=self._open) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):  # A pipe or a device might never end.
                    raise BundleError(f"{self.path / name}: expected a regular file, found something else")
                if found.st_size > MAX_FILE_BYTES:
                    raise BundleError(
                        f"{self.path / name}: expected at most {MAX_FILE_BYTES} bytes, found {found.st_size}"
                    )
                return file.read(found.st_size)
        except FileNotFoundError:
            if name == MANIFEST:
                raise BundleError(f"{self.path}: expected a bundle, found a folder without {MANIFEST}") from None
            raise BundleError(f"{self.path}: the file {name} is missing") from None
        except IsADirectoryError:
            raise BundleError(f"{self.path / name}: expected a file, found a folder") from None
        except OSError as error:
            raise BundleError(f"{self.path / name}: cannot be read: {error.strerror}") from None

    def was_exchanged(self) -> bool:
        """Return whether another folder, or none, has the path now."""
        if self.descriptor is None:
            return False
        try:
            return not os.path.samestat(self.path.stat(), os.fstat(self.descriptor))
        except OSError:
            return True

    def _open(self, path: str, flags: int) -> int:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), dir_fd=self.descriptor)


@contextmanager
def _open_folder(path: Path) -> Iterator[_Folder]:
    try:
        if not path.is_dir():
            raise BundleError(f"{path}: expected a bundle, found no such folder. `segue export` makes one.")
        descriptor = os.open(path, os.O_RDONLY) if BY_DESCRIPTOR else None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: expected a bundle, found a folder that cannot be opened: {error}") from None
    try:
        yield _Folder(path, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _load(folder: _Folder) -> Bundle:
    path = folder.path
    manifest = parse_manifest(folder.read(MANIFEST), path / MANIFEST)
    contents = {name: _verified(folder, name, sha256) for name, sha256 in manifest.sha256.items()}
    return Bundle(path, manifest, parse_tradeoff(contents[TRADEOFF], path / TRADEOFF), contents)


def _verified(folder: _Folder, name: str, expected: str) -> bytes:
    content = folder.read(name)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BundleError(
            f"{folder.path / name}: expected sha256 {expected[:12]}, found {found[:12]}; "
            "the file was changed or damaged"
        )
    return content
