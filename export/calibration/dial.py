"""The dial of a bundle: from what both models say of calibration songs to temperatures, threshold, promise, pictures.

`segue export` sets it first, `segue calibrate` sets it anew; it needs no torch.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np

from segue.data.metrics import nll
from segue.data.song import Ints
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from segue.export.calibration.picture import draw_tradeoff
from segue.export.calibration.reliability import draw_reliability
from segue.export.calibration.temperature import UncalibratedPredictions, fit_temperatures
from segue.export.calibration.thresholds import (
    GRID_POINTS,
    SHAPE_SHARE,
    Goal,
    choose_thresholds,
    deal_parts,
    find_path,
    fit_class_scales,
    grid,
)
from segue.serving.bundle.manifest import (
    PICTURE,
    RELIABILITY,
    TRADEOFF,
    Evaluation,
    Guarantee,
    Manifest,
    ModelEntry,
    Rung,
    TradeoffRow,
)
from segue.serving.bundle.tradeoff_table import write_tradeoff
from segue.serving.ladder import Ladder, OnFallback
from segue.serving.predictions import MODELS, NOT_A_NUMBER, ModelName, Predictions
from segue.serving.tradeoff import area_above_random, evaluation, sweep, thresholds

MOST_RUNGS = max(GRID_POINTS)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """A rung before it is calibrated: a model, its look at a song, and what it said of the calibration songs."""

    model: ModelName
    windows: int  # Of a song, at most.
    us_per_window: float
    heard: UncalibratedPredictions

    @property
    def name(self) -> str:
        """What to call it, as `--rungs` does."""
        return f"{self.model}:{self.windows}"


@dataclass(frozen=True)
class Dial:
    """What calibration sets, and how it does on the songs that set it."""

    rungs: tuple[Rung, ...]
    ladder: Ladder
    left_out: tuple[str, ...]  # Rungs that do not pay, each with the reason.
    class_scales: tuple[float, ...] | None
    guarantee: Guarantee
    evaluation: Evaluation
    rows: tuple[TradeoffRow, ...]
    says: tuple[Predictions, ...]  # Of each rung, for all calibration songs.

    def on_manifest(self, manifest: Manifest) -> Manifest:
        """Return the manifest of the same models with this dial."""
        first, last = self.rungs[0], self.rungs[-1]

        def turned(entry: ModelEntry, rung: Rung) -> ModelEntry:
            return replace(
                entry, windows=rung.windows, temperature=rung.temperature, mean_temperature=rung.mean_temperature
            )

        return replace(
            manifest,
            student=turned(manifest.student, first),
            teacher=turned(manifest.teacher, last),
            threshold_nats=self.ladder.thresholds_nats[0],
            class_scales=self.class_scales,
            guarantee=self.guarantee,
            area_above_random=area_above_random(self.rows),
            rungs=self.rungs if len(self.rungs) > 2 else (),
            on_fallback=self.ladder.on_fallback,
            left_out=self.left_out,
        )


def set_dial(
    steps: Sequence[Step],
    labels: Ints,
    goal: Goal,
    folder: Path,
    *,
    on_fallback: OnFallback = "teacher",
    per_class: bool = False,
) -> Dial:
    """Set the dial to a goal, and write the trade-off and the pictures.

    Args:
        steps: the rungs, a student's first and a teacher's last.
        labels: (n,) the classes of the calibration songs.
        goal: what is asked of the thresholds.
        folder: where the trade-off and the pictures go.
        on_fallback: whose answer stands of a song that went on.
        per_class: whether each class that the student may say gets a threshold of its own.
    """
    shape, setting = deal_parts(len(labels))
    fits = [fit_temperatures(step.heard, labels, shape, setting, step.name) for step in steps]
    scales = None
    if per_class:
        first, last = (fits[place].predict(steps[place].heard.take(shape)) for place in (0, -1))
        scales = fit_class_scales(first, last, labels[shape])
    says = [fits[0].predict(steps[0].heard, scales)]
    says += [fit.predict(step.heard) for fit, step in zip(fits[1:], steps[1:], strict=True)]
    kept, left_out = _paying(steps, [one.take(shape) for one in says], labels[shape])
    steps, fits, says = [steps[i] for i in kept], [fits[i] for i in kept], [says[i] for i in kept]
    ladder = Ladder(tuple(step.model for step in steps), (0.0,) * (len(steps) - 1), on_fallback)
    us_per_window = [step.us_per_window for step in steps]
    if len(steps) == 2:
        path = grid(says[0].probs.shape[1])
    else:
        path = find_path([one.take(shape) for one in says], ladder, us_per_window)
    setting_says, setting_labels = [one.take(setting) for one in says], labels[setting]
    nats, guarantee = choose_thresholds(setting_says, setting_labels, goal, ladder, path, us_per_window)
    ladder = replace(ladder, thresholds_nats=nats)
    if guarantee.songs_needed:
        guarantee = replace(guarantee, songs_needed=ceil(guarantee.songs_needed / (1 - SHAPE_SHARE)))
    found = evaluation(setting_says, setting_labels, ladder)
    settings = thresholds(setting_says[0])[:, None] if len(steps) == 2 else path[::-1]
    rows = sweep(setting_says, setting_labels, ladder, settings, us_per_window)
    write_tradeoff(folder / TRADEOFF, rows)
    (stands,) = sweep(setting_says, setting_labels, ladder, np.array([nats]), us_per_window)
    two_rungs: tuple[TradeoffRow, ...] = ()
    if len(steps) > 2:
        ends, costs = (setting_says[0], setting_says[-1]), (us_per_window[0], us_per_window[-1])
        straight = Ladder((steps[0].model, steps[-1].model), (0.0,), on_fallback)
        two_rungs = sweep(ends, setting_labels, straight, thresholds(setting_says[0])[:, None], costs)
    draw_tradeoff(folder / PICTURE, rows, found, guarantee, stands.us_per_song, two_rungs)
    draw_reliability(
        folder / RELIABILITY,
        setting_labels,
        {
            name: (steps[place].heard.serves.probs[setting], setting_says[place].probs)
            for name, place in (("student", 0), ("teacher", -1))
        },
    )
    rungs = [
        Rung(step.model, step.windows, threshold, fit.single, fit.mean)
        for step, fit, threshold in zip(steps, fits, (*nats, None), strict=True)
    ]
    return Dial(tuple(rungs), ladder, left_out, scales, guarantee, found, rows, tuple(says))


def _paying(steps: Sequence[Step], says: Sequence[Predictions], labels: Ints) -> tuple[list[int], tuple[str, ...]]:
    """Return the places of the rungs that can pay, by the songs that shape the dial, and why each other one cannot.

    The first and the last rung always stay: they are what a promise compares. One between must see more of a song than
    the one below if the model is the same, give the right genres a higher probability (nll, for which fewer songs are
    enough than for accuracy), and cost less than the last.
    """
    kept, left_out = [0], []
    scored = [nll(one.probs, labels) for one in says]
    costs = [step.us_per_window * float(one.windows.mean()) for step, one in zip(steps, says, strict=True)]
    for place in range(1, len(steps) - 1):
        step, below = steps[place], kept[-1]
        if step.model == steps[below].model and says[place].windows.mean() <= says[below].windows.mean():
            reason = "no calibration song is long enough for more windows than the rung below has"
        elif scored[place] >= scored[below]:
            reason = f"no better than {steps[below].name}: nll {scored[place]:.3f} against {scored[below]:.3f}"
        elif costs[place] >= costs[-1]:
            reason = f"no cheaper than {steps[-1].name}: {costs[place]:,.0f} us a song against {costs[-1]:,.0f}"
        else:
            kept.append(place)
            continue
        left_out.append(f"{step.name}: {reason}")
    return [*kept, len(steps) - 1], tuple(left_out)


def parse_rungs(texts: Sequence[str]) -> tuple[tuple[ModelName, int], ...]:
    """Read rungs such as student:1 student:9 teacher:9; a `ConfigError` if they are no ladder."""
    rungs: list[tuple[ModelName, int]] = []
    for text in texts:
        name, _, windows = text.partition(":")
        model = next((one for one in MODELS if one == name), None)
        if model is None or not windows.isascii() or not windows.isdigit() or int(windows) < 1:
            raise ConfigError(f"rungs: expected MODEL:WINDOWS, such as student:1 or teacher:9, found {text!r}")
        rungs.append((model, int(windows)))
    models = [model for model, _ in rungs]
    is_ladder = 2 <= len(set(rungs)) == len(rungs) <= MOST_RUNGS
    if not is_ladder or (models[0], models[-1]) != ("student", "teacher"):
        raise ConfigError(
            f"rungs: expected 2 to {MOST_RUNGS} different ones, a student's first and a teacher's last, found "
            f"{' '.join(texts) or 'none'}"
        )
    return tuple(rungs)


def check_calibration_songs(
    songs: SongTable, rows: Ints, labels: Ints, classes: Sequence[str], predictions: Sequence[Predictions]
) -> None:
    """Warn of classes that no calibration song has, and refuse songs that the models give no number for."""
    missing = [name for index, name in enumerate(classes) if index not in labels]
    if missing:
        log.warning(
            "%s: no calibration song of %s; what is measured and promised says nothing of them",
            songs.path,
            ", ".join(missing),
        )
    for one in predictions:
        unknown = np.flatnonzero(np.isnan(one.cross_entropy_nats))
        if len(unknown):
            raise SongError(f"{songs.path}, song {songs.song_ids[rows[unknown[0]]]!r}: {NOT_A_NUMBER}")
