"""Audio analyses in JSON: the numbers come through as json reads them, and a bad analysis is named and left out."""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.song import Floats
from segue.data.sources.analysis import AnalysisFiles, recognises
from segue.data.sources.source import Skipped, Source, Tally
from segue.data.table import SongBatch, write_table
from segue.errors import SongError
from tests.support.random_songs import random_segments

NAMES = {"track": {"id": "TR1"}, "artist_id": "AR1", "genre": "Jazz"}


def analysis(segments: Floats, **more: Any) -> dict[str, Any]:
    """Return segments as the Echo Nest and Spotify write them, among things that nobody asked for."""
    rows = [
        {"start": 0.25 * row, "timbre": one[:12], "pitches": one[12:24], "loudness_start": one[24], "loudness_max": 1.0}
        for row, one in enumerate(segments.tolist())
    ]
    return {"meta": {"analyzer_version": "4.0.0"}, "track": {"tempo": 98.0}, "bars": [], "segments": rows, **more}


def write(path: Path, *analyses: Any, indent: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(one, indent=indent) for one in analyses), encoding="utf-8")
    return path


def read(path: Path) -> tuple[list[SongBatch], list[Skipped]]:
    source: Source = AnalysisFiles(path)
    items = list(source.batches())
    skipped = [item for item in items if isinstance(item, Skipped)]
    return [item for item in items if isinstance(item, SongBatch)], skipped


def reread(path: Path) -> list[list[float]]:
    """Return the segments of a file of one analysis, as the json module alone reads them."""
    segments = json.loads(path.read_text())["segments"]
    return [segment["timbre"] + segment["pitches"] + [segment["loudness_start"]] for segment in segments]


@pytest.mark.parametrize("indent", [None, 1])
def test_one_analysis_comes_through_value_by_value(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path / "one.json", analysis(random_segments(150), **NAMES), indent=indent)
    (batch,), skipped = read(path)
    source = AnalysisFiles(path)
    assert (skipped, len(source), source.units, source.classes) == ([], 1, "raw", ())
    assert (batch.song_ids, batch.labels, batch.groups) == (["TR1"], ["Jazz"], ["AR1"])
    assert batch.songs.lengths.tolist() == [150]
    assert batch.songs.segments.dtype == np.float32
    np.testing.assert_array_equal(batch.songs.segments, np.array(reread(path), dtype=np.float32))
    np.testing.assert_array_equal(batch.songs.segments, random_segments(150))


def test_a_folder_tree_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write(tmp_path / "songs/b/2.json", analysis(random_segments(3, 2)), indent=2)
    write(tmp_path / "songs/a/1.json", analysis(random_segments(4, 1)))
    write(tmp_path / "songs/c.ndjson", analysis(random_segments(5, 3)), analysis(random_segments(6, 4), id="last"))
    (tmp_path / "songs/notes.txt").write_text("not a song")
    (batch,), skipped = read(tmp_path / "songs")
    assert (skipped, len(AnalysisFiles(tmp_path / "songs"))) == ([], 4)
    assert batch.song_ids == ["1", "2", "c-000001", "last"]
    assert batch.songs.lengths.tolist() == [4, 3, 5, 6]
    expected = [random_segments(4, 1), random_segments(3, 2), random_segments(5, 3), random_segments(6, 4)]
    np.testing.assert_array_equal(batch.songs.segments, np.concatenate(expected))


@pytest.mark.parametrize("name", ["songs.jsonl", "songs.ndjson", "songs.json", "songs"])
def test_one_analysis_on_a_line_is_recognised(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, analysis(random_segments(3)), analysis(random_segments(2)))
    path.write_text("\ufeff \n\n" + path.read_text() + "\n\n", encoding="utf-8")
    (batch,), skipped = read(path)
    assert (skipped, len(AnalysisFiles(path))) == ([], 2)
    assert batch.song_ids == ["songs-000003", "songs-000004"]
    assert batch.songs.lengths.tolist() == [3, 2]


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), n_batch=st.integers(1, 4), folder=st.booleans())
def test_batches_cover_all_songs_in_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], n_batch: int, folder: bool
) -> None:
    songs = [random_segments(length, seed) for seed, length in enumerate(lengths)]
    path = tmp_path_factory.mktemp("json") / "songs.jsonl"
    for number, song in enumerate(songs if folder else ()):
        write(path / f"{number}.json", analysis(song))
    if not folder:
        write(path, *map(analysis, songs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segue.data.sources.source.BATCH_SONGS", n_batch)
        batches, skipped = read(path)
    assert not skipped
    assert [len(batch) for batch in batches[:-1]] == [n_batch] * (len(batches) - 1)
    assert [length for batch in batches for length in batch.songs.lengths] == lengths
    np.testing.assert_array_equal(np.concatenate([batch.songs.segments for batch in batches]), np.concatenate(songs))


@pytest.mark.parametrize(
    ("names", "song_id", "label", "group"),
    [
        ({}, "file", None, None),
        ({"track": {"id": "T"}, "id": "I", "track_id": "R", "meta": {"id": "M"}}, "T", None, None),
        ({"track": {"id": ""}, "id": "I", "track_id": "R"}, "I", None, None),
        ({"track": None, "id": {"a": 1}, "track_id": 17}, "17", None, None),
        ({"track": "x", "meta": {"id": " ", "track_id": "M"}}, "M", None, None),
        ({"id": True, "artist": "Ella", "genre": "Jazz"}, "file", "Jazz", "Ella"),
        ({"artist_id": "A", "artist": "Ella"}, "file", None, "A"),
        ({"meta": {"artist": "Ella", "genre": "Swing"}}, "file", "Swing", "Ella"),
        ({"track": {"artist": "Nina", "genre": "Jazz"}, "artist": None, "genre": 3.5}, "file", "Jazz", "Nina"),
        ({"id": "half \ud800"}, "half ?", None, None),
    ],
)
def test_names_are_taken_from_the_first_place_that_has_one(
    tmp_path: Path, names: dict[str, Any], song_id: str, label: str | None, group: str | None
) -> None:
    (batch,), _ = read(write(tmp_path / "file.json", analysis(random_segments(2), **names)))
    assert (batch.song_ids, batch.labels, batch.groups) == ([song_id], [label], [group])
    with write_table(tmp_path / "songs.arrow", "raw") as table:
        table.write(batch)


@pytest.mark.parametrize("start", range(8))
def test_an_earlier_runs_songs_are_passed_over(tmp_path: Path, start: int) -> None:
    write(tmp_path / "tree/a.json", analysis(random_segments(1)))
    write(tmp_path / "tree/b.json", {"segments": []})
    write(tmp_path / "tree/c.jsonl", analysis(random_segments(2)), {}, analysis(random_segments(3)))
    write(tmp_path / "tree/d.json", analysis(random_segments(4)))
    names = ["a", "b.json", "c-000001", "c.jsonl, line 2", "c-000003", "d"]
    found = [
        name
        for item in AnalysisFiles(tmp_path / "tree").batches(start)
        for name in ([item.name] if isinstance(item, Skipped) else item.song_ids)
    ]
    assert sorted(found) == sorted(names[start:])


def test_the_same_id_twice_passes(tmp_path: Path) -> None:
    (batch,), _ = read(write(tmp_path / "a.jsonl", *[analysis(random_segments(2), id="TR1")] * 2))
    assert batch.song_ids == ["TR1", "TR1"]


def changed(key: str, value: Any, row: int = 2) -> dict[str, Any]:
    """Return an analysis with one thing of one segment changed, or left out where the value is None."""
    one = analysis(random_segments(4), **NAMES)
    one["segments"][row][key] = value
    if value is None:
        del one["segments"][row][key]
    return one


TWELVE = [0.5] * 12
SEGMENT_2 = "song 'TR1', segment 2: expected"
BAD_ANALYSES: dict[str, tuple[Any, str]] = {
    "no timbre": (changed("timbre", None), f"{SEGMENT_2} 12 numbers in 'timbre', found no such key"),
    "no pitches": (changed("pitches", None), f"{SEGMENT_2} 12 numbers in 'pitches', found no such key"),
    "no loudness": (changed("loudness_start", None), f"{SEGMENT_2} a number in 'loudness_start', found no such key"),
    "timbre of 11": (changed("timbre", TWELVE[:11]), f"{SEGMENT_2} 12 numbers in 'timbre', found 11 values"),
    "pitches of 13": (changed("pitches", [*TWELVE, 0]), f"{SEGMENT_2} 12 numbers in 'pitches', found 13 values"),
    "nothing in timbre": (changed("timbre", []), f"{SEGMENT_2} 12 numbers in 'timbre', found 0 values"),
    "a string": (changed("timbre", [*TWELVE[1:], "1"]), 'found 12 values, one of them "1"'),
    "null": (changed("pitches", [*TWELVE[1:], None]), "found 12 values, one of them null"),
    "true": (changed("pitches", [*TWELVE[1:], True]), "found 12 values, one of them true"),
    "a list in a list": (changed("timbre", [TWELVE] * 12), "found 12 values, one of them [0.5, 0.5, 0.5"),
    "a number for timbre": (changed("timbre", 7), f"{SEGMENT_2} 12 numbers in 'timbre', found 7"),
    "a string for loudness": (
        changed("loudness_start", "-7"),
        f"{SEGMENT_2} a number in 'loudness_start', found \"-7\"",
    ),
    "false for loudness": (changed("loudness_start", False), f"{SEGMENT_2} a number in 'loudness_start', found false"),
    "NaN": (changed("timbre", [*TWELVE[1:], float("nan")]), f"{SEGMENT_2} finite numbers, found nan in timbre_12"),
    "infinity": (changed("loudness_start", float("-inf")), f"{SEGMENT_2} finite numbers, found -inf in loudness"),
    "beyond float32": (changed("timbre", [*TWELVE[1:], 1e39]), f"{SEGMENT_2} finite numbers, found inf in timbre_12"),
    "beyond any type": (
        changed("timbre", [*TWELVE[1:], 10**400]),
        "song 'TR1': expected numbers, found one too large",
    ),
    "loud": (changed("loudness_start", 0.5), f"{SEGMENT_2} loudness_start_db between -60 and 0, found 0.5"),
    "pitch above 1": (changed("pitches", [*TWELVE[1:], 1.5]), f"{SEGMENT_2} chroma_B between 0 and 1, found 1.5"),
    "a segment that is none": ({"segments": [7]}, "segment 0: expected an object with timbre"),
    "no segments": (analysis(random_segments(0), **NAMES), "song 'TR1': expected at least one segment, found none"),
    "no list of segments": (NAMES, "song 'TR1': expected a list in 'segments', found no such key"),
    "null for segments": ({"segments": None}, "expected a list in 'segments', found null"),
    "an object of segments": ({"segments": {"timbre": []}}, "expected a list in 'segments', found {\"timbre\": []}"),
    "a list": ([1, 2], "expected an audio analysis, a JSON object, found [1, 2]"),
    "nothing": (None, "expected an audio analysis, a JSON object, found null"),
}


@pytest.mark.parametrize(("bad", "complaint"), BAD_ANALYSES.values(), ids=BAD_ANALYSES)
def test_a_bad_analysis_is_named_and_the_rest_converts(tmp_path: Path, bad: Any, complaint: str) -> None:
    lines = write(tmp_path / "lines.jsonl", analysis(random_segments(2)), bad, analysis(random_segments(3)))
    (batch,), (skipped,) = read(lines)
    assert (batch.song_ids, batch.songs.lengths.tolist()) == (["lines-000001", "lines-000003"], [2, 3])
    assert skipped.name == "lines.jsonl, line 2"
    assert complaint in skipped.reason

    write(tmp_path / "tree/a/bad.json", bad)
    write(tmp_path / "tree/b.json", analysis(random_segments(2)))
    (batch,), (in_tree,) = read(tmp_path / "tree")
    assert (batch.song_ids, in_tree.name) == (["b"], "a/bad.json")
    assert complaint in in_tree.reason


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
def test_an_analysis_cut_short_is_left_out(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "cut.json", analysis(random_segments(20)))
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    batches, (skipped,) = read(path)
    assert (batches, skipped.name) == ([], "cut.json")
    assert "not a readable audio analysis in JSON, it may be cut short: " in skipped.reason


@pytest.mark.parametrize("text", [b"\xff\xfe{", b'{"id": "\xff', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_text_that_is_no_json_is_left_out(tmp_path: Path, text: bytes) -> None:
    write(tmp_path / "tree/sound.json", analysis(random_segments(2)))
    (tmp_path / "tree/bad.json").write_bytes(text)
    (batch,), (skipped,) = read(tmp_path / "tree")
    assert (batch.song_ids, skipped.name) == (["sound"], "bad.json")
    assert "not a readable audio analysis in JSON" in skipped.reason


def one(seed: int, **names: Any) -> dict[str, Any]:
    return analysis(random_segments(3, seed), **names)


WRAPPED: dict[str, tuple[Any, dict[str, int]]] = {
    "audio_analysis": ({"track_id": "x", "audio_analysis": one(1)}, {"x": 1}),
    "track.analysis": ({"track": {"id": "T", "analysis": one(1)}}, {"T": 1}),
    "response.track": ({"response": {"status": {"code": 0}, "track": one(1)}}, {"file": 1}),
    "its own id": ({"id": "outer", "data": {"audio_analysis": one(1, id="inner")}}, {"inner": 1}),
    "under its id": ({"TR1": one(1)}, {"TR1": 1}),
    "by id": ({"TR1": one(1), "TR2": one(2), "n": 2}, {"TR1": 1, "TR2": 2}),
    "by id in a wrapper": ({"tracks": {"TR1": {"analysis": one(1)}, "TR2": one(2, id="own")}}, {"TR1": 1, "own": 2}),
    "a list": ([one(1), one(2, id="TR2"), one(3)], {"file-000000": 1, "TR2": 2, "file-000002": 3}),
    "a list of one": ([one(1)], {"file": 1}),
    "a list in a wrapper": ({"total": 2, "songs": [one(1, id="a"), {"analysis": one(2), "id": "b"}]}, {"a": 1, "b": 2}),
}


@pytest.mark.parametrize(("content", "expected"), WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("ending", ["json", "json.gz", "jsonl"])
def test_an_analysis_is_found_in_what_is_around_it(
    tmp_path: Path, content: Any, expected: dict[str, int], ending: str
) -> None:
    path = write(tmp_path / "file.json", content, indent=None if ending == "jsonl" else 2)
    path = pack(path) if ending == "json.gz" else path.rename(tmp_path / f"file.{ending}")
    (batch,), skipped = read(path)
    assert not skipped
    expected_ids = [name.replace("file", "file-000001") if ending == "jsonl" else name for name in expected]
    assert batch.song_ids == expected_ids
    np.testing.assert_array_equal(
        batch.songs.segments, np.concatenate([random_segments(3, seed) for seed in expected.values()])
    )


def pack(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


@pytest.mark.parametrize("content", [[one(1), {}, None, 7], {"a": one(1), "b": {}, "c": [], "d": {"analysis": one(2)}}])
def test_what_stands_among_analyses_and_is_none_is_left_out(tmp_path: Path, content: Any) -> None:
    (batch,), skipped = read(write(tmp_path / "file.json", content))
    assert len(batch) + len(skipped) == 4
    assert all("expected a" in item.reason for item in skipped)


@pytest.mark.parametrize("start", range(8))
def test_an_earlier_runs_songs_of_one_document_are_passed_over(tmp_path: Path, start: int) -> None:
    write(tmp_path / "tree/a.json", [one(1), one(2), {}])
    write(tmp_path / "tree/b.json", one(3))
    write(tmp_path / "tree/c.jsonl", {"x": one(4), "y": one(5)}, one(6))
    names = ["a-000000", "a-000001", "a.json", "b", "x", "y", "c-000002"]
    found = [
        name
        for item in AnalysisFiles(tmp_path / "tree").batches(start)
        for name in ([item.name] if isinstance(item, Skipped) else item.song_ids)
    ]
    assert sorted(found) == sorted(names[start:])


def test_an_object_without_an_analysis_is_shown_by_its_keys(tmp_path: Path) -> None:
    _, (skipped,) = read(write(tmp_path / "file.json", {"audio_features": [{"tempo": 98.0}], "n": 1}))
    assert skipped.reason == (
        "song 'file': expected a list in 'segments', found no such key among [\"audio_features\", \"n\"]"
    )


@pytest.mark.parametrize("content", [one(1), [one(1)], {"response": {"track": one(1)}}])
def test_a_document_over_many_lines_in_a_file_of_lines_is_one(tmp_path: Path, content: Any) -> None:
    (batch,), skipped = read(write(tmp_path / "pretty.jsonl", content, indent=1))
    assert (batch.song_ids, skipped) == (["pretty"], [])
    write(tmp_path / "pretty.jsonl", content, indent=1).write_text(json.dumps(content, indent=1)[:-2])
    batches, (cut,) = read(tmp_path / "pretty.jsonl")
    assert (batches, cut.name) == ([], "pretty.jsonl")


def test_packed_files_and_endings_in_capitals_are_read(tmp_path: Path) -> None:
    pack(write(tmp_path / "tree/a.json", one(1)))
    pack(write(tmp_path / "tree/b.jsonl", one(2), one(3)))
    write(tmp_path / "tree/c.JSON", one(4))
    write(tmp_path / "tree/dataset_info.json", {})
    (tmp_path / "tree/d.json.xz").write_bytes(b"")
    (batch,), skipped = read(tmp_path / "tree")
    assert (batch.song_ids, skipped) == (["a", "b-000001", "b-000002", "c"], [])
    assert AnalysisFiles(tmp_path / "tree").passed_over == {"another kind of file (.json.xz)": Tally(1, ["d.json.xz"])}


def test_a_packed_file_that_is_damaged_or_unpacks_to_very_much_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "tree/sound.json", one(1))
    (tmp_path / "tree/bomb.json.gz").write_bytes(gzip.compress(b" " * 10**8 + b"{}"))
    (tmp_path / "tree/bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 10**8 + b"{}"))
    whole = gzip.compress(json.dumps(one(2)).encode())
    (tmp_path / "tree/cut.json.gz").write_bytes(whole[:-20])
    (tmp_path / "tree/crc.jsonl.gz").write_bytes(whole[:-8] + b"12345678")
    (tmp_path / "tree/text.json.gz").write_bytes(b"\x1f\x8b text")
    (batch,), skipped = read(tmp_path / "tree")
    assert "sound" in batch.song_ids
    assert {item.name.split(".")[0] for item in skipped} == {"bomb", "cut", "crc", "text"}
    assert all(re.match("not a readable file: |expected a document of at most", item.reason) for item in skipped)


def test_files_of_the_same_name_are_called_by_their_paths(tmp_path: Path) -> None:
    for name, seed in (("TR1/analysis", 1), ("TR2/analysis", 2), ("TR2/other", 3)):
        write(tmp_path / f"tree/{name}.json", one(seed))
    write(tmp_path / "tree/TR3/analysis.jsonl", one(4), one(5, id="own"))
    (batch,), _ = read(tmp_path / "tree")
    assert batch.song_ids == ["TR1/analysis", "TR2/analysis", "other", "TR3/analysis-000001", "own"]


def test_bytes_that_are_not_utf_8_are_replaced_and_counted(tmp_path: Path) -> None:
    text = json.dumps(one(1, artist="Bj-rk")).encode().replace(b"Bj-rk", b"Bj\xf6rk")
    (tmp_path / "latin.json").write_bytes(text)
    source = AnalysisFiles(tmp_path / "latin.json")
    (batch,) = source.batches()
    assert isinstance(batch, SongBatch)
    assert batch.groups == ["Bj\ufffdrk"]
    np.testing.assert_array_equal(batch.songs.segments, random_segments(3, 1))
    assert source.passed_over == {"bytes that are not UTF-8, read as U+FFFD": Tally(1, ["latin.json"])}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_of_unicode_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps(one(1, id="\xe9")).encode(encoding))
    (batch,), skipped = read(tmp_path / "a.json")
    assert (batch.song_ids, skipped) == (["\xe9"], [])


@pytest.mark.parametrize(
    "text",
    [b"[" * 10**6, b"[" + b"[]," * 10**6 + b"[]]", b'{"a":' * 10**5, b'{"segments":[' + b"{}," * 10**6 + b"{}]}"],
)
def test_a_document_of_brackets_is_not_parsed(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.json").write_bytes(text)
    batches, (skipped,) = read(tmp_path / "a.json")
    assert not batches
    assert re.search(r"not a readable audio analysis in JSON: \d+ brackets in \d+ bytes", skipped.reason)


def test_a_file_name_that_is_no_text_is_an_id_with_the_odd_byte_replaced(tmp_path: Path) -> None:
    write(tmp_path / "tree" / os.fsdecode(b"caf\xe9.json"), one(1))
    write(tmp_path / "tree" / os.fsdecode(b"th\xe9.jsonl"), one(2))
    write(tmp_path / "tree" / os.fsdecode(b"bad\xe9.json"), {})
    (batch,), (skipped,) = read(tmp_path / "tree")
    assert (batch.song_ids, skipped.name) == (["caf\ufffd", "th\ufffd-000001"], "bad\ufffd.json")


def test_a_file_of_lines_among_others_needs_its_ending(tmp_path: Path) -> None:
    write(tmp_path / "tree/lines.json", analysis(random_segments(2)), analysis(random_segments(2)))
    _, (skipped,) = read(tmp_path / "tree")
    assert skipped.reason.endswith("One analysis on a line needs a file that ends in .jsonl")


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "tree/sound.json", analysis(random_segments(2)))
    write(tmp_path / "tree/folder.jsonl/inside.json", analysis(random_segments(3)))
    (tmp_path / "tree/gone.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "tree/fifo.json")
    (batch,), skipped = read(tmp_path / "tree")
    assert (batch.song_ids, skipped) == (["inside", "sound"], [])
    assert AnalysisFiles(tmp_path / "tree").passed_over == {
        "a link to nothing": Tally(1, ["gone.json"]),
        "a fifo, a socket or a device": Tally(1, ["fifo.json"]),
    }


def test_a_file_that_goes_after_it_was_listed_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "tree/sound.json", analysis(random_segments(2)))
    write(tmp_path / "tree/gone.json", analysis(random_segments(2)))
    write(tmp_path / "tree/gone.jsonl", analysis(random_segments(2)))
    source = AnalysisFiles(tmp_path / "tree")
    (tmp_path / "tree/gone.json").unlink()
    (tmp_path / "tree/gone.jsonl").unlink()
    *skipped, batch = source.batches()
    assert isinstance(batch, SongBatch)
    assert (batch.song_ids, len(source)) == (["sound"], 3)
    assert [item.name for item in skipped if isinstance(item, Skipped)] == ["gone.json", "gone.jsonl"]
    assert all(isinstance(item, Skipped) and item.reason.startswith("not a readable file: ") for item in skipped)


@pytest.mark.parametrize("content", [b"", b" \n", b"PK\x03\x04", b"\x89HDF\r\n", b"TR1\tJazz\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "songs.json"
    path.write_bytes(content)
    assert not recognises(path)
    with pytest.raises(SongError, match=r"songs\.json: expected audio analyses, JSON objects with 'segments'"):
        AnalysisFiles(path)


def test_a_path_without_analyses_is_refused(tmp_path: Path) -> None:
    assert not recognises(tmp_path)
    assert not recognises(tmp_path / "gone.json")
    with pytest.raises(SongError, match="found none"):
        AnalysisFiles(tmp_path)


def test_real_tracks_as_analyses_are_the_tracks_themselves(real_songs: Path, tmp_path: Path) -> None:
    for track in sorted((real_songs / "h5").glob("*.h5"))[:8]:
        with h5py.File(track) as file:
            timbre, pitches = file["analysis/segments_timbre"][:], file["analysis/segments_pitches"][:]
            segments = np.column_stack([timbre, pitches, file["analysis/segments_loudness_start"][:]])
        (batch,), _ = read(write(tmp_path / f"{track.stem}.json", analysis(segments)))
        assert batch.song_ids == [track.stem]
        np.testing.assert_array_equal(batch.songs.segments, segments.astype(np.float32))
