"""Bundles: read back as they were written, and refused when anything about them is not."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.data.song import Songs
from segue.errors import BundleError
from segue.serving.bundle import load
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import TradeoffRow
from segue.serving.bundle.seen import were_seen, write_seen
from segue.serving.bundle.tradeoff_table import parse_tradeoff, write_tradeoff
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from tests.support.altered_bundles import negate
from tests.support.random_songs import random_segments

FILES = (
    "student.onnx", "teacher.onnx", "tradeoff.csv", "tradeoff.png", "reliability.png", "trained_on.npy", "README.md",
)  # fmt: skip
SONGS = Songs.of([random_segments(n, seed=n) for n in (90, 120, 400)])
IDS = [f"synth-{row:07d}" for row in range(600)]
Damage = Callable[[Path], object]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """Return a copy of the bundle, to be damaged."""
    return shutil.copytree(bundle, tmp_path / "bundle")


def flip_a_byte(file: str) -> Damage:
    def damage(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / file).write_bytes(content)

    return damage


def edit(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def write(text: str) -> Damage:
    return lambda folder: (folder / "manifest.json").write_text(text)


def test_a_bundle_is_read_as_its_manifest_says(bundle: Path) -> None:
    loaded, stated = load_bundle(bundle), json.loads((bundle / "manifest.json").read_text())
    assert loaded.model(loaded.manifest.student) == (bundle / "student.onnx").read_bytes()
    assert {name: hashlib.sha256(content).hexdigest() for name, content in loaded.contents.items()} == stated["sha256"]
    assert list(loaded.manifest.classes) == stated["classes"]
    assert loaded.manifest.metrics.teacher.accuracy == stated["metrics"]["teacher"]["accuracy"]
    assert len(loaded.tradeoff) == len((bundle / "tradeoff.csv").read_text().splitlines()) - 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *((flip_a_byte(name), f"{name}: expected sha256 .* the file was changed or damaged") for name in FILES),
        *((lambda folder, name=name: (folder / name).unlink(), f"{name} is missing") for name in FILES),
        (shutil.rmtree, "bundle: expected a bundle, found no such folder. `segue export` makes one"),
        (lambda folder: (folder / "manifest.json").unlink(), "found a folder without manifest.json"),
        (write("not JSON"), "manifest.json: not a manifest: JSONDecodeError"),
        (write("[1, 2]"), "manifest.json: not a manifest: TypeError"),
        (write("{}"), "manifest.json: not a manifest: KeyError.'format_version'"),
        (edit(lambda one: one.update(format_version=1)), "bundle format 4, found 1. Export it again"),
        (edit(lambda one: one.update(format_version=5)), "bundle format 4, found 5. Export it again"),
        (edit(lambda one: one.pop("threshold_nats")), r"not a manifest of format 4: (.|\n)*threshold_nats"),
        (edit(lambda one: one.update(classes=3)), r"not a manifest of format 4: (.|\n)*classes"),
        (edit(lambda one: one["student"].pop("temperature")), r"format 4: (.|\n)*student.temperature"),
        (edit(lambda one: one["sha256"].update({"../outside": "0" * 64})), "plain file names, found '../outside'"),
        (edit(lambda one: one["sha256"].update({"/etc/passwd": "0" * 64})), "plain file names, found '/etc/passwd'"),
        (edit(lambda one: one["sha256"].update({"..": "0" * 64})), "plain file names, found '..'"),
        (edit(lambda one: one["teacher"].update(file="../teacher.onnx")), "no sha256 for ../teacher.onnx"),
        (edit(lambda one: one["sha256"].pop("student.onnx")), "no sha256 for student.onnx"),
        (edit(lambda one: one["sha256"].pop("trained_on.npy")), "manifest.json: expected the content that version"),
        (edit(lambda one: one.update(threshold_nats=1.9)), "manifest.json: expected the content that version"),
        (edit(lambda one: one.update(version="0123456789ab")), "that version 0123456789ab names, found another"),
        (
            edit(lambda one: one["guarantee"].update(asked=0.1)),
            "changed or damaged. Export it again; `segue calibrate` is the way",
        ),
        (edit(lambda one: one.update(more=1)), "manifest.json: expected the content that version"),
    ],
)
def test_a_damaged_bundle_is_refused_with_the_reason(copy: Path, damage: Damage, message: str) -> None:
    (copy.parent / "outside").write_text("a file that no manifest may name")
    damage(copy)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize(
    "classes", [("genre-01", "genre-00", "genre-02", "genre-03"), ("genre-00", "genre-01", "genre-02")]
)
def test_classes_that_are_not_those_of_the_models_are_refused(copy: Path, classes: tuple[str, ...]) -> None:
    write_manifest(copy, replace(load_bundle(copy).manifest, classes=classes))
    message = (
        f"student.onnx: expected the classes of the manifest, {', '.join(classes)}; "
        "found genre-00, genre-01, genre-02, genre-03"
    )
    with pytest.raises(BundleError, match=message):
        open_cascade(load_bundle(copy))


def test_a_manifest_is_sealed_with_the_hashes_of_all_files(copy: Path) -> None:
    manifest = load_bundle(copy).manifest
    sealed = write_manifest(copy, replace(manifest, threshold_nats=0.25, sha256={}))
    assert load_bundle(copy).manifest == sealed
    assert sealed.sha256 == manifest.sha256
    assert sealed.version != manifest.version
    assert write_manifest(copy, sealed) == sealed


def test_a_tradeoff_table_keeps_every_digit(tmp_path: Path) -> None:
    rows = tuple(TradeoffRow(math.pi / n, 1 / n, 1 / 3, 1e-7, 1e7, 0.1 + 0.2) for n in range(1, 9))
    write_tradeoff(tmp_path / "table.csv", rows)
    assert parse_tradeoff((tmp_path / "table.csv").read_bytes(), tmp_path / "table.csv") == rows


@pytest.mark.parametrize("text", ["threshold_nats\nhigh\n", "threshold_nats,more\n1,2\n", "threshold_nats\n1\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(BundleError, match=r"table\.csv: not a trade-off table"):
        parse_tradeoff((tmp_path / "table.csv").read_bytes(), tmp_path / "table.csv")


@pytest.fixture
def other(copy: Path, tmp_path: Path) -> Path:
    """Return another version than `copy`, whose teacher says the opposite."""
    folder = shutil.copytree(copy, tmp_path / "other")
    negate(folder, ["teacher"])
    return folder


def exchange(one: Path, other: Path) -> None:
    """Let two folders swap their names."""
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def after_reads(monkeypatch: pytest.MonkeyPatch, reads: int, do: Callable[[], object]) -> None:
    """Let `do` happen once, after so many files of a bundle were read."""
    read, left = load._Folder.read, iter(range(reads, -1, -1))

    def counted(folder: Any, name: str) -> bytes:
        if next(left, None) == 0:
            do()
        return read(folder, name)

    monkeypatch.setattr(load._Folder, "read", counted)


@pytest.mark.parametrize("reads", range(len(FILES) + 1))
def test_a_bundle_exchanged_while_it_is_read_is_one_version_throughout(
    copy: Path, other: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    expected = load_bundle(copy)
    after_reads(monkeypatch, reads, lambda: exchange(copy, other))
    found = load_bundle(copy)
    assert found.manifest.version == expected.manifest.version != load_bundle(copy).manifest.version
    assert found.contents == expected.contents


@pytest.mark.parametrize("reads", range(1, len(FILES) + 1))
def test_a_bundle_replaced_and_deleted_while_it_is_read_is_read_again(
    copy: Path, other: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    expected = load_bundle(other)

    def replace_folder() -> None:
        exchange(copy, other)
        shutil.rmtree(other)

    after_reads(monkeypatch, reads, replace_folder)
    found = load_bundle(copy)
    assert (found.manifest.version, found.contents) == (expected.manifest.version, expected.contents)


def test_models_are_made_of_the_bytes_that_were_verified(copy: Path, other: Path) -> None:
    expected = open_cascade(load_bundle(copy)).answer(SONGS, -1.0)
    loaded = load_bundle(copy)
    exchange(copy, other)
    np.testing.assert_array_equal(open_cascade(loaded).answer(SONGS, -1.0).probs, expected.probs)
    assert np.abs(open_cascade(load_bundle(copy)).answer(SONGS, -1.0).probs - expected.probs).max() > 0.01


def test_the_songs_that_were_seen_are_those_of_the_bytes_that_were_verified(copy: Path) -> None:
    loaded = load_bundle(copy)
    expected = were_seen(loaded, IDS)
    write_seen(copy, IDS[:1])
    assert (were_seen(loaded, IDS) == expected).all()


def pipe(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return damage


def link(file: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(target)

    return damage


def folder_at(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return damage


def sparse(file: str) -> Damage:
    return lambda folder: os.truncate(folder / file, 2**40)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *((pipe(name), f"{name}: expected a regular file") for name in ("manifest.json", "teacher.onnx")),
        *((link(name, "/dev/zero"), f"{name}: expected a regular file") for name in ("manifest.json", "teacher.onnx")),
        *((folder_at(name), f"{name}: expected a file, found a folder") for name in ("manifest.json", "tradeoff.csv")),
        *((sparse(name), f"{name}: expected at most 2147483648 bytes, found") for name in ("manifest.json", FILES[0])),
        (link("student.onnx", "student.onnx"), "student.onnx: cannot be read: Too many levels of symbolic links"),
        (write("[" * 100_000), "manifest.json: not a manifest: expected at most 32 levels"),
        (write('{"format_version": ' * 50_000), "manifest.json: not a manifest: expected at most 32 levels"),
        (write('{"format_version": 1' + "0" * 5000 + "}"), "manifest.json: not a manifest"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe{}"), "manifest.json: not a manifest"),
        (edit(lambda one: one["sha256"].update({"nothing\0": "0" * 64})), "expected plain file names"),
        (edit(lambda one: one["sha256"].update({"manifest.json": "0" * 64})), "expected plain file names"),
        (
            edit(lambda one: one["student"]["network"].update(deep=nested(30))),
            "not a manifest: expected at most 32 levels",
        ),
    ],
)
def test_what_would_never_end_or_fill_the_memory_is_refused_at_once(copy: Path, damage: Damage, message: str) -> None:
    damage(copy)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)
