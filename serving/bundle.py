"""The bundle: what training and export produce, what serving reads, and nothing of it unverified.

- manifest.json: classes, units, models, threshold and guarantee, figures, provenance, and a sha256 for every other file
- student.onnx: raw `segments` (n, 120, 25) to `logits` (n, n_classes)
- teacher.onnx: the same
- tradeoff.csv: threshold, fallback rate, accuracy and cost, and the lines to compare with
- tradeoff.png: the same as a picture
"""

import csv
import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from data.errors import BundleError
from data.provenance import Provenance
from data.song import Units

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TRADEOFF = "tradeoff.csv"
PICTURE = "tradeoff.png"


@dataclass(frozen=True)
class ModelEntry:
    """One of the two models."""

    file: str
    network: dict[str, Any]  # The config it was trained with.
    windows: Annotated[
        int, Field(ge=1)
    ]  # Windows it sees of a song, at most; their mean log-probability is the song's.
    temperature: Annotated[
        float, Field(gt=0, allow_inf_nan=False)
    ]  # Logits are divided by it before they become probabilities.
    us_per_window: float  # Measured at export on the machine that exported.
    parity: float  # Largest difference between its logits and the trained network's.


@dataclass(frozen=True)
class Guarantee:
    """What is promised of the default threshold."""

    points_below_teacher: float  # The cascade's accuracy is at most this far below the teacher's, in points (0.01).
    confidence: float  # In at least this share of calibration sets the promise holds.
    calibration_songs: int
    kept: bool  # False: the calibration songs cannot support the promise; the threshold only met it on them.

    def __str__(self) -> str:
        if self.kept:
            return (
                f"at most {self.points_below_teacher:g} points below the teacher, with {self.confidence:.0%} confidence"
            )
        return (
            f"measured, not promised: {self.calibration_songs} calibration songs cannot support "
            f"{self.points_below_teacher:g} points at {self.confidence:.0%} confidence"
        )


@dataclass(frozen=True)
class Scores:
    """How good a model is on some songs."""

    accuracy: float
    nll: float
    ece: float


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
    version: str  # Names this bundle: the beginning of a sha256 over its models.
    classes: tuple[str, ...]
    units: Units
    features: tuple[str, ...]
    student: ModelEntry
    teacher: ModelEntry
    threshold_nats: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    guarantee: Guarantee
    metrics: Evaluation
    metrics_split: Literal["test", "calibration"]  # Which songs `metrics` were measured on.
    songs_sha256: str  # The table the models were trained on.
    split_songs: dict[str, int]
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
            f"{path}: expected bundle format {FORMAT_VERSION}, found {found}. Export it again with this Segue."
        )
    try:
        manifest = TypeAdapter(Manifest).validate_python(given)
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST}: not a manifest of format {FORMAT_VERSION}: {error}") from None
    _verify(path, manifest)
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
