"""The latest release of a store as a bundle on this machine, and whether the store has moved on."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from segue.errors import BundleError, ReleaseError, SegueError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.releases.store import Release, ReleaseStore, Stamp

LOCAL_LOOK_S, REMOTE_LOOK_S = 0.0, 5.0  # How often a watcher should ask whether the store has moved.


@dataclass(frozen=True)
class Here:
    """A release on this machine."""

    release: Release
    bundle: Bundle


class Follower:
    """Follows the latest release of a store; of a remote store it keeps a copy in a folder of the user's cache."""

    def __init__(self, store: ReleaseStore, cache: Path | None = None) -> None:
        """Follow `store`; nothing is read yet.

        Args:
            store: the store.
            cache: where copies of a remote store's releases go; default: `segue/` in the user's cache folder.
        """
        self._store = store
        name = hashlib.sha256(store.where.encode()).hexdigest()[:12]
        self._cache = (cache or _user_cache()) / name
        self._seen = Stamp()
        self._names: dict[str, str] = {}
        self.look_every_s = REMOTE_LOOK_S if store.is_remote else LOCAL_LOOK_S

    def name_of(self, version: str) -> str | None:
        """Return the name of a release that this follower has read, by the version of its bundle."""
        return self._names.get(version)

    def moved(self) -> bool:
        """Tell whether the store has changed since `latest` last looked; asks for a size and a time only."""
        return self._store.stamp() != self._seen

    def latest(self) -> Here:
        """Return the latest release, verified.

        Raises:
            ReleaseError: the store has none, or cannot be read.
            BundleError: the release was damaged.
        """
        self._seen = self._store.stamp()
        while True:
            release = self._store.index().find("latest")
            try:
                bundle = load_bundle(self._folder(release))
            except SegueError as error:
                if self._store.index().find("latest") != release:  # It moved on, and what was read is pruned.
                    continue
                if isinstance(error, ReleaseError):  # The store cannot be read now: worth another look.
                    self._seen = Stamp()
                raise
            self._names[release.version] = release.name
            return Here(release, bundle)

    def _folder(self, release: Release) -> Path:
        local = self._store.path(release)
        if local is not None:
            return local
        copy = self._cache / release.name
        if not _is_sound(copy, release):
            self._store.fetch(release.name, copy)
        for other in self._cache.iterdir():
            if other.is_dir() and other != copy and not other.name.startswith("."):
                shutil.rmtree(other, ignore_errors=True)  # Who serves it has read it; nobody else needs it.
        return copy


def _is_sound(folder: Path, release: Release) -> bool:
    try:
        return load_bundle(folder).manifest.version == release.version
    except BundleError:
        return False


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "segue"
