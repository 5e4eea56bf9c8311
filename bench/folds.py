"""Cross-validate a recipe: the whole chain once for each fold of the songs, judged on the fold that it never saw.

The recipe must say by `where` which folds train and which one tests, as `export/recipes/msd.toml` does: `fold=0,1,2`
under [songs] and `fold=3` under [test]. Each run gets a recipe, a workspace and a bundle of its own in the output
folder, and is resumed where it was stopped.

Example:
    python -m segue.bench.folds export/recipes/msd.toml --out artifacts/folds
"""

import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tyro.conf import Positional

from segue.atomic import atomic_file
from segue.command import run
from segue.errors import ConfigError
from segue.export.retrain.retrain import retrain
from segue.provenance import Provenance, provenance
from segue.serving.evaluate import Evaluated, evaluate


@dataclass(frozen=True)
class Scored:
    """How one rung, or the cascade, did over some songs."""

    name: str
    songs: int
    accuracy: float

    @property
    def error(self) -> float:
        """The standard error of the accuracy over songs."""
        return sqrt(self.accuracy * (1 - self.accuracy) / self.songs)


@dataclass(frozen=True)
class CrossValidated:
    """What the recipe gives."""

    recipe: str
    folds: dict[str, tuple[Scored, ...]]  # By the fold held out.
    all: tuple[Scored, ...]  # Over the songs of all folds; rungs that some fold left out are not there.
    provenance: Provenance

    def __str__(self) -> str:
        rows = [
            (fold, one.name, one.songs, one.accuracy, one.error) for fold, some in self.folds.items() for one in some
        ]
        rows += [("all", one.name, one.songs, one.accuracy, one.error) for one in self.all]
        headers = ("fold", "", "songs", "accuracy", "standard error")
        return f"{self.recipe}, each fold held out once\n\n{tabulate(rows, headers, floatfmt='.3f')}"


def cross_validate(
    recipe: Positional[Path], out: Path = Path("artifacts/folds"), field: str = "fold"
) -> CrossValidated:
    """Cross-validate a recipe.

    Args:
        recipe: The TOML file.
        out: The folder for the recipes, workspaces and bundles of the folds.
        field: The field of the songs that `where` picks folds by.
    """
    text = recipe.read_text(encoding="utf-8")
    found: dict[str, tuple[Scored, ...]] = {}
    for fold in folds_of(text, field):
        here = out / f"{field}-{fold}"
        with atomic_file(here / "recipe.toml") as draft:
            draft.write_text(held_out(text, field, fold, here), encoding="utf-8")
        made = retrain(here / "recipe.toml")
        found[fold] = scored(evaluate(made.bundle, made.workspace / "test.arrow"))
    return CrossValidated(recipe.name, found, over_all(list(found.values())), provenance())


def folds_of(text: str, field: str) -> list[str]:
    """Return the folds that a recipe names, those that train and the one that tests."""
    given = tomllib.loads(text)
    return sorted(
        {fold for table in ("songs", "test") for fold in _condition(given, table, field).split("=")[1].split(",")}
    )


def held_out(text: str, field: str, fold: str, folder: Path) -> str:
    """Return the recipe under which all folds but one train, in a folder of its own."""
    given = tomllib.loads(text)
    others = [one for one in folds_of(text, field) if one != fold]
    new = {
        given["workspace"]: f"{folder}/work",
        given["bundle"]: f"{folder}/bundle",
        _condition(given, "songs", field): f"{field}={','.join(others)}",
        _condition(given, "test", field): f"{field}={fold}",
    }
    return re.sub(r'"([^"\n]*)"', lambda found: f'"{new.get(found[1], found[1])}"', text)


def scored(found: Evaluated) -> tuple[Scored, ...]:
    """Return how each rung did alone, and the cascade."""
    songs = found.evaluation.songs
    alone = [Scored(one.name, songs, one.alone.accuracy) for one in found.rungs]
    return (*alone, Scored("cascade", songs, found.evaluation.cascade.accuracy))


def over_all(folds: Sequence[tuple[Scored, ...]]) -> tuple[Scored, ...]:
    """Return how each rung did over the songs of all folds."""
    total = []
    for name in [one.name for one in folds[0]]:
        some = [one for fold in folds for one in fold if one.name == name]
        if len(some) == len(folds):
            songs = sum(one.songs for one in some)
            total.append(Scored(name, songs, sum(one.accuracy * one.songs for one in some) / songs))
    return tuple(total)


def _condition(given: dict[str, Any], table: str, field: str) -> str:
    """Return the condition on the field in a table of the recipe, such as fold=0,1,2."""
    where = given.get(table, {}).get("where", ())
    found = [one for one in ([where] if isinstance(where, str) else where) if one.startswith(f"{field}=")]
    if len(found) != 1:
        raise ConfigError(f"[{table}] of the recipe: expected one condition {field}=... in `where`, found {len(found)}")
    return str(found[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cross-validation."""
    return run(cross_validate, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
