"""Rules of the cascade on the same songs: which songs go on to the teacher, and whose answer stands then.

A signal orders the songs by doubt: the student's cross-entropy `-log max p` (the cascade's), its entropy, the margin
between its two best classes, and a learned one, a cross-fitted logistic regression on the student's sorted
log-probabilities that predicts "teacher right, student wrong". For a song that fell back the teacher's answer stands
(the default), or the surer of the two (the original's rule), or that of the mean of both probabilities. What counts is
the accuracy over the whole dial, since a rule that wins at one threshold is of little use.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from segue.data.metrics import TINY, Probs, cross_entropy_nats, softmax
from segue.data.song import Bools, Floats, Ints
from segue.export.calibration.temperature import fit_temperature
from segue.training.fit.loop import LoopConfig, fit
from segue.training.fit.losses import LabelConfig, LabelLoss, Targets
from segue.training.networks.build import SingleConfig, build
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise
from segue.training.studies.study import Bench, Cell, Claim, Outcome, Scale, Study, grid

Doubles = NDArray[np.float64]

SIGNALS = ("-log max p", "entropy", "margin", "learned")
FALLBACKS = ("teacher", "surer of the two", "mean of the two")
RATES = (0.2, 0.5, 1.0)  # Fallback rates that the accuracy is stated at.
FOLDS = 5


@dataclass(frozen=True)
class RuleFit:
    """One rule of the cascade of a student and a teacher that learnt the training songs."""

    student: SingleConfig
    student_loop: LoopConfig
    teacher: SingleConfig
    teacher_loop: LoopConfig
    signal: str
    fallback: str

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Train both, once for all rules, and turn the dial by this one."""
        labels = bench.songs.labels[bench.validation]
        student = probs_of(bench, self.student, self.student_loop, seed)
        teacher = probs_of(bench, self.teacher, self.teacher_loop, seed)
        student_right, teacher_right = (probs.argmax(axis=1) == labels for probs in (student, teacher))
        artists = [bench.songs.groups[row] or bench.songs.song_ids[row] for row in bench.validation]
        signals = signals_of(student, teacher_right & ~student_right, np.unique(artists, return_inverse=True)[1])
        surer = cross_entropy_nats(teacher) < cross_entropy_nats(student)
        fallen_right = {
            FALLBACKS[0]: teacher_right,
            FALLBACKS[1]: np.where(surer, teacher_right, student_right),
            FALLBACKS[2]: (student + teacher).argmax(axis=1) == labels,
        }[self.fallback]
        curve = dial(signals[self.signal], student_right, fallen_right)
        figures = {f"accuracy at {rate:.0%}": float(curve[round(rate * len(labels))]) for rate in RATES}
        figures |= {"student": float(student_right.mean()), "teacher": float(teacher_right.mean())}
        return Outcome(float((curve[1:] + curve[:-1]).mean() / 2), figures=figures)


def probs_of(bench: Bench, config: SingleConfig, loop: LoopConfig, seed: int) -> Probs:
    """Return the probabilities (n, n_classes) of the validation songs by a network that learnt from the others.

    Its temperature is fitted on these very songs: one number, the same for every rule.
    """
    table, rows = bench.songs, bench.train

    def make() -> Floats:
        torch.manual_seed(seed)
        network = build(config, len(table.classes), Standardise.of(table, rows))
        labels = table.labels[rows]
        loss = LabelLoss(LabelConfig(), labels, len(table.classes))
        return fit(
            network, table, rows=rows, targets=Targets(torch.from_numpy(labels)), loss=loss,
            validation_rows=bench.validation, config=replace(loop, seed=seed), name=config.shape,
            execution=bench.execution,
        ).validation_logits  # fmt: skip

    logits = bench.array("cascade", [config, loop, seed], make)
    return softmax(logits, fit_temperature(logits, table.labels[bench.validation]))


def dial(signal: Doubles, student_right: Bools, fallen_right: Bools) -> Doubles:
    """Return the accuracy of the cascade with 0, 1, .. n songs fallen back, (n + 1,), the most doubtful first.

    Args:
        signal: (n,) doubt about each song.
        student_right: (n,) where the student is right.
        fallen_right: (n,) where the cascade is right about a song that fell back.
    """
    order = np.argsort(-signal, kind="stable")
    gains = fallen_right[order].astype(float) - student_right[order]
    curve: Doubles = (student_right.sum() + np.concatenate([[0.0], np.cumsum(gains)])) / len(signal)
    return curve


def signals_of(student_probs: Probs, gains: Bools, groups: Ints) -> dict[str, Doubles]:
    """Return every signal, (n,), larger where the student is in more doubt.

    Args:
        student_probs: (n, n_classes).
        gains: (n,) where the teacher is right and the student wrong; the learned signal predicts it, each song by a
            regression that saw neither it nor another song of its artist.
        groups: (n,) the artists.
    """
    log_probs = np.log(np.maximum(student_probs, TINY))
    ordered = -np.sort(-log_probs, axis=1)
    learned = np.zeros(len(gains))
    if gains.sum() >= FOLDS:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        for fit_on, predict_on in folds.split(ordered, gains, groups):
            if len(np.unique(gains[fit_on])) == 2:
                regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
                learned[predict_on] = regression.fit(ordered[fit_on], gains[fit_on]).decision_function(
                    ordered[predict_on]
                )
    return {
        "-log max p": -ordered[:, 0],
        "entropy": -(student_probs * log_probs).sum(axis=1),
        "margin": np.diff(np.exp(ordered[:, :2]), axis=1)[:, 0],
        "learned": learned,
    }


def cells(scale: Scale) -> list[Cell]:
    """Return every rule; the first seed of the first trains the networks that all others find trained."""
    student, teacher = scale.network(DenseConfig(look="flat", hidden=(256,))), scale.network(RecurrentConfig(state=256))
    loops = scale.loop(LoopConfig(epochs=12, learning_rate=2e-3)), scale.loop(LoopConfig(epochs=10))
    fits = {
        f"{signal}; {fallback}": RuleFit(student, loops[0], teacher, loops[1], signal, fallback)
        for fallback in FALLBACKS
        for signal in SIGNALS
    }
    found = grid(scale, fits)
    return [replace(cell, wave=int(cell.setting != found[0].setting)) for cell in found]


STUDY = Study(
    title="Rules of the cascade",
    varies="the signal that orders songs by doubt, and whose answer stands for a song that fell back",
    fixed="a flat student of 256 and a BN-RNN of 256 on the same songs; accuracy averaged over all fallback rates",
    original="left open: send a song to the teacher above a threshold of the student's cross-entropy, keep the surer "
    "answer. Earlier here: no rule better than -log max p with the teacher's answer (docs/rules.md)",
    cells=cells,
    claims=(
        Claim("-log max p; surer of the two", "-log max p; teacher", "The surer answer is better than the teacher's"),
        Claim("-log max p; mean of the two", "-log max p; teacher", "The mean of both is better than the teacher's"),
        Claim("margin; teacher", "-log max p; teacher", "The margin is a better signal"),
        Claim("learned; teacher", "-log max p; teacher", "A learned signal is better"),
    ),
    pictures=("bars",),
)
