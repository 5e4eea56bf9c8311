"""What batch normalisation does to a recurrent network: its accuracy and how it swings, with and without.

The study behind Segue found smoother curves and a higher accuracy with it. Here both networks learn synthetic songs at
a constant learning rate, as in the study, from several seeds. Figures go to --results, a picture to --picture, and both
are told of in --page.

Example:
    python -m segue.training.studies.norm_study
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from segue.atomic import atomic_file
from segue.command import run, to_json
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.provenance import Provenance, provenance
from segue.publish import write_block
from segue.training.fit.loop import LoopConfig
from segue.training.networks.layers import Norm
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.train_teacher import fit_to_labels

NORMS: tuple[Norm, ...] = ("batch", "none")
NAMES = {"batch": "BN-RNN", "none": "RNN without BN"}
COLOURS = {"batch": "#3b5bdb", "none": "#e8590c"}
VALIDATION_SHARE = 0.1
COMMAND = "python -m segue.training.studies.norm_study"
CONSTANT_RATE = LoopConfig(epochs=8, optimiser="adam", schedule="constant", learning_rate=3e-4)


@dataclass(frozen=True)
class Curves:
    """Validation accuracy of both networks, over epochs and seeds."""

    songs: int
    network: RecurrentConfig
    loop: LoopConfig
    accuracy: dict[str, list[list[float]]]  # By norm; (n_seeds, n_epochs).
    provenance: Provenance

    def __str__(self) -> str:
        rows = []
        for norm, curves in self.accuracy.items():
            final, swing = last_epochs(curves), swings(curves)
            rows.append((NAMES[norm], f"{final.mean():.3f} ± {final.std(ddof=1):.3f}", f"{100 * swing.mean():.2f}"))
        headers = ("", f"accuracy, mean and deviation of {len(self.accuracy['batch'])} seeds", "swing, points")
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def last_epochs(curves: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return the mean accuracy of the second half of the epochs for each seed, (n_seeds,)."""
    values = np.array(curves)
    mean: NDArray[np.float64] = values[:, values.shape[1] // 2 :].mean(axis=1)
    return mean


def swings(curves: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return the standard deviation of the steps between epochs of the second half, for each seed, (n_seeds,)."""
    values = np.array(curves)
    deviation: NDArray[np.float64] = np.diff(values[:, values.shape[1] // 2 :], axis=1).std(axis=1)
    return deviation


def norm_study(
    results: Path = Path("docs/results/norm_study.json"),
    picture: Path = Path("docs/norm-study.svg"),
    page: Path = Path("docs/norm-study.md"),
    songs: int = 20_000,
    seeds: int = 5,
    network: RecurrentConfig = RecurrentConfig(state=128),
    loop: LoopConfig = CONSTANT_RATE,
) -> Curves:
    """Train a recurrent network with and without batch normalisation from several seeds.

    Args:
        results: The JSON file to write.
        picture: The picture to write.
        page: The page whose table is written.
        songs: Synthetic songs; a tenth validates.
        seeds: Seeds of each network.
        network: Its shape, but for the norm.
        loop: The training settings, but for the seed.
    """
    accuracy: dict[str, list[list[float]]] = {norm: [] for norm in NORMS}
    with TemporaryDirectory() as folder:
        file = Path(folder, "songs.arrow")
        synth(file, songs)
        table = SongTable(file)
        validation, train = np.split(np.arange(songs), [round(VALIDATION_SHARE * songs)])
        for seed in range(seeds):
            for norm in NORMS:
                settings = replace(loop, seed=seed)
                _, fitted = fit_to_labels(
                    table, train, validation, replace(network, norm=norm), settings, f"{NAMES[norm]}, seed {seed}"
                )
                accuracy[norm].append([epoch.validation_accuracy for epoch in fitted.epochs])
    curves = Curves(songs, network, loop, accuracy, provenance())
    with atomic_file(results) as draft:
        draft.write_text(to_json(curves) + "\n")
    draw(curves, picture)
    write_block(page, COMMAND, str(curves))
    return curves


def draw(curves: Curves, picture: Path) -> None:
    """Draw every seed's accuracy over the epochs, and the mean of each network."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for norm, runs in curves.accuracy.items():
        epochs = np.arange(1, len(runs[0]) + 1)
        axes.plot(epochs, np.transpose(runs), color=COLOURS[norm], linewidth=0.8, alpha=0.4)
        axes.plot(epochs, np.mean(runs, axis=0), color=COLOURS[norm], linewidth=2.2, marker="o", label=NAMES[norm])
    axes.legend(frameon=False, loc="lower right")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on validation songs")
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(picture) as draft:
        figure.savefig(draft)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study."""
    return run(norm_study, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
