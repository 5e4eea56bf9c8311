"""Run folders: what training leaves and export reads.

- run.json: what was trained, on what, and how well it went
- splits.json: ids of the train, validation, calibration and test songs
- model.safetensors: the weights
- held_out.safetensors: teacher runs with folds: the logits of every training song by a teacher that never saw it
- teacher/: student runs: the teacher's run, so that one folder is all that export needs
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from data.errors import ConfigError, RunError
from data.provenance import Provenance, provenance
from data.song import Floats, Units
from data.splits import Splits
from data.table import SongTable
from training.loop import Epoch, Fit, LoopConfig
from training.networks import CONFIGS, Config, Kind, Network, build
from training.standardise import Standardise


@dataclass(frozen=True)
class Run:
    """The content of `run.json`."""

    kind: Kind
    network: dict[str, Any]  # Fields of TeacherConfig or StudentConfig.
    loop: LoopConfig
    classes: tuple[str, ...]
    units: Units
    songs: str  # Path of the song table.
    songs_sha256: str
    split_songs: dict[str, int]  # How many songs each split has.
    best: Epoch
    epochs: list[Epoch]
    held_out_accuracy: float | None  # Of the fold teachers, each on the songs it never saw.
    provenance: Provenance


def describe(
    kind: Kind,
    config: Config,
    loop: LoopConfig,
    songs: SongTable,
    splits: Splits,
    fitted: Fit,
    held_out_accuracy: float | None = None,
) -> Run:
    """Return the record of a training run that has just ended."""
    return Run(
        kind=kind,
        network=dataclasses.asdict(config),
        loop=loop,
        classes=songs.classes,
        units=songs.units,
        songs=str(songs.path.resolve()),
        songs_sha256=songs.fingerprint(),
        split_songs={name: len(rows) for name, rows in vars(splits).items()},
        best=fitted.best,
        epochs=fitted.epochs,
        held_out_accuracy=held_out_accuracy,
        provenance=provenance(),
    )


def save_run(folder: Path, run: Run, network: Network, songs: SongTable, splits: Splits) -> None:
    """Write the files every run has into `folder`."""
    (folder / "run.json").write_text(json.dumps(dataclasses.asdict(run), indent=2))
    ids = {name: [songs.song_ids[row] for row in rows] for name, rows in vars(splits).items()}
    (folder / "splits.json").write_text(json.dumps(ids, indent=1))
    save_tensors(network.state_dict(), folder / "model.safetensors")


def save_held_out(folder: Path, logits: Floats) -> None:
    """Write the held-out logits of the training songs, (n_train, n_classes), in the order of `splits.json`."""
    save_arrays({"logits": logits}, folder / "held_out.safetensors")


def load_run(folder: Path, kind: Kind) -> tuple[Run, Network]:
    """Return the record and the trained network, in eval mode, of a run folder of the given kind."""
    if not folder.is_dir():
        raise RunError(f"{folder}: expected a {kind} run, found no such folder. `segue train-{kind}` makes one.")
    try:
        run = TypeAdapter(Run).validate_json((folder / "run.json").read_bytes())
    except FileNotFoundError:
        raise RunError(f"{folder}: expected a {kind} run, found a folder without run.json") from None
    except ValidationError as error:
        raise RunError(f"{folder / 'run.json'}: not the record of a run: {error}") from None
    if run.kind != kind:
        raise RunError(f"{folder}: expected a {kind} run, found a {run.kind} run")
    try:
        network = build(CONFIGS[kind](**run.network), len(run.classes), Standardise())
        network.load_state_dict(load_tensors(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError, TypeError, ConfigError) as error:
        raise RunError(f"{folder}: the weights cannot be read or do not fit run.json: {error}") from None
    return run, network.eval()


def load_held_out(folder: Path) -> Floats:
    """Return the held-out logits of a teacher run, (n_train, n_classes)."""
    file = folder / "held_out.safetensors"
    if not file.is_file():
        raise RunError(
            f"{folder}: expected held-out logits of fold teachers, found none. Train the teacher with --folds 2."
        )
    try:
        logits: Floats = load_arrays(file)["logits"]
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{file}: cannot be read, it may be cut short: {error}") from None
    return logits


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
