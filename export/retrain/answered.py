"""What bundles answer about the same labelled songs: in one order of classes, at costs measured together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segue.data.song import Bools, Ints
from segue.data.table import SongTable
from segue.serving.bundle.load import Bundle
from segue.serving.bundle.manifest import Form, TradeoffRow
from segue.serving.cascade import open_cascade, open_model
from segue.serving.predictions import ModelName
from segue.serving.tables import predict_rungs
from segue.serving.timing import SERVING_BATCH, us_per_window
from segue.serving.tradeoff import climbing_us, settings, sweep


@dataclass(frozen=True)
class Answered:
    """What one bundle answers about n songs."""

    version: str
    classes: tuple[str, ...]  # Of all bundles that were asked, and of the labels.
    labels: Ints  # (n,) in `classes`.
    choice: Ints  # (n,) what the cascade says.
    student_choice: Ints  # (n,)
    teacher_choice: Ints  # (n,)
    probs: NDArray[np.float64]  # (n, n_classes) of the cascade; 0 for classes that the bundle does not know.
    doubt_nats: NDArray[np.float64]  # (n,) the cascade's cross-entropy.
    fell_back: Bools  # (n,)
    tradeoff: tuple[TradeoffRow, ...]  # On these songs, at the costs of this moment.
    us_per_song: float  # At the bundle's own threshold.
    bytes: int  # Of both models.
    forms: tuple[Form, Form]

    @property
    def right(self) -> Bools:
        """Which songs the cascade gets right, (n,)."""
        found: Bools = self.choice == self.labels
        return found

    def cost_at(self, accuracy: float) -> float | None:
        """Return the least microseconds a song with which the dial reaches an accuracy; None where it does not."""
        costs = [row.us_per_song for row in self.tradeoff if row.accuracy >= accuracy]
        return min(costs, default=None)


def ask(bundles: tuple[Bundle, Bundle], songs: SongTable, rows: Ints) -> tuple[Answered, Answered]:
    """Ask two bundles about the labelled songs of the given rows."""
    named = [songs.classes[label] for label in songs.labels[rows]]
    classes = tuple(dict.fromkeys([*bundles[0].manifest.classes, *bundles[1].manifest.classes, *sorted(set(named))]))
    labels = np.array([classes.index(name) for name in named], dtype=np.int64)
    costs = _costs(bundles, songs, rows)
    first, second = (
        _ask(bundle, songs, rows, classes, labels, cost) for bundle, cost in zip(bundles, costs, strict=True)
    )
    return first, second


def _costs(bundles: Sequence[Bundle], songs: SongTable, rows: Ints) -> list[dict[ModelName, float]]:
    """Return microseconds a window of the models of each bundle, all measured here and now, so that they compare."""
    sample = songs.songs(rows[:SERVING_BATCH])
    found: list[dict[ModelName, float]] = []
    for bundle in bundles:
        entries = bundle.manifest.entries.items()
        found.append({name: us_per_window(open_model(bundle, one), sample, one.windows) for name, one in entries})
    return found


def _ask(
    bundle: Bundle, songs: SongTable, rows: Ints, classes: tuple[str, ...], labels: Ints, cost: dict[ModelName, float]
) -> Answered:
    manifest = bundle.manifest
    cascade = open_cascade(bundle)
    says = predict_rungs(cascade, songs, rows, [f"{manifest.version[:4]} {name}" for name in manifest.rung_names])
    found = cascade.ladder.climb(lambda rung, some: says[rung].take(some))
    place = np.array([classes.index(name) for name in manifest.classes], dtype=np.int64)
    probs = np.zeros((len(rows), len(classes)))
    probs[:, place] = found.probs
    # Labels in the order of this bundle's classes; one it does not know is one it never says.
    own = np.full(len(classes), -1, dtype=np.int64)
    own[place] = np.arange(len(place))
    us_per_window = [cost[rung.model] for rung in manifest.all_rungs]
    us_per_song = climbing_us(says, us_per_window)[found.reached, np.arange(len(rows))].mean()
    return Answered(
        version=manifest.version,
        classes=classes,
        labels=labels,
        choice=place[found.choice],
        student_choice=place[says[0].probs.argmax(axis=1)],
        teacher_choice=place[says[-1].probs.argmax(axis=1)],
        probs=probs,
        doubt_nats=found.cross_entropy_nats,
        fell_back=found.fell_back,
        tradeoff=sweep(says, own[labels], cascade.ladder, settings(says, bundle.tradeoff), us_per_window),
        us_per_song=float(us_per_song),
        bytes=len(bundle.model(manifest.student)) + len(bundle.model(manifest.teacher)),
        forms=(manifest.student.form, manifest.teacher.form),
    )
