"""The files of a folder tree: the ones that a source reads, and the ones that it passes over, counted by reason."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue.data.sources.source import Tally, readable


@dataclass(frozen=True)
class Listing:
    """What a folder tree holds, as one kind of source sees it."""

    files: list[Path]  # The regular files with one of its suffixes, sorted.
    passed_over: dict[str, Tally]  # Everything else, by reason.


def list_files(root: Path, suffixes: Sequence[str], ignored: Sequence[str] = ()) -> Listing:
    """List the files of a tree that end in one of `suffixes`, in lower or upper case.

    Links to folders are followed, each folder once. Only regular files are listed: to open a fifo would wait for ever.

    Args:
        root: the folder.
        suffixes: in lower case, with the dot.
        ignored: names of files that are neither read nor counted.
    """
    files, passed_over = [], dict[str, Tally]()
    for path, fault in _walk(root):
        if not fault and path.name.lower().endswith(tuple(suffixes)) and path.name not in ignored:
            files.append(path)
        elif path.name not in ignored:
            reason = fault or f"another kind of file ({kind_of_file(path)})"
            passed_over.setdefault(reason, Tally()).add([readable(str(path.relative_to(root)))])
    return Listing(sorted(files), passed_over)


def has_file(root: Path, suffixes: Sequence[str], ignored: Sequence[str] = ()) -> bool:
    """Tell whether `root` is a folder whose tree has a regular file that `list_files` would list."""
    wanted = tuple(suffixes)
    return root.is_dir() and any(
        not fault and path.name.lower().endswith(wanted) and path.name not in ignored for path, fault in _walk(root)
    )


def kinds_of_files(root: Path) -> str:
    """Return how many files of which kinds a tree has, for a message."""
    counts = Counter(kind_of_file(path) for path, fault in _walk(root) if not fault)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common(5)) or "no files"


def kind_of_file(path: Path) -> str:
    """Return the suffix of a file in lower case, with the one before it where the file is packed."""
    suffixes = [readable(suffix).lower() for suffix in path.suffixes]
    packed = suffixes[-1:] in ([".gz"], [".bz2"], [".xz"], [".zst"], [".zip"])
    return "".join(suffixes[-2:] if packed else suffixes[-1:]) or "no suffix"


def names_of(files: Sequence[Path], root: Path) -> list[str]:
    """Return a name for each file, to make song ids from: its stem where no other file has that one.

    Else the name is the file's path below `root` without the suffix, then with it, then with bytes that are no text
    spelled out.
    """
    spellings: tuple[Callable[[Path], str], ...] = (
        lambda file: readable(stem_of(file)),
        lambda file: readable(str(file.relative_to(root).with_name(stem_of(file)))),
        lambda file: readable(str(file.relative_to(root))),
        lambda file: os.fsencode(file.relative_to(root)).decode(errors="backslashreplace"),
    )
    names: dict[Path, str] = {}
    unnamed = list(files)
    for spelling in spellings:
        spelled = [spelling(file) for file in unnamed]
        counts = Counter(spelled)
        names |= dict(zip(unnamed, spelled, strict=True))
        unnamed = [file for file in unnamed if counts[names[file]] > 1]
    return [names[file] for file in files]


def stem_of(file: Path) -> str:
    """Return the name of a file without its suffix, and without the one before it where the file is packed."""
    return Path(file.stem).stem if file.suffix.lower() == ".gz" else file.stem


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield everything below a folder that is not a folder, and why it cannot be read (empty where it can)."""
    unread, seen = [root], {_identity(root)}
    while unread:
        folder = unread.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield folder, f"a folder that cannot be read ({error.strerror})"
            continue
        for entry in entries:
            path = folder / entry.name
            if path.is_dir():
                identity = _identity(path)
                if identity in seen:
                    yield path, "a link to a folder that is read already"
                else:
                    unread.append(path)
                    seen.add(identity)
            else:
                yield path, _fault(path)


def _fault(path: Path) -> str:
    if path.is_file():
        return ""
    return "a fifo, a socket or a device" if path.exists() else "a link to nothing"


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino
