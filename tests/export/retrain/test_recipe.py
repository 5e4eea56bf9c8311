"""Recipes: what they may say, and how a mistake is named."""

from pathlib import Path

import pytest

from segue.errors import ConfigError
from segue.export.retrain.recipe import read_recipe
from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
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


MEMBERS = """
[[teacher.members]]
network = { shape = "dense", hidden = 8 }
[[teacher.members]]
loop = { epochs = 3 }
"""


def test_members_are_teachers_that_differ_in_network_and_loop(recipe: Path) -> None:
    lines = [
        line for line in RECIPE.splitlines() if not line.startswith(("network = { state", "loop = { epochs = 1, b"))
    ]
    recipe.write_text("\n".join(lines) + MEMBERS)
    plan = read_recipe(recipe).teacher
    first, second = (plan.single(member) for member in plan.members)
    assert first.members == second.members == ()
    assert (first.network, first.folds) == (DenseConfig(hidden=(8,)), 2)
    assert (second.network, second.loop) == (RecurrentConfig(), LoopConfig(epochs=3))
    recipe.write_text(RECIPE + MEMBERS)
    with pytest.raises(ConfigError, match="teacher: expected either members or one network and loop, found both"):
        read_recipe(recipe)
    recipe.write_text("\n".join(lines) + MEMBERS[: MEMBERS.rindex("[[")])
    with pytest.raises(ConfigError, match=r"teacher.members: expected at least two, and folds .*, found 1 and 2 folds"):
        read_recipe(recipe)


@pytest.mark.parametrize("path", sorted(Path("export/recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_in_the_checkout_can_be_read(path: Path) -> None:
    assert read_recipe(path).teacher.folds >= 2


def test_the_recipes_of_the_study_are_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSD10", "/msd")
    recipes = Path(__file__).parents[3] / "export" / "recipes"
    plain, normed = (read_recipe(recipes / f"{name}.toml") for name in ("study", "study-bn"))
    teacher, student = plain.teacher, plain.student
    assert isinstance(teacher.network, RecurrentConfig)
    assert (teacher.network.norm, teacher.network.state, teacher.network.bptt_steps) == ("none", 341, 4)
    assert (teacher.folds, teacher.loop.epochs, teacher.loop.batch_songs) == (10, 30, 50)
    assert (teacher.loop.optimiser, teacher.loop.schedule, teacher.loop.learning_rate) == ("adam", "constant", 1e-4)
    assert (student.network.look, student.network.hidden, student.loop.learning_rate) == ("flat", (1784,), 1e-4)
    assert (1 - student.network.input_dropout, 1 - student.network.hidden_dropout) == (0.5, 1.0)
    assert (student.loop.weight_decay, student.loop.decay, student.distillation.match) == (1e-3, "weights", "mse")
    assert plain.export.on_fallback == normed.export.on_fallback == "surer"
    assert plain.validation == plain.test == normed.test
    assert len(plain.songs.sources) == 2
    assert isinstance(normed.teacher.network, RecurrentConfig)
    assert (normed.teacher.network.norm, normed.teacher.network.norm_eps) == ("batch", 1e-3)
    assert (normed.teacher.network.bptt_steps, normed.teacher.loop.epochs) == (8, 100)
