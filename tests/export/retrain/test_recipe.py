"""Recipes: what they may say, and how a mistake is named."""

from pathlib import Path

import pytest

from segue.errors import ConfigError
from segue.export.retrain.recipe import read_recipe
from tests.support.recipes import RECIPE


def test_a_recipe_fills_in_environment_variables_and_whole_numbers(recipe: Path, tmp_path: Path) -> None:
    plan = read_recipe(recipe)
    assert plan.workspace == tmp_path / "work"
    assert plan.export.calibration.points == 20.0
    assert (plan.student.loop.learning_rate, plan.student.loop.batch_songs) == (1.0, 256)
    assert plan.teacher.shares.calibration == 0.2


def test_one_source_needs_no_brackets(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text('workspace = "a"\nbundle = "b"\nsongs = { sources = "$SPACE/a.npz", where = "fold=1" }')
    songs = read_recipe(recipe).songs
    assert (songs.sources, songs.where, songs.classes) == ((tmp_path / "a.npz",), ("fold=1",), ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden = 8", "hiden = 8", "hiden"),
        ("[export.calibration]", "[exports.calibration]", "exports"),
        ("hidden = 8", 'hidden = "many"', "student.network.hidden"),
        ("folds = 2", "folds = 2.5", "teacher.folds"),
        ("state = 8", "stat = 8", 'can not match "stat"'),
        ("state = 8", 'state = "big"', "teacher.network.state"),
        ("state = 8", 'shape = "dense", chanels = 8', "chanels"),
        (
            "state = 8",
            'shape = "round"',
            "network.shape: expected one of recurrent, convolutional, dense, found 'round'",
        ),
        ("network = { state = 8, bptt_steps = 120 }", "network = 7", "network: expected a table, found 7"),
        ("points = 20", 'points = "few"', "export.calibration.points"),
        ('workspace = "$SPACE/work"', "workspace = 7", "workspace"),
        ("[songs.synth]", "songs.where = [1]\n[songs.synth]", "songs.where"),
        ("[songs.synth]", "songs.sources = 7\n[songs.synth]", "songs.sources"),
        ("hidden = 8", "hidden = 0", "hidden: expected at least 1 neuron a layer, found 0"),
        ("bptt_steps = 120", "bptt_steps = 7", "bptt_steps: expected a divisor of 120"),
        ("[songs.synth]", 'songs.sources = ["a.npz"]\n[songs.synth]', "expected either `sources` or a `synth` table"),
        ("[test.synth]\nsongs = 90\nclasses = 3\nseed = 1\n", "[test]\n", "expected either `sources` or a `synth`"),
        ('bundle = "$SPACE/bundle"', "", "bundle"),
        ("points = 20", "points = ", "not a TOML file"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(recipe: Path, old: str, new: str, message: str) -> None:
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(ConfigError, match=f"recipe.toml: .*{message}"):
        read_recipe(recipe)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: expected a recipe, found no such file"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(Path("export/recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_in_the_checkout_can_be_read(path: Path) -> None:
    assert read_recipe(path).teacher.folds >= 2
