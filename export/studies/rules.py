"""Compare rules for the cascade on the same songs: which songs go on to the teacher, and whose answer then stands.

A signal orders the songs by doubt: the student's cross-entropy `-log max p` (the cascade's), its entropy, the margin
between its two best classes, and a learned one, a cross-fitted logistic regression on the student's sorted
log-probabilities that predicts "teacher right, student wrong". For a song that fell back the teacher's answer stands
(the cascade's rule), or the surer of the two, or that of the mean of both probabilities. Everything is measured over
the whole dial, since a rule that wins at one threshold is of little use; intervals hold 95 % of a paired bootstrap over
artists, whose songs are drawn together.

Sets of songs are written NAME=BUNDLE:SONGS[,BUNDLE:SONGS...]: songs that the bundle's models have not seen, several
bundles where each was trained without the songs beside it. Songs may come again, with the bundles of other seeds.

Example:
    python -m segue.export.studies.rules synthetic=artifacts/bundle:artifacts/demo/test.arrow
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tabulate import tabulate
from tyro.conf import Positional

from segue.atomic import atomic_file
from segue.command import run, to_json
from segue.data.metrics import TINY, Probs
from segue.data.song import Bools, Ints
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.provenance import Provenance, provenance
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.predictions import Predictions
from segue.serving.tables import labelled, predict_rows

Doubles = NDArray[np.float64]

SIGNALS = ("-log max p", "entropy", "margin", "learned")
FALLBACKS = ("teacher", "surer of the two", "mean of the two")
DEFAULT = (SIGNALS[0], FALLBACKS[0])
RATES = (0.2, 0.5, 1.0)  # Fallback rates that the accuracy is stated at.
RESAMPLES = 1000
FOLDS = 5


@dataclass(frozen=True)
class Songs:
    """Songs, and what both models say of them."""

    student: Predictions
    teacher: Predictions
    labels: Ints  # (n,)
    song_ids: Sequence[str]  # (n,)
    artists: Sequence[str]  # (n,) where an artist is not known, the song itself stands in.


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rule:
    """How one rule does on one set of songs."""

    signal: str
    fallback: str
    area_above_random: Interval
    mean_accuracy: float  # Over all fallback rates.
    gain: Interval  # Of the mean accuracy over that of the cascade's rule.
    accuracy_at: dict[str, float]  # By fallback rate.


@dataclass(frozen=True)
class Compared:
    """All rules on one set of songs."""

    name: str
    songs: int
    artists: int
    bundles: int
    student_accuracy: float
    teacher_accuracy: float
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Comparison:
    """All rules on all sets."""

    sets: tuple[Compared, ...]
    better: tuple[str, ...]  # Rules that are better than the cascade's beyond noise on every set.
    provenance: Provenance

    def __str__(self) -> str:
        """Return the comparison as Markdown."""
        parts = [
            "# Rules of the cascade, compared on the same songs\n\n"
            "Which songs go on to the teacher (the signal), and whose answer stands then (on fallback)?\n"
            "Area: between the curve and its own random line, in points. Gain: accuracy averaged over all fallback\n"
            "rates, minus that of the first row, in points. Intervals: 95 %, paired bootstrap over artists.\n"
            "What each rule is, and how to run this: `export/studies/rules.py`.\n"
        ]
        for one in self.sets:
            rows = [
                (
                    rule.signal,
                    rule.fallback,
                    _points(rule.area_above_random),
                    _points(rule.gain, signed=True),
                    *(f"{accuracy:.3f}" for accuracy in rule.accuracy_at.values()),
                )
                for rule in one.rules
            ]
            headers = ("signal", "on fallback", "area", "gain", *(f"accuracy at {rate:.0%}" for rate in RATES))
            parts.append(
                f"\n## {one.name.capitalize()}\n\n{one.songs:,} songs of {one.artists:,} artists, unseen by the models "
                f"of {one.bundles} bundle{'s' if one.bundles > 1 else ''}: student {one.student_accuracy:.3f}, "
                f"teacher {one.teacher_accuracy:.3f}.\n\n"
                f"{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}\n"
            )
        names = " and ".join(one.name for one in self.sets)
        verdict = "; ".join(self.better) or "none, so the rule of the first row stays"
        made = self.provenance
        parts.append(
            f"\nBetter than the first row beyond noise on {names} songs: {verdict}.\n\n"
            f"{made.time[:10]}, commit {made.commit}, `python -m segue.export.studies.rules`.\n"
        )
        return "".join(parts)


def rules(
    sets: Positional[tuple[str, ...]],
    results: Path = Path("docs/results/rules.json"),
    page: Path = Path("docs/rules.md"),
) -> Comparison:
    """Compare rules for the cascade.

    Args:
        sets: NAME=BUNDLE:SONGS[,BUNDLE:SONGS...], one or more.
        results: The file for the figures.
        page: The file for the page.
    """
    compared = tuple(compare(name, [load_songs(*pair) for pair in pairs]) for name, pairs in map(_parse, sets))
    better = [
        f"{first.signal}, {first.fallback}"
        for first, *others in zip(*(one.rules for one in compared), strict=True)
        if all(rule.gain.low > 0 for rule in (first, *others))
    ]
    comparison = Comparison(compared, tuple(better), provenance())
    for file, text in ((results, to_json(comparison) + "\n"), (page, str(comparison))):
        with atomic_file(file) as draft:
            draft.write_text(text)
    return comparison


def _parse(text: str) -> tuple[str, list[tuple[Path, Path]]]:
    name, equals, rest = text.partition("=")
    pairs = [tuple(map(Path, pair.split(":"))) for pair in rest.split(",")]
    if not name or not equals or any(len(pair) != 2 for pair in pairs):
        raise ConfigError(f"sets: expected NAME=BUNDLE:SONGS[,BUNDLE:SONGS...], found {text!r}")
    return name, [(pair[0], pair[1]) for pair in pairs]


def load_songs(bundle: Path, songs: Path) -> Songs:
    """Return the labelled songs of a table and what the models of a bundle say of them."""
    opened, table = load_bundle(bundle), SongTable(songs)
    rows, labels = labelled(table, opened)
    cascade = open_cascade(opened)
    student = predict_rows(cascade.student, table, rows, "student")
    teacher = predict_rows(cascade.teacher, table, rows, "teacher")
    song_ids = [table.song_ids[row] for row in rows]
    artists = [table.groups[row] or song_id for row, song_id in zip(rows, song_ids, strict=True)]
    return Songs(student, teacher, labels, song_ids, artists)


def compare(name: str, parts: Sequence[Songs], seed: int = 0) -> Compared:
    """Return how all rules do on the songs of all parts together."""
    students, teachers = [one.student for one in parts], [one.teacher for one in parts]
    labels = np.concatenate([one.labels for one in parts])
    artists, artist_of = np.unique([name for one in parts for name in one.artists], return_inverse=True)
    student, teacher = _join(students), _join(teachers)
    student_right, teacher_right = (one.probs.argmax(axis=1) == labels for one in (student, teacher))
    signals = signals_of(student.probs, teacher_right & ~student_right, artist_of)
    fallbacks = {
        FALLBACKS[0]: teacher_right,
        FALLBACKS[1]: np.where(teacher.cross_entropy_nats < student.cross_entropy_nats, teacher_right, student_right),
        FALLBACKS[2]: (student.probs + teacher.probs).argmax(axis=1) == labels,
    }
    n = len(artists)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    weights = np.vstack([np.ones(n), drawn])[:, artist_of]
    dials = {
        (signal, fallback): Dials.of(signals[signal], student_right, fallbacks[fallback], weights)
        for fallback in FALLBACKS
        for signal in SIGNALS
    }
    base = dials[DEFAULT].mean_accuracy
    found = tuple(
        Rule(
            signal,
            fallback,
            area_above_random=_interval(dial.area_above_random),
            mean_accuracy=float(dial.mean_accuracy[0]),
            gain=_interval(dial.mean_accuracy - base),
            accuracy_at={f"{rate:g}": float(accuracy[0]) for rate, accuracy in dial.accuracy_at.items()},
        )
        for (signal, fallback), dial in dials.items()
    )
    songs = len({song_id for one in parts for song_id in one.song_ids})
    return Compared(name, songs, n, len(parts), float(student_right.mean()), float(teacher_right.mean()), found)


def signals_of(student_probs: Probs, gains: Bools, groups: Ints) -> dict[str, Doubles]:
    """Return every signal, (n,), larger where the student is in more doubt.

    Args:
        student_probs: (n, n_classes).
        gains: (n,) where the teacher is right and the student wrong; the learned signal predicts it, each song by a
            regression that saw neither it nor another song of its artist.
        groups: (n,) the artists.
    """
    log_probs = np.log(np.maximum(student_probs, TINY))
    ordered = -np.sort(-log_probs, axis=1)
    learned = np.zeros(len(gains))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fit_on, predict_on in folds.split(ordered, gains, groups):
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        learned[predict_on] = regression.fit(ordered[fit_on], gains[fit_on]).decision_function(ordered[predict_on])
    return {
        "-log max p": -ordered[:, 0],
        "entropy": -(student_probs * log_probs).sum(axis=1),
        "margin": np.diff(np.exp(ordered[:, :2]), axis=1)[:, 0],
        "learned": learned,
    }


@dataclass(frozen=True)
class Dials:
    """What the whole dial gives under one rule, for every resample of the artists; (1 + RESAMPLES,) each."""

    mean_accuracy: Doubles
    area_above_random: Doubles
    accuracy_at: dict[float, Doubles]

    @classmethod
    def of(cls, signal: Doubles, student_right: Bools, fallen_right: Bools, weights: Doubles) -> "Dials":
        """Measure a rule.

        Args:
            signal: (n,) the most doubtful songs, by it, fall back first.
            student_right: (n,) where the student is right.
            fallen_right: (n,) where the cascade is right about a song that fell back.
            weights: (1 + RESAMPLES, n) how often each song is drawn.
        """
        order = np.argsort(-signal, kind="stable")
        drawn, n = weights[:, order], weights.sum(axis=1, keepdims=True)
        share = drawn / n
        gains = (fallen_right.astype(float) - student_right)[order]
        fallen = np.cumsum(drawn, axis=1)  # Songs that fall back, up to and with each.
        start = share @ student_right[order]
        end = start + share @ gains
        mean = start + (share * (1 - (fallen - drawn / 2) / n)) @ gains
        at = {rate: start + (share * (fallen <= rate * n)) @ gains for rate in RATES}
        return cls(mean, mean - (start + end) / 2, at)


def _join(predictions: Sequence[Predictions]) -> Predictions:
    return Predictions(
        *(np.concatenate(arrays) for arrays in zip(*(vars(one).values() for one in predictions), strict=True))
    )


def _interval(values: Doubles) -> Interval:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))


def _points(figure: Interval, *, signed: bool = False) -> str:
    value, low, high = (f"{100 * one:{'+' if signed else ''}.1f}" for one in vars(figure).values())
    return f"{value} ({low} to {high})"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the rules."""
    return run(rules, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
