"""Files and folders that appear whole or not at all: written beside their place, then renamed into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well, that file takes the place of `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        yield draft
        _sync(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well, it takes the place of the folder `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, replaced = _draft_of(path), path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                _sync(file)
        with suppress(FileNotFoundError):
            os.rename(path, replaced)
        os.rename(draft, path)
    finally:
        if replaced.exists() and not path.exists():  # Stopped between the two renames.
            os.rename(replaced, path)
        shutil.rmtree(replaced, ignore_errors=True)
        shutil.rmtree(draft, ignore_errors=True)


def _draft_of(path: Path) -> Path:
    """Return a name beside `path` that no other process uses, with its suffix, which some writers go by."""
    return path.with_name(f".{path.stem}.{os.getpid()}.draft{path.suffix}")


def _sync(file: Path) -> None:
    """Wait until the bytes of `file` are on the disk, so that a rename never outruns its content."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
