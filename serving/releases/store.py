"""Releases: immutable bundles in one folder, local or in object storage, two of which are called latest and previous.

    releases.json           the index: every release and everything that happened; latest and previous
    0003-1f2e3d4c5b6a/      a release: a bundle as it is, named by a number and by its version
    pages/0007.html         the page of an event: why a release was published, or a challenger rejected
    index.html              the story of the store, for people
    lock/                   who is writing now, see `segue.serving.releases.lock`

The index is replaced in one step, and nothing counts that is not in it. So whoever reads, on any host, sees the store
before a change or after it; a kill, a full disk or a lost connection leave files that do not count, and that the next
writer removes. `s3://bucket/folder` works as a local folder does, with the credentials that AWS tools use; what the
address says after `?`, such as `region=`, `scheme=` and `endpoint_override=`, is for pyarrow's `S3FileSystem`.
"""

import getpass
import hashlib
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import fs
from pydantic import TypeAdapter

from segue.atomic import atomic_file, atomic_folder
from segue.errors import BundleError, ConfigError, ReleaseError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.bundle.manifest import MANIFEST, Evaluation
from segue.serving.releases.lock import locked
from segue.template import render

INDEX = "releases.json"
STORY = "index.html"
PAGES = "pages"
LOCK = "lock"
FORMAT_VERSION = 1
TRIES = 5  # To read what others replace meanwhile.
TEMPLATE = Path(__file__).with_name("story.html.j2")
FOLDER = re.compile(r"\.?\d{4,}-[0-9a-f]{12}(\.\d+\.draft)?")  # Of a release, or of one that is being written.

Kind = Literal["published", "rejected", "rolled back", "pruned"]


@dataclass(frozen=True)
class Release:
    """A published bundle."""

    name: str  # Its folder: number and version.
    version: str  # Of the bundle.
    published: str  # ISO 8601, UTC.
    by: str  # user@host
    bytes: int
    metrics: Evaluation  # What the bundle's manifest says of itself.
    why: str  # The verdict that published it, in a sentence or two.


@dataclass(frozen=True)
class Event:
    """Something that happened to the store."""

    number: int
    time: str  # ISO 8601, UTC.
    kind: Kind
    by: str
    words: str
    release: str | None = None  # That is the latest from then on, where this event changed that.
    page: str | None = None  # Of the event, relative to the store.


@dataclass(frozen=True)
class Index:
    """All that a store says about itself."""

    format_version: int = FORMAT_VERSION
    latest: str | None = None
    previous: str | None = None
    releases: tuple[Release, ...] = ()  # Those that are there, the oldest first.
    events: tuple[Event, ...] = ()  # The oldest first; never shortened.

    def find(self, name: str) -> Release:
        """Return the release called `name`: latest, previous, its whole name, its number, or how its version begins.

        Raises:
            ReleaseError: there is none, or more than one.
        """
        asked = {"latest": self.latest, "previous": self.previous}.get(name, name)
        found = [one for one in self.releases if asked is not None and _is_called(one, asked)]
        if len(found) != 1:
            there = ", ".join(one.name for one in self.releases) or "none"
            what = f"{len(found)} of them" if found else "no such release"
            raise ReleaseError(f"release {name}: expected one of {there}; found {what}")
        return found[0]


def _is_called(release: Release, name: str) -> bool:
    number = release.name.partition("-")[0]
    by_number = name.isdigit() and int(name) == int(number)
    return release.name == name or by_number or (len(name) >= 4 and release.version.startswith(name))


@dataclass(frozen=True)
class Stamp:
    """What changes whenever the index does: cheap to ask for."""

    size: int | None = None
    mtime_ns: int | None = None


class ReleaseStore:
    """A folder of releases."""

    def __init__(self, where: str | Path) -> None:
        """Name the store; nothing is read or made yet.

        Args:
            where: a folder, or an address such as s3://bucket/folder.
        """
        self.where = str(where)
        try:
            if "://" in self.where:
                storage, root = fs.FileSystem.from_uri(self.where)
            else:
                storage, root = fs.LocalFileSystem(), str(Path(where).absolute())
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ReleaseError(
                f"{where}: expected a folder or an address such as s3://bucket/folder: {error}"
            ) from None
        self._storage = fs.SubTreeFileSystem(root, storage)
        self._root = Path(root) if isinstance(storage, fs.LocalFileSystem) else None

    @property
    def exists(self) -> bool:
        """Whether there is a store."""
        return self.stamp() != Stamp()

    @property
    def is_remote(self) -> bool:
        """Whether the store is not in a folder of this machine."""
        return self._root is None

    def stamp(self) -> Stamp:
        """Return what changes whenever the index does."""
        info = self._storage.get_file_info(INDEX)
        return Stamp(info.size, info.mtime_ns) if info.type == fs.FileType.File else Stamp()

    def index(self) -> Index:
        """Read the index; a store that is not there has an empty one.

        Raises:
            ReleaseError: it cannot be read.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                return _index_of(self._read(INDEX))
            except FileNotFoundError:
                return Index()
            except (OSError, ValueError) as error:  # Object storage reads in parts, and the file may change in between.
                if not tries_left:
                    raise ReleaseError(
                        f"{self.where}/{INDEX}: expected the index of a release store: {error}"
                    ) from None
        raise AssertionError

    def fetch(self, name: str, out: Path) -> Release:
        """Copy a release to the folder `out`, whole and verified, or not at all.

        Where `latest` or `previous` moves on meanwhile, and the release is pruned, the new one is fetched.

        Raises:
            ReleaseError: there is no such release, or it cannot be read, or is not what was published.
        """
        tries_left = TRIES
        while True:
            release = self.index().find(name)
            try:
                with atomic_folder(out, MANIFEST) as draft:
                    for info in self._storage.get_file_info(fs.FileSelector(release.name)):
                        if info.type == fs.FileType.File:
                            (draft / info.base_name).write_bytes(self._read(info.path))
                    _verify(draft, release)
            except (OSError, BundleError) as error:
                tries_left -= 1
                if not tries_left and self.index().find(name) == release:
                    raise ReleaseError(f"{self.where}: release {release.name} cannot be read: {error}") from None
            else:
                return release

    def manifest(self, release: Release) -> dict[str, Any]:
        """Return the manifest of a release as JSON types."""
        found: dict[str, Any] = json.loads(self._read(f"{release.name}/{MANIFEST}"))
        return found

    def path(self, release: Release) -> Path | None:
        """Return the folder of a release, where the store is a local one."""
        return None if self._root is None else self._root / release.name

    def publish(self, bundle: Path, why: str, page: str | None = None, replaces: str | None = None) -> Release:
        """Add a bundle as the latest release.

        A bundle that is the latest already stays it, and nothing happens: who was killed after publishing may repeat.

        Args:
            bundle: its folder.
            why: the reason, in a sentence or two.
            page: HTML that tells more.
            replaces: the version that the latest release must still have, where the bundle was compared with it.

        Raises:
            BundleError: the bundle is not sound.
            ReleaseError: another release has the same bundle, the latest is not the one that was compared with, or
                the store is locked.
        """
        opened = load_bundle(bundle)
        version = opened.manifest.version
        with self._changing("publish") as change:
            same = next((one for one in change.index.releases if one.version == version), None)
            if same is not None and same.name == change.index.latest:
                return same
            if same is not None:
                raise ReleaseError(
                    f"{bundle}: expected a new bundle, found that of release {same.name}. "
                    f"`segue releases rollback {self.where} {same.name}` makes it the latest."
                )
            latest = change.index.find("latest").version if change.index.latest else None
            if replaces is not None and replaces != latest:
                raise ReleaseError(
                    f"{self.where}: expected version {replaces} as the latest release, found {latest}: another was "
                    "published or rolled back meanwhile. Compare with that one."
                )
            number = 1 + sum(event.kind == "published" for event in change.index.events)
            release = Release(
                name=f"{number:04d}-{version}",
                version=version,
                published=_now(),
                by=_who(),
                bytes=sum(map(len, opened.contents.values())),
                metrics=opened.manifest.metrics,
                why=why,
            )
            self._copy(opened, release)
            change.index = replace(
                change.index,
                latest=release.name,
                previous=change.index.latest,
                releases=(*change.index.releases, release),
            )
            change.tell("published", why, release.name, page)
        return release

    def reject(self, why: str, page: str | None = None) -> None:
        """Remember that a challenger was rejected; no release changes."""
        with self._changing("note a rejected challenger") as change:
            change.tell("rejected", why, None, page)

    def rollback(self, name: str = "previous", why: str = "") -> Release:
        """Make an older release the latest again; the one that was the latest is the previous one then.

        Raises:
            ReleaseError: there is no such release.
        """
        with self._changing("roll back") as change:
            release = change.index.find(name)
            old = change.index.latest
            if release.name == old:
                raise ReleaseError(f"{self.where}: {release.name} is the latest release already")
            change.index = replace(change.index, latest=release.name, previous=old)
            change.tell("rolled back", f"from {old} to {release.name}" + (f": {why}" if why else ""), release.name)
        return release

    def prune(self, keep: int) -> tuple[str, ...]:
        """Remove all releases but the newest `keep`; latest and previous always stay. Return the names of the removed.

        Their events and pages stay: the story is not shortened.
        """
        if keep < 1:
            raise ReleaseError(f"keep: expected at least 1 release, found {keep}")
        with self._changing("prune") as change:
            index = change.index
            kept = {one.name for one in index.releases[-keep:]} | {index.latest, index.previous}
            gone = tuple(one.name for one in index.releases if one.name not in kept)
            if gone:
                change.index = replace(index, releases=tuple(one for one in index.releases if one.name in kept))
                change.tell("pruned", f"removed {', '.join(gone)}", None)
        return gone

    @contextmanager
    def _changing(self, purpose: str) -> "Iterator[_Change]":
        """Yield a change to the index, which is committed in one step when the block ends well."""
        if self._root is not None:
            self._root.mkdir(parents=True, exist_ok=True)
        with locked(self._storage, LOCK, purpose) as held:
            change = _Change(self.index())
            yield change
            if change.events:
                for name, page in change.pages.items():
                    self._write(name, page.encode())
                held.confirm()
                self._write(INDEX, _sealed(change.index))
                story = render(TEMPLATE, where=self.where, index=change.index, verb="releases")
                with suppress(OSError, ConfigError):  # It is done, story or not; the next change tells it whole.
                    self._write(STORY, story.encode())
            self._sweep(change.index)

    def _read(self, name: str) -> bytes:
        with self._storage.open_input_file(name) as file:
            content: bytes = file.read()
        return content

    def _write(self, name: str, content: bytes) -> None:
        """Write a file of the store, whole or not at all."""
        if self._root is not None:
            with atomic_file(self._root / name) as draft:
                draft.write_bytes(content)
            return
        with self._storage.open_output_stream(name, compression=None) as file:  # Appears when it is closed.
            file.write(content)

    def _copy(self, bundle: Bundle, release: Release) -> None:
        """Copy the files of a bundle to the folder of a release, and look whether they arrived."""
        files = {**bundle.contents, MANIFEST: (bundle.path / MANIFEST).read_bytes()}
        if self._root is not None:
            with atomic_folder(self._root / release.name, MANIFEST) as draft:
                for name, content in files.items():
                    (draft / name).write_bytes(content)
                    (draft / name).chmod(0o444)
                _verify(draft, release)
            return
        for name, content in files.items():
            self._write(f"{release.name}/{name}", content)
            if self._read(f"{release.name}/{name}") != content:
                raise ReleaseError(f"{self.where}/{release.name}/{name}: what arrived is not what was sent")

    def _sweep(self, index: Index) -> None:
        """Remove folders of releases that the index does not name: of pruned ones, and of writers that were killed."""
        kept = {one.name for one in index.releases}
        for info in self._storage.get_file_info(fs.FileSelector("")):
            if FOLDER.fullmatch(info.base_name) and info.base_name not in kept:
                self._storage.delete_dir(info.path)


class _Change:
    """What is going to be committed: an index, and pages of new events."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.events = 0
        self.pages: dict[str, str] = {}

    def tell(self, kind: Kind, words: str, release: str | None, page: str | None = None) -> None:
        """Add an event to the index."""
        number = len(self.index.events) + 1
        name = None if page is None else f"{PAGES}/{number:04d}.html"
        if name is not None and page is not None:
            self.pages[name] = page
        event = Event(number, _now(), kind, _who(), words, release, name)
        self.index = replace(self.index, events=(*self.index.events, event))
        self.events += 1


def is_store(where: str | Path) -> bool:
    """Tell whether `where` names a release store: an address, or a folder with an index."""
    return "://" in str(where) or (Path(where) / INDEX).is_file()


def _sealed(index: Index) -> bytes:
    """Return the index as JSON with a checksum, by which a reader knows that it has all of one version."""
    content = asdict(index)
    return json.dumps({"checksum": _checksum(content), **content}, indent=1).encode()


def _index_of(sealed: bytes) -> Index:
    given = json.loads(sealed)
    if not isinstance(given, dict) or given.get("format_version") != FORMAT_VERSION:
        found = given.get("format_version") if isinstance(given, dict) else None
        raise ValueError(f"expected format {FORMAT_VERSION}, found {found}; a newer Segue reads a newer one")
    if given.pop("checksum", None) != _checksum(given):
        raise ValueError("the checksum is not that of the content; the file was changed or damaged")
    index: Index = TypeAdapter(Index).validate_python(given)  # Its error is a ValueError.
    return index


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _verify(folder: Path, release: Release) -> None:
    found = load_bundle(folder).manifest.version
    if found != release.version:
        raise BundleError(f"{folder}: expected bundle {release.version}, found {found}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _who() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # A container without a user.
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
