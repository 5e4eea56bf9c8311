"""A new bundle without a pause: swapped when it is good, refused when it is not, and nobody notices."""

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.write import write_manifest
from segue.serving.http import bundle_slot as bundle_slot_module
from segue.serving.http.bodies import RAW
from tests.serving.conftest import OwnClient, OwnService

SONG = bytes(12_000)


@pytest.fixture
def changing(bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle that may be changed."""
    shutil.copytree(bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def renew(bundle: Path) -> str:
    """Make another version of a bundle, of the same models, and return its name."""
    return write_manifest(bundle, replace(load_bundle(bundle).manifest, licence="of another version")).version


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
    new = renew(changing)
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
    renew(changing)
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
    signal = tmp_path / "reload"
    signal.touch()
    asked, other = (own_service(bundle=changing, tokens=("admin=root",), reload_file=signal) for _ in range(2))
    new = renew(changing)

    async def follow() -> None:
        watches = [asyncio.create_task(service.slot.watch()) for service in (asked, other)]
        await asked.http.post("/v1/admin/reload", headers={"authorization": "Bearer root"})
        while other.slot.engine.bundle.manifest.version != new:
            await asyncio.sleep(0.001)
        (changing / "student.onnx").write_bytes(b"damaged")
        os.utime(signal, ns=(1, 1))  # Another time than before, whatever the file system's clock.
        while other.metric("segue_reloads_total", result="refused") < 1:
            await asyncio.sleep(0.001)
        for watch in watches:
            watch.cancel()

    asked.runner.run(follow())
    assert other.slot.engine.bundle.manifest.version == new
    assert asked.metric("segue_reloads_total", result="swapped") == 1  # It did not follow itself.
