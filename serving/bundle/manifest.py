"""What `manifest.json` of a bundle says: classes, units, models, threshold and guarantee, figures, provenance, hashes.

The files of a bundle:

- manifest.json: all of this, and a sha256 for every other file
- student.onnx: raw `segments` (n, 120, 25) to `logits` (n, n_classes)
- teacher.onnx: the same
- tradeoff.csv: threshold, fallback rate, accuracy and cost, and the lines to compare with
- tradeoff.png: the same as a picture
- reliability.png: how often answers are right, over how sure the models are of them
- README.md: the same for people: what it is, how good, on which songs, how to use it
- trained_on.npy: hashes of the ids of the songs the models have seen, so that no threshold is ever set on them
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from segue.data.song import Features, Units
from segue.errors import BundleError
from segue.provenance import Provenance
from segue.serving.ladder import Ladder, OnFallback
from segue.serving.predictions import ModelName

FORMAT_VERSION = 4
READABLE = (3, FORMAT_VERSION)  # Format 3 has no ladder: it is the usual two rungs.
MANIFEST = "manifest.json"
CARD = "README.md"
TRADEOFF = "tradeoff.csv"
PICTURE = "tradeoff.png"
RELIABILITY = "reliability.png"
TRAINED_ON = "trained_on.npy"
MAX_DEPTH = 32  # Of lists and objects in a manifest; those that are written have eight or so.


@dataclass(frozen=True)
class Scores:
    """How good a model is on some songs."""

    accuracy: float
    nll: float
    ece: float


@dataclass(frozen=True)
class Temperature:
    """What a model's logits are divided by before they become probabilities, fitted on calibration songs."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    windows: int  # Of a song, at most, that it was fitted on.
    songs: int  # That `before` and `after` were measured on: the other calibration songs.
    before: Scores  # At a temperature of 1.
    after: Scores


Lowering = Literal["scan", "unrolled", "operator"]
Precision = Literal["fp32", "int8_static", "int8_dynamic"]


@dataclass(frozen=True)
class Parity:
    """How closely an exact graph keeps to the trained network; one that does not is never shipped."""

    difference: float  # The largest, of a logit.
    agreement: float  # Share of the songs on which both pick the same class.
    songs: int
    edge_songs: int  # Legal but unusual ones, beside those: silence, constants, the ends of the ranges.
    batches: tuple[int, ...]  # Songs in a call.


@dataclass(frozen=True)
class Rounding:
    """How closely an int8 graph keeps to the exact one, on validation songs."""

    songs: int
    agreement: float  # Share of the songs on which both pick the same class.
    lost_points: float  # Accuracy that rounding costs, in points (0.01) ...
    lost_points_between: tuple[float, float]  # ... and its 95 % interval.
    batch_difference: float  # Largest difference that a batch makes to a song's logits.


@dataclass(frozen=True)
class Form:
    """One way of writing a model as a graph, and how it did."""

    lowering: Lowering | None  # Of its recurrences; None where it has none.
    precision: Precision
    parity: Parity | None  # Of an exact graph that was compared.
    rounding: Rounding | None  # Of an int8 graph.
    songs_per_s: dict[int, float]  # By songs in a call, one window each; empty where it was not measured.
    why_not: str | None  # The reason why it was not shipped; None: it was.


@dataclass(frozen=True)
class ModelEntry:
    """One of the two models."""

    file: str
    network: dict[str, Any]  # The config it was trained with.
    provider: str  # What it was measured on, as ONNX Runtime calls it.
    form: Form  # The one in `file`.
    rejected: tuple[Form, ...]  # The others that were tried.
    windows: Annotated[
        int, Field(ge=1)
    ]  # Windows it sees of a song, at most; their mean log-probability is the song's.
    temperature: Temperature  # Of a song it sees one window of.
    mean_temperature: Temperature | None  # Of a song it sees more of. None: no calibration song was that long.
    us_per_window: float  # At the serving batch, from songs in memory to answers, on the machine that calibrated.


Target = Literal["within", "accuracy", "fallback_rate", "songs_per_s"]


@dataclass(frozen=True)
class Guarantee:
    """What was asked of the default threshold, and what may be said of it."""

    target: Target
    asked: float  # In the target's unit: points (0.01) below the teacher, accuracy, share, songs a second.
    measured: float  # The same on the calibration songs.
    calibration_songs: int
    confidence: float | None  # In at least this share of calibration sets a promise holds. None: no promise was asked.
    kept: bool  # Promised. False: measured only.
    songs_needed: int | None  # With those that fit temperatures, about. None: it is promised, or no number would do.

    def __str__(self) -> str:
        songs = f"{self.calibration_songs:,} calibration songs"
        if self.target == "fallback_rate":
            return f"measured, not promised: {self.measured:.1%} of {songs} fall back, {self.asked:.1%} were asked for"
        if self.target == "songs_per_s":
            return (
                f"measured, not promised: {self.measured:,.0f} songs/s at the fallback rate of {songs}, "
                f"{self.asked:,.0f} were asked for"
            )
        if self.target == "within":
            claim = f"at most {self.asked:g} point{'' if self.asked == 1 else 's'} below the teacher"
            found = f"{abs(self.measured):.1f} points {'below' if self.measured >= 0 else 'above'}"
        else:
            claim = f"an accuracy of at least {self.asked:g}"
            found = f"an accuracy of {self.measured:.3f}"
        percent = f"{100 * (self.confidence or 0):g}%"
        if self.kept:
            return f"promised: {claim}, with {percent} confidence, from {songs}"
        if self.songs_needed:
            more = f"about {self.songs_needed:,} like these would, a quarter of them for the temperatures"
        else:
            more = "more like these would not either, since it fails even where every song falls back"
        return (
            f"measured, not promised: {found} on {songs}; they cannot support {claim} with {percent} confidence, {more}"
        )


@dataclass(frozen=True)
class Evaluation:
    """How good a bundle is on some songs, at one threshold."""

    songs: int
    threshold_nats: float
    student: Scores
    teacher: Scores
    cascade: Scores
    fallback_rate: float
    agreement: float  # Share of songs on which student and teacher pick the same class.


@dataclass(frozen=True)
class Rung:
    """One step of the ladder that songs climb."""

    model: ModelName
    windows: Annotated[int, Field(ge=1)]  # It sees of a song, at most.
    # Above it a song goes on; None: the last rung.
    threshold_nats: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    temperature: Temperature  # Of a song it sees one window of.
    mean_temperature: Temperature | None  # Of a song it sees more of. None: no calibration song was that long.


@dataclass(frozen=True)
class TradeoffRow:
    """One setting of the dial."""

    threshold_nats: float
    fallback_rate: float
    accuracy: float
    us_per_song: float
    random_accuracy: float  # The same share of songs sent to the teacher, drawn at random.
    oracle_accuracy: float  # The same share, where it helps most.
    next_thresholds_nats: tuple[float, ...] = ()  # Of the rungs above the first, but for the last.


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    format_version: int
    version: str  # Names this bundle: the beginning of a sha256 over its manifest, and so over all of it.
    classes: tuple[str, ...]
    units: Units
    features: Features  # Which analyser made the segments that the models learnt from.
    feature_names: tuple[str, ...]  # Of the numbers of a segment.
    student: ModelEntry
    teacher: ModelEntry
    threshold_nats: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    class_scales: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None  # One a class, or None: 1.
    # Where the student says class c, its threshold is threshold_nats * class_scales[c].
    guarantee: Guarantee
    area_above_random: float  # Between the trade-off's curve and its random line: mean gain in accuracy over the dial.
    metrics: Evaluation
    metrics_split: Literal["test", "calibration"]  # Which songs `metrics` were measured on.
    licence: str  # Of the models, as whoever exported them said.
    songs_sha256: str  # The table the models were trained on.
    split_songs: dict[str, int]
    calibration_sha256: str  # The table of the songs that set temperatures and threshold.
    provenance: Provenance
    sha256: dict[str, str]  # File name to hash, for every file but the manifest.
    rungs: tuple[Rung, ...] = ()  # First to last. Empty: the usual two, the student and the teacher above.
    on_fallback: OnFallback = "teacher"
    left_out: tuple[str, ...] = ()  # Rungs that were asked for and do not pay, each with the reason.

    @property
    def all_rungs(self) -> tuple[Rung, ...]:
        """The rungs of the ladder, the usual two among them."""
        if self.rungs:
            return self.rungs
        student, teacher = self.student, self.teacher
        return (
            Rung("student", student.windows, self.threshold_nats, student.temperature, student.mean_temperature),
            Rung("teacher", teacher.windows, None, teacher.temperature, teacher.mean_temperature),
        )

    @property
    def ladder(self) -> Ladder:
        """How songs climb, with the thresholds of the bundle."""
        rungs = self.all_rungs
        thresholds = [rung.threshold_nats for rung in rungs[:-1] if rung.threshold_nats is not None]
        return Ladder(tuple(rung.model for rung in rungs), tuple(thresholds), self.on_fallback)

    @property
    def rung_names(self) -> tuple[str, ...]:
        """What to call each rung: its model, and its windows where a model has several rungs."""
        models = [rung.model for rung in self.all_rungs]
        return tuple(
            rung.model if models.count(rung.model) == 1 else f"{rung.model}:{rung.windows}" for rung in self.all_rungs
        )

    @property
    def entries(self) -> dict[ModelName, ModelEntry]:
        """Both models by name."""
        return {"student": self.student, "teacher": self.teacher}

    def entry(self, rung: Rung) -> ModelEntry:
        """Return the model that answers on a rung."""
        return self.entries[rung.model]


def parse_manifest(content: bytes, at: Path) -> Manifest:
    """Return the manifest in the bytes of the file `at`; a `BundleError` says why they hold none."""
    try:
        given = json.loads(content)
        if not _is_flat(given):
            raise RecursionError
        found = given["format_version"]
        if found not in READABLE:
            raise BundleError(
                f"{at.parent}: expected bundle format {FORMAT_VERSION}, found {found!r}. "
                "Export it again with this Segue."
            )
        manifest = _adapter().validate_python(_with_features(given))
        _check_files(manifest, at)
        version = version_of(given)
    except ValidationError as error:
        raise BundleError(f"{at}: not a manifest of format {FORMAT_VERSION}: {error}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{at}: not a manifest: {error!r}") from None
    except RecursionError:
        raise BundleError(f"{at}: not a manifest: expected at most {MAX_DEPTH} levels, found more") from None
    if version != manifest.version:
        raise BundleError(
            f"{at}: expected the content that version {manifest.version} names, found another; the file "
            "was changed or damaged. Export it again; `segue calibrate` is the way to another threshold."
        )
    return manifest


def version_of(manifest: dict[str, Any]) -> str:
    """Return the version that names the content of a manifest, and so all files that it has hashes of."""
    return hashlib.sha256(json.dumps({**manifest, "version": ""}, sort_keys=True).encode()).hexdigest()[:12]


def _with_features(given: dict[str, Any]) -> dict[str, Any]:
    """Say what features a bundle is of, where it was written before there were others than the Echo Nest's."""
    if isinstance(given["features"], str):
        return given
    return {**given, "features": "echonest", "feature_names": given["features"]}


def _is_flat(value: Any) -> bool:
    """Return whether lists and objects are nested no deeper than everything that reads them can follow."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for some in inner for one in some]
    return not any(isinstance(one, dict | list) for one in level)


def _check_files(manifest: Manifest, at: Path) -> None:
    """Refuse a manifest without a hash of something that is read, or with one of a file outside the folder."""
    unlisted = {manifest.student.file, manifest.teacher.file, TRADEOFF} - set(manifest.sha256)
    if unlisted:
        raise BundleError(f"{at}: no sha256 for {', '.join(sorted(unlisted))}")
    for name in manifest.sha256:
        if Path(name).name != name or name in ("..", MANIFEST) or "\0" in name:
            raise BundleError(f"{at}: expected plain file names, found {name!r}")


@cache
def _adapter() -> TypeAdapter[Manifest]:
    """Return what checks a manifest; making it takes longer than using it."""
    return TypeAdapter(Manifest)
