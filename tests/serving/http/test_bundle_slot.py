"""A new bundle without a pause: swapped when it is good, refused when it is not, and nobody notices."""

import asyncio
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from segue.data.song import Songs
from segue.errors import BundleError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.bundle.manifest import parse_manifest
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from segue.serving.http import bundle_slot as bundle_slot_module
from segue.serving.http.bodies import RAW
from segue.serving.http.bundle_slot import BundleSlot
from segue.serving.http.settings import Settings
from segue.serving.http.trial import find_faults
from segue.serving.releases.store import ReleaseStore
from tests.serving.conftest import OwnClient, OwnService
from tests.support.altered_bundles import make_endless, negate, relicense
from tests.support.bundles import another_bundle
from tests.support.random_songs import random_segments

SONG = bytes(12_000)
SONGS = Songs.of([random_segments(120, seed=n) for n in range(4)])


@pytest.fixture
def changing(bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle that may be changed."""
    shutil.copytree(bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


async def asked_while_reloading(service: OwnClient) -> tuple[Any, list[Any]]:
    """Reload, and classify as long as that takes and a little longer."""
    head = {"authorization": "Bearer root"}
    reload = asyncio.create_task(service.http.post("/v1/admin/reload", headers=head))
    responses = []
    while not reload.done():
        responses.append(await service.http.post("/v1/classify", content=SONG, headers={"content-type": RAW}))
    responses.append(await service.http.post("/v1/classify", content=SONG, headers={"content-type": RAW}))
    return await reload, responses


def test_a_good_bundle_is_swapped_in_under_load(own_service: OwnService, changing: Path) -> None:
    old = load_bundle(changing).manifest.version
    service = own_service(bundle=changing, tokens=("admin=root",))
    new = relicense(changing)
    reload, responses = service.runner.run(asked_while_reloading(service))
    assert (reload.status_code, reload.json()) == (200, {"bundle": new})
    assert {response.status_code for response in responses} == {200}
    versions = [response.json()["bundle"] for response in responses]
    assert versions[-1] == new
    assert versions == [old] * versions.count(old) + [new] * versions.count(new)
    assert service.metric("segue_reloads_total", result="swapped") == 1


@pytest.mark.parametrize("file", ["student.onnx", "teacher.onnx", "tradeoff.csv", "manifest.json"])
def test_a_corrupt_bundle_is_refused_under_load(own_service: OwnService, changing: Path, file: str) -> None:
    old = load_bundle(changing).manifest.version
    service = own_service(bundle=changing, tokens=("admin=root",))
    relicense(changing)
    (changing / file).write_bytes(b"damaged")
    reload, responses = service.runner.run(asked_while_reloading(service))
    assert reload.status_code == 409
    assert reload.json()["error"].startswith(f"the old bundle stays: bundle/{file}: ")
    assert str(changing) not in reload.text
    assert {response.status_code for response in responses} == {200}
    assert {response.json()["bundle"] for response in responses} == {old}
    assert service.metric("segue_reloads_total", result="refused") == 1


def test_every_worker_follows_the_one_that_was_asked(
    own_service: OwnService, changing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_slot_module, "WATCH_EVERY_S", 0.001)
    asked, other = (own_service(bundle=changing, tokens=("admin=root",), server_folder=tmp_path) for _ in range(2))
    new = relicense(changing)

    async def follow() -> None:
        watches = [asyncio.create_task(service.slot.watch()) for service in (asked, other)]
        await asked.http.post("/v1/admin/reload", headers={"authorization": "Bearer root"})
        while other.slot.engine.bundle.manifest.version != new:
            await asyncio.sleep(0.001)
        (changing / "student.onnx").write_bytes(b"damaged")
        os.utime(tmp_path / "reload", ns=(1, 1))  # Another time than before, whatever the file system's clock.
        while other.metric("segue_reloads_total", result="refused") < 1:
            await asyncio.sleep(0.001)
        for watch in watches:
            watch.cancel()

    asked.runner.run(follow())
    assert other.slot.engine.bundle.manifest.version == new
    assert asked.metric("segue_reloads_total", result="swapped") == 1  # It did not follow itself.


def test_bundles_that_are_exchanged_during_reloads_answer_as_their_version_says(
    own_service: OwnService, changing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(changing, tmp_path / "other")
    negate(other)
    says = {one.manifest.version: open_cascade(one).answer(SONGS, -1.0) for one in map(load_bundle, (changing, other))}
    assert len({answers.probs.tobytes() for answers in says.values()}) == 2
    service = own_service(bundle=changing, tokens=("admin=root",))
    body = np.stack([song[:120] for song in SONGS]).astype("<f4").tobytes()

    def exchange_then_find_no_faults(*_: Any) -> dict[str, str]:
        aside = tmp_path / "aside"
        changing.rename(aside)
        other.rename(changing)
        aside.rename(other)
        return {}

    monkeypatch.setattr(bundle_slot_module, "find_faults", exchange_then_find_no_faults)
    versions = []
    for _ in range(4):
        reloaded = service.post(b"", path="/v1/admin/reload", authorization="Bearer root").json()["bundle"]
        answer = service.post(body, RAW, "/v1/classify?mode=accurate").json()
        versions.append(answer["bundle"])
        assert answer["bundle"] == reloaded
        found = [[*song["probabilities"].values()] for song in answer["songs"]]
        np.testing.assert_allclose(found, says[answer["bundle"]].probs, atol=1e-5)
    assert len(set(versions)) == 2


def pipe(bundle: Path) -> None:
    (bundle / "student.onnx").unlink()
    os.mkfifo(bundle / "student.onnx")


def folder(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    (bundle / "manifest.json").mkdir()


def deep(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("[" * 100_000)


def external(bundle: Path) -> None:
    model = onnx.load(bundle / "teacher.onnx")
    onnx.save_model(
        model, bundle / "teacher.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin"
    )
    seal(bundle)


def seal(bundle: Path) -> None:
    """Seal a bundle whose files have changed."""
    manifest = parse_manifest((bundle / "manifest.json").read_bytes(), bundle / "manifest.json")
    write_manifest(bundle, manifest)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (pipe, "student.onnx: expected a regular file"),
        (folder, "manifest.json: expected a file, found a folder"),
        (deep, "manifest.json: not a manifest: expected at most 32 levels"),
        (external, "teacher.onnx: expected all weights inside the file"),
        (lambda bundle: make_endless(bundle, "student"), "student.onnx: it did not load and warm up within 4 s"),
        (lambda bundle: make_endless(bundle, "teacher"), "teacher.onnx: it did not load and warm up within 4 s"),
    ],
)
def test_a_bundle_that_would_never_load_is_refused_and_the_next_one_is_not(
    own_service: OwnService, bundle: Path, changing: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    service = own_service(bundle=changing, tokens=("admin=root",), load_timeout_s=4)
    spoil(changing)
    refused = service.post(b"", path="/v1/admin/reload", authorization="Bearer root")
    assert (refused.status_code, reason in refused.text) == (409, True), refused.text
    assert service.post(SONG, RAW).json()["bundle"] == load_bundle(bundle).manifest.version
    shutil.rmtree(changing)
    shutil.copytree(bundle, changing)
    service.slot.settings = dataclasses.replace(service.slot.settings, load_timeout_s=60.0)
    new = relicense(changing)
    reload = service.post(b"", path="/v1/admin/reload", authorization="Bearer root")
    assert (reload.status_code, reload.json()) == (200, {"bundle": new})


def test_a_process_that_dies_of_a_model_is_a_fault_of_that_model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_bundle(bundle)
    assert find_faults(loaded, Settings()) == {}
    unloadable = dataclasses.replace(loaded, contents={**loaded.contents, "teacher.onnx": b"\x08"})
    assert set(find_faults(unloadable, Settings())) == {"teacher"}
    monkeypatch.setattr("segue.serving.http.trial.sys.executable", "/bin/false")
    message = f"{bundle / 'student.onnx'}: the process that tried it ended with exit code 1"
    assert find_faults(loaded, Settings())["student"] == message


@pytest.mark.slow
def test_at_the_start_an_endless_teacher_leaves_the_student(own_service: OwnService, changing: Path) -> None:
    make_endless(changing, "teacher")
    service = own_service(bundle=changing, load_timeout_s=20, open_slot=BundleSlot.open)
    (song,) = service.post(SONG, RAW, "/v1/classify?mode=accurate").json()["songs"]
    assert (song["answered_by"], song["degraded"]) == ("student", True)


def test_an_endless_student_is_no_service(own_service: OwnService, changing: Path) -> None:
    make_endless(changing, "student")
    with pytest.raises(BundleError, match=r"student\.onnx: it did not load and warm up within 2 s"):
        own_service(bundle=changing, load_timeout_s=2, open_slot=BundleSlot.open)


def test_no_error_ends_the_watch(
    own_service: OwnService, changing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_slot_module, "WATCH_EVERY_S", 0.001)
    service = own_service(bundle=changing, server_folder=tmp_path)
    new, errors = relicense(changing), [OSError("no space"), PermissionError("not yours"), KeyError("?")]

    def fail() -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(service.monitoring, "flush", fail)
    monkeypatch.setattr(bundle_slot_module, "find_faults", lambda *_: {})

    async def follow() -> None:
        watch = asyncio.create_task(service.slot.watch())
        (tmp_path / "reload").touch()
        while errors or service.slot.engine.bundle.manifest.version != new:
            await asyncio.sleep(0.001)
        assert not watch.done()
        watch.cancel()

    service.runner.run(follow())


def test_a_release_that_could_not_be_loaded_is_tried_again(
    own_service: OwnService, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine so busy that the trial of the models takes longer than it may."""
    store = ReleaseStore(tmp_path / "releases")
    store.publish(another_bundle(bundle, tmp_path / "1", 1), "")
    faults, tried = iter([{}, {"student": "too slow"}, {"student": "too slow"}, {}]), list[str]()

    def find_faults(opened: Bundle, _: Settings) -> dict[str, str]:
        tried.append(opened.manifest.version)
        return next(faults)

    monkeypatch.setattr(bundle_slot_module, "find_faults", find_faults)
    monkeypatch.setattr(bundle_slot_module, "WATCH_EVERY_S", 0.001)
    monkeypatch.setattr(bundle_slot_module, "AGAIN_S", 0.001)
    service = own_service(releases=store.where, open_slot=BundleSlot.open)
    release = store.publish(another_bundle(bundle, tmp_path / "2", 2), "")

    async def follow() -> None:
        watch = asyncio.create_task(service.slot.watch())
        while service.slot.release != release.name:
            await asyncio.sleep(0.001)
        watch.cancel()

    service.runner.run(follow())
    assert tried[1:] == [release.version] * 3
    assert service.metric("segue_reloads_total", result="refused") == 2
