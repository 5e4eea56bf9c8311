"""Retraining: a recipe runs the whole chain once, and after that only what changed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from segue.errors import ConfigError
from segue.export.retrain.retrain import Chain, Retrained, fingerprint, main, read_recipe, retrain
from segue.serving.bundle.bundle import load_bundle

STAGES = ("songs", "test", "teacher", "student", "export")

RECIPE = """
workspace = "$SPACE/work"
bundle = "$SPACE/bundle"

[songs.synth]
songs = 200
classes = 3

[test.synth]
songs = 90
classes = 3
seed = 1

[teacher]
folds = 2
network = { state = 8, bptt_steps = 120 }
loop = { epochs = 1, batch_songs = 50 }

[student]
network = { hidden = 8 }
loop = { epochs = 1, learning_rate = 1 }

[export.calibration]
points = 20
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPACE", str(tmp_path))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_chain_runs_once_and_then_only_what_changed(recipe: Path, tmp_path: Path) -> None:
    def ran() -> tuple[str, ...]:
        made: Retrained = retrain(recipe)
        assert sorted(made.ran + made.skipped) == sorted(STAGES)
        bundle = load_bundle(tmp_path / "bundle")
        assert (made.version, made.evaluation.songs) == (bundle.manifest.version, 90)
        evaluation = json.loads((tmp_path / "work" / "evaluation.json").read_text())
        assert evaluation["cascade"]["accuracy"] == made.evaluation.cascade.accuracy
        return made.ran

    assert ran() == STAGES
    assert ran() == ()
    recipe.write_text(RECIPE.replace("hidden = 8", "hidden = 9"))
    assert ran() == ("student", "export")
    flip(tmp_path / "work" / "student" / "model.safetensors")
    assert ran() == ("student", "export")
    (tmp_path / "bundle" / "tradeoff.csv").unlink()
    assert ran() == ("export",)
    recipe.write_text(recipe.read_text().replace("points = 20", "points = 25"))
    assert ran() == ("export",)
    recipe.write_text(recipe.read_text().replace("seed = 1", "seed = 2"))
    assert ran() == ("test",)


def test_a_place_that_is_taken_is_refused_before_the_first_stage(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match=r"bundle: expected nothing there, .* which would be lost"):
        retrain(recipe)
    assert not (tmp_path / "work").exists()


def test_the_verb_says_what_ran(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(RECIPE.replace("[test.synth]\nsongs = 90\nclasses = 3\nseed = 1\n", ""))
    assert main([str(recipe), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ran"] == ["songs", "teacher", "student", "export"]
    # Of the 40 calibration songs, those that set the dial: there is neither a test table nor a test split.
    assert printed["evaluation"]["songs"] == 30
    assert printed["bundle"] == str(tmp_path / "bundle")


@dataclass(frozen=True)
class Settings:
    """The settings of a stage."""

    value: object


class Kitchen:
    """A chain of one stage that copies `source` to `output`, and counts how often it did."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.output = folder, folder / "source", folder / "output"
        self.source.write_text("flour")
        self.runs = 0

    def make(self) -> None:
        self.runs += 1
        self.output.write_text(self.source.read_text())

    def stage(self, settings: object = None) -> int:
        chain = Chain(self.folder / "notes")
        chain.stage("bake", self.make, settings=Settings(settings), inputs=[self.source], output=self.output)
        return self.runs


def stop_after_output(kitchen: Kitchen) -> None:
    (kitchen.folder / "notes" / "bake.json").unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda kitchen: kitchen.source.write_text("sugar"),
        lambda kitchen: kitchen.output.write_text("burnt"),
        lambda kitchen: kitchen.output.unlink(),
        lambda kitchen: (kitchen.folder / "notes" / "bake.json").write_text("{"),
        stop_after_output,
    ],
)
def test_a_stage_runs_again_when_anything_about_it_changed(tmp_path: Path, change: Callable[[Kitchen], object]) -> None:
    kitchen = Kitchen(tmp_path)
    assert [kitchen.stage(), kitchen.stage()] == [1, 1]
    change(kitchen)
    assert [kitchen.stage(), kitchen.stage()] == [2, 2]


def test_a_stage_runs_again_with_other_settings(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path)
    assert [kitchen.stage(1), kitchen.stage(1), kitchen.stage(2), kitchen.stage(1)] == [1, 1, 2, 3]


def test_a_stage_that_fails_runs_again(tmp_path: Path) -> None:
    kitchen, failed = Kitchen(tmp_path), RuntimeError("no gas")

    def fail() -> None:
        raise failed

    with pytest.raises(RuntimeError, match="no gas"):
        Chain(tmp_path / "notes").stage("bake", fail, settings=Settings(None), inputs=[], output=kitchen.output)
    assert kitchen.stage() == 1


def test_a_fingerprint_covers_names_and_contents(tmp_path: Path) -> None:
    def of(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "deep").mkdir(parents=True)
        for name, text in files.items():
            (folder / "deep" / name).write_text(text)
        return fingerprint(folder)

    assert of(a="x") == of(a="x")
    assert len({of(a="x"), of(a="y"), of(b="x"), of(a="x", b=""), of()}) == 5


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
