"""Bundles: read back as they were written, and refused when anything about them is not."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segue.errors import BundleError
from segue.serving.bundle.bundle import TradeoffRow, load_bundle, read_tradeoff, write_manifest, write_tradeoff
from segue.serving.cascade import open_cascade

FILES = (
    "student.onnx", "teacher.onnx", "tradeoff.csv", "tradeoff.png", "reliability.png", "trained_on.npy", "README.md",
)  # fmt: skip
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


def write(text: str) -> Damage:
    return lambda folder: (folder / "manifest.json").write_text(text)


def test_a_bundle_is_read_as_its_manifest_says(bundle: Path) -> None:
    loaded, stated = load_bundle(bundle), json.loads((bundle / "manifest.json").read_text())
    assert loaded.file(loaded.manifest.student) == bundle / "student.onnx"
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
        (edit(lambda one: one.update(format_version=1)), "bundle format 3, found 1. Export it again"),
        (edit(lambda one: one.update(format_version=4)), "bundle format 3, found 4. Export it again"),
        (edit(lambda one: one.pop("threshold_nats")), r"not a manifest of format 3: (.|\n)*threshold_nats"),
        (edit(lambda one: one.update(classes=3)), r"not a manifest of format 3: (.|\n)*classes"),
        (edit(lambda one: one["student"].pop("temperature")), r"format 3: (.|\n)*student.temperature"),
        (edit(lambda one: one["sha256"].update({"../outside": "0" * 64})), "plain file names, found '../outside'"),
        (edit(lambda one: one["sha256"].update({"/etc/passwd": "0" * 64})), "plain file names, found '/etc/passwd'"),
        (edit(lambda one: one["sha256"].update({"..": "0" * 64})), "the file .. is missing or cannot be read"),
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
    assert read_tradeoff(tmp_path / "table.csv") == rows


@pytest.mark.parametrize("text", ["threshold_nats\nhigh\n", "threshold_nats,more\n1,2\n", "threshold_nats\n1\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(BundleError, match=r"table\.csv: not a trade-off table"):
        read_tradeoff(tmp_path / "table.csv")
