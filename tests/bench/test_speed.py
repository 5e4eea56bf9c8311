"""The benchmark: its figures fit together, whatever the machine."""

import json
from pathlib import Path

import pytest

from segue.bench.speed import Benchmark, bench, main
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from tests.support.random_songs import random_batch, save


@pytest.fixture(scope="module")
def measured(bundle: Path, mixed_songs: Path) -> Benchmark:
    return bench(bundle, mixed_songs, batches=(1, 40), seconds=0.01, threads=1)


def test_every_model_is_measured_at_every_batch(measured: Benchmark) -> None:
    assert [(speed.batch_songs, speed.model) for speed in measured.speeds] == [
        (batch, model) for batch in (1, 40) for model in ("student", "teacher", "cascade")
    ]
    assert measured.threads == 1


def test_rates_latencies_and_ratios_fit_together(measured: Benchmark) -> None:
    teacher = {speed.batch_songs: speed.songs_per_s for speed in measured.speeds if speed.model == "teacher"}
    for speed in measured.speeds:
        assert speed.songs_per_s == pytest.approx(speed.batch_songs / speed.p50_ms * 1e3)
        assert speed.p99_ms >= speed.p50_ms
        assert speed.times_teacher == pytest.approx(speed.songs_per_s / teacher[speed.batch_songs])


def test_the_fallback_rate_is_that_of_the_songs(measured: Benchmark, bundle: Path, mixed_songs: Path) -> None:
    loaded = load_bundle(bundle)
    answers = open_cascade(loaded).answer(SongTable(mixed_songs).songs(range(40)))
    assert measured.fallback_rate == answers.fell_back.mean()
    assert measured.version == loaded.manifest.version


def test_the_verb_prints_a_table_for_people(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), "--batches", "2", "--seconds", "0.01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"version {load_bundle(bundle).manifest.version}" in lines[0]
    assert [line.split()[:2] for line in lines[-3:]] == [["student", "2"], ["teacher", "2"], ["cascade", "2"]]


def test_with_json_the_result_is_one_document(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), "--batches", "1", "3", "--seconds", "0.01", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [speed["batch_songs"] for speed in printed["speeds"]] == [1, 1, 1, 3, 3, 3]
    assert printed["provenance"]["machine"]


def test_songs_that_cannot_be_measured_are_refused(bundle: Path, tmp_path: Path) -> None:
    empty = save(tmp_path / "empty.arrow")
    with pytest.raises(SongError, match=r"empty\.arrow: expected songs to measure on, found none"):
        bench(bundle, empty.path)
    other = save(tmp_path / "other.arrow", random_batch([120]), units="standardised")
    with pytest.raises(SongError, match=r"other\.arrow: expected raw songs for this bundle, found standardised ones"):
        bench(bundle, other.path)


@pytest.mark.parametrize(("batches", "seconds"), [((), 1.0), ((4, 0), 1.0), ((1,), 0.0)])
def test_nothing_to_measure_is_refused(bundle: Path, batches: tuple[int, ...], seconds: float) -> None:
    with pytest.raises(ConfigError, match="expected batches of at least 1 song and seconds above 0, found "):
        bench(bundle, batches=batches, seconds=seconds)
