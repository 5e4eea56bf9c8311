"""Run folders: what training leaves and export reads.

- run.json: what was trained, on what, and how well it went
- splits.json: ids of the train, validation, calibration and test songs
- model.safetensors: the weights
- metrics/: a line of JSON an epoch, for each network that was fitted
- held_out.safetensors: teacher runs with folds: the logits of every training song by a teacher that never saw it, and,
  where they were asked for, of the songs without a label by all fold teachers together
- teacher/: student runs: the teacher's run, so that one folder is all that export needs
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from segue.data.joined import JoinedSongs, open_songs
from segue.data.metrics import accuracy, nll, softmax
from segue.data.song import Features, Floats, Ints, Units
from segue.data.splits import Splits
from segue.data.table import NO_LABEL, SongTable
from segue.errors import ConfigError, RunError
from segue.provenance import Provenance, provenance
from segue.training.fit.journal import RECORD, telling_why
from segue.training.fit.loop import LoopConfig, predict
from segue.training.fit.losses import DistillationConfig, LabelConfig
from segue.training.networks.build import Config, Role, build
from segue.training.networks.network import Network
from segue.training.networks.standardise import Standardise


@dataclass(frozen=True)
class Start:
    """Where the weights of a run began, if not at random; see `segue.training.warm_start`."""

    run: str  # Path of the earlier run.
    weights_sha256: str
    songs_sha256: str  # Of the songs that it was trained on,
    features: Features  # and which analyser made their segments.
    kept_classes: tuple[str, ...]  # The classes of both runs.


@dataclass(frozen=True)
class Run:
    """The content of `run.json`."""

    role: Role
    network: Config
    loop: LoopConfig
    classes: tuple[str, ...]
    units: Units
    songs: str  # Path of the song table.
    songs_sha256: str
    split_songs: dict[str, int]  # How many songs each split has.
    validation_accuracy: float
    validation_nll: float
    held_out_accuracy: float | None  # Of the fold teachers, each on the songs it never saw.
    provenance: Provenance
    labels: LabelConfig | None = None  # How a teacher learnt from labels; None of teachers that were joined.
    distillation: DistillationConfig | None = None  # How a student learnt from its teacher ...
    validation_songs: str | None = None  # Path of the table of validation songs; None where a share validates.
    features: Features = "echonest"  # Which analyser made the songs' segments.
    unlabelled_songs: int = 0  # ... of so many songs without a label too: all of `unlabelled_rows`, or none.
    start: Start | None = None  # The earlier run whose weights it began with.
    chosen: tuple[str, ...] = ()  # Of each teacher that might have been joined, whether it was, and why.


@dataclass(frozen=True)
class HeldOut:
    """What the fold teachers say, which is what a student learns from."""

    logits: Floats  # (n_train, n_classes), of the training songs in the order of `splits.json`.
    unlabelled: Floats  # (n_unlabelled, n_classes), see `unlabelled_rows`; n = 0 where they were not asked for.


def describe(
    role: Role,
    config: Config,
    loop: LoopConfig,
    songs: SongTable,
    splits: Splits,
    network: Network,
    held_out: HeldOut | None = None,
    labels: LabelConfig | None = None,
    distillation: DistillationConfig | None = None,
    unlabelled_songs: int = 0,
    start: Start | None = None,
    chosen: tuple[str, ...] = (),
) -> Run:
    """Return the record of a training run that has just ended with `network`."""
    rows = splits.validation
    logits = predict(network, songs, rows, loop.windows)
    return Run(
        role=role,
        network=config,
        loop=loop,
        classes=songs.classes,
        units=songs.units,
        features=songs.features,
        songs=str(songs.path.resolve()),
        songs_sha256=songs.fingerprint(),
        split_songs={name: len(rows) for name, rows in vars(splits).items()},
        validation_accuracy=accuracy(logits, songs.labels[rows]),
        validation_nll=nll(softmax(logits), songs.labels[rows]),
        held_out_accuracy=None if held_out is None else accuracy(held_out.logits, songs.labels[splits.train]),
        provenance=provenance(),
        labels=labels,
        distillation=distillation,
        unlabelled_songs=unlabelled_songs,
        start=start,
        chosen=chosen,
        validation_songs=str(songs.second_path.resolve()) if isinstance(songs, JoinedSongs) else None,
    )


def save_run(folder: Path, run: Run, network: Network, songs: SongTable, splits: Splits) -> None:
    """Write the files every run has into `folder`."""
    ids = {name: [songs.song_ids[row] for row in rows] for name, rows in vars(splits).items()}
    with telling_why(folder):
        (folder / RECORD).write_text(json.dumps(dataclasses.asdict(run), indent=2))
        (folder / "splits.json").write_text(json.dumps(ids, indent=1))
        save_tensors(network.state_dict(), folder / "model.safetensors")


def save_held_out(folder: Path, held_out: HeldOut) -> None:
    """Write what the fold teachers say."""
    with telling_why(folder):
        save_arrays(vars(held_out), folder / "held_out.safetensors")


def unlabelled_rows(songs: SongTable, splits: Splits) -> Ints:
    """Return the songs without a label that a student may learn from: those of no artist that it is measured on.

    Nor does it learn from songs that the table keeps for something else.
    """
    kept_apart = np.concatenate([splits.validation, splits.calibration, splits.test])
    artists = {songs.groups[row] for row in kept_apart} - {None}
    rows = np.flatnonzero(songs.labels == NO_LABEL)
    return rows[[songs.groups[row] not in artists and songs.splits[row] in (None, "train") for row in rows]]


def load_run(folder: Path, role: Role) -> tuple[Run, Network]:
    """Return the record and the trained network, in eval mode, of a run folder of the given role."""
    run = load_record(folder, role)
    try:
        network = build(run.network, len(run.classes), Standardise())
        network.load_state_dict(load_tensors(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"{folder}: the weights cannot be read or do not fit run.json: {error}") from None
    return run, network.eval()


def load_record(folder: Path, role: Role | None = None) -> Run:
    """Return the record of a run folder; of the given role, if one is given."""
    expected = f"a {role} run" if role else "a run"
    if not folder.is_dir():
        raise RunError(
            f"{folder}: expected {expected}, found no such folder. `segue train-{role or 'teacher'}` makes one."
        )
    try:
        run = TypeAdapter(Run).validate_json((folder / RECORD).read_bytes())
    except FileNotFoundError:
        raise RunError(f"{folder}: expected {expected}, found a folder without {RECORD}") from None
    except (ValidationError, ConfigError) as error:
        raise RunError(f"{folder / 'run.json'}: not the record of a run: {error}") from None
    if role and run.role != role:
        raise RunError(f"{folder}: expected {expected}, found a {run.role} run")
    return run


def load_held_out(folder: Path) -> HeldOut:
    """Return what the fold teachers of a teacher run said."""
    file = folder / "held_out.safetensors"
    if not file.is_file():
        raise RunError(
            f"{folder}: expected held-out logits of fold teachers, found none. Train the teacher with --folds 2."
        )
    try:
        held_out = HeldOut(**load_arrays(file))
    except (OSError, SafetensorError, TypeError) as error:
        raise RunError(f"{file}: cannot be read, it may be cut short: {error}") from None
    for name, logits in vars(held_out).items():
        if logits.ndim != 2 or not np.isfinite(logits).all():
            raise RunError(f"{file}: expected {name} of shape (songs, classes), all finite, found {logits.shape}")
    if held_out.logits.shape[1] != held_out.unlabelled.shape[1]:
        raise RunError(
            f"{file}: expected one number of classes, found {held_out.logits.shape[1]} in logits "
            f"and {held_out.unlabelled.shape[1]} in unlabelled"
        )
    return held_out


def open_songs_of(run: Run, songs: Path | None = None) -> SongTable:
    """Open the songs of a run, its validation songs among them; `songs` is where its table is now, if it has moved."""
    return open_songs(songs or Path(run.songs), Path(run.validation_songs) if run.validation_songs else None)


def load_splits(folder: Path, run: Run, songs: SongTable) -> Splits:
    """Return the rows of each split of a run; a table other than the one the run was made from is a `RunError`."""
    if songs.fingerprint() != run.songs_sha256:
        raise RunError(
            f"{folder}: was trained on {run.songs} (sha256 {run.songs_sha256[:12]}), but {songs.path} holds other songs"
        )
    try:
        ids = json.loads((folder / "splits.json").read_text())
        row_of = {song_id: row for row, song_id in enumerate(songs.song_ids)}
        return Splits(**{name: np.array([row_of[one] for one in ids[name]], dtype=np.int64) for name in ids})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'splits.json'}: cannot be read: {error!r}") from None
