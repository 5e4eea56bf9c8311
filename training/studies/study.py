"""What a study is: cells to run, what the original found, and what its own cells say about that.

A study is one module with a `STUDY`. Its cells are fits, each of a setting and a seed; a fit is a frozen dataclass that
runs on some songs and returns an `Outcome`. How to add a study: docs/contributing/studies.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from pydantic import TypeAdapter

from segue.atomic import atomic_file
from segue.data.song import Floats, Ints
from segue.data.table import SongTable
from segue.stages import key
from segue.training.fit.execution import Execution
from segue.training.fit.journal import Epoch
from segue.training.fit.loop import LoopConfig
from segue.training.networks.build import SingleConfig
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig

Picture = Literal["curves", "bars", "boxes", "convergence"]
Thing = TypeVar("Thing")
QUICK_NEURONS, QUICK_EPOCHS = 32, 2


@dataclass(frozen=True)
class Scale:
    """How large a study is run."""

    seeds: int
    n_classes: int
    n_train: int  # Training songs.
    quick: bool = False  # Few epochs, small layers and fewer settings: shows that a study runs, and finds nothing.
    epochs: int | None = None  # In place of those of the study.

    def loop(self, loop: LoopConfig) -> LoopConfig:
        """Return a training of the study at this scale."""
        if loop.cycles:
            wanted = self.epochs or (QUICK_EPOCHS if self.quick else loop.n_epochs)
            return replace(loop, half_cycle_epochs=max(wanted // (2 * loop.cycles), 1))
        return replace(loop, epochs=self.epochs or (min(loop.epochs, QUICK_EPOCHS) if self.quick else loop.epochs))

    def network(self, config: SingleConfig) -> SingleConfig:
        """Return a network of the study at this scale."""
        if not self.quick:
            return config
        hidden = tuple(min(neurons, QUICK_NEURONS) for neurons in config.hidden) if hasattr(config, "hidden") else ()
        if isinstance(config, RecurrentConfig):
            return replace(config, hidden=hidden, state=min(config.state, QUICK_NEURONS))
        if isinstance(config, ConvolutionalConfig):
            return replace(config, hidden=hidden, channels=tuple(min(n, QUICK_NEURONS) for n in config.channels))
        return replace(config, hidden=hidden) if isinstance(config, DenseConfig) else config

    def some(self, settings: Sequence[Thing], few: int = 3) -> list[Thing]:
        """Return all settings, or a few of them, the first and the last among them, where it has to be quick."""
        if not self.quick or len(settings) <= few:
            return list(settings)
        return [settings[at] for at in np.linspace(0, len(settings) - 1, few).round().astype(int)]


@dataclass(frozen=True)
class Bench:
    """What a fit runs on: songs, and a folder for arrays that several cells need."""

    songs: SongTable
    train: Ints  # Rows.
    validation: Ints
    folder: Path
    execution: Execution = Execution(device="cpu")

    def array(self, name: str, settings: object, make: Callable[[], Floats]) -> Floats:
        """Return what `make` returns, from the folder if it was made from these `settings` before."""
        songs = {"songs": self.songs.fingerprint(), "train": self.train.tolist()}
        file = self.folder / f"{name}-{key([describe(settings), songs])[:16]}.npy"
        if not file.is_file():
            made = make()
            with atomic_file(file) as draft, draft.open("wb") as opened:
                np.save(opened, made)
        found: Floats = np.load(file)
        return found


@dataclass(frozen=True)
class Trial:
    """One call of a search."""

    values: dict[str, float]
    objective: float
    accuracy: float  # The best of its epochs.


@dataclass(frozen=True)
class Outcome:
    """What a cell came to."""

    accuracy: float  # On validation songs: the figure that settings are compared by.
    epochs: list[Epoch] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)  # More figures, by name.
    trials: list[Trial] = field(default_factory=list)  # Of a search.
    notes: list[str] = field(default_factory=list)  # What else is to be told.

    def __str__(self) -> str:
        return f"accuracy {self.accuracy:.3f}"


class Fit(Protocol):
    """Work on some songs; a frozen dataclass, its fields the settings."""

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Do the work."""


@dataclass(frozen=True)
class Cell:
    """One setting from one seed."""

    setting: str
    seed: int
    fit: Fit
    wave: int = 0  # Cells of a wave begin when those of the waves before are done, whose arrays they need.


_OUTCOME = TypeAdapter(Outcome)


def outcome_from(kept: Any) -> Outcome:
    """Return the outcome that JSON gives back."""
    return _OUTCOME.validate_python(kept)


def describe(settings: Any) -> Any:
    """Return settings as JSON can hold them; functions by their names."""
    if is_dataclass(settings) and not isinstance(settings, type):
        return {one.name: describe(getattr(settings, one.name)) for one in fields(settings)}
    if isinstance(settings, Mapping):
        return {str(name): describe(value) for name, value in settings.items()}
    if isinstance(settings, tuple | list):
        return [describe(value) for value in settings]
    return f"{settings.__module__}.{settings.__qualname__}" if callable(settings) else settings


def grid(scale: Scale, settings: Mapping[str, Fit], wave: int = 0) -> list[Cell]:
    """Return a cell for each setting and seed."""
    return [Cell(name, seed, fit, wave) for name, fit in settings.items() for seed in range(scale.seeds)]


@dataclass(frozen=True)
class Claim:
    """A finding of the original that two settings decide: the first is ahead of the second."""

    ahead: str
    behind: str
    says: str  # As a sentence.


@dataclass(frozen=True)
class Found:
    """What was found: the outcomes of each setting, from seed to seed."""

    study: str
    songs: str  # Path.
    n_train: int
    n_validation: int
    majority: float  # Share of the most frequent class among the validation songs: what knowing nothing else gets.
    scale: Scale
    outcomes: dict[str, list[Outcome]]

    def accuracies(self, setting: str) -> list[float]:
        """Return the accuracy of a setting for each seed."""
        return [outcome.accuracy for outcome in self.outcomes[setting]]

    def best(self) -> str:
        """Return the setting of the highest mean accuracy."""
        return max(self.outcomes, key=lambda setting: float(np.mean(self.accuracies(setting))))

    def each(self) -> Iterator[tuple[str, Outcome]]:
        """Yield every outcome with its setting."""
        for setting, outcomes in self.outcomes.items():
            for outcome in outcomes:
                yield setting, outcome


@dataclass(frozen=True)
class Study:
    """A study: what it asks, what it runs, what the original found."""

    title: str
    varies: str
    fixed: str
    original: str  # What the original found; empty where there is none.
    cells: Callable[[Scale], list[Cell]]
    claims: tuple[Claim, ...] = ()
    words: Callable[[Found], list[str]] | None = None  # Verdicts that no pair of settings decides.
    pictures: tuple[Picture, ...] = ("curves", "bars")
    least_segments: int = 120  # Shorter songs are left out.
    needs_artists: bool = False
    seeds: int = 3
