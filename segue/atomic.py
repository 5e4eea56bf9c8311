"""Files and folders that appear whole or not at all: written beside their place, then renamed into it."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segue.errors import ConfigError

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # From <fcntl.h> and <linux/fs.h>; renameat2(2).


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well, that file takes the place of `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        yield draft
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            _exchange(draft, path)
        else:
            os.rename(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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


def _draft_of(path: Path) -> Path:
    """Return a name beside `path` that no other process uses, with its suffix, which some writers go by."""
    return path.with_name(f".{path.stem}.{os.getpid()}.draft{path.suffix}")


def _sync(file: Path) -> None:
    """Wait until the bytes of `file` are on the disk, so that a rename never outruns its content."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
