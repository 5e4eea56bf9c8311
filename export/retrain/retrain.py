"""Run the whole chain from a recipe: songs, teacher, student, export, evaluation.

A recipe is a TOML file with a table for each stage; `export/recipes/` has some to start from. Every stage leaves its
result in the workspace, with a note of the settings and inputs it was made from. A stage whose inputs and settings are
unchanged is skipped, so a stopped run goes on where it was. Environment variables in paths are filled in.

Example:
    segue retrain export/recipes/synthetic.toml
"""

import dataclasses
import hashlib
import json
import logging
import os
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import dacite
from tyro.conf import Positional

from segue.atomic import atomic_file, check_place
from segue.command import run, to_json
from segue.data.songs import songs as convert_songs
from segue.data.splits import Shares
from segue.data.synth import Difficulty, synth
from segue.errors import ConfigError
from segue.export.calibration.thresholds import CalibrationConfig
from segue.export.export import WindowsConfig, export
from segue.export.forms import FormsConfig
from segue.serving.bundle.bundle import MANIFEST, Evaluation, load_bundle
from segue.serving.evaluate import evaluate, tradeoff_text
from segue.training.fit.loop import LoopConfig
from segue.training.fit.losses import DistillationConfig, LabelConfig
from segue.training.networks.build import SingleConfig
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.train_student import STUDENT_LOOP, train_student
from segue.training.train_teacher import train_teacher

log = logging.getLogger(__name__)


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
    synth: SynthRecipe | None = None

    def __post_init__(self) -> None:
        """Refuse a table with two origins, or none."""
        if bool(self.sources) == bool(self.synth):
            raise ConfigError("a table of songs: expected either `sources` or a `synth` table, and not both")


@dataclass(frozen=True)
class TeacherRecipe:
    """The teacher; see `segue.training.train_teacher`."""

    folds: int = 4
    join_folds: bool = False
    unlabelled: bool = False
    split_seed: int = 0
    network: SingleConfig = RecurrentConfig()
    loop: LoopConfig = LoopConfig()
    labels: LabelConfig = LabelConfig()
    shares: Shares = Shares()


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
    licence: str = "unspecified"


@dataclass(frozen=True)
class Recipe:
    """The whole chain."""

    workspace: Path  # Folder for the tables and runs.
    bundle: Path  # Folder for the bundle.
    songs: SongsRecipe
    test: SongsRecipe | None = None  # Songs no stage but the last one sees; without it the bundle's own figures stand.
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    student: StudentRecipe = field(default_factory=StudentRecipe)
    export: ExportRecipe = field(default_factory=ExportRecipe)


@dataclass(frozen=True)
class Retrained:
    """What `segue retrain` made."""

    bundle: Path
    version: str
    workspace: Path
    ran: tuple[str, ...]
    skipped: tuple[str, ...]
    evaluation: Evaluation
    tradeoff: str  # The table for people.

    def __str__(self) -> str:
        found = self.evaluation
        return (
            f"{self.bundle}: bundle {self.version}, ran {', '.join(self.ran) or 'nothing'}"
            + (f"; unchanged: {', '.join(self.skipped)}" if self.skipped else "")
            + f"\naccuracy on {found.songs} songs: student {found.student.accuracy:.3f}, "
            f"teacher {found.teacher.accuracy:.3f}, cascade {found.cascade.accuracy:.3f} "
            f"with {found.fallback_rate:.0%} falling back\n\n{self.tradeoff}"
        )


@dataclass
class Chain:
    """Stages run one after the other, each skipped where its inputs and settings are those of the last time."""

    notes: Path  # Folder with one note a stage.
    ran: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def stage(
        self, name: str, make: Callable[[], object], *, settings: Any, inputs: Sequence[Path], output: Path
    ) -> None:
        """Run `make`, which writes `output`, unless it was written from these `settings` and `inputs` before."""
        note = self.notes / f"{name}.json"
        wanted = {
            "settings": json.loads(to_json(settings)),
            "inputs": {str(path): fingerprint(path) for path in inputs},
        }
        if output.exists() and _read(note) == wanted | {"output": fingerprint(output)}:
            log.info("%-8s unchanged", name)
            self.skipped.append(name)
            return
        log.info("%-8s ...", name)
        started = time.perf_counter()
        made = make()
        log.info("%s\n%-8s done in %.0f s", made, name, time.perf_counter() - started)
        with atomic_file(note) as draft:
            draft.write_text(json.dumps(wanted | {"output": fingerprint(output)}, indent=2))
        self.ran.append(name)


def retrain(recipe: Positional[Path]) -> Retrained:
    """Run the whole chain from a recipe.

    Args:
        recipe: The TOML file.
    """
    plan = read_recipe(recipe)
    space = plan.workspace
    songs, test, evaluated = space / "songs.arrow", space / "test.arrow", space / "evaluation.json"
    teacher, student = space / "teacher", space / "student"
    check_place(plan.bundle, MANIFEST)  # Before hours of training and not after.
    chain = Chain(space / "stages")
    _songs_stage(chain, "songs", plan.songs, songs)
    if plan.test:
        _songs_stage(chain, "test", plan.test, test)
    chain.stage(
        "teacher",
        lambda: train_teacher(songs, teacher, **_fields(plan.teacher)),
        settings=plan.teacher,
        inputs=[songs],
        output=teacher,
    )
    chain.stage(
        "student",
        lambda: train_student(songs, teacher, student, **_fields(plan.student)),
        settings=plan.student,
        inputs=[songs, teacher],
        output=student,
    )
    chain.stage(
        "export",
        lambda: export(student, plan.bundle, **_fields(plan.export)),
        settings=plan.export,
        inputs=[songs, student],
        output=plan.bundle,
    )
    bundle = load_bundle(plan.bundle)
    figures, table = bundle.manifest.metrics, bundle.tradeoff
    if plan.test:
        judged = evaluate(plan.bundle, test)
        figures, table = judged.evaluation, judged.tradeoff
    with atomic_file(evaluated) as draft:
        draft.write_text(to_json(figures) + "\n")
    return Retrained(
        plan.bundle,
        bundle.manifest.version,
        space,
        tuple(chain.ran),
        tuple(chain.skipped),
        figures,
        tradeoff_text(table),
    )


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
    }
    config = dacite.Config(type_hooks=hooks, strict=True)
    # Of a union dacite only says that no member fits; the shape tells which one is meant, and what is wrong with it.
    hooks[get_type_hints(TeacherRecipe)["network"]] = lambda network: _network(network, config)
    try:
        return dacite.from_dict(Recipe, given, config)
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
    shapes: dict[Any, type[RecurrentConfig | ConvolutionalConfig | DenseConfig]] = {
        kind.shape: kind for kind in (RecurrentConfig, ConvolutionalConfig, DenseConfig)
    }
    shape = given.get("shape", RecurrentConfig.shape)
    if shape not in shapes:
        raise ConfigError(f"network.shape: expected one of {', '.join(shapes)}, found {shape!r}")
    return dacite.from_dict(shapes[shape], given, config)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a TOML array as a tuple; a value alone is an array of one."""
    return tuple(value) if isinstance(value, list) else (value,)


def fingerprint(path: Path) -> str:
    """Return a sha256 over a file, or over the names and contents of a folder's files; of nothing, if there is none."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _songs_stage(chain: Chain, name: str, recipe: SongsRecipe, out: Path) -> None:
    def make() -> object:
        if recipe.synth:
            drawn = recipe.synth
            return synth(out, drawn.songs, drawn.classes, drawn.seed, difficulty=drawn.difficulty)
        return convert_songs((*recipe.sources, out), recipe.labels, recipe.classes, recipe.where)

    inputs = [*recipe.sources, *([recipe.labels] if recipe.labels else [])]
    chain.stage(name, make, settings=recipe, inputs=inputs, output=out)


def _fields(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, one level deep."""
    return {one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)}


def _read(note: Path) -> object:
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue retrain`."""
    return run(retrain, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
