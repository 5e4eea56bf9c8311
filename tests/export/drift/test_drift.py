"""Drift: quiet on songs of the same kind, loud on others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from segue.data.song import CHROMA, LOUDNESS, TIMBRE, Songs
from segue.data.synth import draw_genres, draw_songs
from segue.data.table import SongBatch, SongTable
from segue.errors import BundleError, SongError
from segue.export.drift.drift import Drifted, describe_songs, drift, main
from segue.export.drift.moved import DriftRules, holm, moved
from segue.export.drift.reference import REFERENCE, VALUES, Reference, one_of_each_artist
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import MANIFEST
from segue.serving.bundle.write import write_manifest
from tests.support.bundles import CLASSES, EASY, another_bundle
from tests.support.random_songs import save

RULES = DriftRules()


def songs(path: Path, seed: int, n: int = 150, change: Callable[[SongBatch], SongBatch] = lambda batch: batch) -> Path:
    """Write songs of the kind that the tests' bundle learnt from, after a change."""
    values, labels = draw_songs(n, draw_genres(len(CLASSES), 0, EASY), EASY, np.random.default_rng(seed))
    batch = SongBatch(
        song_ids=[f"new-{row}" for row in range(n)],
        songs=Songs.of(values),
        labels=[CLASSES[label] for label in labels],
        groups=[None] * n,
    )
    return save(path, change(batch), classes=CLASSES).path


def louder(batch: SongBatch) -> SongBatch:
    segments = batch.songs.segments.copy()
    segments[:, LOUDNESS] = np.minimum(segments[:, LOUDNESS] + 6, 0)
    return replace(batch, songs=Songs(segments, batch.songs.lengths))


def other_mix(batch: SongBatch) -> SongBatch:
    kept = [row for row, label in enumerate(batch.labels) if label in CLASSES[:2] or row % 5 == 0]
    return batch.take(kept)


def other_timbre(batch: SongBatch) -> SongBatch:
    """Turn the timbre as another basis of the same patches would, and scale it."""
    segments = batch.songs.segments.copy()
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    segments[:, TIMBRE] = segments[:, TIMBRE] @ turn.astype(np.float32) * 0.8
    return replace(batch, songs=Songs(segments, batch.songs.lengths))


@pytest.mark.parametrize(
    ("change", "expected", "n"),
    [(louder, "loudness_start_db mean", 300), (other_timbre, "timbre_", 300), (other_mix, "", 1000)],
)
def test_drift_speaks_on_other_songs(
    bundle: Path, tmp_path: Path, change: Callable[[SongBatch], SongBatch], expected: str, n: int
) -> None:
    found: Drifted = drift(bundle, songs(tmp_path / "new.arrow", 1, n, change))
    assert (found.exit_code, found.retrain) == (4, True)
    drifted = [one.what for one in found.moved if one.drifted]
    assert any(what.startswith(expected) for what in drifted)
    assert found.words.startswith(f"retrain: {drifted[0]}")


def test_drift_is_quiet_on_songs_of_the_same_kind(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, textfile = songs(tmp_path / "new.arrow", 2), tmp_path / "segue.prom"
    assert main([str(bundle), str(new), "--textfile", str(textfile)]) == 0
    assert "songs of the same kind" in capsys.readouterr().out
    gauges = textfile.read_text()
    assert "segue_drift_retrain 0.0" in gauges
    assert 'segue_drift_effect{what="genres"}' in gauges
    page = (tmp_path / "new-drift.html").read_text()
    assert page.count("<svg") == 3
    assert "Nothing to do" in page


FRESH = 770_000  # Seeds of tables that no default was chosen on.


@pytest.mark.long
def test_of_200_tables_of_the_same_kind_at_least_95_percent_are_quiet(bundle: Path, tmp_path: Path) -> None:
    opened = load_bundle(bundle)
    reference = Reference.read(opened)
    alarms = 0
    for draw in range(200):
        table = SongTable(songs(tmp_path / "new.arrow", FRESH + draw, 120))
        alarms += any(one.drifted for one in moved(reference, describe_songs(opened, table), RULES))
    assert stats.binomtest(200 - alarms, 200, alternative="greater").proportion_ci(0.95).low >= 0.95


def of_one_kind(rng: np.random.Generator, n: int = 120) -> Reference:
    """Draw n songs whose values, genres and fallbacks have always the same distribution."""
    values = np.sort(rng.normal(size=(n, len(VALUES))), axis=0).astype(np.float32)
    return Reference(values, rng.multinomial(n, (0.4, 0.3, 0.2, 0.1)), int(rng.binomial(n, 0.3)))


@pytest.mark.long
def test_hardly_a_reference_is_so_unlucky_that_more_than_5_percent_of_tables_raise_an_alarm() -> None:
    rng, references, tables = np.random.default_rng(FRESH), 40, 50
    rates = []
    for _ in range(references):
        reference = of_one_kind(rng)
        alarms = [any(one.drifted for one in moved(reference, of_one_kind(rng), RULES)) for _ in range(tables)]
        rates.append(np.mean(alarms))
    assert np.mean(rates) <= RULES.alpha + 3 * (RULES.alpha / (references * tables)) ** 0.5
    assert np.mean(np.array(rates) > RULES.alarms) <= 1 - RULES.confidence


def test_the_reference_is_quantiles_of_one_song_an_artist(mixed_songs: Path, bundle: Path) -> None:
    opened, table = load_bundle(bundle), SongTable(mixed_songs)
    found = describe_songs(opened, table)
    rows = one_of_each_artist(table.groups, np.arange(len(table)))
    means = np.array([table.segments(row).mean(axis=0, dtype=np.float64) for row in rows])
    assert found.values[:, :25] == pytest.approx(np.sort(means, axis=0), abs=1e-3)
    assert found.values[:, VALUES.index("segments")].tolist() == sorted(len(table.segments(row)) for row in rows)
    assert found.genres.sum() == found.songs == len(rows)


def test_no_two_songs_of_an_artist_are_kept() -> None:
    groups = ["a", "a", None, "b", None, "b", "c"]
    kept = one_of_each_artist(groups, np.array([0, 1, 2, 3, 4, 5]))
    names = [groups[row] for row in kept]
    assert sorted(map(str, names)) == ["None", "None", "a", "b"]
    assert len(one_of_each_artist([None] * 50, np.arange(50), most=10)) == 10


def test_holm_is_what_it_is_in_the_book() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_effects_and_p_values_are_those_of_scipy(bundle: Path, tmp_path: Path) -> None:
    reference = Reference.read(load_bundle(bundle))
    now = describe_songs(load_bundle(bundle), SongTable(songs(tmp_path / "new.arrow", 5, 300, louder)))
    found = {one.what: one for one in moved(reference, now, RULES)}
    column = VALUES.index("loudness_start_db mean")
    test = stats.ks_2samp(reference.values[:, column], now.values[:, column])
    assert found["loudness_start_db mean"].effect == pytest.approx(test.statistic)
    assert found["loudness_start_db mean"].p_value >= test.pvalue
    for place, name in enumerate(VALUES[CHROMA]):
        assert 0 <= found[name].effect <= 1, place


def test_a_bundle_without_a_reference_says_how_to_get_one(bundle: Path, tmp_path: Path) -> None:
    copy = another_bundle(bundle, tmp_path / "bundle", 1)
    manifest = load_bundle(copy).manifest
    (copy / REFERENCE).unlink()
    (copy / MANIFEST).unlink()
    write_manifest(copy, manifest)
    with pytest.raises(BundleError, match=r"expected a reference.npz .* `segue calibrate` writes one"):
        drift(copy, songs(tmp_path / "new.arrow", 1))


def test_too_few_songs_are_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SongError, match="expected songs of at least 20 artists to compare, found 7"):
        drift(bundle, songs(tmp_path / "new.arrow", 1, 7))
