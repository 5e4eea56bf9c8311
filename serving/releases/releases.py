"""Keep releases: immutable, numbered bundles in one folder, one of which is the latest.

- list STORE: the releases, and what happened last
- show STORE [RELEASE]: one release; by default the latest
- diff STORE [OLD NEW]: what differs between two; by default the previous one and the latest
- publish STORE BUNDLE: add a bundle as the latest release, without a gate; `segue retrain` has one
- rollback STORE [RELEASE]: make an older release the latest again; by default the previous one
- prune STORE --keep N: remove all but the newest N; latest and previous stay
- fetch STORE RELEASE FOLDER: copy a release to a folder, verified, as for `bentoml build`

A store is a folder or an address such as s3://bucket/folder. A RELEASE is `latest`, `previous`, a number, a name or the
beginning of a version. `segue serve STORE` serves the latest release, and the next one as soon as it is published.

Examples:
    segue releases publish artifacts/releases artifacts/bundle --why "first one"
    segue releases rollback artifacts/releases
    segue releases fetch s3://models/genres latest artifacts/bundle && bentoml build
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tabulate import tabulate
from tyro.conf import Positional, arg

from segue.command import run
from segue.errors import ConfigError, ReleaseError
from segue.serving.bundle.manifest import Evaluation
from segue.serving.releases.store import Event, Index, Release, ReleaseStore

Action = Literal["list", "show", "diff", "publish", "rollback", "prune", "fetch"]
LAST_EVENTS = 8


@dataclass(frozen=True)
class Listed:
    """The releases of a store."""

    store: str
    latest: str | None
    previous: str | None
    releases: tuple[Release, ...]
    events: tuple[Event, ...]

    def __str__(self) -> str:
        marks = {self.previous: "previous", self.latest: "latest"}
        rows = [
            (one.name, marks.get(one.name, ""), one.published, one.by, *_figures(one.metrics), one.bytes / 1e6)
            for one in reversed(self.releases)
        ]
        headers = ("release", "", "published", "by", "student", "teacher", "cascade", "fallback", "MB")
        told = [f"  {event.time}  {event.kind}: {event.words}" for event in self.events[-LAST_EVENTS:]]
        table = tabulate(rows, headers, floatfmt=(*[""] * 4, *[".3f"] * 4, ".1f"), disable_numparse=[0, 1, 2, 3])
        return "\n".join([self.store, "", table, "", "What happened last:", *told])


@dataclass(frozen=True)
class Shown:
    """One release."""

    store: str
    release: Release
    page: str | None

    def __str__(self) -> str:
        one = self.release
        student, teacher, cascade, fallback = _figures(one.metrics)
        return (
            f"{one.name}: published {one.published} by {one.by}, {one.bytes / 1e6:.1f} MB\n"
            f"  {one.why}\n"
            f"  accuracy on its own {one.metrics.songs:,} songs: student {student:.3f}, teacher {teacher:.3f}, "
            f"cascade {cascade:.3f} with {fallback:.0%} falling back at {one.metrics.threshold_nats:.3f} nats"
            + (f"\n  page: {self.store.rstrip('/')}/{self.page}" if self.page else "")
        )


@dataclass(frozen=True)
class Difference:
    """What differs between two releases."""

    old: str
    new: str
    figures: dict[str, tuple[float, float]]  # Old and new.
    settings: dict[str, tuple[Any, Any]]  # Of the manifests, where they differ.

    def __str__(self) -> str:
        rows = [(name, old, new, new - old) for name, (old, new) in self.figures.items()]
        table = tabulate(rows, ("", self.old, self.new, "change"), floatfmt=("", ".4g", ".4g", "+.4g"))
        settings = [f"  {name}: {old} -> {new}" for name, (old, new) in self.settings.items()]
        note = "Each release is measured on its own held-out songs; `segue compare` asks both about the same ones."
        return "\n".join(
            [table, note, "", *(["What else differs:", *settings] if settings else ["Nothing else differs."])]
        )


@dataclass(frozen=True)
class Changed:
    """What a change of the store did."""

    store: str
    latest: str | None
    previous: str | None
    words: str

    def __str__(self) -> str:
        return f"{self.store}: {self.words}\n  latest: {self.latest or 'none'}   previous: {self.previous or 'none'}"


def releases(
    action: Positional[Action],
    store: Positional[str],
    names: Positional[Annotated[tuple[str, ...], arg(metavar="[RELEASE|BUNDLE|FOLDER]...")]] = (),
    keep: int = 10,
    why: str = "",
) -> Listed | Shown | Difference | Changed:
    """Keep releases.

    Args:
        action: What to do.
        store: The release store: a folder, or an address such as s3://bucket/folder.
        names: What the action is about: releases, a bundle, a folder.
        keep: How many releases `prune` keeps, at least.
        why: The reason to publish or to roll back, for whoever reads the story later.
    """
    opened = ReleaseStore(store)
    if action != "publish" and not opened.exists:
        raise ReleaseError(f"{store}: expected a release store, found none. `segue releases publish` makes one.")
    least, most = ARGUMENTS[action]
    if not least <= len(names) <= most:
        raise ConfigError(f"{action}: expected {_counts(least, most)} after the store, found {len(names)}")
    if action == "list":
        return Listed(store, **_head(opened.index()), releases=opened.index().releases, events=opened.index().events)
    if action == "show":
        return _show(opened, *names)
    if action == "diff":
        return _diff(opened, *names)
    done: dict[str, Callable[[], str]] = {
        "publish": lambda: f"published {opened.publish(Path(names[0]), why or 'by hand, without a gate').name}",
        "rollback": lambda: f"rolled back to {opened.rollback(names[0] if names else 'previous', why).name}",
        "prune": lambda: f"removed {', '.join(opened.prune(keep)) or 'nothing'}",
        "fetch": lambda: f"copied {opened.fetch(names[0], Path(names[1])).name} to {names[1]}",
    }
    words = done[action]()
    return Changed(store, **_head(opened.index()), words=words)


# How many names each action takes: at least, at most.
ARGUMENTS: dict[Action, tuple[int, int]] = {
    "list": (0, 0),
    "show": (0, 1),
    "diff": (0, 2),
    "publish": (1, 1),
    "rollback": (0, 1),
    "prune": (0, 0),
    "fetch": (2, 2),
}


def _counts(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _head(index: Index) -> dict[str, str | None]:
    return {"latest": index.latest, "previous": index.previous}


def _figures(metrics: Evaluation) -> tuple[float, float, float, float]:
    return metrics.student.accuracy, metrics.teacher.accuracy, metrics.cascade.accuracy, metrics.fallback_rate


def _show(store: ReleaseStore, name: str = "latest") -> Shown:
    index = store.index()
    release = index.find(name)
    pages = [event.page for event in index.events if event.release == release.name and event.kind == "published"]
    return Shown(store.where, release, pages[-1] if pages else None)


def _diff(store: ReleaseStore, old: str = "previous", new: str = "latest") -> Difference:
    before, after = (store.index().find(name) for name in (old, new))
    flat = [_flat(store.manifest(one)) for one in (before, after)]
    numbers = {
        name: (float(flat[0][name]), float(flat[1][name]))
        for name in flat[0]
        if name in flat[1] and name.startswith(("metrics.", "threshold", "area")) and _is_number(flat[0][name])
    } | {"bytes": (float(before.bytes), float(after.bytes))}
    others = {
        name: (flat[0].get(name), flat[1].get(name))
        for name in dict.fromkeys([*flat[0], *flat[1]])
        if name not in numbers and not name.startswith(SILENT) and flat[0].get(name) != flat[1].get(name)
    }
    return Difference(before.name, after.name, numbers, others)


SILENT = (
    "sha256.",
    "version",
    "student.rejected",
    "teacher.rejected",
    "provenance.time",
)  # Differ always, or say little.


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, its keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= _flat(item, f"{prefix}.{name}" if prefix else str(name))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue releases`."""
    return run(releases, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
