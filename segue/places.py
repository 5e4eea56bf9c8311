"""Where a verb may write: over what the same verb made, over nothing else, and never over what it reads.

A table says in its schema's metadata which verb made it (`segue.made_by`), a page in its `generator`, and a CSV of
`segue score` is known by its columns. See docs/decisions/0005-no-output-over-an-input.md.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from segue.atomic import check_place, file_place
from segue.errors import ConfigError

MADE_BY = b"segue.made_by"
SCORE_COLUMNS = ("song_id", "genre", "cross_entropy_nats", "answered_by")
ERROR_TABLE_HEAD = "song\treason\n"  # Of what `segue songs` writes beside a table.
_SCORE_CSV = re.compile(",".join(f'"?{name}"?' for name in SCORE_COLUMNS).encode() + b'|"?Id"?,"?Class"?\n')
_GENERATOR = re.compile(rb'<meta name="generator" content="segue ([a-z-]+)">')
HEAD_BYTES = 4096


def check_last(
    sources: Sequence[Path], out: Path, verb: str, reads: Sequence[Path], suffixes: Sequence[str], *, overwrite: bool
) -> None:
    """Check the place of an output that was given as the last of some paths: such a one replaces next to nothing.

    What a shell makes of `*.arrow` may end in a song table that nobody meant to write. So the last path must end in
    one of `suffixes`, and must not be there yet. One exception lets a command be repeated: there is exactly one
    source, `verb` made what is at `out` and did not make the source, and the source is a folder or differs from `out`
    in folder and in name. A text behind a link counts as its own: somebody laid the link to say where the output goes.

    Args:
        sources: the paths before it.
        out: the last path.
        verb: the name of the verb.
        reads: everything that the verb reads, files and folders; see `check_out`.
        suffixes: how a file that it writes may end.
        overwrite: replace what is there, whatever it is; only with one source.

    Raises:
        ConfigError: it must not be written.
    """
    if out.suffix not in suffixes:
        raise ConfigError(
            f"{out}: expected a name that ends in {' or '.join(suffixes)}, for the last path is what is written. "
            "--out takes its place."
        )
    place = file_place(out)
    _check_apart(out, place, reads)
    repeated = (
        len(sources) == 1
        and _is_replaceable(out, place, verb)
        and made_by(sources[0]) != verb
        and (
            sources[0].is_dir()
            or (
                place.parent != sources[0].resolve().parent
                and _folded(Path(place.name)) != _folded(Path(sources[0].name))
            )
        )
    )
    if place.exists() and not repeated and not (overwrite and len(sources) == 1):
        raise ConfigError(
            f"{out}: expected nothing there, for it is the last path and would be written; found {_described(place)}. "
            f"`--out {out}` replaces what `segue {verb}` made, and with `--overwrite` anything but what is read."
        )


def check_out(out: Path, verb: str, reads: Sequence[Path], *, overwrite: bool) -> None:
    """Check the place of an output that was named as one; where it is a link, the place is what is behind it.

    Args:
        out: the place to write.
        verb: the name of the verb; what it made is replaced.
        reads: everything that the verb reads. Of a folder, all that is in it is read, whatever is added too.
        overwrite: replace what another made too; never what is read.

    Raises:
        ConfigError: it must not be written.
    """
    place = file_place(out)
    _check_apart(out, place, reads)
    if place.exists() and not overwrite and not _is_replaceable(out, place, verb):
        raise ConfigError(
            f"{out}: expected nothing there, or what `segue {verb}` made; found {_described(place)}, which would be "
            "lost. Choose another place, or say --overwrite."
        )


def check_folder(out: Path, mark: str, reads: Sequence[Path]) -> None:
    """Check the place of a folder to write: that it replaces only one of its kind, and nothing that is read.

    Raises:
        ConfigError: something else is there, see `segue.atomic.check_place`, or it is read, or holds what is read.
    """
    check_place(out, mark)
    place = out.resolve()
    _check_apart(out, place, reads)
    for read in reads:
        if _is_within(read.resolve(), place):
            raise ConfigError(f"{out}: expected a place apart from {read}, which is read, lies in it and would be lost")


def made_by(file: Path) -> str | None:
    """Return the verb that made a table, a CSV, a list of errors or a page; None for anything else, or nothing."""
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
            opened.seek(0)
            if head.startswith(b"ARROW1"):
                return _noted(pa.ipc.open_file(opened).schema)
            if head.startswith(b"PAR1"):
                return _noted(pq.read_schema(opened))
    except (OSError, ValueError, pa.ArrowException):
        return None
    if head.startswith(ERROR_TABLE_HEAD.encode()):
        return "songs"
    page = _GENERATOR.search(head)
    if page:
        return page[1].decode()
    return "score" if _SCORE_CSV.match(head) else None


def _is_replaceable(out: Path, place: Path, verb: str) -> bool:
    """Tell whether `verb` made what is at a place, or `out` is a link to a text there that no verb made."""
    maker = made_by(place)
    return maker == verb or (maker is None and out.is_symlink() and place.is_file() and _is_text(place))


def _is_text(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    return b"\0" not in head and not head.startswith((b"ARROW1", b"PAR1", b"PK", b"\x89HDF"))


def _noted(schema: pa.Schema) -> str | None:
    found = (schema.metadata or {}).get(MADE_BY)
    return found.decode(errors="replace") if found else None


def _described(place: Path) -> str:
    """Say what is at a place in the words of whoever has to decide whether it may go."""
    maker = made_by(place)
    return f"what `segue {maker}` made" if maker else f"a file of {place.stat().st_size:,} bytes that no verb made"


def _check_apart(out: Path, place: Path, reads: Sequence[Path]) -> None:
    for read in reads:
        if _is_same(place, read):
            raise ConfigError(f"{out}: expected another place to write than what is read, found the same file: {read}")
        if read.is_dir() and _is_within(place, read.resolve()):
            raise ConfigError(f"{out}: expected a place to write outside {read}, all of which is read")


def _is_same(place: Path, read: Path) -> bool:
    """Tell whether two paths are one file: by links of either kind, or where upper case is not told from lower."""
    if _folded(place) == _folded(read.resolve()):
        return True
    return place.exists() and read.exists() and place.samefile(read)


def _is_within(inner: Path, folder: Path) -> bool:
    return _folded(inner).startswith(_folded(folder).rstrip("/") + "/")


def _folded(path: Path) -> str:
    """Return a name as those file systems see it that do not tell upper case from lower, nor two ways to write é."""
    return unicodedata.normalize("NFC", str(path)).casefold()
