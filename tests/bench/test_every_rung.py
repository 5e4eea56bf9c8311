"""Bundles with three rungs: bench, gate, drift and the budget of the scorer look at every rung, by its rule."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from segue.bench.ladder import compare
from segue.bench.speed import bench
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.export.drift.drift import describe_songs
from segue.export.drift.reference import one_of_each_artist
from segue.export.retrain.answered import ask
from segue.serving.batch.budget import Budget
from segue.serving.batch.catalogue import Catalogue
from segue.serving.batch.score import score
from segue.serving.batch.scorer import Scorer
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.evaluate import evaluate
from segue.serving.ladder import OnFallback
from tests.support.bundles import three_rungs


@pytest.fixture(scope="module")
def ladder(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_rungs(bundle, tmp_path_factory.mktemp("rungs") / "bundle")


@pytest.mark.long
def test_every_rung_is_measured_and_the_last_one_is_the_measure(ladder: Path, mixed_songs: Path) -> None:
    found = bench(ladder, mixed_songs, batches=(8,), seconds=0.01, threads=(1,), quick=True)
    names = [one.conditions["model"] for one in found.select("models", "throughput")]
    assert names == ["student:1", "student:3", "teacher", "cascade"]
    (teacher,) = found.select("models", "over teacher", model="teacher")
    assert set(teacher.rounds) == {1.0}


@pytest.mark.parametrize("on_fallback", get_args(OnFallback))
def test_gate_and_drift_judge_what_the_cascade_answers(
    bundle: Path, mixed_songs: Path, tmp_path: Path, on_fallback: OnFallback
) -> None:
    three, table = load_bundle(three_rungs(bundle, tmp_path / "three", on_fallback)), SongTable(mixed_songs)
    rows = np.arange(len(table))
    expected = open_cascade(three).answer(table.songs(rows))
    _, challenger = ask((load_bundle(bundle), three), table, rows)
    assert challenger.choice.tolist() == expected.choice.tolist()
    assert challenger.fell_back.tolist() == expected.fell_back.tolist()
    assert [row.accuracy for row in challenger.tradeoff] == [
        row.accuracy for row in evaluate(three.path, mixed_songs).tradeoff
    ]
    assert challenger.tradeoff[0].us_per_song < challenger.us_per_song < challenger.tradeoff[-1].us_per_song

    described, kept = describe_songs(three, table), one_of_each_artist(table.groups, rows)
    assert described.genres.tolist() == np.bincount(expected.choice[kept], minlength=4).tolist()
    assert described.fell_back == expected.fell_back[kept].sum()


def test_evaluation_tells_the_part_of_every_rung(ladder: Path, mixed_songs: Path) -> None:
    table, loaded = SongTable(mixed_songs), load_bundle(ladder)
    found, expected = evaluate(ladder, mixed_songs), open_cascade(loaded).answer(table.songs(np.arange(len(table))))
    assert [one.name for one in found.rungs] == ["student:1", "student:3", "teacher"]
    assert [one.threshold_nats for one in found.rungs] == [*loaded.manifest.ladder.thresholds_nats, None]
    right = expected.choice == table.labels
    for rung, one in enumerate(found.rungs):
        assert one.answers == pytest.approx((expected.rung == rung).mean())
        assert one.accuracy == pytest.approx(right[expected.rung == rung].mean())
    assert sum(one.answers * (one.accuracy or 0) for one in found.rungs) == pytest.approx(right.mean())
    assert found.rungs[0].alone == found.evaluation.student
    assert found.rungs[-1].alone == found.evaluation.teacher
    costs = np.cumsum([one.us_per_song for one in found.rungs])  # About: songs differ in how many windows they have.
    assert costs[0] < found.us_per_song < costs[-1]
    assert "student:3" in str(found)


def test_a_budget_counts_what_all_rungs_above_the_first_cost(ladder: Path, mixed_songs: Path) -> None:
    loaded, table = load_bundle(ladder), SongTable(mixed_songs)
    budget = Budget(3600, loaded, threads=1)
    assert budget.threshold(songs_left=1) == -1.0
    catalogue = Catalogue.open((str(mixed_songs),))
    (whole,) = catalogue.ranges(len(catalogue))
    with Scorer.of(loaded, threads=1) as scorer:
        part = scorer.score(catalogue.read(whole), 0.7)
    went_on = open_cascade(loaded).answer(table.songs(np.arange(len(table))), 0.7).reached > 0
    assert part.went_on == went_on.sum() > part.fell_back > 0


def test_a_budget_of_much_time_asks_the_last_rung_and_of_none_the_first(
    ladder: Path, mixed_songs: Path, tmp_path: Path
) -> None:
    slow = score(ladder, (str(mixed_songs),), tmp_path / "slow.parquet", budget=3600)
    fast = score(ladder, (str(mixed_songs),), tmp_path / "fast.parquet", budget=1e-6)
    assert (slow.fallback_rate, fast.fallback_rate) == (1.0, 0.0)


def test_what_a_middle_rung_is_worth_is_told_beside_two_rungs(bundle: Path, ladder: Path, mixed_songs: Path) -> None:
    found, evaluated = compare(ladder, mixed_songs), evaluate(ladder, mixed_songs)
    named = {one.name: one for one in found.settings}
    for name, rung in zip(("student:1", "student:3", "teacher"), evaluated.rungs, strict=True):
        assert named[f"{name} alone"].accuracy == rung.alone.accuracy
    assert named["teacher alone"].share_of_teacher == 1
    assert named["the dial"].accuracy == evaluated.evaluation.cascade.accuracy
    assert named["ladder, cheapest as good as the dial"].accuracy >= named["the dial"].accuracy
    if found.times_two_rungs:
        two = named["two rungs, cheapest as good as the dial"]
        assert found.times_two_rungs == pytest.approx(two.us_per_song / named["the dial"].us_per_song)
    with pytest.raises(ConfigError, match="expected more than two rungs, found 2"):
        compare(bundle, mixed_songs)
