"""Run the whole chain from a recipe: songs, teacher, student, export, evaluation.

A recipe is a TOML file with a table for each stage; `export/recipes/` has some to start from. Every stage leaves its
result in the workspace, with a note of the settings and inputs it was made from. A stage whose inputs and settings are
unchanged is skipped, so a stopped run resumes where it was. Environment variables in paths are filled in.

Example:
    segue retrain export/recipes/synthetic.toml
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from segue.atomic import atomic_file, check_place
from segue.command import run, to_json
from segue.data.songs import songs as convert_songs
from segue.data.synth import synth
from segue.export.export import export
from segue.export.retrain.recipe import SongsRecipe, read_recipe
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import MANIFEST, Evaluation
from segue.serving.evaluate import evaluate, tradeoff_text
from segue.stages import Stages
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher


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


def retrain(recipe: Positional[Path]) -> Retrained:
    """Run the whole chain from a recipe.

    Args:
        recipe: The TOML file.
    """
    plan = read_recipe(recipe)
    space = plan.workspace
    songs, validation, test = (space / f"{name}.arrow" for name in ("songs", "validation", "test"))
    evaluated = space / "evaluation.json"
    teacher, student = space / "teacher", space / "student"
    check_place(plan.bundle, MANIFEST)  # Before hours of training and not after.
    stages = Stages(space / "stages")
    _songs_stage(stages, "songs", plan.songs, songs)
    if plan.validation:
        _songs_stage(stages, "validation", plan.validation, validation)
    if plan.test:
        _songs_stage(stages, "test", plan.test, test)
    tables = [songs, *([validation] if plan.validation else [])]
    validates = validation if plan.validation else None
    stages.run(
        "teacher",
        lambda: train_teacher(songs, teacher, validation_songs=validates, **_fields(plan.teacher)),
        settings=plan.teacher,
        inputs=tables,
        output=teacher,
    )
    stages.run(
        "student",
        lambda: train_student(songs, teacher, student, **_fields(plan.student)),
        settings=plan.student,
        inputs=[*tables, teacher],
        output=student,
    )
    stages.run(
        "export",
        lambda: export(student, plan.bundle, **_fields(plan.export)),
        settings=plan.export,
        inputs=[*tables, student],
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
        tuple(stages.ran),
        tuple(stages.skipped),
        figures,
        tradeoff_text(table),
    )


def _songs_stage(stages: Stages, name: str, recipe: SongsRecipe, out: Path) -> None:
    def make() -> object:
        if recipe.synth:
            drawn = recipe.synth
            return synth(out, drawn.songs, drawn.classes, drawn.seed, difficulty=drawn.difficulty)
        return convert_songs(recipe.sources, recipe.labels, recipe.classes, recipe.where, parts=recipe.parts, out=out)

    inputs = [*recipe.sources, *([recipe.labels] if recipe.labels else [])]
    stages.run(name, make, settings=recipe, inputs=inputs, output=out)


def _fields(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, one level deep."""
    return {one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue retrain`."""
    return run(retrain, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
