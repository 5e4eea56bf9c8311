"""Join teachers: several networks, of any shapes, that answer as one by the mean of their log-probabilities.

The runs must have been trained on the same songs with the same split, `--split-seed` and `--folds`; their held-out
logits are averaged too, so that a student can be distilled from all of them at once. With `--choose` only those are
joined that pay, by what their fold teachers said of songs that they never saw.

Example:
    segue join artifacts/rnn artifacts/convolutional --out artifacts/teacher
    segue join artifacts/rnn artifacts/convolutional artifacts/dense --choose --out artifacts/teacher
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from segue.atomic import atomic_folder
from segue.command import run
from segue.data.metrics import log_softmax
from segue.data.song import Floats
from segue.errors import RunError
from segue.places import check_folder
from segue.training.fit.journal import RECORD
from segue.training.fit.selection import as_measured, select
from segue.training.networks.build import Config, EnsembleConfig, SingleConfig
from segue.training.networks.ensemble import Ensemble
from segue.training.networks.network import Network
from segue.training.runs import (
    HeldOut,
    Run,
    describe,
    load_held_out,
    load_run,
    load_splits,
    open_songs_of,
    save_held_out,
    save_run,
)
from segue.training.train_teacher import TrainedTeacher


def join(
    runs: Positional[tuple[Path, ...]], out: Path, songs: Path | None = None, choose: bool = False
) -> TrainedTeacher:
    """Join teachers.

    Args:
        runs: The run folders of the teachers.
        out: The run folder to write.
        songs: The song table they were trained on, if that has moved.
        choose: Join only the teachers that pay: the best alone, and each that makes the answers to held-out songs surer
            beyond chance. They need fold teachers (--folds).
    """
    started = time.perf_counter()
    if len(runs) < 2:
        raise RunError(f"expected at least two teacher runs to join, found {len(runs)}")
    loaded = [load_run(folder, "teacher") for folder in runs]
    first = loaded[0][0]
    table = open_songs_of(first, songs)
    splits = load_splits(runs[0], first, table)
    for folder, (record, _) in zip(runs, loaded, strict=True):
        own = load_splits(folder, record, table)
        if any(not np.array_equal(rows, vars(splits)[name]) for name, rows in vars(own).items()):
            raise RunError(
                f"{folder}: expected the split of {runs[0]}, found another; train both with one --split-seed"
            )
        if record.loop.windows != first.loop.windows:
            raise RunError(
                f"{folder}: expected {first.loop.windows} windows a song as in {runs[0]}, found {record.loop.windows}"
            )
    check_folder(out, RECORD, [*runs, songs or Path(first.songs)])
    chosen: tuple[str, ...] = ()
    if choose:
        labels = table.labels[splits.train]
        found = select([load_held_out(run).logits for run in runs], labels, as_measured(table.labels, splits))
        chosen = tuple(f"{run.name}: {reason}" for run, reason in zip(runs, found.reasons, strict=True))
        runs, loaded = tuple(runs[one] for one in found.members), [loaded[one] for one in found.members]
    configs, networks = _members(loaded)
    config: Config
    teacher: Network
    config, teacher = EnsembleConfig(tuple(configs)), Ensemble(networks)
    if len(networks) == 1:
        config, teacher = configs[0], networks[0]
    held_out = _held_out(runs) if all(record.held_out_accuracy is not None for record, _ in loaded) else None
    joined = describe("teacher", config, first.loop, table, splits, teacher, held_out, chosen=chosen)
    with atomic_folder(out, RECORD) as folder:
        save_run(folder, joined, teacher, table, splits)
        if held_out is not None:
            save_held_out(folder, held_out)
    seconds = time.perf_counter() - started
    return TrainedTeacher(
        out, joined.split_songs, joined.validation_accuracy, joined.held_out_accuracy, seconds, chosen=chosen
    )


def _members(loaded: Sequence[tuple[Run, Network]]) -> tuple[list[SingleConfig], list[Network]]:
    """Return the configs and networks of the runs; the members of one that is joined already join on their own."""
    configs: list[SingleConfig] = []
    networks: list[Network] = []
    for record, network in loaded:
        if isinstance(record.network, EnsembleConfig) and isinstance(network, Ensemble):
            configs += record.network.members
            networks += network.networks()
        elif not isinstance(record.network, EnsembleConfig):
            configs.append(record.network)
            networks.append(network)
    return configs, networks


def _held_out(runs: Sequence[Path]) -> HeldOut:
    """Return the mean log-probabilities of what the fold teachers of all runs said."""
    said = [load_held_out(folder) for folder in runs]
    shapes = {(one.logits.shape, one.unlabelled.shape) for one in said}
    if len(shapes) > 1:
        raise RunError("expected held-out logits of the same songs in all runs; train all with --unlabelled, or none")
    return HeldOut(_mean([one.logits for one in said]), _mean([one.unlabelled for one in said]))


def _mean(logits: Sequence[Floats]) -> Floats:
    mean: Floats = np.stack([log_softmax(one) if len(one) else one for one in logits]).mean(axis=0).astype(np.float32)
    return mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue join`."""
    return run(join, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
