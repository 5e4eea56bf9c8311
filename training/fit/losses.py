"""What a network learns from: labels, or a teacher's logits, or both."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segue.data.song import Ints
from segue.data.table import NO_LABEL
from segue.errors import ConfigError

Matching = Literal["mse", "kl"]


class Targets(NamedTuple):
    """What is known of some songs."""

    labels: Tensor  # (n,), -1 where a song has none.
    teacher_logits: Tensor | None = None  # (n, n_classes), by teachers that never saw the song.

    def of(self, rows: Tensor) -> "Targets":
        """Return what is known of the given songs."""
        return Targets(self.labels[rows], None if self.teacher_logits is None else self.teacher_logits[rows])

    def to(self, device: torch.device) -> "Targets":
        """Return the same on another device."""
        teacher_logits = self.teacher_logits
        return Targets(self.labels.to(device), None if teacher_logits is None else teacher_logits.to(device))


class Loss(Protocol):
    """A number to make small."""

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the loss of logits (n, n_classes)."""


@dataclass(frozen=True)
class LabelConfig:
    """How a network learns from labels."""

    label_smoothing: float = 0.0  # Share of each label given to all classes alike, so that answers are less sure of it.
    class_weighting: float = 0.0  # 0: every song weighs the same; 1: every class does, however few songs it has.

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name}: expected a share between 0 and 1, found {share}")


class LabelLoss:
    """Cross-entropy with the labels; a song without one does not count."""

    def __init__(self, config: LabelConfig, labels: Ints, n_classes: int) -> None:
        """Make the loss for training songs with the given labels."""
        self._smoothing = config.label_smoothing
        self._weights = class_weights(labels, n_classes, config.class_weighting) if config.class_weighting else None

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean cross-entropy over the songs of a batch that have a label; 0 where none has one."""
        if self._weights is None and not self._smoothing:
            wrong = functional.cross_entropy(logits, targets.labels, ignore_index=NO_LABEL, reduction="sum")
            return wrong / (targets.labels != NO_LABEL).sum().clamp(min=1)
        # What torch does, which reads a number back from the GPU in between: no graph can hold that.
        n_classes = logits.shape[1]
        if self._weights is None:
            self._weights = torch.ones(n_classes)
        weights = self._weights = self._weights.to(logits)
        known, labels = targets.labels != NO_LABEL, targets.labels.clamp(min=0)
        log_probs = logits.log_softmax(dim=1)
        of_labels = weights[labels] * known
        wrong = -(log_probs.gather(1, labels[:, None])[:, 0] * of_labels).sum()
        spread = -((log_probs @ weights) * known).sum() / n_classes
        return ((1 - self._smoothing) * wrong + self._smoothing * spread) / torch.where(
            known.any(), of_labels.sum(), 1.0
        )


def class_weights(labels: Ints, n_classes: int, exponent: float) -> Tensor:
    """Return a weight for each class, (n_classes,), that falls with its songs to the power of `exponent`.

    Their mean over the songs is 1, so that the learning rate keeps its meaning.
    """
    counts = np.bincount(labels[labels != NO_LABEL], minlength=n_classes)
    weights = np.power(np.maximum(counts, 1), -exponent)
    return torch.from_numpy(weights * counts.sum() / (weights @ counts)).float()


@dataclass(frozen=True)
class DistillationConfig:
    """How a student learns from its teacher."""

    match: Matching = "mse"  # Come close to the teacher's logits (mean squared error) or to its probabilities (KL).
    match_temperature: float = 2.0  # kl: above 1, unlikely classes count for more (Hinton et al. 2015).
    label_weight: float = 0.0  # Share of the true label in what is learnt; the rest is the teacher's predictions.
    class_weighting: float = 0.0  # Of the labels. 0: every song weighs the same; 1: every class does.

    def __post_init__(self) -> None:
        """Refuse what cannot be learnt from."""
        if not self.match_temperature > 0:
            raise ConfigError(f"match_temperature: expected a number above 0, found {self.match_temperature}")
        for name in ("label_weight", "class_weighting"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ConfigError(f"{name}: expected a share between 0 and 1, found {share}")


class DistillationLoss:
    """Distance from a teacher's logits, and from the labels where they have a weight."""

    def __init__(self, config: DistillationConfig, labels: Ints, n_classes: int) -> None:
        """Make the loss for training songs with the given labels; -1 where a song has none."""
        self._config = config
        self._label_loss = LabelLoss(LabelConfig(class_weighting=config.class_weighting), labels, n_classes)

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the loss of a student's logits (n, n_classes)."""
        config = self._config
        assert targets.teacher_logits is not None
        if config.match == "mse":
            loss = mse_of_logits(logits, targets.teacher_logits)
        else:
            loss = kl_of_probs(logits, targets.teacher_logits, config.match_temperature)
        if config.label_weight:
            loss = (1 - config.label_weight) * loss + config.label_weight * self._label_loss(logits, targets)
        return loss


def mse_of_logits(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the mean squared difference of logits (n, n_classes).

    Ba and Caruana, *Do Deep Nets Really Need to be Deep?*, NIPS 2014.
    """
    return functional.mse_loss(student_logits, teacher_logits)


def kl_of_probs(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return temperature squared times the KL divergence of the student's distribution from the teacher's.

    Both are taken at that temperature. Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015.
    """
    student = (student_logits / temperature).log_softmax(dim=1)
    teacher = (teacher_logits / temperature).log_softmax(dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
