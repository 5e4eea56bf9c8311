"""Warm start: a network begins with the weights of an earlier run, as where own songs are few and others many.

What is taken are all weights but the standardisation, which is that of the new songs. Of the readout, the rows of
classes that both runs have are taken, and those of new classes begin as they would without a start. The songs of the
two runs may have other units and features; the songs that the new run holds out must be new to the earlier one.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segue.data.song import Ints
from segue.data.table import SongTable
from segue.errors import RunError
from segue.training.networks.build import Config, EnsembleConfig, Role, build
from segue.training.networks.network import Network
from segue.training.networks.standardise import Standardise
from segue.training.runs import Start, load_run

log = logging.getLogger(__name__)

OWN = "standardise."  # Measured on the new songs.


@dataclass(frozen=True)
class WarmStart:
    """The weights that networks of a new run begin with.

    Attributes:
        record: where they come from, for the new run's record.
    """

    record: Start
    _weights: dict[str, Tensor]  # All that are taken whole.
    _readout: dict[str, tuple[Tensor, list[int], list[int]]]  # Rows of the earlier, and which of them go where.

    def apply(self, network: Network) -> None:
        """Let a network that was just built begin with the weights."""
        state = network.state_dict()
        with torch.no_grad():
            for name, weights in self._weights.items():
                state[name].copy_(weights)
            for name, (weights, old, new) in self._readout.items():
                state[name][new] = weights[old]


def warm_start(folder: Path, role: Role, config: Config, songs: SongTable, held_out: Ints) -> WarmStart:
    """Return the start from the run in `folder`.

    Args:
        folder: the earlier run.
        role: what is trained now, a teacher or a student.
        config: the shape of the network that is trained now.
        songs: what it is trained on.
        held_out: rows of `songs` that some network of the new run is measured on, and that the earlier must not know.

    Raises:
        RunError: there is no such run, its network is another, or it was trained on songs that are held out now.
    """
    run, network = load_run(folder, role)
    if isinstance(run.network, EnsembleConfig):
        raise RunError(
            f"--start {folder}: expected a run of one network, found {len(run.network.members)} joined ones. "
            "Name one that was trained without --join-folds."
        )
    _check_unheard(folder, songs, held_out)
    theirs = {name: weights for name, weights in network.state_dict().items() if not name.startswith(OWN)}
    shapes = _shapes(config, len(run.classes))
    if {name: weights.shape for name, weights in theirs.items()} != shapes:
        raise RunError(
            f"--start {folder}: expected a network with the weights of the one to train, {config}; "
            f"found another, {run.network}. Give this one the same shape."
        )
    more = _shapes(config, len(run.classes) + 1)
    readout = [name for name in theirs if shapes[name] != more[name]]
    kept = [name for name in run.classes if name in songs.classes]
    old, new = [run.classes.index(name) for name in kept], [songs.classes.index(name) for name in kept]
    record = Start(
        run=str(folder.resolve()),
        weights_sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        features=run.features,
        songs_sha256=run.songs_sha256,
        kept_classes=tuple(kept),
    )
    log.warning("%s", told(record, songs.classes))
    if run.features != songs.features:
        log.warning("its songs have %s features, those of %s %s ones", run.features, songs.path, songs.features)
    return WarmStart(
        record,
        {name: weights for name, weights in theirs.items() if name not in readout},
        {name: (theirs[name], old, new) for name in readout},
    )


def told(start: Start, classes: Sequence[str]) -> str:
    """Return a sentence on where a run began."""
    new = [name for name in classes if name not in start.kept_classes]
    return f"started from the weights of {start.run}" + (f"; new to them: {', '.join(new)}" if new else "")


def _shapes(config: Config, n_classes: int) -> dict[str, torch.Size]:
    state = build(config, n_classes, Standardise()).state_dict()
    return {name: weights.shape for name, weights in state.items() if not name.startswith(OWN)}


def _check_unheard(folder: Path, songs: SongTable, held_out: Ints) -> None:
    """Refuse a start that has heard what is held out now: whatever is measured on it would be too good."""
    try:
        splits = json.loads((folder / "splits.json").read_text())
        heard = {*splits["train"], *splits["validation"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'splits.json'}: cannot be read: {error!r}") from None
    known = sorted(heard & {songs.song_ids[row] for row in held_out})
    if known:
        raise RunError(
            f"--start {folder}: expected a run that never heard the songs that are held out now, found one that was "
            f"trained on {len(known)} of them, {known[0]!r} among them. Start from a run on other songs."
        )
