"""`segue describe`: its figures against plain numpy, what it finds wrong, and a page that says so and loads nothing."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.data.describe.describe import QUANTILES, FeatureTally, describe, main
from segue.data.describe.description import BLOCKS, Description
from segue.data.song import FEATURE_NAMES
from segue.data.synth import LOUDNESS_MEAN_DB, LOUDNESS_SD_DB, TIMBRE_MEAN, TIMBRE_SD
from segue.data.table import SongBatch
from segue.errors import ConfigError, SongError
from tests.support.random_songs import random_batch, random_segments, save

LENGTHS = [130, 119, 120, 500, 10]
NASTY = "<script>alert('R&B')</script> $x$"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of two batches: five songs, two of them short, and one more."""
    labels = ["Jazz", None, NASTY, "Jazz", None]
    first = random_batch(LENGTHS, labels, ["Ella", "Ella", None, "Nina", "Ella"])
    return save(tmp_path / "songs.arrow", first, random_batch([200], ["Jazz"], ["Nina"], seed=1)).path


def known_batch(n_songs: int, seed: int = 0) -> SongBatch:
    """Return songs of one window with the means and spreads of the Million Song Dataset."""
    batch = random_batch([120] * n_songs, ["Jazz"] * n_songs, seed=seed)
    rng = np.random.default_rng(seed)
    batch.songs.segments[:, :12] = rng.normal(TIMBRE_MEAN, TIMBRE_SD, (120 * n_songs, 12))
    batch.songs.segments[:, 24] = rng.normal(LOUDNESS_MEAN_DB, LOUDNESS_SD_DB, 120 * n_songs).clip(-60, 0)
    return batch


def remarks(description: Description) -> list[str]:
    return [text for text, _ in description.attention()]


def test_songs_classes_artists_and_lengths_are_counted(table: Path) -> None:
    found = describe(table)
    assert (found.songs, found.labelled, found.unlabelled) == (6, {NASTY: 1, "Jazz": 3}, 2)
    assert (found.groups, found.largest_group, found.ungrouped) == (2, ("Ella", 3), 1)
    lengths = [*LENGTHS, 200]
    assert (found.lengths.min, found.lengths.max, found.lengths.short) == (10, 500, 2)
    assert found.lengths.quartiles == tuple(np.percentile(lengths, [25, 50, 75]))
    assert found.fingerprint == hashlib.sha256(table.read_bytes()).hexdigest()


def test_features_and_blocks_are_those_of_plain_numpy(table: Path) -> None:
    found = describe(table)
    segments = np.concatenate([random_segments(sum(LENGTHS)), random_segments(200, seed=1)]).astype(np.float64)
    columns = {name: segments[:, [i]] for i, name in enumerate(FEATURE_NAMES)}
    columns |= {name: segments[:, block] for name, block in BLOCKS.items()}
    figures = {one.name: one for one in (*found.features, *found.blocks)}
    assert list(figures) == list(columns)
    for name, values in columns.items():
        one = figures[name]
        expected = [values.mean(), values.std(), values.min(), values.max(), *np.quantile(values, QUANTILES)]
        np.testing.assert_allclose([one.mean, one.sd, one.min, one.max, *one.quantiles], expected, rtol=1e-9)


def test_a_large_table_keeps_exact_moments_and_samples_its_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.describe.describe.SAMPLE_SEGMENTS", 2000)
    tally = FeatureTally()
    segments = random_segments(50_000) + np.float32(1000)
    segments[:, 0] = np.linspace(0, 1, 50_000)  # In order, so that a sample of the beginning alone would show.
    for part in np.array_split(segments, 23):
        tally.add(part)
    chroma = tally.figures("chroma", BLOCKS["chroma"])
    exact = segments[:, BLOCKS["chroma"]].astype(np.float64)
    np.testing.assert_allclose([chroma.mean, chroma.sd], [exact.mean(), exact.std()], rtol=1e-10)
    standard_errors = np.sqrt([q * (1 - q) / 2000 for q in QUANTILES])
    ramp = tally.figures("ramp", slice(0, 1))
    np.testing.assert_array_less(np.abs(np.subtract(ramp.quantiles, QUANTILES)), 4 * standard_errors)


def test_songs_with_the_same_segments_are_found_across_batches(tmp_path: Path) -> None:
    first, again = random_batch([120, 130, 140]), random_batch([120, 130, 140]).take([2, 0])
    again.song_ids[:] = ["copy", "again"]
    found = describe(save(tmp_path / "songs.arrow", first, again).path)
    assert (found.duplicates.count, found.duplicates.listed) == (2, [("copy", "song-0-2"), ("again", "song-0-0")])
    assert "2 songs with the same segments as an earlier one" in remarks(found)


def test_only_the_first_duplicates_are_listed_but_all_are_counted(tmp_path: Path) -> None:
    batch = random_batch([7]).take([0] * 31)
    batch.song_ids[:] = [f"copy-{row}" for row in range(31)]
    found = describe(save(tmp_path / "songs.arrow", batch).path)
    assert found.duplicates.count == 30
    assert found.duplicates.listed == [(f"copy-{row}", "copy-0") for row in range(1, 11)]


def test_broken_songs_are_counted_and_only_their_finite_segments_measured(tmp_path: Path) -> None:
    batch = random_batch([4, 5, 0, 6, 7])
    batch.songs.segments[4 + 1, 12] = 1.5
    batch.songs.segments[9, 3] = np.nan
    batch.song_ids[4] = batch.song_ids[0]
    found = describe(save(tmp_path / "songs.arrow", batch).path)
    assert found.faults.count == 4
    assert found.faults.listed == [
        ("song-0-1", "segment 1: expected chroma_C between 0 and 1, found 1.5"),
        ("song-0-2", "expected at least one segment, found none"),
        ("song-0-3", "segment 0: expected finite numbers, found nan in timbre_4"),
        ("song-0-0", "another song has the same id"),
    ]
    finite = np.delete(batch.songs.segments, 9, axis=0).astype(np.float64)
    np.testing.assert_allclose([one.mean for one in found.features], finite.mean(axis=0))
    assert (found.songs, found.features[12].max) == (5, 1.5)


def test_features_off_the_known_ranges_are_named(tmp_path: Path) -> None:
    batch = known_batch(30)
    batch.songs.segments[:, 3] += 1.2 * TIMBRE_SD[3]
    batch.songs.segments[:, 24] = batch.songs.segments[:, 24] / 3 - 10
    found = describe(save(tmp_path / "songs.arrow", batch).path)
    assert [one.name for one in found.features if one.off] == ["timbre_4", "loudness_start_db"]
    assert "2 features off the ranges known from the Million Song Dataset" in remarks(found)


def test_rare_classes_and_missing_labels_are_told(tmp_path: Path) -> None:
    batch = known_batch(40)
    batch.labels[:21] = [None, *["Folk"] * 20]
    batch.labels[-1] = "Polka"
    found = describe(save(tmp_path / "songs.arrow", batch, classes=["Folk", "Jazz", "Polka", "Swing"]).path)
    assert found.attention() == [
        ("1 song without a label (2%)", []),
        ("3 classes of fewer than 20 songs", ["Swing 0", "Polka 1", "Jazz 18"]),
    ]


def test_sound_songs_are_nothing_to_worry_about(tmp_path: Path) -> None:
    found = describe(save(tmp_path / "songs.arrow", known_batch(30)).path)
    assert found.attention() == []
    assert "nothing to worry about" in str(found)
    assert "Nothing to worry about" in found.page.read_text()


def test_standardised_songs_without_labels_have_no_known_ranges(tmp_path: Path) -> None:
    batch = random_batch([120, 120])
    batch.songs.segments[:] = np.random.default_rng(0).standard_normal(batch.songs.segments.shape)
    found = describe(save(tmp_path / "songs.parquet", batch, units="standardised").path)
    assert (found.units, {one.known for one in found.features}) == ("standardised", {None})
    assert remarks(found) == ["2 songs without a label (100%)"]
    assert "Standardised songs have no known ranges" in found.page.read_text()


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_tells_the_numbers_and_escapes_every_name(tmp_path: Path, table: Path) -> None:
    found = describe(table, tmp_path / "new" / "page.html")
    page = Elements(found.page.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert "6 songs · 4 labelled in 2 classes · 2 artists · raw" in text
    assert "10 to 500 segments, median 125" in text
    assert f"sha256 {found.fingerprint}" in text
    assert "2 songs shorter than 120 segments" in text
    assert f"{found.features[0].mean:.2f}" in text
    assert f"{NASTY} 1" in text  # A rare class in the list...
    assert text.count("<script>") == 2  # ... and a bar in the picture.
    assert "script" not in page.tags
    assert {"svg", "details"} <= page.tags
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)", found.page.read_text())
    assert [one.name for one in found.page.parent.iterdir()] == ["page.html"]


def test_the_same_songs_make_the_same_page(table: Path) -> None:
    first = describe(table).page.read_bytes()
    assert describe(table).page.read_bytes() == first


def test_the_page_lies_beside_the_table_or_else_in_artifacts(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert describe(table).page == table.with_name("songs.html")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert describe(table).page == Path("artifacts/songs.html")
    assert (tmp_path / "artifacts" / "songs.html").is_file()


def test_many_classes_and_a_flood_of_unlabelled_songs_still_fit(tmp_path: Path) -> None:
    labels = [f"class-{row % 40}" for row in range(80)] + [None] * 400
    found = describe(save(tmp_path / "songs.arrow", random_batch([2] * 480, labels)).path)
    text = Elements(found.page.read_text()).text
    assert "16 smaller classes" in text
    assert "400 (cut)" in text


def test_a_table_for_people_and_one_json_document_for_programs(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(table)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^Jazz +3 +0\.500$", printed, re.MULTILINE)
    assert re.search(r"^\(no label\) +2 +0\.333$", printed, re.MULTILINE)
    assert f"{table.with_suffix('.html')}   the page" in printed
    assert main([str(table), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (document["songs"], document["labelled"], document["unlabelled"]) == (6, {NASTY: 1, "Jazz": 3}, 2)
    assert (document["page"], document["duplicates"]) == (str(table.with_suffix(".html")), {"count": 0, "listed": []})
    assert [one["name"] for one in document["features"]] == list(FEATURE_NAMES)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    table = save(tmp_path / "empty.arrow")
    with pytest.raises(SongError, match=r"empty\.arrow: expected songs to describe.*found 0 songs"):
        describe(table.path)
    assert not (tmp_path / "empty.html").exists()


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "gone.arrow"), "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "gone.arrow: expected a source of songs, found no such file" in printed.err


def test_the_page_never_takes_the_place_of_songs(table: Path) -> None:
    before = table.read_bytes()
    with pytest.raises(ConfigError, match=r"expected a file that ends in \.html, found .*songs\.arrow"):
        describe(table, table)
    assert table.read_bytes() == before


def test_real_songs(real_songs: Path, tmp_path: Path) -> None:
    found = describe(real_songs / "msd_songs.npz", tmp_path / "msd.html")
    assert (found.songs, sum(found.labelled.values()), len(found.labelled)) == (1894, 1292, 9)
    assert found.unlabelled == 602
    assert remarks(found) == ["602 songs without a label (32%)"]
    np.testing.assert_allclose([one.mean for one in found.features[:12]], TIMBRE_MEAN, atol=0.06)
    np.testing.assert_allclose([one.sd for one in found.features[:12]], TIMBRE_SD, atol=0.06)


def test_real_tracks_of_every_length(real_songs: Path, tmp_path: Path) -> None:
    found = describe(real_songs / "h5", tmp_path / "h5.html")
    assert (found.songs, found.lengths.min, found.lengths.short, found.fingerprint) == (64, 10, 4, None)
