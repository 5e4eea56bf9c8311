"""The scorer: every song answered once, in order, or no file at all."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from segue.data.columns import SEGMENTS
from segue.data.song import FEATURE_NAMES, Floats
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from segue.serving.batch.score import main, score
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.runtime import OnnxModel
from tests.support.bundles import BOTH_ANSWER_NATS, CLASSES
from tests.support.random_songs import random_batch, random_segments, save

PROBABILITIES = [f"probability_{name}" for name in CLASSES]


def read(path: Path) -> pa.Table:
    """Return a file of scores with one column a class, however it was written."""
    if path.suffix == ".csv":
        return pyarrow.csv.read_csv(path)
    table = pq.read_table(path).flatten()
    return table.rename_columns([name.replace("probabilities.", "probability_") for name in table.column_names])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_song_gets_the_answer_of_the_cascade(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(
        "segue.serving.batch.score.SONGS_AT_A_TIME", 64
    )  # 500 songs are seven batches and a part of one.
    out = tmp_path / f"scores{suffix}"
    scored = score(bundle, mixed_songs, out, threshold=BOTH_ANSWER_NATS)
    found, table = read(out), SongTable(mixed_songs)
    answers = open_cascade(load_bundle(bundle)).answer(table.songs(range(500)), BOTH_ANSWER_NATS)
    columns = ["song_id", "genre", "cross_entropy_nats", "answered_by", "rung", "windows", *PROBABILITIES]
    assert found.column_names == columns
    assert found["song_id"].to_pylist() == table.song_ids
    assert found["genre"].to_pylist() == [CLASSES[choice] for choice in answers.choice]
    assert found["answered_by"].to_pylist() == [answers.answered_by(row) for row in range(500)]
    assert set(found["answered_by"].to_pylist()) == {"student", "teacher"}
    np.testing.assert_array_equal(found["rung"].to_numpy(), answers.rung + 1)
    np.testing.assert_array_equal(found["windows"].to_numpy(), answers.windows)
    probs = np.column_stack([found[name].to_numpy() for name in PROBABILITIES])
    np.testing.assert_allclose(probs, answers.probs, atol=1e-6)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found["cross_entropy_nats"].to_numpy(), -np.log(probs.max(axis=1)), atol=1e-6)
    assert scored.fallback_rate == answers.fell_back.mean()
    assert scored.songs_by_genre == {name: found["genre"].to_pylist().count(name) for name in CLASSES}


def test_the_verb_says_what_it_wrote(
    bundle: Path, mixed_songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.parquet"
    assert main([str(bundle), str(mixed_songs), str(out), "--threshold", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["out"], printed["songs"], printed["fallback_rate"]) == (str(out), 500, 1.0)
    assert pq.read_table(out).num_rows == 500
    assert pq.read_schema(out).field("probabilities").type == pa.struct([(name, pa.float32()) for name in CLASSES])


def test_no_songs_give_an_empty_file(bundle: Path, tmp_path: Path) -> None:
    songs = save(tmp_path / "songs.arrow")
    scored = score(bundle, songs.path, tmp_path / "scores.parquet")
    assert (scored.songs, scored.fallback_rate, read(tmp_path / "scores.parquet").num_rows) == (0, 0.0, 0)


def broken_song(folder: Path) -> Path:
    """Write a table as another program might, with a NaN in its third song."""
    segments = random_segments(4 * 120).reshape(4, 120, 25)
    segments[2, 7, 24] = np.nan
    columns = {"song_id": pa.array(list("abcd")), "segments": pa.array(segments.tolist(), SEGMENTS)}
    table = pa.table(columns).replace_schema_metadata({"segue.units": "raw"})
    with pa.ipc.new_file(folder / "songs.arrow", table.schema) as file:
        file.write_table(table)
    return folder / "songs.arrow"


def other_units(folder: Path) -> Path:
    return save(folder / "songs.arrow", random_batch([120]), units="standardised").path


def nothing(folder: Path) -> Path:
    return folder / "songs.arrow"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken_song, f"'c', segment 7: expected finite numbers, found nan in {FEATURE_NAMES[24]}"),
        (other_units, "songs.arrow: expected raw songs for this bundle, found standardised ones"),
        (nothing, "songs.arrow: expected a song table, found no such file"),
    ],
)
def test_songs_that_cannot_be_scored_leave_no_file(
    bundle: Path, tmp_path: Path, make: Callable[[Path], Path], message: str, suffix: str
) -> None:
    songs = make(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(SongError, match=message):
        score(bundle, songs, tmp_path / "out" / f"scores{suffix}")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_song_that_no_model_knows_leaves_no_file(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknowing(_: OnnxModel, windows: Floats) -> Floats:
        return np.full((len(windows), len(CLASSES)), np.nan, np.float32)

    monkeypatch.setattr(OnnxModel, "logits", unknowing)
    with pytest.raises(SongError, match="song 'song-0': the models' answer is not a number"):
        score(bundle, mixed_songs, tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "threshold", "message"),
    [
        ("scores.txt", None, "scores.txt: expected a name that ends in .parquet or .csv"),
        ("scores", None, "scores: expected a name that ends in .parquet or .csv"),
        ("scores.csv", -1.0, "threshold: expected at least 0 nats, found -1.0"),
        ("scores.csv", np.nan, "threshold: expected at least 0 nats, found nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    bundle: Path, mixed_songs: Path, tmp_path: Path, name: str, threshold: float | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        score(bundle, mixed_songs, tmp_path / name, threshold=threshold)
    assert list(tmp_path.iterdir()) == []
