"""Run the whole chain from a recipe: songs, teacher, student, export, evaluation; with a champion, a gate at its end.

A recipe is a TOML file with a table for each stage; `export/recipes/` has some to start from. Every stage leaves its
result in the workspace, with a note of the settings and inputs it was made from. A stage whose inputs and settings are
unchanged is skipped, so a stopped run resumes where it was. Environment variables in paths are filled in.

Where the recipe names a release store, or --champion a bundle, what was trained is a challenger. Both answer the test
songs that neither has seen, and only a challenger that is better beyond chance, with every floor held, is published:
as the latest release, or in the place of the recipe's bundle. `[gate]` in the recipe sets the rules, and a page in the
workspace tells the figures. The exit code is 0 for published, 3 for rejected (nothing has changed), 1 for failed.

Example:
    segue retrain export/recipes/synthetic.toml
    segue retrain weekly.toml --champion s3://models/genres
"""

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs
from tyro.conf import Positional

from segue.atomic import atomic_file, atomic_folder, check_place
from segue.command import DONE, run, to_json
from segue.data.corrections import Corrections, correct, read_corrections
from segue.data.songs import songs as convert_songs
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError, ReleaseError
from segue.export.export import export
from segue.export.retrain.gate import Verdict, judge
from segue.export.retrain.recipe import Recipe, SongsRecipe, TeacherRecipe, read_recipe
from segue.export.retrain.suspects import Suspect, find_suspects, write_suspects
from segue.export.retrain.verdict_page import verdict_page
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.bundle.manifest import MANIFEST, Evaluation
from segue.serving.evaluate import evaluate
from segue.serving.releases.lock import locked
from segue.serving.releases.store import ReleaseStore, is_store
from segue.serving.tradeoff import tradeoff_text
from segue.stages import Stages
from segue.training.join import join
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher

REJECTED = 3
JUDGED_AGAIN = 3  # Times, where another release was published while the gate was judging.


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
    published: str | None = None  # Where to, if there is a gate and it let the bundle pass.
    verdict: str | None = None  # In words; None where there is no gate.
    page: Path | None = None  # Of the verdict.
    suspects: int = 0  # New songs whose label the champion's models surely disagree with.

    @property
    def exit_code(self) -> int:
        """0, or 3 where the gate rejected the challenger."""
        return REJECTED if self.verdict is not None and self.published is None else DONE

    def __str__(self) -> str:
        found = self.evaluation
        return (
            f"{self.bundle}: bundle {self.version}, ran {', '.join(self.ran) or 'nothing'}"
            + (f"; unchanged: {', '.join(self.skipped)}" if self.skipped else "")
            + f"\naccuracy on {found.songs} songs: student {found.student.accuracy:.3f}, "
            f"teacher {found.teacher.accuracy:.3f}, cascade {found.cascade.accuracy:.3f} "
            f"with {found.fallback_rate:.0%} falling back\n\n{self.tradeoff}"
            + (f"\n\n{self.suspects} suspected label errors: {self.workspace}/suspects.csv" if self.suspects else "")
            + (f"\n\n{self.verdict}" if self.verdict else "")
            + (f"\npublished: {self.published}" if self.published else "")
            + (f"\n{self.page}   the page: look at it" if self.page else "")
        )


def retrain(
    recipe: Positional[Path],
    champion: str | None = None,
    drop_suspects: bool = False,
) -> Retrained:
    """Run the whole chain from a recipe.

    Args:
        recipe: The TOML file.
        champion: The bundle, or the release store, that a challenger must beat. Default: the recipe's release store.
        drop_suspects: Train without the labels of new songs that both models of the champion surely disagree with.
    """
    plan = read_recipe(recipe)
    gate = _Gate.of(plan, champion, recipe.name)
    if drop_suspects and gate is None:
        raise ConfigError("--drop-suspects: expected a champion that suspects, found none; name one with --champion")
    check_place(plan.bundle, MANIFEST)  # Before hours of training and not after.
    space = plan.workspace
    space.mkdir(parents=True, exist_ok=True)
    with locked(fs.LocalFileSystem(), str((space / ".lock").absolute()), "retrain", wait_s=0):
        return _retrain(plan, gate, drop_suspects)


def _retrain(plan: Recipe, gate: "_Gate | None", drop_suspects: bool) -> Retrained:
    space = plan.workspace
    stages = Stages(space / "stages")
    reigning = gate.champion() if gate else None
    songs, suspects = _songs(stages, plan, reigning, drop_suspects)
    tables, validation = [songs], None
    if plan.validation:
        validation = space / "validation.arrow"
        _songs_stage(stages, "validation", plan.validation, validation)
        tables.append(validation)
    test = space / "test.arrow"
    if plan.test:
        _songs_stage(stages, "test", plan.test, test)
        if plan.corrections:
            test = _corrected(stages, "test-labels", test, plan.corrections)
    teacher, student = space / "teacher", space / "student"
    bundle = space / "challenger" if gate else plan.bundle
    _teacher(stages, plan.teacher, songs, validation, teacher)
    stages.run(
        "student",
        lambda: train_student(songs, teacher, student, **_fields(plan.student)),
        settings=plan.student,
        inputs=[*tables, teacher],
        output=student,
    )
    stages.run(
        "export",
        lambda: export(student, bundle, **_fields(plan.export)),
        settings=plan.export,
        inputs=[*tables, student],
        output=bundle,
    )
    made = load_bundle(bundle)
    figures, table = made.manifest.metrics, made.tradeoff
    if plan.test:
        judged = evaluate(bundle, test)
        figures, table = judged.evaluation, judged.tradeoff
    with atomic_file(space / "evaluation.json") as draft:
        draft.write_text(to_json(figures) + "\n")
    result = Retrained(
        bundle,
        made.manifest.version,
        space,
        tuple(stages.ran),
        tuple(stages.skipped),
        figures,
        tradeoff_text(table),
        suspects=len(suspects),
    )
    if gate is None:
        return result
    published, words, page = gate.decide(made, test, suspects)
    return dataclasses.replace(result, published=published, verdict=words, page=page)


def _teacher(stages: Stages, recipe: TeacherRecipe, songs: Path, validation: Path | None, out: Path) -> None:
    """Train the teacher; of several members each in a stage of its own, then those that pay are joined."""
    tables = [songs, *([validation] if validation else [])]

    def train(name: str, single: TeacherRecipe, run: Path) -> Path:
        fields = {name: value for name, value in _fields(single).items() if name != "members"}
        stages.run(
            name,
            lambda: train_teacher(songs, run, validation_songs=validation, **fields),
            settings=single,
            inputs=tables,
            output=run,
        )
        return run

    if not recipe.members:
        train("teacher", recipe, out)
        return
    runs = []
    for number, member in enumerate(recipe.members, 1):
        name = f"member-{number}"
        runs.append(train(name, recipe.single(member), out.with_name(name)))
    stages.run("teacher", lambda: join(tuple(runs), out, choose=True), settings="choose", inputs=runs, output=out)


class _Gate:
    """Where the champion comes from, and where a challenger goes that beats it."""

    def __init__(self, plan: Recipe, source: str, recipe: str) -> None:
        self._plan = plan
        self._recipe = recipe
        self._source = ReleaseStore(source) if is_store(source) or source == plan.releases else Path(source)
        target = plan.releases or (source if isinstance(self._source, ReleaseStore) else None)
        self._target = ReleaseStore(target) if target else None

    @classmethod
    def of(cls, plan: Recipe, champion: str | None, recipe: str) -> "_Gate | None":
        """Return the gate of a recipe; None where nothing names a champion."""
        source = champion or plan.releases
        if source is None:
            return None
        if plan.test is None:
            raise ConfigError(
                "gate: expected a [test] table of songs that champion and challenger both have not seen, found none"
            )
        return cls(plan, source, recipe)

    def champion(self) -> Bundle | None:
        """Return the champion; None where the store has no release yet."""
        if isinstance(self._source, Path):
            return load_bundle(self._source)
        if self._source.index().latest is None:
            return None
        copy = self._plan.workspace / "champion"  # A copy, which no `prune` can take away.
        self._source.fetch("latest", copy)
        return load_bundle(copy)

    def decide(
        self, challenger: Bundle, test: Path, suspects: Sequence[Suspect]
    ) -> tuple[str | None, str, Path | None]:
        """Judge, then publish or reject; return where it was published, the verdict in words, and its page."""
        for last in (False,) * JUDGED_AGAIN + (True,):
            champion = self.champion()
            if champion is None:
                words = "the first release: there is no champion to beat"
                return self._publish(challenger, words, None, None), f"published: {words}", None
            if champion.manifest.version == challenger.manifest.version:
                return self._source_name(), "unchanged: the challenger is the champion", None
            found = judge(champion, challenger, SongTable(test), self._plan.gate)
            html = verdict_page(found, self._plan.gate, self._recipe, suspects)
            page = self._plan.workspace / "verdict.html"
            with atomic_file(page) as draft:
                draft.write_text(html, encoding="utf-8")
            try:
                return self._act(found, challenger, html), str(found), page
            except ReleaseError:
                if last or not self._moved_on(champion):
                    raise
        raise AssertionError

    def _act(self, found: Verdict, challenger: Bundle, html: str) -> str | None:
        if found.publish:
            return self._publish(challenger, found.reason, html, found.champion)
        if self._target:
            self._target.reject(f"challenger {found.challenger}: {found.reason}", html)
        return None

    def _publish(self, challenger: Bundle, why: str, page: str | None, champion: str | None) -> str:
        if self._target:
            return self._target.publish(challenger.path, why, page, replaces=champion).name
        with atomic_folder(self._plan.bundle, MANIFEST) as draft:
            shutil.copytree(challenger.path, draft, dirs_exist_ok=True)
            load_bundle(draft)
        return str(self._plan.bundle)

    def _moved_on(self, champion: Bundle) -> bool:
        now = self.champion()
        return now is None or now.manifest.version != champion.manifest.version

    def _source_name(self) -> str:
        return str(self._source if isinstance(self._source, Path) else self._source.index().latest)


def _songs(
    stages: Stages, plan: Recipe, champion: Bundle | None, drop_suspects: bool
) -> tuple[Path, tuple[Suspect, ...]]:
    """Make the table to train on; return it, and the songs whose labels the champion suspects."""
    space = plan.workspace
    songs = space / "songs.arrow"
    _songs_stage(stages, "songs", plan.songs, songs)
    if plan.corrections:
        songs = _corrected(stages, "labels", songs, plan.corrections)
    if champion is None:
        return songs, ()
    table = SongTable(songs)
    suspects = find_suspects(champion, table) if set(table.classes) <= set(champion.manifest.classes) else ()
    write_suspects(space / "suspects.csv", suspects)
    if drop_suspects and suspects:
        cleaned = space / "unsuspected.arrow"
        ids = [one.song_id for one in suspects]
        stages.run(
            "suspects",
            lambda: correct(table, Corrections({}, {}), cleaned, drop=ids),
            settings=ids,
            inputs=[songs],
            output=cleaned,
        )
        songs = cleaned
    return songs, suspects


def _corrected(stages: Stages, name: str, songs: Path, files: Sequence[Path]) -> Path:
    out = songs.with_name(f"corrected-{songs.name}")
    stages.run(
        name,
        lambda: correct(SongTable(songs), read_corrections(files), out),
        settings=[str(file) for file in files],
        inputs=[songs, *files],
        output=out,
    )
    return out


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
