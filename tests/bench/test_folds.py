"""Cross-validation of a recipe: each fold is held out once, in a recipe of its own, and figures are over all songs."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from segue.bench.folds import Scored, cross_validate, folds_of, held_out, over_all
from segue.errors import ConfigError
from segue.export.retrain.recipe import read_recipe
from segue.serving.evaluate import evaluate

MSD = Path(__file__).parents[2] / "export" / "recipes" / "msd.toml"


def test_each_fold_is_held_out_in_a_place_of_its_own(tmp_path: Path) -> None:
    text = MSD.read_text()
    assert folds_of(text, "fold") == ["0", "1", "2", "3"]
    (tmp_path / "one.toml").write_text(held_out(text, "fold", "1", tmp_path / "one"))
    found, whole = read_recipe(tmp_path / "one.toml"), read_recipe(MSD)
    assert (found.workspace, found.bundle) == (tmp_path / "one" / "work", tmp_path / "one" / "bundle")
    assert found.songs.where == ("fold=0,2,3",)
    assert found.test is not None
    assert found.test.where == ("balanced=true", "fold=1")
    assert (found.teacher, found.student, found.export) == (whole.teacher, whole.student, whole.export)


def test_a_recipe_without_folds_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"\[songs\] of the recipe: expected one condition fold=... in `where`, found 0"
    ):
        folds_of('[songs]\nwhere = "balanced=true"', "fold")


def test_accuracies_are_over_the_songs_of_all_folds() -> None:
    folds = [(Scored("student", 10, 0.5), Scored("student:9", 10, 0.6)), (Scored("student", 30, 0.9),)]
    assert over_all(folds) == (Scored("student", 40, 0.8),)
    assert over_all(folds)[0].error == pytest.approx((0.8 * 0.2 / 40) ** 0.5)


def test_every_fold_is_trained_and_judged(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "test.arrow").symlink_to(mixed_songs)
    trained = Mock(return_value=SimpleNamespace(bundle=bundle, workspace=tmp_path / "work"))
    monkeypatch.setattr("segue.bench.folds.retrain", trained)
    found = cross_validate(MSD, tmp_path / "out")
    assert [call.args[0].parent.name for call in trained.call_args_list] == ["fold-0", "fold-1", "fold-2", "fold-3"]
    alone = evaluate(bundle, mixed_songs).evaluation
    assert [(one.name, one.songs) for one in found.all] == [("student", 2000), ("teacher", 2000), ("cascade", 2000)]
    assert [one.accuracy for one in found.all] == pytest.approx(
        [alone.student.accuracy, alone.teacher.accuracy, alone.cascade.accuracy]
    )
    assert "all" in str(found)
