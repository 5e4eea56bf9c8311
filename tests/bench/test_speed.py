"""The benchmark of a bundle: its figures fit together, whatever the machine."""

import json
from pathlib import Path

import numpy as np
import pytest

from segue.bench.ceilings import WINDOW_BYTES, flop_per_window
from segue.bench.results import Condition, Results, read_results
from segue.bench.speed import bench, main
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from tests.support.random_songs import random_batch, save


@pytest.fixture(scope="module")
def measured(bundle: Path, mixed_songs: Path) -> Results:
    return bench(bundle, mixed_songs, batches=(1, 40), seconds=0.01, threads=(1,), quick=True)


def test_every_model_is_measured_at_every_batch(measured: Results) -> None:
    conditions = [one.conditions for one in measured.select("models", "throughput")]
    assert conditions == [
        {"model": model, "batch_songs": batch, "threads": 1}
        for batch in (1, 40)
        for model in ("student", "teacher", "cascade")
    ]
    assert measured.command.startswith("segue bench bundle --songs ")


def test_rates_and_latencies_fit_together(measured: Results) -> None:
    for throughput in measured.select("models", "throughput"):
        p50, p90, p99 = (measured.select("models", name, **throughput.conditions)[0] for name in ("p50", "p90", "p99"))
        assert p50.value <= p90.value <= p99.value
        assert p50.low <= p50.value <= p50.high
        batch = throughput.conditions["batch_songs"]
        assert isinstance(batch, int)
        assert min(throughput.rounds) <= batch / p50.value * 1e3 <= max(throughput.rounds)


def test_the_share_of_the_ceiling_is_that_of_the_slower_of_products_and_copies(measured: Results, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    content = loaded.model(loaded.manifest.student)
    flop = flop_per_window(content)
    assert flop
    (product,), (copy,) = (measured.select("ceilings", name) for name in ("matrix product", "memory copy"))
    conditions: dict[str, Condition] = {"model": "student", "batch_songs": 40, "threads": 1}
    (share,), (rate,) = (measured.select("models", name, **conditions) for name in ("of ceiling", "throughput"))
    windows = loaded.manifest.student.windows
    for found, songs_per_s, gflop_per_s, gb_per_s in zip(
        share.rounds, rate.rounds, product.rounds, copy.rounds, strict=True
    ):
        least_s = max(windows * flop / gflop_per_s / 1e9, (windows * WINDOW_BYTES + len(content) / 40) / gb_per_s / 1e9)
        assert found == pytest.approx(songs_per_s * least_s) or windows > 1


def test_the_dial_trades_agreement_for_speed(measured: Results, bundle: Path, mixed_songs: Path) -> None:
    rates = {one.conditions["asked"]: one.value for one in measured.select("dial", "fallback rate")}
    assert rates[0.0] == 0
    assert rates[1.0] == 1
    agreement = {one.conditions["asked"]: one for one in measured.select("dial", "agreement with the teacher")}
    assert agreement[1.0].value == 1
    cascade = open_cascade(load_bundle(bundle))
    table = SongTable(mixed_songs)
    songs = table.songs(np.resize(np.arange(len(table)), 1024))
    same = cascade.student.predict(songs).probs.argmax(axis=1) == cascade.teacher.predict(songs).probs.argmax(axis=1)
    assert agreement[0.0].value == same.mean()
    assert agreement[0.0].low < same.mean() < agreement[0.0].high or same.mean() == 1


def test_the_verb_prints_tables_and_writes_what_another_run_is_compared_with(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of three milliseconds tell nothing, but both runs have them."""
    words = [str(bundle), "--quick", "--batches", "2", "--seconds", "0.01"]
    out = tmp_path / "results.json"
    assert main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"Bundle {load_bundle(bundle).manifest.version}." in printed
    assert "songs/s" in printed
    main([*words, "--compare", str(out), "--json"])
    again = json.loads(capsys.readouterr().out)
    with_rounds = [one for one in read_results(out).figures if len(one.rounds) >= 7 and one.name == "throughput"]
    assert again["comparison"]["compared"] == len(with_rounds)
    assert again["machine"]["cores"] >= 1


def test_songs_that_cannot_be_measured_are_refused(bundle: Path, tmp_path: Path) -> None:
    empty = save(tmp_path / "empty.arrow")
    with pytest.raises(SongError, match=r"empty\.arrow: expected songs to measure on, found none"):
        bench(bundle, empty.path)
    other = save(tmp_path / "other.arrow", random_batch([120]), units="standardised")
    with pytest.raises(SongError, match=r"other\.arrow: expected raw songs for this bundle, found standardised ones"):
        bench(bundle, other.path)


@pytest.mark.parametrize(("batches", "seconds"), [((), 1.0), ((4, 0), 1.0), ((1,), 0.0)])
def test_nothing_to_measure_is_refused(bundle: Path, batches: tuple[int, ...], seconds: float) -> None:
    with pytest.raises(ConfigError, match="expected batches of at least 1 song, at least 1 thread and seconds above 0"):
        bench(bundle, batches=batches, seconds=seconds)
    with pytest.raises(ConfigError, match="expected a bundle to measure, found none"):
        bench()
