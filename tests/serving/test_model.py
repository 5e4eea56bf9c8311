"""The Python surface: whatever the songs come in, the answers are the cascade's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import segue
from segue.data.song import Floats, Songs
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.model import GenreModel
from segue.serving.predictions import Answer
from tests.support.bundles import BOTH_ANSWER_NATS, CLASSES
from tests.support.random_songs import random_batch, random_segments, save

WHOLE = [random_segments(n, seed=n) for n in (90, 120, 400)]
WINDOWS = np.stack([random_segments(120, seed=n) for n in range(5)])


@pytest.fixture(scope="module")
def model(bundle: Path) -> GenreModel:
    return segue.load(bundle).with_threshold(BOTH_ANSWER_NATS)


def check(found: Sequence[Answer], bundle: Path, ids: Sequence[str], songs: Sequence[Floats]) -> None:
    expected = open_cascade(load_bundle(bundle)).answer(Songs.of(songs), BOTH_ANSWER_NATS)
    assert [one.song_id for one in found] == list(ids)
    assert [one.genre for one in found] == [CLASSES[choice] for choice in expected.choice]
    assert [one.rung for one in found] == (expected.rung + 1).tolist()
    assert [one.windows for one in found] == expected.windows.tolist()
    for row, one in enumerate(found):
        assert one.answered_by == expected.answered_by(row)
        np.testing.assert_allclose([one.probabilities[name] for name in CLASSES], expected.probs[row], atol=1e-6)
        assert one.cross_entropy_nats == pytest.approx(-np.log(max(one.probabilities.values())), abs=1e-6)


def test_an_array_of_windows_and_a_list_of_whole_songs(model: GenreModel, bundle: Path) -> None:
    check(list(model.classify(WINDOWS)), bundle, list("01234"), list(WINDOWS))
    check(list(model.classify(WINDOWS.astype(np.float64))), bundle, list("01234"), list(WINDOWS))
    check(list(model.classify(WHOLE)), bundle, list("012"), WHOLE)
    assert list(model.classify([])) == []


def test_a_table_in_memory(model: GenreModel, bundle: Path) -> None:
    table = pa.table({"song_id": list("abc"), "segments": [song.tolist() for song in WHOLE]})
    check(list(model.classify(table)), bundle, list("abc"), WHOLE)


def test_a_path_is_read_batch_by_batch(
    model: GenreModel, bundle: Path, mixed_songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.serving.model.SONGS_AT_A_TIME", 100)
    table = SongTable(mixed_songs)
    found = model.classify(mixed_songs)
    first = next(found)
    check([first, *found], bundle, table.song_ids, list(table.songs(range(len(table)))))
    assert next(model.classify(str(mixed_songs))) == first


def test_bad_songs_are_refused_by_name(model: GenreModel, tmp_path: Path) -> None:
    broken = WHOLE[1].copy()
    broken[3, 14] = 2.0
    with pytest.raises(SongError, match=r"song '1', segment 3: expected chroma_D between 0 and 1, found 2"):
        list(model.classify([WHOLE[0], broken]))
    with pytest.raises(SongError, match="expected numbers, found booleans"):
        list(model.classify(np.ones((2, 120, 25), bool)))
    with pytest.raises(SongError, match=r"found an array \(400, 25\)"):
        list(model.classify(WHOLE[2]))
    standardised = save(tmp_path / "songs.arrow", random_batch([120]), units="standardised")
    with pytest.raises(SongError, match="expected raw songs for this bundle, found standardised ones"):
        list(model.classify(standardised.path))


def test_the_dial_can_be_read_and_turned(bundle: Path) -> None:
    model, manifest = segue.load(bundle), load_bundle(bundle).manifest
    assert model.classes == CLASSES
    assert model.threshold_nats == manifest.threshold_nats
    assert str(manifest.guarantee) in model.explain_dial()
    turned = model.with_threshold(0.0)
    assert (turned.threshold_nats, model.threshold_nats) == (0.0, manifest.threshold_nats)
    assert "set by hand" in turned.explain_dial()
    assert {one.answered_by for one in turned.classify(WHOLE)} == {"teacher"}
    with pytest.raises(ConfigError, match="expected at least 0 nats, found -1"):
        model.with_threshold(-1.0)
