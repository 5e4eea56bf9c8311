"""The journal of a training run: a checkpoint and a line of metrics after every epoch, for going on and for looking at.

While a run trains, its journal lies beside the run folder to be, as `NAME.training/`:

- settings.json: what the run was started with; it only goes on with the same
- checkpoints/FIT.safetensors: weights, best weights and optimiser after the last epoch, the epochs as JSON; no pickle
- metrics/FIT.jsonl: a line of JSON an epoch
- tensorboard/FIT/: the same for TensorBoard, with --tensorboard

When the run is done, metrics move into the run folder and the rest is removed.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segue.atomic import atomic_file, check_place
from segue.command import to_json
from segue.errors import ConfigError, MissingDependencyError, RunError

log = logging.getLogger(__name__)

RECORD = "run.json"  # The file that makes a folder a run.
SETTINGS, CHECKPOINTS, METRICS, TENSORBOARD = "settings.json", "checkpoints", "metrics", "tensorboard"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training songs came to."""

    epoch: int
    train_loss: float
    train_accuracy: float | None  # Of the labelled songs, as they were learnt from; None where none has a label.
    validation_accuracy: float
    validation_nll: float
    learning_rate: float  # In the last step.
    songs_per_s: float


@dataclass(frozen=True)
class Checkpoint:
    """What a fit needs to go on after an epoch."""

    epochs: list[Epoch]
    network: Tensors
    best: Tensors  # The network's weights in the best epoch.
    optimiser: Tensors


class Journal:
    """Where a training run keeps its checkpoints and metrics while it lasts."""

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        """Keep them in `folder`, which exists."""
        self.folder = folder
        self._tensorboard = tensorboard

    @classmethod
    def open(cls, out: Path, settings: Mapping[str, Any], *, resume: bool, tensorboard: bool) -> Self:
        """Begin the journal of the run folder `out`, or go on with it.

        Args:
            out: the run folder to be.
            settings: everything that the result depends on, dataclasses among it.
            resume: go on with the journal that is there.
            tensorboard: write metrics for TensorBoard too.

        Raises:
            RunError: there is nothing to go on with, or it was started with other settings.
            ConfigError: something other than a run is at `out`, and would be lost.
            MissingDependencyError: metrics for TensorBoard are asked for, and it is not installed.
        """
        check_place(out, RECORD)
        if tensorboard:
            _summary_writer()
        folder = out.with_name(f"{out.name}.training")
        plain = json.loads(to_json(settings))
        if resume:
            _check_same(folder, plain)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            for part in (CHECKPOINTS, METRICS):
                (folder / part).mkdir(parents=True)
            with atomic_file(folder / SETTINGS) as draft:
                draft.write_text(json.dumps(plain, indent=2))
        return cls(folder, tensorboard=tensorboard)

    def load(self, fit: str) -> Checkpoint | None:
        """Return the last checkpoint of a fit; None where it has not come to the end of an epoch yet."""
        file = self._checkpoint(fit)
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
                epochs = [Epoch(**epoch) for epoch in json.loads(content.metadata()["epochs"])]
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise RunError(
                f"{file}: the checkpoint cannot be read, it may be cut short: {error}. "
                "Remove it to train this part anew; the others are kept."
            ) from None
        return Checkpoint(epochs, *(_under(prefix, tensors) for prefix in ("network.", "best.", "optimiser.")))

    def save(self, fit: str, checkpoint: Checkpoint) -> None:
        """Let a checkpoint of a fit take the place of the one before, and write its metrics."""
        tensors = {
            f"{part}.{name}": tensor.contiguous()
            for part in ("network", "best", "optimiser")
            for name, tensor in getattr(checkpoint, part).items()
        }
        epochs = [asdict(epoch) for epoch in checkpoint.epochs]
        file = self._checkpoint(fit)
        # The checkpoint comes last: killed in between, the run goes on with this epoch and writes its metrics again.
        with telling_why(file.parent):
            with atomic_file(self.folder / METRICS / f"{fit}.jsonl") as draft:
                draft.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
            with atomic_file(file) as draft:
                save_file(tensors, draft, metadata={"epochs": json.dumps(epochs)})
        if self._tensorboard:
            self._write_scalars(fit, checkpoint.epochs[-1])

    def hand_over(self, run: Path) -> None:
        """Copy the metrics into the folder of a finished run."""
        for part in (METRICS, TENSORBOARD):
            if (self.folder / part).is_dir():
                # Hidden is what a process was writing when it was killed.
                shutil.copytree(self.folder / part, run / part, ignore=shutil.ignore_patterns(".*"))

    def _checkpoint(self, fit: str) -> Path:
        return self.folder / CHECKPOINTS / f"{fit}.safetensors"

    def _write_scalars(self, fit: str, epoch: Epoch) -> None:
        with _summary_writer()(str(self.folder / TENSORBOARD / fit)) as writer:
            for name, value in asdict(epoch).items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, epoch.epoch)


@contextmanager
def journal(out: Path, settings: Mapping[str, Any], *, resume: bool, tensorboard: bool) -> Iterator[Journal]:
    """Open the journal of a run while the block lasts; it is removed when the block ends well, and kept otherwise."""
    opened = Journal.open(out, settings, resume=resume, tensorboard=tensorboard)
    try:
        yield opened
    except BaseException:
        if any((opened.folder / CHECKPOINTS).iterdir()):
            log.info("every epoch that was finished is in %s/; the same command with --resume goes on", opened.folder)
        raise
    shutil.rmtree(opened.folder)


def load_metrics(run: Path) -> dict[str, list[Epoch]]:
    """Return the epochs of each fit of a run folder, the network itself first; none where it was not trained here."""
    found = {}
    for file in (run / METRICS).glob("*.jsonl"):
        try:
            found[file.stem] = [Epoch(**json.loads(line)) for line in file.read_text().splitlines()]
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{file}: expected a line of JSON an epoch, found something else: {error}") from None
        if not found[file.stem]:
            raise RunError(f"{file}: expected a line of JSON an epoch, found an empty file")
    # fold-2 comes before fold-10, and teacher or student before both.
    return dict(sorted(found.items(), key=lambda one: (one[0].startswith("fold-"), len(one[0]), one[0])))


@contextmanager
def telling_why(place: Path) -> Iterator[None]:
    """Turn what goes wrong when files are written into `place`, no space left say, into a `RunError` that names it."""
    try:
        yield
    except (OSError, ConfigError, SafetensorError) as error:
        raise RunError(f"{place}: cannot be written to: {error}") from None


def _summary_writer() -> Any:
    """Return the class that writes metrics for TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingDependencyError(
            "tensorboard is not installed: `pip install 'segue-genres[tensorboard]'`"
        ) from None
    return SummaryWriter


def _check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a journal that is not there, or was begun with other settings."""
    try:
        found = json.loads((folder / SETTINGS).read_text())
    except FileNotFoundError:
        raise RunError(
            f"{folder}: expected a run to go on with, found none. Leave --resume out to begin one."
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / SETTINGS}: cannot be read: {error}. Leave --resume out to begin anew.") from None
    if not isinstance(found, dict):
        raise RunError(f"{folder / SETTINGS}: expected settings, found {found}. Leave --resume out to begin anew.")
    other = [name for name in settings if found.get(name) != settings[name]]
    if other:
        told = "; ".join(f"{name} was {found.get(name)}, and is {settings[name]}" for name in other)
        raise RunError(f"{folder}: expected the settings that the run was started with, found others: {told}")


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
