"""Compare promises about a catalogue: how many songs the teacher sees, ours, the best possible and BARGAIN's.

A case is a bundle and songs. Both models answer all of them once; catalogues of each size are then drawn from these
songs, with replacement where there are too few. The best possible knows every disagreement. BARGAIN (Zeighami, Shankar,
Parameswaran, SIGMOD 2026) is its own package, asked with the same delta and its own defaults; it wants a Python of
its own: `python -m venv VENV && VENV/bin/pip install bargain==0.1.3`.

Example:
    python -m segue.bench.promise demo=artifacts/bundle=artifacts/demo/test.arrow --bargain VENV/bin/python
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.results import Figure, Results, Watch, command_of, results
from segue.command import run
from segue.data.song import Bools
from segue.data.table import SongTable
from segue.errors import ConfigError, RunError
from segue.publish import write_block
from segue.serving.batch.agreement import agreed_threshold, allowed_disagreements, best_sample_size
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.tables import check_units, predict_rows

COMMAND = "python -m segue.bench.promise"
BEST, OURS, THEIRS = WAYS = ("best possible", "segue score --agree", "BARGAIN")
SEEN, BROKEN = "share of songs the teacher sees", "share of promises that were broken"
TARGET = 1.10  # Times the best possible, at 50,000 songs.
PEER = Path(__file__).with_name("bargain_peer.py")
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """What both models say of the songs of a case."""

    doubt_nats: Doubles  # Of the student, (n_songs,)
    disagree: Bools  # Whether the teacher says another genre.


@dataclass(frozen=True)
class PromiseBenchmark:
    """What was found."""

    results: Results

    def __str__(self) -> str:
        rows: dict[tuple[object, ...], dict[str, Figure]] = {}
        for one in self.results.select("promise", SEEN):
            at = one.conditions
            rows.setdefault((at["songs"], at["size"], at["agree"]), {})[str(at["way"])] = one
        cells = [
            (name, f"{size:,}", f"{agree:.2f}", *(f"{ways[way].value:.3f}" if way in ways else "" for way in WAYS),
             f"{ways[OURS].value / max(ways[BEST].value, 1e-9):.2f}")
            for (name, size, agree), ways in rows.items()
        ]  # fmt: skip
        table = tabulate(
            cells, ("songs", "how many", "agree", *WAYS, "times the best"), tablefmt="github", disable_numparse=True
        )
        broken = [
            f"{one.conditions['way']}: {one.value:.1%} of the promises broken"
            for one in self.results.select("promise", BROKEN)
        ]
        return f"{table}\n\n{'; '.join(broken)}.\n\n{self.results.origin}."


def promise(
    cases: Positional[tuple[str, ...]],
    sizes: tuple[int, ...] = (5_000, 20_000, 50_000),
    agree: tuple[float, ...] = (0.90, 0.95, 0.98),
    confidence: float = 0.95,
    draws: int = 200,
    bargain: Path | None = None,
    bargain_draws: int = 5,
    results: Path | None = None,
    page: Path | None = None,
) -> PromiseBenchmark:
    """Compare promises about catalogues of songs.

    Args:
        cases: NAME=BUNDLE=SONGS each.
        sizes: Songs of a catalogue.
        agree: Shares of the songs that must get the teacher's answer.
        confidence: Of each promise.
        draws: Catalogues of each size.
        bargain: The Python in which BARGAIN is installed. Default: leave it out.
        bargain_draws: Catalogues of each size for BARGAIN, which takes longer.
        results: The file for the figures.
        page: A page whose block of figures is written anew.
    """
    figures: list[Figure] = []
    broken: dict[str, list[bool]] = {OURS: [], THEIRS: []}
    with Watch() as watch, tqdm(total=len(cases) * len(sizes), disable=None, file=sys.stderr) as progress:
        for case in cases:
            name, said = _case(case)
            for size in sizes:
                for share in agree:
                    seen = _seen(said, size, share, confidence, draws, bargain, bargain_draws, broken)
                    figures += [
                        Figure.of("promise", SEEN, "share", found, better="lower",
                                  songs=name, size=size, agree=share, way=way)
                        for way, found in seen.items()
                    ]  # fmt: skip
                progress.update()
    figures += [
        Figure.of("promise", BROKEN, "share", [float(np.mean(one))], better="lower", way=way)
        for way, one in broken.items()
        if one
    ]
    notes = [f"wanted: at most {TARGET} times the best possible at 50,000 songs, and below BARGAIN everywhere"]
    found = PromiseBenchmark(_results(figures, watch, notes))
    if results:
        found.results.write(results)
    if page:
        write_block(page, COMMAND, str(found))
    return found


def _results(figures: Sequence[Figure], watch: Watch, notes: Sequence[str]) -> Results:
    return results("bench", command_of(COMMAND, *sys.argv[1:]), figures, watch, notes)


def _case(case: str) -> tuple[str, Said]:
    """Return the name of a case, and what its models say of its songs."""
    try:
        name, bundle, songs = case.split("=")
    except ValueError:
        raise ConfigError(f"{case}: expected NAME=BUNDLE=SONGS") from None
    opened, table = load_bundle(Path(bundle)), SongTable(Path(songs))
    check_units(table, opened)
    cascade, rows = open_cascade(opened), np.arange(len(table))
    student, teacher = (predict_rows(model, table, rows, name) for model in (cascade.student, cascade.teacher))
    return name, Said(student.doubt_nats, student.probs.argmax(axis=1) != teacher.probs.argmax(axis=1))


def _seen(
    said: Said,
    size: int,
    agree: float,
    confidence: float,
    draws: int,
    bargain: Path | None,
    bargain_draws: int,
    broken: dict[str, list[bool]],
) -> dict[str, list[float]]:
    """Return the share of songs that the teacher sees, of each drawn catalogue, by way."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {BEST: [], OURS: []}
    for draw in range(draws):
        rows = rng.choice(len(said.disagree), size, replace=size > len(said.disagree))
        some = Said(said.doubt_nats[rows], said.disagree[rows])
        found[BEST].append(best_share(some, agree))
        by_teacher = ours(some, agree, confidence, rng)
        found[OURS].append(float(by_teacher.mean()))
        broken[OURS].append(is_broken(some, by_teacher, agree))
        if bargain and draw < bargain_draws:
            by_oracle = theirs(some, agree, confidence, bargain, draw)
            found.setdefault(THEIRS, []).append(float(by_oracle.mean()))
            broken[THEIRS].append(is_broken(some, by_oracle, agree))
    return found


def best_share(said: Said, agree: float) -> float:
    """Return the share of songs that the teacher sees at the largest threshold that keeps the promise."""
    order = np.argsort(said.doubt_nats)
    accepted = np.searchsorted(np.cumsum(said.disagree[order]), allowed_disagreements(len(order), agree), side="right")
    return float(1 - accepted / len(order))


def ours(said: Said, agree: float, confidence: float, rng: np.random.Generator) -> Bools:
    """Return which songs the teacher sees when `segue score --agree` sets the dial, (n_songs,)."""
    songs = len(said.disagree)
    rows = rng.choice(songs, best_sample_size(songs, agree, confidence), replace=False)
    found = agreed_threshold(
        said.doubt_nats[rows], said.disagree[rows], songs=songs, agree=agree, confidence=confidence
    )
    by_teacher: Bools = ~(said.doubt_nats <= found.threshold_nats)
    by_teacher[rows] = True
    return by_teacher


def theirs(said: Said, agree: float, confidence: float, python: Path, seed: int) -> Bools:
    """Return which songs BARGAIN shows to the teacher, (n_songs,)."""
    with TemporaryDirectory() as folder:
        given, told = Path(folder) / "given.npz", Path(folder) / "told.npy"
        np.savez(given, score=-said.doubt_nats, disagree=said.disagree)
        asked = json.dumps({"target": agree, "delta": 1 - confidence, "seed": seed})
        words = [str(python), str(PEER), str(given), str(told), asked]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RunError(f"BARGAIN failed: {ended.stderr.strip()[-500:]}")
        by_oracle: Bools = np.load(told)
        return by_oracle


def is_broken(said: Said, by_teacher: Bools, agree: float) -> bool:
    """Tell whether more songs get another answer than the teacher's than the promise allows."""
    return bool((said.disagree & ~by_teacher).sum() > allowed_disagreements(len(by_teacher), agree))


def main(argv: Sequence[str] | None = None) -> int:
    """Compare promises."""
    return run(promise, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
