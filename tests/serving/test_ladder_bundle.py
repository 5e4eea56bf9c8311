"""Bundles with three rungs: HTTP, scorer, evaluation and Python agree on every song, whatever stands on fallback."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

import segue
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.export.calibrate import calibrate
from segue.export.calibration.dial import parse_rungs
from segue.export.export import export
from segue.export.forms import FormsConfig
from segue.serving.batch.score import score
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import version_of
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from segue.serving.evaluate import evaluate
from segue.serving.ladder import Ladder, OnFallback
from segue.serving.predictions import Answers, Predictions
from segue.serving.tables import predict_rows
from tests.serving.conftest import OwnService
from tests.support.bundles import THREE_ANSWER_NATS, three_rungs

SONGS = 500
ONE_REQUEST = 37  # Songs.


@pytest.mark.parametrize("on_fallback", get_args(OnFallback))
def test_http_scorer_evaluation_and_python_agree_on_every_song(
    bundle: Path, mixed_songs: Path, tmp_path: Path, own_service: OwnService, on_fallback: OnFallback
) -> None:
    ladder_bundle = three_rungs(bundle, tmp_path / "bundle", on_fallback)
    loaded, table = load_bundle(ladder_bundle), SongTable(mixed_songs)
    cascade = open_cascade(loaded)
    rows = np.arange(SONGS)
    says = [predict_rows(model, table, rows, "") for model in cascade.models]
    expected = plain(says, on_fallback)
    assert all((expected.reached == rung).sum() > 5 for rung in range(3))

    def check(genres: list[str], rungs: list[int], windows: list[int]) -> None:
        assert genres == [loaded.manifest.classes[choice] for choice in expected.choice]
        assert rungs == (expected.rung + 1).tolist()
        assert windows == expected.windows.tolist()

    score(ladder_bundle, (str(mixed_songs),), tmp_path / "scores.parquet")
    scored = pq.read_table(tmp_path / "scores.parquet")
    check(scored["genre"].to_pylist(), scored["rung"].to_pylist(), scored["windows"].to_pylist())

    answers = list(segue.load(ladder_bundle).classify(mixed_songs))
    check([one.genre for one in answers], [one.rung for one in answers], [one.windows for one in answers])

    service = own_service(bundle=ladder_bundle, deadline_s=600.0)
    found = []
    for start in range(0, SONGS, ONE_REQUEST):
        some = range(start, min(start + ONE_REQUEST, SONGS))
        body = {"songs": [{"id": str(row), "segments": table.segments(row).tolist()} for row in some]}
        found += service.post(json.dumps(body).encode()).json()["songs"]
    check([one["genre"] for one in found], [one["rung"] for one in found], [one["windows"] for one in found])

    evaluated = evaluate(ladder_bundle, mixed_songs).evaluation
    assert evaluated.fallback_rate == expected.fell_back.mean()
    assert evaluated.cascade.accuracy == (expected.choice == table.labels).mean()


def plain(says: list[Predictions], on_fallback: OnFallback) -> Answers:
    ladder = Ladder(("student", "student", "teacher"), THREE_ANSWER_NATS[on_fallback], on_fallback)
    return ladder.climb(lambda rung, rows: says[rung].take(rows))


def test_export_and_calibrate_set_all_rungs(student_run: Path, mixed_songs: Path, tmp_path: Path) -> None:
    forms = FormsConfig(lowering="scan", int8="never")
    made = export(student_run, tmp_path / "bundle", rungs=("student:1", "student:9", "teacher:3"), forms=forms).manifest
    assert made.rungs == ()  # The songs of training are of 120 segments: a longer look is none.
    assert made.left_out == ("student:9: no calibration song is long enough for more windows than the rung below has",)
    assert made.left_out[0] in (tmp_path / "bundle" / "README.md").read_text()
    ladder_bundle = three_rungs(tmp_path / "bundle", tmp_path / "ladder", "surer")
    turned = calibrate(ladder_bundle, mixed_songs, accuracy=0.3, out=tmp_path / "turned").manifest
    assert turned.on_fallback == "surer"
    assert load_bundle(tmp_path / "turned").manifest == turned
    if turned.rungs:
        assert len(load_bundle(tmp_path / "turned").tradeoff[0].next_thresholds_nats) == 1


def test_a_bundle_of_before_is_two_rungs(bundle: Path, tmp_path: Path) -> None:
    opened = load_bundle(bundle)
    old = tmp_path / "old"
    old.mkdir()
    for name, content in opened.contents.items():
        (old / name).write_bytes(content)
    write_manifest(old, opened.manifest)
    given = json.loads((old / "manifest.json").read_text())
    for name in ("rungs", "on_fallback", "left_out"):
        del given[name]
    given["format_version"] = 3
    given["version"] = version_of(given)
    (old / "manifest.json").write_text(json.dumps(given))
    found = load_bundle(old).manifest
    assert found.ladder == Ladder(("student", "teacher"), (opened.manifest.threshold_nats,))
    assert [rung.windows for rung in found.all_rungs] == [found.student.windows, found.teacher.windows]


@pytest.mark.parametrize(
    "rungs",
    ["student:1", "teacher:1 teacher:9", "student:1 student:1 teacher:9", "student teacher:9", "student:0 teacher:1"],
)
def test_rungs_that_are_no_ladder_are_refused(rungs: str) -> None:
    with pytest.raises(ConfigError, match="rungs: expected"):
        parse_rungs(rungs.split())


def test_rungs_are_read() -> None:
    assert parse_rungs(["student:1", "student:9", "teacher:9"]) == (("student", 1), ("student", 9), ("teacher", 9))
