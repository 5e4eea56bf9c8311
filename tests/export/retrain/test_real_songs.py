"""Retraining on real songs: what is better is published, what is worse or as good is not. `pytest -m long -s` prints.

A dozen songs of each genre train the first champion, and twice as many its challengers; the other songs of the balanced
set, of other artists, judge. The networks are small, so that a retrain takes a minute.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segue.data.song import Ints
from segue.data.songs import songs as convert
from segue.data.table import NO_LABEL, SongBatch, SongTable
from segue.export.retrain.retrain import Retrained, retrain
from segue.serving.releases.store import ReleaseStore
from tests.support.random_songs import save

FIRST = 12  # Songs of each genre.
GENRES = ("Country", "Latin", "Metal", "Pop", "Rap", "RnB", "Rock")  # The two others have too few artists here.
SHUFFLED = 0.5  # Share of the labels.

RECIPE = """
workspace = "$SPACE/work"
bundle = "$SPACE/bundle"
releases = "$SPACE/releases"

[songs]
sources = ["$SPACE/songs.arrow"]

[test]
sources = ["$SPACE/held-out.arrow"]

[teacher]
folds = 2
split_seed = 0
join_folds = true
shares = { validation = 0.11, calibration = 0.21 }  # No multiples of 5 %: those want 20 songs of a genre.
network = { shape = "dense", hidden = [256] }

[teacher.loop]
epochs = 60
batch_songs = 32
learning_rate = 2e-3
weight_decay = 5e-2
windows = 9
augmentation = { transpose = true }

[student]
network = { hidden = [256] }
distillation = { match = "kl", label_weight = 0.8 }

[student.loop]
epochs = 60
batch_songs = 32
learning_rate = 2e-3
weight_decay = 5e-2
windows = 9
augmentation = { transpose = true }

[export]
forms = { int8 = "never" }
windows = { student_windows = 9, teacher_windows = 9 }

[export.calibration]
points = 20

[gate]
cost_factor = 20.0  # Of networks this small a busy machine measures little.
"""


def shuffled(batch: SongBatch, share: float) -> SongBatch:
    """Exchange the labels of a share of the songs."""
    rng, labels = np.random.default_rng(0), np.array(batch.labels, dtype=object)
    some = np.flatnonzero(rng.random(len(labels)) < share)
    labels[some] = labels[rng.permutation(some)]
    return replace(batch, labels=labels.tolist())


def of_whole_artists(table: SongTable, genre: int) -> Ints:
    """Return the songs of a genre, in an order that leaves those of an artist together and artists to chance."""
    rows = np.flatnonzero(table.labels == genre)
    artists = np.unique([str(table.groups[row]) for row in rows], return_inverse=True)[1]
    rank = np.random.default_rng(genre).permutation(artists.max() + 1)
    return rows[np.argsort(rank[artists], kind="stable")]


@pytest.mark.long
def test_shuffled_labels_are_rejected_an_equal_is_not_told_apart_and_labels_put_right_are_published(
    real_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE", str(tmp_path))
    recipe = tmp_path / "recipe.toml"
    source = real_songs / "msd_songs_full_length.npz"
    convert((source, tmp_path / "all.arrow"), classes=GENRES, where=("balanced=true",))
    table = SongTable(tmp_path / "all.arrow")
    some = [of_whole_artists(table, genre) for genre in range(len(GENRES))]
    training = table.batch(np.concatenate([rows[: 2 * FIRST] for rows in some]))
    known = set(training.groups)
    held_out = [row for row, artist in enumerate(table.groups) if artist not in known and table.labels[row] != NO_LABEL]
    save(tmp_path / "held-out.arrow", table.batch(held_out), classes=table.classes)

    def challenge(batch: SongBatch, text: str = RECIPE, champion: Path | None = None) -> Retrained:
        (tmp_path / "songs.arrow").unlink(missing_ok=True)
        save(tmp_path / "songs.arrow", batch, classes=table.classes)
        recipe.write_text(text)
        found = retrain(recipe, None if champion is None else str(champion))
        said = found.evaluation
        accuracies = ", ".join(
            f"{name} {getattr(said, name).accuracy:.3f}" for name in ("student", "teacher", "cascade")
        )
        print(f"\n{len(batch)} songs: {found.verdict}\n  {accuracies}, {said.fallback_rate:.0%} fell back")
        return found

    store = ReleaseStore(tmp_path / "releases")
    first = challenge(table.batch(np.concatenate([rows[:FIRST] for rows in some])))
    twice = challenge(training)
    assert first.exit_code == 0
    # So few songs to judge tell a gain of five points or so; what twice the songs are worth here may be less.
    assert str(twice.verdict).startswith(("published: better: +", "rejected: too few held-out songs to tell, "))
    reigning = store.index().latest
    assert reigning == (twice.published or first.published)

    worse = challenge(shuffled(training, SHUFFLED))
    assert worse.exit_code == 3
    assert "worse: -" in str(worse.verdict) or "Accuracy: -" in str(worse.verdict)
    shutil.copytree(worse.bundle, tmp_path / "worse")
    equal = challenge(training, RECIPE.replace("split_seed = 0", "split_seed = 1"))  # The same songs, dealt otherwise.
    assert equal.exit_code == 3
    assert "not better beyond chance" in str(equal.verdict) or "too few held-out songs to tell" in str(equal.verdict)
    assert store.index().latest == reigning

    alone = RECIPE.replace('releases = "$SPACE/releases"\n', "")
    righted = challenge(training, alone, tmp_path / "worse")  # Where the labels are put right.
    assert righted.exit_code == 0
    assert str(righted.verdict).startswith("published: better: +")
