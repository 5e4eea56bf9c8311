"""How flat student, pooled student and BN-RNN teacher fare on the synthetic songs, over the size of the training set.

All three learn from labels alone, so that the curve tells about the songs and not about distillation. Writes the
figures, and draws them.

Example:
    python -m segue.training.studies.synthetic_curve docs/results/synthetic_songs.json docs/synthetic-songs.svg
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from tyro.conf import Positional

from segue.command import run
from segue.data.metrics import accuracy
from segue.data.synth import Difficulty, synth
from segue.data.table import SongTable
from segue.provenance import Provenance, provenance
from segue.training.fit.loop import LoopConfig, predict
from segue.training.networks.build import SingleConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.train_teacher import fit_to_labels

log = logging.getLogger(__name__)

STUDENT_LOOP = LoopConfig(epochs=15, learning_rate=2e-3)
MODELS: dict[str, tuple[SingleConfig, LoopConfig]] = {
    "pooled student": (DenseConfig(), STUDENT_LOOP),
    "BN-RNN teacher": (RecurrentConfig(), LoopConfig(epochs=15)),
    "flat student": (DenseConfig(look="flat", hidden=(828,), input_dropout=0.5, hidden_dropout=0.5), STUDENT_LOOP),
}
WORTH_A_CASCADE = 0.05
COLOURS = {"pooled student": "#4c9f70", "BN-RNN teacher": "#3b5bdb", "flat student": "#e8590c"}


@dataclass(frozen=True)
class Curve:
    """Accuracy of each model on unseen songs, by training songs."""

    train_songs: tuple[int, ...]
    test_songs: int
    accuracy: dict[str, list[float]]
    difficulty: Difficulty
    provenance: Provenance

    def __str__(self) -> str:
        rows = [
            f"  {n:>6}  " + "  ".join(f"{name} {self.accuracy[name][i]:.3f}" for name in self.accuracy)
            for i, n in enumerate(self.train_songs)
        ]
        return "\n".join(["training songs and accuracy on unseen songs:", *rows])


def synthetic_curve(
    results: Positional[Path],
    picture: Positional[Path],
    train_songs: tuple[int, ...] = (1000, 2000, 4000, 8000, 16000),
    test_songs: int = 4000,
) -> Curve:
    """Measure and draw accuracy over training-set size.

    Args:
        results: The JSON file to write.
        picture: The picture to write.
        train_songs: The sizes of the training set.
        test_songs: Unseen songs that the accuracy is measured on.
    """
    measured: dict[str, list[float]] = {name: [] for name in MODELS}
    with TemporaryDirectory() as folder:
        songs_file, test_file = Path(folder, "songs.arrow"), Path(folder, "test.arrow")
        synth(songs_file, max(train_songs) + max(train_songs) // 10, seed=0)
        synth(test_file, test_songs, seed=1)
        songs, test = SongTable(songs_file), SongTable(test_file)
        for n in train_songs:
            rows, validation_rows = np.arange(n), np.arange(max(train_songs), len(songs))
            for name, (config, loop) in MODELS.items():
                network, _ = fit_to_labels(songs, rows, validation_rows, config, loop, f"{name}, {n} songs")
                measured[name].append(
                    accuracy(predict(network, test, np.arange(test_songs), loop.windows), test.labels)
                )
                log.info("%s, %d songs: %.3f", name, n, measured[name][-1])
    curve = Curve(train_songs, test_songs, measured, Difficulty(), provenance())
    picture.parent.mkdir(parents=True, exist_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(asdict(curve), indent=2) + "\n")
    draw(curve, picture)
    return curve


def draw(curve: Curve, picture: Path) -> None:
    """Draw the accuracy of each model over the size of the training set."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    ceiling = 1 - curve.difficulty.label_noise * 0.9
    axes.axhline(ceiling, color="0.6", linestyle=":", linewidth=1)
    axes.annotate("best possible (label noise)", (curve.train_songs[0], ceiling), color="0.5", fontsize=9, va="bottom")
    for name, values in curve.accuracy.items():
        axes.plot(curve.train_songs, values, marker="o", color=COLOURS[name], label=name)
    teacher, flat = curve.accuracy["BN-RNN teacher"], curve.accuracy["flat student"]
    wide = [ahead - behind >= WORTH_A_CASCADE for ahead, behind in zip(teacher, flat, strict=True)]
    axes.fill_between(curve.train_songs, flat, teacher, where=wide, color=COLOURS["BN-RNN teacher"], alpha=0.08,
                      label="teacher ahead by 5 points or more")  # fmt: skip
    axes.legend(frameon=False, loc="lower right")
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.train_songs, [f"{n:,}" for n in curve.train_songs])
    axes.set_ylim(0, 1)
    axes.set_xlabel("training songs")
    axes.set_ylabel(f"accuracy on {curve.test_songs:,} unseen songs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    return run(synthetic_curve, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
