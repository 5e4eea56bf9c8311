"""HDF5 files as data from anybody: nothing outside the file is read, and no header decides how much memory is taken.

An HDF5 file can name other files, by external links, external storage and virtual datasets, and HDF5 would read them.
Million Song Dataset files have none of these, so they are refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d, h5g, h5l, h5t

from segue.data.sources.source import clean, damage_named
from segue.errors import SongError

CHUNK_BYTES = 2**26  # HDF5 unpacks a chunk at once; those of the data set have 100 kB.
TEXT_BYTES = 1024  # Of an id; those of the data set have 18.


@contextmanager
def opened(path: Path, what: str) -> Iterator[Any]:
    """Open a file for `dataset`; whatever goes wrong with it is a `SongError` that begins with `what`.

    A file that was cut short while it was open is one, too: HDF5 itself would read zeros.
    """
    with damage_named(what):
        if not path.is_file():
            raise SongError(f"{what}: no regular file")
        size = path.stat().st_size
        with h5py.File(path) as file:
            yield file.id
        check_size(path, size)


def check_size(path: Path, size: int) -> None:
    """Refuse a file that has fewer bytes than it had."""
    found = os.stat(path).st_size  # noqa: PTH116, a third of the time
    if found < size:
        raise SongError(f"{path}: expected {size} bytes, found {found}: the file was cut short while it was read")


def dataset(file: Any, name: str) -> Any:
    """Return the low-level dataset `name`, such as `analysis/songs`.

    Raises:
        SongError: it is not stored in the file itself, or in chunks that are far too large.
    """
    *groups, last = name.encode().split(b"/")
    holder = file
    for group in groups:
        _check_link(holder, group, name)
        holder = h5g.open(holder, group)
    _check_link(holder, last, name)
    found = h5d.open(holder, last)
    how = found.get_create_plist()
    if how.get_layout() == h5d.VIRTUAL or how.get_external_count():
        raise SongError(f"expected /{name} within the file, found one that other files hold")
    chunk = found.get_type().get_size()
    for length in how.get_chunk() if how.get_layout() == h5d.CHUNKED else ():
        chunk *= length
    if chunk > CHUNK_BYTES:
        raise SongError(f"expected chunks of at most {CHUNK_BYTES} bytes in /{name}, found {chunk}")
    return found


def text_type(table: Any, column: str) -> Any:
    """Return the type of a text column of a low-level table, of fixed size and at most `TEXT_BYTES`."""
    row = table.get_type()
    text = row.get_member_type(row.get_member_index(column.encode()))
    if text.get_class() != h5t.STRING or text.is_variable_str() or text.get_size() > TEXT_BYTES:
        raise SongError(f"expected text of at most {TEXT_BYTES} bytes in {column}, found {text.dtype}")
    return text


def decoded(name: bytes) -> str:
    """Return an id as text, without the blanks around it."""
    return clean(name.decode(errors="replace")).strip()


def _check_link(holder: Any, link: bytes, name: str) -> None:
    if not holder.links.exists(link):
        raise KeyError(f"no /{name}")
    if holder.links.get_info(link).type != h5l.TYPE_HARD:
        raise SongError(f"expected /{name} within the file, found a link")
