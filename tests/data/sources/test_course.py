"""Course files: the arrays come through value by value, and a bad file is refused by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.data.song import Units
from segue.data.sources.course import CourseFile
from segue.data.table import SongBatch
from segue.errors import ConfigError, LabelError, SegueError, SongError
from tests.support.random_songs import random_segments

INPUTS = random_segments(5 * 120).reshape(5, 120, 25)
STANDARDISED = (INPUTS - INPUTS.mean(axis=(0, 1))) / INPUTS.std(axis=(0, 1))


def course_arrays() -> dict[str, Any]:
    return {"inputs": INPUTS, "targets": np.array([1, -1, 0, 1, 0]), "label_map": np.array(["Jazz", "Folk"])}


def save(path: Path, **changes: Any) -> Path:
    """Write a sound course file with some arrays changed, or left out where they are None."""
    arrays = {name: array for name, array in (course_arrays() | changes).items() if array is not None}
    np.savez(path, **arrays)
    return path


def read(path: Path, units: Units | None = None, where: Mapping[str, Sequence[str]] | None = None) -> list[SongBatch]:
    batches = list(CourseFile(path, units, where).batches())
    assert all(isinstance(batch, SongBatch) for batch in batches)
    return [batch for batch in batches if isinstance(batch, SongBatch)]


@pytest.mark.parametrize("shape", [(5, 3000), (5, 120, 25)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_songs_come_through_value_by_value(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    inputs = INPUTS.reshape(shape).astype(dtype)
    (batch,) = read(save(tmp_path / "course.npz", inputs=inputs))
    assert batch.songs.segments.dtype == np.float32
    np.testing.assert_array_equal(batch.songs.segments, inputs.astype(np.float32).reshape(600, 25))
    assert batch.songs.lengths.tolist() == [120] * 5
    assert batch.labels == ["Folk", None, "Jazz", "Folk", "Jazz"]
    assert batch.groups == [None] * 5
    assert batch.song_ids == [f"course-00000{row}" for row in range(5)]


def test_batches_cover_the_file_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.sources.course.BATCH_SONGS", 2)
    batches = read(save(tmp_path / "course.npz"))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([batch.songs.segments for batch in batches]), INPUTS.reshape(600, 25))
    assert [label for batch in batches for label in batch.labels] == ["Folk", None, "Jazz", "Folk", "Jazz"]


@pytest.mark.parametrize("kind", ["U", "S"])
def test_ids_artists_and_classes_are_read_as_text_or_bytes(tmp_path: Path, kind: str) -> None:
    names = {
        "track_ids": np.array(["TR1", "TR2", "TR3", "TR4", "TR5"], kind),
        "artist_id": np.array(["Ella", "Ella", "Nina", "Nina", "Nina"], kind),
        "label_map": np.array(["Jazz", "Folk"], kind),
    }
    (batch,) = read(save(tmp_path / "course.npz", **names))
    assert batch.song_ids == ["TR1", "TR2", "TR3", "TR4", "TR5"]
    assert batch.groups == ["Ella", "Ella", "Nina", "Nina", "Nina"]
    assert batch.labels == ["Folk", None, "Jazz", "Folk", "Jazz"]


def test_without_targets_no_song_has_a_label(tmp_path: Path) -> None:
    (batch,) = read(save(tmp_path / "course.npz", targets=None, label_map=None))
    assert batch.labels == [None] * 5


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_units_are_recognised(tmp_path: Path, dtype: Any) -> None:
    assert CourseFile(save(tmp_path / "raw.npz", inputs=INPUTS.astype(dtype))).units == "raw"
    assert CourseFile(save(tmp_path / "scaled.npz", inputs=STANDARDISED.astype(dtype))).units == "standardised"


def test_units_that_are_given_are_believed(tmp_path: Path) -> None:
    assert CourseFile(save(tmp_path / "raw.npz"), units="standardised").units == "standardised"


def test_where_keeps_the_songs_whose_fields_have_one_of_the_values(tmp_path: Path) -> None:
    path = save(tmp_path / "course.npz", fold=np.array([0, 1, 2, 0, 1]), balanced=np.array([1, 1, 1, 0, 0], bool))
    (by_fold,) = read(path, where={"fold": ["0", "2"]})
    np.testing.assert_array_equal(by_fold.songs.segments, INPUTS[[0, 2, 3]].reshape(-1, 25))
    assert by_fold.labels == ["Folk", "Jazz", "Folk"]
    (by_both,) = read(path, where={"fold": ["0", "2"], "balanced": ["true"]})
    assert by_both.song_ids == ["course-000000", "course-000002"]
    assert len(CourseFile(path, where={"fold": ["9"]})) == 0


def test_where_by_an_unknown_field_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"course\.npz: no field 'year' to select by; it has targets, fold"):
        CourseFile(save(tmp_path / "course.npz", fold=np.zeros(5)), where={"year": ["1999"]})


BAD_FILES: dict[str, tuple[dict[str, Any], type[SegueError], str]] = {
    "no inputs": ({"inputs": None}, SongError, "expected an array 'inputs', found targets, label_map"),
    "integer inputs": ({"inputs": INPUTS.astype(int)}, SongError, "float16 or float32, found int64"),
    "transposed": ({"inputs": INPUTS.transpose(0, 2, 1)}, SongError, "or (n, 120, 25), found (5, 25, 120)"),
    "119 segments": ({"inputs": INPUTS[:, :119]}, SongError, "found (5, 119, 25)"),
    "a target short": (
        {"targets": np.zeros(4, int)},
        SongError,
        "in targets for each of the 5 songs, found int64 (4,)",
    ),
    "a target too high": (
        {"targets": np.array([0, 1, 2, 0, 0])},
        LabelError,
        "expected targets below 2, the length of label_map; found 2",
    ),
    "no label_map": ({"label_map": None}, LabelError, "expected an array 'label_map', the names of the"),
    "a label_map that is no list": ({"label_map": np.array("Jazz")}, LabelError, "label_map"),
    "broken targets": (
        {"targets": np.full(5, 0.5)},
        SongError,
        "an integer in targets for each of the 5 songs, found float64",
    ),
    "text targets": (
        {"targets": np.array(list("abcde"))},
        SongError,
        "an integer in targets for each of the 5 songs, found <U1",
    ),
    "an id": ({"track_ids": np.array(["TR1"])}, SongError, "'track_ids' for each of the 5 songs"),
    "an artist": ({"group": np.array(["Ella"])}, SongError, "'group' for each of the 5 songs"),
    "an artist by id": ({"artist_id": np.array(["Ella"])}, SongError, "found shape (1,)"),
    "pickle": ({"label_map": np.array([{}, {}])}, SongError, "holds Python objects, which only pickle"),
}


@pytest.mark.parametrize(("changes", "error", "complaint"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_breaks_the_layout_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[SegueError], complaint: str
) -> None:
    with pytest.raises(error) as raised:
        CourseFile(save(tmp_path / "course.npz", **changes))
    assert str(raised.value).startswith(f"{tmp_path / 'course.npz'}: ")
    assert complaint in str(raised.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = save(tmp_path / "course.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SongError, match=r"course\.npz: expected an \.npz file, found one that cannot be read"):
        CourseFile(path)


@pytest.mark.parametrize("share", [0.002, 0.3, 0.6])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_file_with_damaged_content_is_refused(tmp_path: Path, write: Any, share: float) -> None:
    path = tmp_path / "course.npz"
    write(path, **course_arrays())
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(SongError, match=r"course\.npz: expected an \.npz file, found one that"):
        CourseFile(path)
