"""Retraining: a recipe runs the whole chain once, and after that only what changed."""

import json
from pathlib import Path

import numpy as np
import pytest

from segue.data.synth import synth
from segue.data.table import SongBatch, SongTable, write_table
from segue.errors import ConfigError
from segue.export.retrain.retrain import Retrained, main, retrain
from segue.serving.bundle.load import load_bundle
from segue.training.runs import load_record
from tests.support.recipes import RECIPE

STAGES = ("songs", "test", "teacher", "student", "export")


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


def test_each_member_is_a_stage_and_those_that_pay_are_joined_for_songs_of_any_analyser(
    recipe: Path, tmp_path: Path
) -> None:
    synth(tmp_path / "echonest.arrow", songs=200, classes=3)
    table = SongTable(tmp_path / "echonest.arrow")
    with write_table(tmp_path / "audio.arrow", "raw", table.classes, features="segue-audio-1") as audio:
        labels = [table.classes[label] for label in table.labels]
        songs = table.songs(np.arange(len(table)))
        audio.write(SongBatch(song_ids=list(table.song_ids), songs=songs, labels=labels, groups=list(table.groups)))
    dense = '[[teacher.members]]\nnetwork = { shape = "dense", hidden = 8 }\nloop = { epochs = 2, seed = SEED }\n'
    lines = ['workspace = "$SPACE/work"', 'bundle = "$SPACE/bundle"', 'songs.sources = "$SPACE/audio.arrow"']
    lines += ["teacher.folds = 2", dense.replace("SEED", "1"), dense.replace("SEED", "2")]
    lines += ["[student]", "network = { hidden = 8 }", "loop = { epochs = 1 }"]
    recipe.write_text("\n".join(lines))
    assert retrain(recipe).ran == ("songs", "member-1", "member-2", "teacher", "student", "export")
    assert retrain(recipe).ran == ()
    recipe.write_text(recipe.read_text().replace("seed = 2 }", "seed = 3 }"))
    assert retrain(recipe).ran[:2] == ("member-2", "teacher")
    chosen = load_record(tmp_path / "work" / "teacher").chosen
    assert [one.split(":")[0] for one in chosen] == ["member-1", "member-2"]
    assert sum("kept: the best alone" in one for one in chosen) == 1
    assert load_bundle(tmp_path / "bundle").manifest.features == "segue-audio-1"
