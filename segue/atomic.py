"""Files and folders that appear whole or not at all: written beside their place, then renamed into it."""

import ctypes
import errno
import fcntl
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from segue.errors import ConfigError

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # From <fcntl.h> and <linux/fs.h>; renameat2(2).
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # The disk, the user's share of it, the largest file.

_writing: set[Path] = set()  # Locks of files are between processes; within this one, the places that are written now.


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well, that file takes the place of `path` in one step.

    Where `path` is a link, it is the file behind it that is replaced. Of two who write at once the last one wins.
    Drafts of processes that were killed are removed.

    Raises:
        ConfigError: `path` cannot be a file, nothing can be written there, or the disk is full.
    """
    path = file_place(path)
    with _drafting(path, Path.touch) as draft:
        yield draft
        publish(draft, path)


def file_place(path: Path) -> Path:
    """Return where a file at `path` is written, its links followed; a `ConfigError` if none can be there."""
    try:
        place = path.resolve()
    except (OSError, RuntimeError):
        raise ConfigError(f"{path}: expected a place for a file, found a link that leads nowhere") from None
    if place.exists() and not place.is_file():
        found = "a folder" if place.is_dir() else "something that is neither file nor folder"
        raise ConfigError(f"{path}: expected a place for a file, found {found}. Choose another name.")
    return place


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in plain words that the disk is full, or that it takes nothing more from this user.

    Raises:
        ConfigError: so it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        why = os.strerror(error.errno)
        raise ConfigError(f"{path}: not written: {why}. What was there before is kept.") from None


T = TypeVar("T")


def _make(path: Path, make: Callable[[], T]) -> T:
    """Make the first file beside `path`, in a folder that may have to be made; a `ConfigError` says why not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make()
    except OSError as error:
        raise ConfigError(f"{path}: nothing can be written there: {error.strerror}. Choose another place.") from None


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the only one who writes `path` while the block lasts, among all processes of this machine.

    Raises:
        ConfigError: somebody writes it already, nothing can be written there, or the disk is full.
    """
    if path in _writing:
        raise ConfigError(f"{path}: this process is writing it already; choose another place")
    _writing.add(path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        with writing(path):
            handle = _locked(path, lock)
            try:
                yield
            finally:
                if handle is not None:
                    lock.unlink(missing_ok=True)
                    os.close(handle)
    finally:
        _writing.remove(path)


def _locked(path: Path, lock: Path) -> int | None:
    """Return the handle of the lock that says who writes `path`; None where the file system has no locks."""
    while True:
        handle = _make(path, lambda: os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Unlike flock, not kept alive by our children.
        except (BlockingIOError, PermissionError):
            writer = os.pread(handle, 20, 0).decode(errors="replace")
            os.close(handle)
            raise ConfigError(
                f"{path}: process {writer} is writing it. Wait until it ends, or choose another place."
            ) from None
        except OSError:
            os.close(handle)
            lock.unlink(missing_ok=True)
            return None
        with suppress(FileNotFoundError):  # Whoever had it may have removed it meanwhile.
            if os.path.samestat(os.fstat(handle), lock.stat()):
                os.truncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
                return handle
        os.close(handle)


def publish(draft: Path, path: Path) -> None:
    """Let a finished file take the place of `path` in one step, its bytes on the disk first."""
    _sync(draft)
    os.replace(draft, path)


def check_place(path: Path, mark: str) -> None:
    """Refuse to let a folder replace anything but an empty folder or one of its kind, which has a file `mark`.

    Raises:
        ConfigError: something else is at `path`.
    """
    found = None
    if path.is_dir() and any(path.iterdir()) and not (path / mark).is_file():
        found = f"a folder of other files, no {mark}"
    elif path.exists() and not path.is_dir():
        found = "a file"
    if found:
        raise ConfigError(
            f"{path}: expected nothing there, or a folder with {mark} to replace; found {found}, which would be lost. "
            "Choose another place."
        )


@contextmanager
def atomic_folder(path: Path, mark: str) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well, it takes the place of the folder `path` in one step.

    Only of one of its kind, see `check_place`. Where `path` is a link, it is the folder behind it that is replaced.
    """
    check_place(path, mark)
    path = path.resolve()
    with _drafting(path, Path.mkdir) as draft:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            _exchange(draft, path)
        else:
            os.rename(draft, path)


@contextmanager
def _drafting(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield an empty draft of `path`, which is removed at the end, as are drafts of processes that are gone."""
    draft = _draft_of(path, os.getpid())
    with writing(path):
        for found in path.parent.glob(glob.escape(_draft_of(path, 0).name).replace(".0.draft", ".*.draft")):
            owner = found.name[len(f".{path.stem}.") : -len(f".draft{path.suffix}")]
            if owner.isdigit() and not _is_alive(int(owner)):
                _remove(found)
        _make(path, partial(_remove, draft))
        _make(path, partial(make, draft))
        try:
            yield draft
        finally:
            _remove(draft)


def _draft_of(path: Path, process: int) -> Path:
    """Return a name beside `path` that no other process uses, with its suffix, which some writers go by."""
    return path.with_name(f".{path.stem}.{process}.draft{path.suffix}")


def _remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # Another user's.
    return True


def _exchange(new: Path, old: Path) -> None:
    """Let two folders swap their names: at once on Linux, elsewhere by way of a third name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        swapped: int = libc.renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(old), RENAME_EXCHANGE)
        if swapped == 0:
            return
    aside = new.with_suffix(".old")
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise
    os.rename(aside, new)


def _sync(file: Path) -> None:
    """Wait until the bytes of `file` are on the disk, so that a rename never outruns its content."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
