"""Course files with songs of all lengths, and test sets in halves: numpy's numbers come through, padding does not."""

import io
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segue.data.song import Floats, Units
from segue.data.sources import course_pair
from segue.data.sources.course_buckets import CourseBuckets, recognises
from segue.data.sources.course_pair import CoursePair
from segue.data.sources.npz import NpzArrays
from segue.data.sources.source import Skipped, Source, Tally
from segue.data.table import SongBatch
from segue.errors import LabelError, SegueError, SongError
from tests.support.random_songs import random_segments

LIMITS = (250, 500, 650, 800, 950, 1200, 2000, 4000)
LABEL_MAP = np.array(["Jazz", "Folk", "Rock"])
LENGTHS = [700, 120, 4000, 250, 251, 1000, 2001, 130, 600, 900, 1300]
SONGS = [random_segments(length, seed) for seed, length in enumerate(LENGTHS)]


def bucketed(songs: list[Floats], limits: tuple[int, ...] = LIMITS, dtype: Any = np.float32) -> dict[str, NDArray[Any]]:
    """Return songs as the course stores them; song i of the fixed-length file has the label i % 3."""
    arrays: dict[str, NDArray[Any]] = {"label_map": LABEL_MAP}
    for low, limit in zip((0, *limits), limits, strict=False):
        rows = [row for row, song in enumerate(songs) if low < len(song) <= limit]
        inputs = np.full((len(rows), limit, 25), np.nan, dtype)
        for padded, row in zip(inputs, rows, strict=True):
            padded[: len(songs[row])] = songs[row]
        arrays |= {f"inputs_{limit}": inputs, f"indices_{limit}": np.array(rows, dtype=np.int64)}
        arrays[f"targets_{limit}"] = np.array([row % 3 for row in rows], dtype=np.int64)
    return arrays


def save(path: Path, arrays: dict[str, NDArray[Any]], compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=True, **arrays)
    return path


def small() -> dict[str, NDArray[Any]]:
    """Return six songs in two buckets of 4 and 8 segments."""
    return bucketed([random_segments(length, length) for length in (3, 8, 4, 1, 5, 6)], (4, 8))


def read(path: Path, units: Units | None = None) -> tuple[list[SongBatch], list[Skipped]]:
    source: Source = CourseBuckets(path, units)
    items = list(source.batches())
    skipped = [item for item in items if isinstance(item, Skipped)]
    return [item for item in items if isinstance(item, SongBatch)], skipped


def songs_of(batches: list[SongBatch]) -> dict[str, Floats]:
    parts: dict[str, Floats] = {}
    for batch in batches:
        parts |= zip(batch.song_ids, np.split(batch.songs.segments, np.cumsum(batch.songs.lengths)[:-1]), strict=True)
    return parts


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4", np.float64])
def test_songs_come_through_value_by_value(tmp_path: Path, dtype: Any, compressed: bool, flat: bool) -> None:
    arrays = bucketed(SONGS, dtype=dtype)
    if flat:
        arrays |= {name: a.reshape(len(a), -1) for name, a in arrays.items() if name.startswith("inputs")}
    path = save(tmp_path / "course.npz", arrays, compressed)
    batches, skipped = read(path)
    source = CourseBuckets(path)
    assert (skipped, len(source), source.units, source.classes) == ([], 11, "raw", ("Jazz", "Folk", "Rock"))
    assert [name for batch in batches for name in batch.song_ids] == [f"course-{row:06d}" for row in range(11)]
    assert [label for batch in batches for label in batch.labels] == ["Jazz", "Folk", "Rock"] * 3 + ["Jazz", "Folk"]
    assert {group for batch in batches for group in batch.groups} == {None}
    assert [length for batch in batches for length in batch.songs.lengths] == LENGTHS
    segments = np.concatenate([batch.songs.segments for batch in batches])
    assert segments.dtype == np.float32
    np.testing.assert_array_equal(segments, np.concatenate(SONGS).astype(dtype).astype(np.float32))


def test_numpy_reads_the_same_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "course.npz", small(), compressed=True)
    songs = songs_of(read(path)[0])
    with np.load(path) as file:
        for limit in (4, 8):
            for padded, row in zip(file[f"inputs_{limit}"], file[f"indices_{limit}"], strict=True):
                song = songs[f"course-{row:06d}"]
                np.testing.assert_array_equal(padded[: len(song)], song)
                assert np.isnan(padded[len(song) :]).all()


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=20),
    n_batch=st.integers(1, 7),
    read_bytes=st.sampled_from([1, 900, 5000]),
)
def test_songs_are_merged_in_order_whatever_is_read_at_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], n_batch: int, read_bytes: int
) -> None:
    songs = [random_segments(length, seed) for seed, length in enumerate(lengths)]
    path = save(tmp_path_factory.mktemp("npz") / "c.npz", bucketed(songs, (4, 8, 16)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segue.data.sources.source.BATCH_SONGS", n_batch)
        patch.setattr("segue.data.sources.npz.READ_BYTES", read_bytes)
        batches, skipped = read(path)
    assert not skipped
    assert [len(batch) for batch in batches[:-1]] == [n_batch] * (len(batches) - 1)
    assert [name for batch in batches for name in batch.song_ids] == [f"c-{row:06d}" for row in range(len(lengths))]
    np.testing.assert_array_equal(np.concatenate([batch.songs.segments for batch in batches]), np.concatenate(songs))


def test_a_bucket_out_of_order_is_read_bucket_by_bucket(tmp_path: Path) -> None:
    arrays = small()
    arrays |= {name: arrays[name][::-1].copy() for name in ("inputs_4", "indices_4", "targets_4")}
    (batch,), _ = read(save(tmp_path / "c.npz", arrays))
    assert batch.song_ids == [f"c-00000{row}" for row in (3, 2, 0, 1, 4, 5)]
    assert batch.songs.lengths.tolist() == [1, 4, 3, 8, 5, 6]
    assert batch.labels == [LABEL_MAP[row % 3] for row in (3, 2, 0, 1, 4, 5)]


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("start", range(8))
def test_an_earlier_runs_songs_are_passed_over(tmp_path: Path, start: int, in_order: bool) -> None:
    arrays = with_value((1, 0, 0), np.inf)
    if not in_order:
        arrays["indices_4"] = arrays["indices_4"][::-1]
    source = CourseBuckets(save(tmp_path / "c.npz", arrays))
    rows = [0, 1, 2, 3, 4, 5] if in_order else [3, 2, 0, 1, 4, 5]
    found = [
        name for item in source.batches(start) for name in ([item.name] if isinstance(item, Skipped) else item.song_ids)
    ]
    assert sorted(found) == sorted(f"c-00000{row}" for row in rows[start:])


def test_the_same_index_twice_passes(tmp_path: Path) -> None:
    arrays = small() | {"indices_8": np.array([0, 0, 5])}
    (batch,), _ = read(save(tmp_path / "c.npz", arrays))
    assert sorted(batch.song_ids) == ["c-000000"] * 3 + ["c-000002", "c-000003", "c-000005"]


def test_a_file_larger_than_memory_allows_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.sources.source.BATCH_SONGS", 10)
    songs = [random_segments(120)] * 1200
    path = save(tmp_path / "c.npz", bucketed(songs, (500,)), compressed=True)  # 60 MB of padded songs
    tracemalloc.start()
    read_songs = sum(len(batch) for batch in CourseBuckets(path).batches() if isinstance(batch, SongBatch))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read_songs == 1200
    assert peak_bytes < 20e6


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_units_are_recognised_or_believed(tmp_path: Path, dtype: Any) -> None:
    songs = [(song - SONGS[0].mean(axis=0)) / SONGS[0].std(axis=0) for song in SONGS]
    path = save(tmp_path / "c.npz", bucketed(songs, dtype=dtype))
    assert CourseBuckets(path).units == "standardised"
    assert read(path)[1] == []
    assert CourseBuckets(path, "raw").units == "raw"
    assert len(read(path, "raw")[1]) == len(songs)


def test_without_targets_no_song_has_a_label(tmp_path: Path) -> None:
    arrays = {name: array for name, array in small().items() if name.startswith("in")}
    (batch,), _ = read(save(tmp_path / "c.npz", arrays))
    assert batch.labels == [None] * 6
    assert CourseBuckets(tmp_path / "c.npz").classes == ()


def test_no_label_is_minus_one_and_names_may_be_bytes(tmp_path: Path) -> None:
    arrays = small() | {"targets_8": np.array([-1, 2, -1], np.int8), "label_map": LABEL_MAP.astype("S")}
    (batch,), _ = read(save(tmp_path / "c.npz", arrays))
    assert batch.labels == ["Jazz", None, "Rock", "Jazz", "Rock", None]


@pytest.mark.parametrize("songs", [[], [random_segments(3)]])
def test_empty_buckets_are_no_fault(tmp_path: Path, songs: list[Floats]) -> None:
    path = save(tmp_path / "c.npz", bucketed(songs))
    batches, skipped = read(path)
    assert (sum(map(len, batches)), len(CourseBuckets(path)), skipped) == (len(songs), len(songs), [])


def with_value(at: tuple[Any, ...], value: float) -> dict[str, NDArray[Any]]:
    arrays = small()
    arrays["inputs_8"][at] = value
    return arrays


BAD_SONGS: dict[str, tuple[tuple[Any, ...], float, str]] = {
    "NaN inside a row": ((1, 2, 3), np.nan, "segment 2: expected finite numbers, found nan in timbre_4"),
    "a row of NaN between others": ((1, 3), np.nan, "segment 3: expected finite numbers, found nan in timbre_1"),
    "NaN before the song": ((1, slice(0, 2)), np.nan, "segment 0: expected finite numbers, found nan in timbre_1"),
    "NaN in all rows": (
        (1, slice(None), 24),
        np.nan,
        "segment 0: expected finite numbers, found nan in loudness_start",
    ),
    "padding cut into": ((1, 7, 5), 1.0, "segment 5: expected finite numbers, found nan in timbre_1"),
    "padding alone": ((1,), np.nan, "expected at least one segment, found none"),
    "infinity": ((1, 0, 0), np.inf, "segment 0: expected finite numbers, found inf in timbre_1"),
    "loud": ((1, 4, 24), 2.5, "segment 4: expected loudness_start_db between -60 and 0, found 2.5"),
}


@pytest.mark.parametrize(("at", "value", "complaint"), BAD_SONGS.values(), ids=BAD_SONGS)
def test_a_bad_song_is_skipped_and_the_rest_converts(
    tmp_path: Path, at: tuple[Any, ...], value: float, complaint: str
) -> None:
    (batch,), (skipped,) = read(save(tmp_path / "c.npz", with_value(at, value)))
    assert batch.song_ids == [f"c-00000{row}" for row in (0, 1, 2, 3, 5)]
    assert skipped.name == "c-000004"
    assert f"song 'c-000004', {complaint}" in skipped.reason or f"song 'c-000004': {complaint}" in skipped.reason


NONE = np.array(None)
INPUTS_8 = small()["inputs_8"]
BAD_FILES: dict[str, tuple[dict[str, Any], type[SegueError], str]] = {
    "no buckets": (
        {"inputs_4": NONE, "inputs_8": NONE},
        SongError,
        "expected arrays 'inputs_250', 'inputs_500' and so",
    ),
    "no indices": ({"indices_8": NONE}, SongError, "expected an array 'indices_8', found label_map, inputs_4"),
    "targets of some buckets": ({"targets_8": NONE}, SongError, "expected an array 'targets_8', found label_map"),
    "24 features": (
        {"inputs_8": INPUTS_8[..., :24]},
        SongError,
        "of shape (songs, 8, 25) or (songs, 200), found (3, 8, 24)",
    ),
    "another length": ({"inputs_8": INPUTS_8[:, :7]}, SongError, "found (3, 7, 25)"),
    "a song short": (
        {"inputs_8": INPUTS_8[:2]},
        SongError,
        "integer in indices_8 for each of the 2 songs, found int64 (3,)",
    ),
    "a number for songs": ({"inputs_8": np.array(1.0)}, SongError, "found ()"),
    "integer inputs": ({"inputs_8": np.zeros((3, 8, 25), int)}, SongError, "type float16 or float32, found int64"),
    "complex inputs": ({"inputs_8": np.zeros((3, 8, 25), complex)}, SongError, "found complex128"),
    "text inputs": ({"inputs_8": np.full((3, 8, 25), "x")}, SongError, "found <U1"),
    "object inputs": (
        {"inputs_8": np.array([[1], [2, 3], []], object)},
        SongError,
        "inputs_8.npy holds Python objects",
    ),
    "object label_map": (
        {"label_map": np.array([{}, {}])},
        SongError,
        "label_map.npy holds Python objects, which only",
    ),
    "Fortran order": ({"inputs_8": np.asfortranarray(INPUTS_8)}, SongError, "expected inputs_8.npy in C order"),
    "structured": ({"inputs_8": np.zeros((3, 8, 25), [("a", "f4")])}, SongError, "type float16 or float32, found [("),
    "broken indices": (
        {"indices_8": np.array([1.0, 4.0, 5.0])},
        SongError,
        "indices_8 for each of the 3 songs, found fl",
    ),
    "broken targets": (
        {"targets_8": np.array([0.5, 1.0, 0.0])},
        SongError,
        "targets_8 for each of the 3 songs, found fl",
    ),
    "one-hot targets": (
        {"targets_8": np.eye(3, dtype=int)},
        SongError,
        "targets_8 for each of the 3 songs, found int64 (3, 3)",
    ),
    "a target too high": (
        {"targets_8": np.array([0, 3, 1])},
        LabelError,
        "targets_8 below 3, the length of label_map; found 3",
    ),
    "no label_map": ({"label_map": NONE}, LabelError, "expected an array 'label_map', the names of the"),
    "numbers for names": ({"label_map": np.arange(3)}, LabelError, "expected names in label_map, found int64 (3,)"),
    "one name": ({"label_map": np.array("Jazz")}, LabelError, "expected names in label_map, found <U4 ()"),
}


@pytest.mark.parametrize(("changes", "error", "complaint"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_breaks_the_layout_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[SegueError], complaint: str
) -> None:
    arrays = {name: array for name, array in (small() | changes).items() if array is not NONE}
    path = save(tmp_path / "c.npz", arrays)
    with pytest.raises(error) as raised:
        CourseBuckets(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert complaint in str(raised.value)


def test_an_array_that_is_not_needed_is_passed_over_where_it_cannot_be_read(tmp_path: Path) -> None:
    source = CourseBuckets(save(tmp_path / "c.npz", small() | {"notes": np.array([{}])}))
    assert source.passed_over == {"an array that cannot be read and is not needed": Tally(1, ["notes"])}
    assert len(list(source.batches())) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = save(tmp_path / "c.npz", small())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert not recognises(path)
    with pytest.raises(SongError, match=r"c\.npz: expected an \.npz file, found one that cannot be read: .*Fetch it"):
        CourseBuckets(path)


@settings(max_examples=150, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), compressed=st.booleans())
def test_damage_is_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, share: float, flip: int, compressed: bool
) -> None:
    path = save(tmp_path_factory.mktemp("npz") / "c.npz", small(), compressed)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= flip
    path.write_bytes(content)
    with suppress(SegueError):  # damage to what nobody reads, such as a date, is no fault
        list(CourseBuckets(path).batches())


def with_header(header: bytes, content: bytes = b"", version: int = 1) -> bytes:
    return (
        b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header + content
    )


HUGE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 8, 25)}"
BAD_MEMBERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "no array": (b"hello, world", "cannot be read"),
    "a header that lies": (
        with_header(HUGE),
        "expected 799999999200 bytes for inputs_8.npy, float32 (999999999, 8, 25)",
    ),
    "a header that is code": (with_header(b"__import__('os')"), "cannot be read"),
    "a header without end": (with_header(b"{'descr': ((((("), "cannot be read"),
    "a header cut short": (with_header(HUGE)[:40], "cannot be read"),
    "numbers cut short": (with_header(HUGE.replace(b"999999999", b"3"), bytes(2000)), "found 2000. Fetch it again"),
    "numbers left over": (with_header(HUGE.replace(b"999999999", b"3"), bytes(2401)), "found 2401. Fetch it again"),
    "a version to come": (with_header(HUGE, version=9), "an array in .npy format (9, 0), of which Segue reads 1.0 and"),
}


@pytest.mark.parametrize(("member", "complaint"), BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_an_array_that_is_not_what_it_says_is_refused(tmp_path: Path, member: bytes, complaint: str) -> None:
    path = save(tmp_path / "c.npz", {name: array for name, array in small().items() if name != "inputs_8"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("inputs_8.npy", member)
    with pytest.raises(SongError) as raised:
        CourseBuckets(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert complaint in str(raised.value)


def test_arrays_of_the_second_format_are_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(6.0).reshape(3, 2), version=(2, 0))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", stream.getvalue())
        archive.writestr("readme.txt", "not an array")
    arrays = NpzArrays(tmp_path / "a.npz")
    assert arrays.names == ["a"]
    np.testing.assert_array_equal(list(arrays.rows("a")), arrays.read("a"))
    np.testing.assert_array_equal(arrays.read("a"), [[0, 1], [2, 3], [4, 5]])


def test_files_with_buckets_are_recognised(tmp_path: Path) -> None:
    assert recognises(save(tmp_path / "c.npz", small()))
    assert not recognises(
        save(tmp_path / "fixed.npz", {"inputs": INPUTS_8, "inputs_": INPUTS_8, "inputs_04": INPUTS_8})
    )
    (tmp_path / "text.npz").write_text("PK, but no archive")
    assert not any(recognises(tmp_path / name) for name in ("text.npz", "gone.npz", "."))


FIXED = random_segments(5 * 120).reshape(5, 3000)
TARGETS = np.array([1, -1, 0, 2, 1])
NAMED = ["Folk", None, "Jazz", "Rock", "Folk"]


def write_pair(folder: Path, targets: NDArray[Any] | None = TARGETS, train: dict[str, Any] | None = None) -> Path:
    """Write the halves of a test set and the training file beside them; return the half with the inputs."""
    if targets is not None:
        np.savez(folder / "msd-10-genre-test-targets.npz", targets=targets)
    if train is not None:
        np.savez(folder / "msd-10-genre-train.npz", **train)
    return save(folder / "msd-10-genre-test-inputs.npz", {"inputs": FIXED})


@pytest.mark.parametrize("half", ["inputs", "targets"])
def test_either_half_opens_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: str) -> None:
    monkeypatch.setattr("segue.data.sources.course.BATCH_SONGS", 2)
    write_pair(tmp_path, train={"inputs": FIXED, "label_map": LABEL_MAP})
    path = tmp_path / f"msd-10-genre-test-{half}.npz"
    assert course_pair.recognises(path)
    pair: Source = CoursePair(path)
    batches = [batch for batch in pair.batches() if isinstance(batch, SongBatch)]
    assert (len(pair), pair.units, pair.classes) == (5, "raw", ("Jazz", "Folk", "Rock"))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [label for batch in batches for label in batch.labels] == NAMED
    assert [name for batch in batches for name in batch.song_ids] == [
        f"msd-10-genre-test-inputs-00000{n}" for n in range(5)
    ]
    np.testing.assert_array_equal(np.concatenate([batch.songs.segments for batch in batches]), FIXED.reshape(-1, 25))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_an_earlier_runs_part_of_a_pair_is_passed_over(tmp_path: Path, start: int) -> None:
    pair = CoursePair(write_pair(tmp_path, train={"label_map": LABEL_MAP}))
    batches = [batch for batch in pair.batches(start) if isinstance(batch, SongBatch)]
    assert [label for batch in batches for label in batch.labels] == NAMED[start:]
    assert [name[-6:] for batch in batches for name in batch.song_ids] == [f"{row:06d}" for row in range(start, 5)]


@pytest.mark.parametrize("place", ["targets", "inputs", "valid"])
def test_class_names_are_found_in_either_half_or_beside(tmp_path: Path, place: str) -> None:
    write_pair(tmp_path)
    extra: dict[str, Any] = {"inputs": {"inputs": FIXED}, "targets": {"targets": TARGETS}, "valid": {}}[place]
    name = "msd-10-genre-valid.npz" if place == "valid" else f"msd-10-genre-test-{place}.npz"
    np.savez(tmp_path / name, label_map=LABEL_MAP, **extra)
    assert CoursePair(tmp_path / "msd-10-genre-test-inputs.npz").classes == ("Jazz", "Folk", "Rock")


def test_inputs_without_targets_have_no_labels(tmp_path: Path) -> None:
    pair = CoursePair(write_pair(tmp_path, targets=None), "standardised")
    (batch,) = [batch for batch in pair.batches() if isinstance(batch, SongBatch)]
    assert (pair.units, pair.classes, batch.labels) == ("standardised", (), [None] * 5)


def test_a_whole_file_is_no_half_whatever_its_name(tmp_path: Path) -> None:
    assert not course_pair.recognises(save(tmp_path / "a-inputs.npz", {"inputs": FIXED, "targets": TARGETS}))
    assert not course_pair.recognises(save(tmp_path / "a-targets.npz", {"inputs": FIXED, "targets": TARGETS}))
    assert not course_pair.recognises(save(tmp_path / "a.npz", {"inputs": FIXED}))
    assert not course_pair.recognises(tmp_path / "gone-inputs.npz")


BAD_PAIRS: dict[str, tuple[Any, type[SegueError], str]] = {
    "a target short": (TARGETS[:4], SongError, "targets.npz: expected an integer in targets for each of the 5 songs"),
    "broken": (TARGETS / 2, SongError, "each of the 5 songs, found float64 (5,)"),
    "too high": (TARGETS + 1, LabelError, "expected targets below 3, the length of label_map; found 3"),
    "objects": (np.array([{}] * 5), SongError, "targets.npy holds Python objects, which only pickle can read"),
}


@pytest.mark.parametrize(("targets", "error", "complaint"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_targets_that_do_not_fit_are_refused(
    tmp_path: Path, targets: Any, error: type[SegueError], complaint: str
) -> None:
    with pytest.raises(error) as raised:
        CoursePair(write_pair(tmp_path, targets, {"label_map": LABEL_MAP}))
    assert complaint in str(raised.value)


def test_what_a_pair_lacks_is_named(tmp_path: Path) -> None:
    inputs = write_pair(tmp_path)
    with pytest.raises(LabelError, match=r"in msd-10-genre-train\.npz beside it; found none\. Put the training file"):
        CoursePair(inputs)
    inputs.unlink()
    with pytest.raises(SongError, match=r"expected its other half msd-10-genre-test-inputs\.npz in the same folder"):
        CoursePair(tmp_path / "msd-10-genre-test-targets.npz")
