"""Splits: every labelled song on one side, artists together, classes in proportion."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segue.data.splits import HANDS, Shares, Splits, deal, labelled_rows, split
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError
from tests.support.random_songs import random_batch, save

SHARES = Shares(validation=0.1, calibration=0.2, test=0.15)


def table_of(path: Path, labels: Sequence[str | None], groups: Sequence[str | None] = ()) -> SongTable:
    return save(path / "songs.arrow", random_batch([1] * len(labels), labels, groups))


def uneven_table(path: Path, seed: int) -> SongTable:
    """Return 500 songs of three classes of unequal size by 90 artists of unequal size, some of each unknown."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(["Jazz", "Folk", "Rock", ""], 500, p=[0.2, 0.3, 0.4, 0.1])
    artists = rng.choice(90, 500, p=rng.dirichlet(np.ones(90)))
    return table_of(path, [str(one) or None for one in labels], [f"AR{one}" if one else None for one in artists])


def parts(splits: Splits) -> dict[str, set[int]]:
    return {name: set(rows.tolist()) for name, rows in vars(splits).items()}


@pytest.mark.parametrize("seed", range(3))
def test_every_labelled_song_is_in_exactly_one_part(tmp_path: Path, seed: int) -> None:
    table = uneven_table(tmp_path, seed)
    splits = split(table, SHARES, seed)
    dealt = np.concatenate(list(vars(splits).values()))
    assert sorted(dealt) == np.flatnonzero(table.labels != -1).tolist()
    assert all((np.diff(rows) > 0).all() for rows in vars(splits).values())


@pytest.mark.parametrize("seed", range(8))
def test_an_artist_is_never_on_two_sides(tmp_path: Path, seed: int) -> None:
    table = uneven_table(tmp_path, seed)
    artists = {
        name: {table.groups[row] for row in rows} - {None} for name, rows in parts(split(table, SHARES, seed)).items()
    }
    assert all(artists.values())
    assert sum(map(len, artists.values())) == len(set.union(*artists.values()))


@pytest.mark.parametrize("seed", range(3))
def test_a_fold_never_shares_an_artist_with_another(tmp_path: Path, seed: int) -> None:
    table = uneven_table(tmp_path, seed)
    rows = labelled_rows(table)
    fold_of = deal(table, rows, 4, seed)
    assert set(fold_of) == {0, 1, 2, 3}
    for artist in set(table.groups) - {None}:
        assert len({fold for row, fold in zip(rows, fold_of, strict=True) if table.groups[row] == artist}) <= 1


def test_without_artists_every_class_has_its_share_everywhere(tmp_path: Path) -> None:
    labels = ["Jazz"] * 207 + ["Folk"] * 95 + ["Rock"] * 33
    table = table_of(tmp_path, labels)
    splits = split(table, SHARES, seed=0)
    for name, hands in (("validation", 2), ("calibration", 4), ("test", 3), ("train", 11)):
        found = np.bincount(table.labels[vars(splits)[name]], minlength=3)
        expected = np.bincount(table.labels) * hands / HANDS
        assert (np.abs(found - expected) < hands).all(), name  # A hand holds a class's share, rounded up or down.


def test_with_artists_the_classes_stay_close_to_their_shares(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [str(one) for one in rng.choice(["Jazz", "Folk", "Rock"], 2000, p=[0.5, 0.3, 0.2])]
    table = table_of(tmp_path, labels, [f"AR{one}" for one in rng.integers(700, size=2000)])
    shares = np.bincount(table.labels) / 2000
    for name, rows in vars(split(table, SHARES, seed=0)).items():
        assert len(rows) / 2000 == pytest.approx({"train": 0.55, **vars(SHARES)}[name], abs=0.02)
        np.testing.assert_allclose(np.bincount(table.labels[rows]) / len(rows), shares, atol=0.04)


def test_a_seed_deals_the_same_way_twice_and_another_deals_otherwise(tmp_path: Path) -> None:
    table = uneven_table(tmp_path, seed=0)
    assert parts(split(table, SHARES, seed=1)) == parts(split(table, SHARES, seed=1))
    assert parts(split(table, SHARES, seed=1)) != parts(split(table, SHARES, seed=2))


def test_songs_of_one_class_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["Jazz"] * 50 + [None] * 9)
    with pytest.raises(LabelError, match="labelled songs of at least two classes, found 50 labelled songs, all Jazz"):
        split(table, SHARES, seed=0)


def test_a_class_that_no_model_could_name_is_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["Jazz", "Pop\tRock"] * 100)
    with pytest.raises(LabelError, match=r"songs.arrow: expected classes without tabs, .* found 'Pop\\tRock'"):
        split(table, SHARES, 0)


def test_songs_without_labels_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, [None] * 30)
    with pytest.raises(LabelError, match=r"found 0 labelled songs among 30.*--labels FILE"):
        split(table, SHARES, seed=0)


def test_too_few_songs_to_deal_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["Jazz", "Folk"] * 15)
    with pytest.raises(LabelError, match=r"songs\.arrow: expected a class of at least 20 songs .* found 15 at most"):
        split(table, SHARES, seed=0)


def test_too_few_artists_to_deal_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["Jazz", "Folk"] * 50, ["Ella", "Nina", "Anita", "Sarah"] * 25)
    with pytest.raises(LabelError, match=r"songs\.arrow: expected at least 20 groups .* found 4"):
        split(table, SHARES, seed=0)


@pytest.mark.parametrize("shares", [(-0.1, 0.2, 0.0), (0.4, 0.4, 0.2), (float("nan"), 0.2, 0.0)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match=r"leave at least 0\.1 to train on"):
        Shares(*shares)


def test_shares_may_leave_just_a_tenth_to_train_on() -> None:
    assert Shares(0.1, 0.2, 0.6).kept_apart == (0.1, 0.2, 0.6)


def test_a_class_too_rare_to_split_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = random_batch([3] * 203, labels=["Rock"] * 100 + ["Jazz"] * 100 + ["Gospel"] * 3)
    save(tmp_path / "songs.arrow", batch)
    splits = split(SongTable(tmp_path / "songs.arrow"), Shares(), seed=0)
    songs = SongTable(tmp_path / "songs.arrow")
    missing = [name for name, rows in vars(splits).items() if len(rows) and 0 not in songs.labels[rows]]
    assert missing
    assert [message.split(": ")[1:] for message in caplog.messages] == [
        [f"too rare to split, none in {name}", "Gospel (3 songs)"] for name in missing
    ]


@pytest.mark.parametrize("seed", range(4))
def test_shares_may_be_any_numbers(tmp_path: Path, seed: int) -> None:
    table, shares = uneven_table(tmp_path, seed), Shares(validation=0.033, calibration=0.17, test=0.201)
    splits = split(table, shares, seed)
    rows = labelled_rows(table)
    assert sorted(np.concatenate(list(vars(splits).values()))) == rows.tolist()
    artists = [{table.groups[row] for row in part} - {None} for part in vars(splits).values()]
    assert sum(map(len, artists)) == len(set.union(*artists))
    for name, share in (
        *zip(("validation", "calibration", "test"), shares.kept_apart, strict=True),
        ("train", 1 - 0.404),
    ):
        part = vars(splits)[name]
        assert len(part) == pytest.approx(share * len(rows), abs=0.02 * len(rows))


def test_any_shares_are_exact_to_a_song_a_class_where_there_are_no_artists(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["a"] * 300 + ["b"] * 100)
    splits = split(table, Shares(validation=0.13, calibration=0.07), seed=1)
    for name, share in (("validation", 0.13), ("calibration", 0.07), ("train", 0.8)):
        counts = np.bincount(table.labels[vars(splits)[name]])
        np.testing.assert_allclose(counts, share * np.array([300, 100]), atol=1)
    again = split(table, Shares(validation=0.13, calibration=0.07), seed=2)
    assert not np.array_equal(splits.validation, again.validation)


def stated_table(path: Path, splits: Sequence[str | None], groups: Sequence[str | None] = ()) -> SongTable:
    labels = ["Jazz", "Folk"] * (len(splits) // 2)
    return save(path / "songs.arrow", replace(random_batch([1] * len(labels), labels, groups), splits=list(splits)))


def test_songs_whose_split_the_table_says_go_there_and_the_others_are_dealt(tmp_path: Path) -> None:
    table = stated_table(tmp_path, ["test"] * 20 + ["validation"] * 6 + ["train"] * 70 + [None] * 30)
    found = parts(split(table, Shares(validation=0.3, calibration=0.2, test=0.3), seed=0))
    assert found["test"] == set(range(20))
    assert found["validation"] == set(range(20, 26))
    assert len(found["calibration"]) == pytest.approx(0.2 * 100, abs=4)
    assert found["train"] == set(range(26, 126)) - found["calibration"]


def test_a_table_that_says_everything_is_not_dealt(tmp_path: Path) -> None:
    names = ["test"] * 4 + ["validation"] * 4 + ["calibration"] * 4 + ["train"] * 4
    found = parts(split(stated_table(tmp_path, names), Shares(), seed=0))
    assert found == {name: {row for row in range(16) if names[row] == name} for name in found}


def test_artists_that_a_table_puts_on_two_sides_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["test", "test", *["calibration", "validation"] * 4, *["train"] * 4]
    split(stated_table(tmp_path, names, ["Ella", "Nina", *[None] * 8, "Ella", None, None, "Nina"]), Shares(), seed=0)
    assert any("2 artists are in two splits" in message for message in caplog.messages)


def test_a_split_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"expected splits validation, calibration, test, train, found fold-1"):
        split(stated_table(tmp_path, ["fold-1", "test"]), Shares(), seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_songs_that_measure_are_drawn_as_the_songs_to_come_and_all_others_train(tmp_path: Path, seed: int) -> None:
    table = uneven_table(tmp_path, seed)
    plain, capped = split(table, SHARES, seed), split(table, replace(SHARES, largest_class=0.4), seed)
    assert capped.train.tolist() == plain.train.tolist()
    for name in ("validation", "calibration", "test"):
        rows, all_rows = vars(capped)[name], vars(plain)[name]
        counts, before = (np.bincount(table.labels[one], minlength=3) for one in (rows, all_rows))
        assert set(rows) <= set(all_rows)
        assert counts.max() <= 0.4 * len(rows)
        most = counts.max()
        assert counts.tolist() == np.minimum(before, most).tolist()  # Nothing but the surplus is left out ...
        assert (before <= most).all() or most + 1 > 0.4 * np.minimum(before, most + 1).sum()  # ... and no more of it.


def test_a_largest_class_that_no_songs_can_keep_is_refused(tmp_path: Path) -> None:
    table = uneven_table(tmp_path, 0)
    with pytest.raises(LabelError, match=r"none needs more than 0\.3 of the songs \(largest_class\), found 3 classes"):
        split(table, replace(SHARES, largest_class=0.3), 0)  # Of three classes one has a third.
    with pytest.raises(ConfigError, match="largest_class: expected a share above 0, up to 1, found 0"):
        Shares(largest_class=0)
