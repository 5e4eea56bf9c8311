"""Recipes: TOML files with a table for each stage of the chain, from songs to bundle.

`export/recipes/` has some to start from. Environment variables in paths are filled in.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import dacite

from segue.data.splits import Shares
from segue.data.synth import Difficulty
from segue.errors import ConfigError
from segue.export.calibration.thresholds import CalibrationConfig
from segue.export.export import WindowsConfig
from segue.export.forms import FormsConfig
from segue.export.retrain.gate import GateRules
from segue.serving.ladder import OnFallback
from segue.training.fit.loop import LoopConfig
from segue.training.fit.losses import DistillationConfig, LabelConfig
from segue.training.networks.build import SingleConfig, shapes
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.train_student import STUDENT_LOOP


@dataclass(frozen=True)
class SynthRecipe:
    """Synthetic songs; see `segue.data.synth`."""

    songs: int
    classes: int = 10
    seed: int = 0
    difficulty: Difficulty = Difficulty()


@dataclass(frozen=True)
class SongsRecipe:
    """Where a table of songs comes from: sources, as for `segue songs`, or synthesis."""

    sources: tuple[Path, ...] = ()
    labels: Path | None = None
    classes: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    parts: bool = False  # Split songs into consecutive parts of 120 segments, which become songs of their own.
    synth: SynthRecipe | None = None

    def __post_init__(self) -> None:
        """Refuse a table with two origins, or none."""
        if bool(self.sources) == bool(self.synth):
            raise ConfigError("a table of songs: expected either `sources` or a `synth` table, and not both")


@dataclass(frozen=True)
class MemberRecipe:
    """One of several teachers, which are joined where they pay; see `segue.training.join`."""

    network: SingleConfig = RecurrentConfig()
    loop: LoopConfig = LoopConfig()


@dataclass(frozen=True)
class TeacherRecipe:
    """The teacher; see `segue.training.train_teacher`."""

    members: tuple[MemberRecipe, ...] = ()  # Trained one by one; those that pay answer together. Empty: one teacher.
    folds: int = 4
    join_folds: bool = False
    unlabelled: bool = False
    split_seed: int = 0
    network: SingleConfig = RecurrentConfig()
    loop: LoopConfig = LoopConfig()
    labels: LabelConfig = LabelConfig()
    shares: Shares = Shares()

    def __post_init__(self) -> None:
        """Refuse members beside a teacher of its own, a single one, and some that cannot be chosen among."""
        if not self.members:
            return
        if (self.network, self.loop) != (RecurrentConfig(), LoopConfig()):
            raise ConfigError("teacher: expected either members or one network and loop, found both")
        if len(self.members) == 1 or not self.folds:
            raise ConfigError(
                "teacher.members: expected at least two, and folds that tell which of them pay, found "
                f"{len(self.members)} and {self.folds} folds"
            )

    def single(self, member: MemberRecipe) -> "TeacherRecipe":
        """Return what trains one of the members alone."""
        return replace(self, members=(), network=member.network, loop=member.loop)


@dataclass(frozen=True)
class StudentRecipe:
    """The student; see `segue.training.train_student`."""

    network: DenseConfig = DenseConfig()
    loop: LoopConfig = STUDENT_LOOP
    distillation: DistillationConfig = DistillationConfig()


@dataclass(frozen=True)
class ExportRecipe:
    """The bundle; see `segue.export.export`."""

    windows: WindowsConfig = WindowsConfig()
    forms: FormsConfig = FormsConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    rungs: tuple[str, ...] = ()  # Such as student:1, student:9, teacher:9. Empty: the student, then the teacher.
    on_fallback: OnFallback = "teacher"  # Whose answer stands of a song that went on: teacher, surer or mean.
    licence: str = "unspecified"


@dataclass(frozen=True)
class Recipe:
    """The whole chain."""

    workspace: Path  # Folder for the tables and runs.
    bundle: Path  # Folder for the bundle.
    songs: SongsRecipe
    validation: SongsRecipe | None = None  # Songs that pick epochs; without them a share of `songs` does.
    test: SongsRecipe | None = None  # Songs no stage but the last one sees; without it the bundle's own figures stand.
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    student: StudentRecipe = field(default_factory=StudentRecipe)
    export: ExportRecipe = field(default_factory=ExportRecipe)
    releases: str | None = None  # A release store: its latest is the champion, and what passes the gate is published.
    corrections: tuple[Path, ...] = ()  # Files of song id and genre that overrule the labels; the later ones win.
    gate: GateRules = GateRules()  # What a challenger must show where there is a champion.


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; an unknown key, a wrong type or an impossible value is a `ConfigError` that names it."""
    try:
        given = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a recipe, found no such file; `export/recipes/` has some") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    # What a hook leaves as it is, dacite refuses by the name of its key.
    hooks: dict[Any, Callable[[Any], Any]] = {
        Path: lambda value: Path(os.path.expandvars(value)).expanduser() if isinstance(value, str) else value,
        float: lambda value: float(value) if type(value) is int else value,
        tuple[Path, ...]: _as_tuple,
        tuple[str, ...]: _as_tuple,
        tuple[int, ...]: _as_tuple,
        tuple[MemberRecipe, ...]: _as_tuple,
    }
    config = dacite.Config(type_hooks=hooks, strict=True)
    # Of a union dacite only says that no member fits; the shape tells which one is meant, and what is wrong with it.
    hooks[get_type_hints(TeacherRecipe)["network"]] = lambda network: _network(network, config)
    try:
        recipe = dacite.from_dict(Recipe, given, config)
        store = recipe.releases  # No path: an address would lose a slash.
        return replace(recipe, releases=store and os.path.expanduser(os.path.expandvars(store)))  # noqa: PTH111
    except dacite.MissingValueError as error:
        raise ConfigError(
            f"{path}: expected a `{error.field_path}`, found none; `export/recipes/` has examples"
        ) from None
    except (dacite.DaciteError, ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _network(given: Any, config: dacite.Config) -> Any:
    """Return the network of a recipe: of the shape it names, else a recurrent one."""
    if not isinstance(given, dict):
        raise ConfigError(f"network: expected a table, found {given!r}")
    known = shapes()
    shape = given.get("shape", RecurrentConfig.shape)
    if shape not in known:
        raise ConfigError(f"network.shape: expected one of {', '.join(known)}, found {shape!r}")
    return dacite.from_dict(known[shape], given, config)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a TOML array as a tuple; a value alone is an array of one."""
    return tuple(value) if isinstance(value, list) else (value,)
