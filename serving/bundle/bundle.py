"""The bundle: what training and export produce, what serving reads, and nothing of it unverified.

- manifest.json: classes, units, models, threshold and guarantee, figures, provenance, and a sha256 for every other file
- student.onnx: raw `segments` (n, 120, 25) to `logits` (n, n_classes)
- teacher.onnx: the same
- tradeoff.csv: threshold, fallback rate, accuracy and cost, and the lines to compare with
- tradeoff.png: the same as a picture
- reliability.png: how often answers are right, over how sure the models are of them
- README.md: the same for people: what it is, how good, on which songs, how to use it
- trained_on.npy: hashes of the ids of the songs the models have seen, so that no threshold is ever set on them
"""

import csv
import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from segue.data.song import Units
from segue.errors import BundleError
from segue.provenance import Provenance

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
CARD = "README.md"
TRADEOFF = "tradeoff.csv"
PICTURE = "tradeoff.png"
RELIABILITY = "reliability.png"
TRAINED_ON = "trained_on.npy"


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
class TradeoffRow:
    """One setting of the dial."""

    threshold_nats: float
    fallback_rate: float
    accuracy: float
    us_per_song: float
    random_accuracy: float  # The same share of songs sent to the teacher, drawn at random.
    oracle_accuracy: float  # The same share, where it helps most.


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    format_version: int
    version: str  # Names this bundle: the beginning of a sha256 over its manifest, and so over all of it.
    classes: tuple[str, ...]
    units: Units
    features: tuple[str, ...]
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


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    path: Path
    manifest: Manifest
    tradeoff: tuple[TradeoffRow, ...]

    def file(self, entry: ModelEntry) -> Path:
        """Return the path of a model's ONNX file."""
        return self.path / entry.file


def load_bundle(path: Path) -> Bundle:
    """Read the bundle in folder `path` and verify every file of it; a `BundleError` says what is wrong."""
    if not path.is_dir():
        raise BundleError(f"{path}: expected a bundle, found no such folder. `segue export` makes one.")
    try:
        given = json.loads((path / MANIFEST).read_bytes())
        found = given["format_version"]
    except FileNotFoundError:
        raise BundleError(f"{path}: expected a bundle, found a folder without {MANIFEST}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{path / MANIFEST}: not a manifest: {error!r}") from None
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{path}: expected bundle format {FORMAT_VERSION}, found {found!r}. Export it again with this Segue."
        )
    try:
        manifest = TypeAdapter(Manifest).validate_python(given)
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST}: not a manifest of format {FORMAT_VERSION}: {error}") from None
    _verify(path, manifest)
    if _version_of(given) != manifest.version:
        raise BundleError(
            f"{path / MANIFEST}: expected the content that version {manifest.version} names, found another; the file "
            "was changed or damaged. Export it again; `segue calibrate` is the way to another threshold."
        )
    return Bundle(path, manifest, read_tradeoff(path / TRADEOFF))


def _verify(path: Path, manifest: Manifest) -> None:
    unlisted = {manifest.student.file, manifest.teacher.file, TRADEOFF} - set(manifest.sha256)
    if unlisted:
        raise BundleError(f"{path / MANIFEST}: no sha256 for {', '.join(sorted(unlisted))}")
    for name, expected in manifest.sha256.items():
        if Path(name).name != name:
            raise BundleError(f"{path / MANIFEST}: expected plain file names, found {name!r}")
        try:
            found = sha256(path / name)
        except OSError:
            raise BundleError(f"{path}: the file {name} is missing or cannot be read") from None
        if found != expected:
            raise BundleError(
                f"{path / name}: expected sha256 {expected[:12]}, found {found[:12]}; the file was changed or damaged"
            )


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash the files of a bundle, name its version by them, write the manifest, and return it."""
    hashes = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    named = replace(manifest, sha256=hashes, version="")
    sealed = replace(named, version=_version_of(json.loads(json.dumps(asdict(named)))))
    (folder / MANIFEST).write_text(json.dumps(asdict(sealed), indent=2) + "\n")
    return sealed


def _version_of(manifest: dict[str, Any]) -> str:
    """Return the version that names the content of a manifest, and so all files that it has hashes of."""
    return hashlib.sha256(json.dumps({**manifest, "version": ""}, sort_keys=True).encode()).hexdigest()[:12]


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tradeoff(path: Path) -> tuple[TradeoffRow, ...]:
    """Return the rows of a trade-off table, in order of rising fallback rate."""
    try:
        with path.open(newline="") as file:
            return tuple(
                TradeoffRow(**{name: float(value) for name, value in row.items()}) for row in csv.DictReader(file)
            )
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(f"{path}: not a trade-off table: {error}") from None


def write_tradeoff(path: Path, rows: tuple[TradeoffRow, ...]) -> None:
    """Write a trade-off table as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(TradeoffRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(row) for row in rows)
