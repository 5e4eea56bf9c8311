"""The results of a benchmark: one JSON document a run, which every benchmark writes and every report reads.

A document says what was run, where and when, how much of the machine others used meanwhile, and holds a flat list of
figures. A figure has a name, a unit, a value, its spread, and the conditions under which it holds, so that a table or
a picture is a selection of figures. See docs/benchmarks.md.

Example:
    with Watch() as watch:
        rounds = [measure() for _ in range(7)]
    figures = [Figure.of("http", "throughput", "requests/s", rounds, better="higher", body="raw", songs=1)]
    results("load", command, figures, watch).write(Path("results.json"))
"""

import math
import os
import re
import resource
import shlex
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
from pydantic import Field, TypeAdapter, ValidationError
from scipy.stats import binom
from tabulate import tabulate

from segue.atomic import atomic_file
from segue.command import DONE, to_json
from segue.errors import ConfigError
from segue.machine import Machine, this_machine
from segue.provenance import Provenance, provenance

FORMAT: Literal[1] = 1
SLOWER = 5  # Exit code: something got slower than in an older run.
BUSY_SHARE = 0.05  # Of the machine: when others used more, the figures are suspect.
CONFIDENCE = 0.95  # Of the interval of a median.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Better = Literal["higher", "lower"]
Condition = str | int | float


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    group: str  # Figures of one group are drawn and compared together: "models", "peers".
    name: str  # What was measured: "throughput", "p99", "memory".
    unit: str  # "songs/s", "ms", "MB", "share"
    value: Finite  # The median of the rounds; of a latency, a quantile of all calls.
    low: Finite  # The spread: its 95 % interval, see `median_interval`.
    high: Finite
    rounds: tuple[Finite, ...]  # What each round found; empty where the value is not a median of rounds.
    better: Better
    conditions: dict[str, Condition]  # {"model": "student", "batch_songs": 256, "threads": 2}

    @classmethod
    def of(
        cls, group: str, name: str, unit: str, rounds: Sequence[float], *, better: Better, **conditions: Condition
    ) -> "Figure":
        """Return the figure that some rounds found; at least one, and finite."""
        if not rounds or not all(map(math.isfinite, rounds)):
            raise ConfigError(f"{group}, {name}: expected rounds with finite numbers, found {list(rounds)}")
        low, high = median_interval(rounds)
        values = tuple(float(one) for one in rounds)
        return cls(group, name, unit, statistics.median(values), low, high, values, better, conditions)

    @classmethod
    def quantile(
        cls, group: str, name: str, unit: str, samples: Sequence[float], q: float, *, better: Better = "lower",
        **conditions: Condition,
    ) -> "Figure":  # fmt: skip
        """Return a quantile of many samples, with the interval that `quantile_interval` gives; it has no rounds."""
        if not len(samples):
            raise ConfigError(f"{group}, {name}: expected samples, found none")
        low, high = quantile_interval(samples, q)
        return cls(group, name, unit, float(np.quantile(samples, q)), low, high, (), better, conditions)

    @property
    def key(self) -> tuple[Condition, ...]:
        """What tells it from every other figure of its run, and is the same in the next run."""
        pairs = sorted(self.conditions.items())
        return (self.group, self.name, self.unit, *(part for pair in pairs for part in pair))

    @property
    def title(self) -> str:
        """The figure's name and conditions for people."""
        conditions = ", ".join(
            str(value) if isinstance(value, str) else f"{name.replace('_', ' ')} {value}"
            for name, value in self.conditions.items()
        )
        return f"{self.name}, {conditions}" if conditions else self.name


@dataclass(frozen=True)
class Change:
    """A figure that is not what it was, beyond noise."""

    figure: str
    unit: str
    old: float
    new: float
    times_slower: float  # With the machine's own change taken out; below 1 it is faster.
    low: float  # The 95 % interval of that.
    high: float


@dataclass(frozen=True)
class Comparison:
    """A run beside an older one; see `segue.bench.compare`."""

    old: str  # Where the older figures come from.
    compared: int  # Figures.
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    undisturbed: bool  # Others left the machine alone during both runs: what changed is ours.

    @property
    def slower(self) -> tuple[Change, ...]:
        """What got slower."""
        return tuple(one for one in self.changes if one.times_slower > 1)

    def __str__(self) -> str:
        lines = [
            f"{one.figure}: {_in_words(one.times_slower)} ({one.low:.2f} to {one.high:.2f} times the time), "
            f"{one.old:,.4g} -> {one.new:,.4g} {one.unit}"
            for one in self.changes
        ]
        found = lines or ["Nothing is slower or faster beyond noise."]
        return "\n".join([f"{self.compared} figures compared with {self.old}", *self.notes, *found])


@dataclass(frozen=True)
class Results:
    """One run of one benchmark."""

    format: Literal[1]
    kind: str  # "bench", "study", "load", "peers", "suites"
    command: str  # What to type to measure it again; of paths the last name only.
    seconds: float  # That it took.
    others_share: float | None  # Of the machine's processor time, used by other processes meanwhile; None: not known.
    machine: Machine
    provenance: Provenance  # Commit, versions, when.
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()  # What a reader of the figures must know, a sentence each.
    comparison: Comparison | None = None

    @property
    def exit_code(self) -> int:
        """5 where something got slower than in an older run, and others left the machine alone in both; else 0."""
        found = self.comparison
        return SLOWER if found and found.slower and found.undisturbed else DONE

    def __str__(self) -> str:
        parts = [self.origin, *([f"warning: {self.warning}"] if self.warning else []), *self.notes]
        for group in dict.fromkeys(one.group for one in self.figures):
            headers, rows = table([one for one in self.figures if one.group == group])
            parts.append(f"{group}\n{tabulate(rows, headers, disable_numparse=True, colalign=_align(headers, rows))}")
        return "\n\n".join([*parts, *([str(self.comparison)] if self.comparison else [])])

    @property
    def warning(self) -> str | None:
        """Say that others were at work, where they were."""
        if self.others_share is None or self.others_share <= BUSY_SHARE:
            return None
        return (
            f"Other processes used {self.others_share:.0%} of the machine meanwhile; at most {BUSY_SHARE:.0%} is fine. "
            "Stop them and measure again."
        )

    @property
    def origin(self) -> str:
        """Say in a line where the figures come from."""
        made = self.provenance
        return f"{self.command} · {made.time[:10]} · commit {made.commit or 'unknown'} · {self.machine}"

    def select(self, group: str, name: str | None = None, **conditions: Condition) -> list[Figure]:
        """Return the figures of a group, all or those of a name, under these conditions."""
        return [
            one
            for one in self.figures
            if one.group == group
            and name in (None, one.name)
            and all(one.conditions.get(key) == value for key, value in conditions.items())
        ]

    def write(self, path: Path) -> None:
        """Write the document to `path`."""
        with atomic_file(path) as draft:
            draft.write_text(to_json(self) + "\n", encoding="utf-8")


class Watch:
    """Sees how long a block takes, and how much of the machine other processes use meanwhile (Linux).

    Own are this process, its children that have ended, and all that descend from it and still run. What has left the
    family, as a daemon does, counts as another's.
    """

    seconds: float
    others_share: float | None

    def __enter__(self) -> "Watch":
        self._started, self._before = time.perf_counter(), _processor_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        after = _processor_seconds()
        if self._before is None or after is None:
            self.others_share = None
            return
        whole, busy, own = (now - then for now, then in zip(after, self._before, strict=True))
        self.others_share = min(max((busy - own) / whole, 0.0), 1.0) if whole > 0 else None


def results(kind: str, command: str, figures: Sequence[Figure], watch: Watch, notes: Sequence[str] = ()) -> Results:
    """Return the document of a run that ended just now.

    Raises:
        ConfigError: two figures have the same name and conditions.
    """
    keys = [one.key for one in figures]
    twice = next((one.title for one in figures if keys.count(one.key) > 1), None)
    if twice is not None:
        raise ConfigError(f"{kind}: expected a name and conditions for each figure, found two with {twice}")
    return Results(
        format=FORMAT,
        kind=kind,
        command=command,
        seconds=watch.seconds,
        others_share=watch.others_share,
        machine=this_machine(),
        provenance=provenance(),
        figures=tuple(figures),
        notes=tuple(notes),
    )


def read_results(path: Path) -> Results:
    """Read what `Results.write` wrote; a `ConfigError` says what is wrong with anything else."""
    try:
        return TypeAdapter(Results).validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: expected a results file: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise ConfigError(
            f"{path}: expected results of a benchmark, in format {FORMAT}; found at {where}: {first['msg']}"
        ) from None


def table(figures: Sequence[Figure]) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows: a row for each set of conditions, a column for each name, values with their spread."""
    names = list(dict.fromkeys((one.name, one.unit) for one in figures))
    conditions = list(dict.fromkeys(key for one in figures for key in one.conditions))
    rows: dict[tuple[Condition, ...], dict[tuple[str, str], str]] = {}
    for one in figures:
        row = rows.setdefault(tuple(one.conditions.get(key, "") for key in conditions), {})
        row[one.name, one.unit] = f"{plain(one.value)}{spread(one)}"
    headers = [*(key.replace("_", " ") for key in conditions), *(f"{name}, {unit}" for name, unit in names)]
    return headers, [[*map(_shown, key), *(row.get(name, "") for name in names)] for key, row in rows.items()]


def plain(value: float) -> str:
    """Return a number with three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def spread(one: Figure) -> str:
    """Return a figure's spread as ` (low-high)`, or nothing where there is none."""
    return "" if one.low == one.high else f" ({plain(one.low)}-{plain(one.high)})"


def _shown(value: Condition) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _align(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    texts = [any(not cell[:1].isdigit() for row in rows if (cell := row[at])) for at in range(len(headers))]
    return ["left" if text else "right" for text in texts]


def _in_words(times_slower: float) -> str:
    """Say a change in words: `1.30 times as slow`, `1.30 times as fast`."""
    return f"{times_slower:.2f} times as slow" if times_slower > 1 else f"{1 / times_slower:.2f} times as fast"


def quantile_interval(samples: Sequence[float], q: float) -> tuple[float, float]:
    """Return the interval of a quantile: two of the samples, between which the true one lies with 95 % confidence.

    No distribution is assumed, but that samples are independent. Where they are too few, it ends at the smallest or
    the largest, and holds less.
    """
    ordered, n = np.sort(np.asarray(samples, dtype=np.float64)), len(samples)
    low, high = (int(binom.ppf(share, n, q)) for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(ordered[max(low - 1, 0)]), float(ordered[min(high, n - 1)])


def median_interval(rounds: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median: two of the rounds, between which the true one lies with 95 % confidence.

    No distribution is assumed. With fewer than six rounds no two of them are that far apart, and it is the smallest
    and the largest.
    """
    ordered, n = sorted(map(float, rounds)), len(rounds)
    # From the k-th smallest to the k-th largest: missed when fewer than k rounds lie on one side of the median.
    ks = (k for k in range(2, n // 2 + 1) if 2 * binom.cdf(k - 1, n, 0.5) <= 1 - CONFIDENCE)
    k = max(ks, default=1)
    return ordered[k - 1], ordered[n - k]


def command_of(verb: str, *words: object, **options: object) -> str:
    """Return what to type for `verb` with these words and options; those that are None or False are left out.

    Of a path only the last name is told: a committed file must not say where someone's files lie.
    """
    typed = [*verb.split(), *(_typed(word) for word in words if word is not None)]
    for name, value in options.items():
        if value is not None and value is not False:
            given = value if isinstance(value, tuple) else () if value is True else (value,)
            typed += [f"--{name.replace('_', '-')}", *map(_typed, given)]
    return shlex.join(typed)


def _typed(word: object) -> str:
    text = str(word)
    return text if "://" in text else re.sub("^([^=]*=)?.*/", r"\1", text)


def _processor_seconds() -> tuple[float, float, float] | None:
    """Return the processor time of the machine, of all processes, and of this one's family; None where unknown."""
    try:
        ticks = [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    idle = sum(ticks[3:5])
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        own += times.user + times.system + times.children_user + times.children_system
    per_s = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / per_s, (sum(ticks) - idle) / per_s, own
