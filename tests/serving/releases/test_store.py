"""The release store: what is published stays as it is, and a change is seen whole or not at all."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pyarrow import fs

from segue.errors import BundleError, ConfigError, ReleaseError
from segue.serving.bundle.load import load_bundle
from segue.serving.releases import store as store_module
from segue.serving.releases.follow import Follower
from segue.serving.releases.lock import locked
from segue.serving.releases.store import INDEX, Index, ReleaseStore, is_store
from tests.support.small_disk import fill, small_disk

Another = Callable[[int], Path]
PAGE = 4096  # Bytes that a file takes at least.


def version(bundle: Path) -> str:
    return load_bundle(bundle).manifest.version


def test_a_store_tells_its_story(store: ReleaseStore, another: Another, tmp_path: Path) -> None:
    assert (store.exists, store.index()) == (False, Index())
    names = [store.publish(another(number), f"number {number}", f"<p>{number}</p>").name for number in range(3)]
    assert names == [f"{n + 1:04d}-{version(another_of(tmp_path, n))}" for n in range(3)]
    index = store.index()
    assert (index.latest, index.previous) == (names[2], names[1])
    store.reject("no better", "<p>no</p>")
    assert store.rollback().name == names[1]
    assert (store.index().latest, store.index().previous) == (names[1], names[2])
    assert store.rollback().name == names[2]
    assert store.rollback("1", why="all wrong").name == names[0]
    assert store.prune(1) == (names[1],)
    index = store.index()
    assert [one.name for one in index.releases] == [names[0], names[2]]
    kinds = ["published"] * 3 + ["rejected"] + ["rolled back"] * 3 + ["pruned"]
    assert [event.kind for event in index.events] == kinds
    assert [event.page for event in index.events[:4]] == [f"pages/{n:04d}.html" for n in range(1, 5)]
    assert index.events[6].words == f"from {names[2]} to {names[0]}: all wrong"
    assert store.publish(another(9), "after a prune").name.startswith("0004-")


def another_of(tmp_path: Path, number: int) -> Path:
    return tmp_path / "bundles" / str(number)


def test_what_is_fetched_is_what_was_published(store: ReleaseStore, another: Another, tmp_path: Path) -> None:
    published = another(1)
    name = store.publish(published, "").name
    for asked in ("latest", name, "1", version(published)[:6]):
        assert store.fetch(asked, tmp_path / "out").name == name
        assert version(tmp_path / "out") == version(published)
    with pytest.raises(ReleaseError, match=f"release previous: expected one of {name}; found no such release"):
        store.fetch("previous", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_publishing_the_latest_again_changes_nothing_and_an_older_one_is_refused(
    store: ReleaseStore, another: Another
) -> None:
    first = another(1)
    name = store.publish(first, "").name
    before = store.index()
    assert store.publish(first, "again").name == name
    assert store.index() == before
    store.publish(another(2), "")
    with pytest.raises(
        ReleaseError, match=f"expected a new bundle, found that of release {name}. `segue releases rollb"
    ):
        store.publish(first, "")


def test_a_bundle_that_is_not_sound_is_not_published(store: ReleaseStore, another: Another) -> None:
    broken = another(1)
    (broken / "student.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="sha256"):
        store.publish(broken, "")
    assert store.index() == Index()


def test_a_damaged_release_is_never_fetched(tmp_path: Path, another: Another) -> None:
    store = ReleaseStore(tmp_path / "releases")
    release = store.publish(another(1), "")
    file = tmp_path / "releases" / release.name / "student.onnx"
    file.chmod(0o644)
    file.write_bytes(b"x")
    with pytest.raises(ReleaseError, match=r"release 0001-.* cannot be read: .*sha256"):
        store.fetch("latest", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BundleError, match="sha256"):
        Follower(store).latest()


def test_a_full_disk_publishes_nothing(store: ReleaseStore, another: Another, monkeypatch: pytest.MonkeyPatch) -> None:
    store.publish(another(1), "")
    before = store.index()
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object, **__: object) -> None:
        raise full

    with monkeypatch.context() as patch:  # While the models are copied ...
        patch.setattr(ReleaseStore, "_copy", fail)
        with pytest.raises(OSError, match="No space left"):
            store.publish(another(2), "")
    original = ReleaseStore._write

    def write(self: ReleaseStore, name: str, content: bytes) -> None:  # ... and as the index is written.
        if name == INDEX:
            fail()
        original(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(ReleaseStore, "_write", write)
        with pytest.raises(OSError, match="No space left"):
            store.publish(another(3), "")
    assert store.index() == before
    store.publish(another(4), "room again")
    folders = [info.base_name for info in store._storage.get_file_info(fs.FileSelector(""))]
    assert sorted(name for name in folders if name[:4].isdigit()) == [one.name for one in store.index().releases]


def test_a_disk_that_is_really_full_publishes_whole_or_nothing(another: Another, tmp_path: Path) -> None:
    """With room for nothing, for some of the models, and for every page more, from all of them to index and story."""
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        store = ReleaseStore(disk / "releases")
        store.publish(another(0), "")
        models = sum(-(-file.stat().st_size // PAGE) * PAGE for file in another(1).iterdir())
        published = []
        for number, leave in enumerate((0, PAGE, models // 2, *range(models, models + 12 * PAGE, PAGE)), 2):
            before, filling = store.index(), fill(disk, leave)
            with suppress(ConfigError, OSError):
                store.publish(another(number), "")
                published.append(number)
            filling.unlink()
            if number in published:
                assert store.index().previous == before.latest
            else:
                assert store.index() == before
            store.fetch("latest", tmp_path / "out")
            store.prune(1)
        assert len(published) >= 3
        assert 2 not in published


KILLED = """
import os, signal, sys
from pathlib import Path
from segue.serving.releases.store import ReleaseStore
store, place = ReleaseStore(sys.argv[1]), sys.argv[3]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
if place == "copied":
    copy = ReleaseStore._copy
    ReleaseStore._copy = lambda self, *given: (copy(self, *given), die())
elif place == "copying":
    import segue.serving.releases.store as module
    module._verify = die
elif place == "committed":
    ReleaseStore._sweep = die
store.publish(Path(sys.argv[2]), "killed")
"""


@pytest.mark.parametrize("place", ["copying", "copied", "committed"])
def test_a_publisher_that_is_killed_leaves_the_store_as_it_was_or_as_it_would_be(
    place: str, tmp_path: Path, another: Another
) -> None:
    where = tmp_path / "releases"
    store = ReleaseStore(where)
    store.publish(another(1), "")
    before = store.index()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(where), str(another(2)), place])
    assert ended.returncode == -signal.SIGKILL
    if place == "committed":
        assert [one.why for one in store.index().releases] == ["", "killed"]
    else:
        assert store.index() == before
    store.publish(another(3), "the lock of the dead is no lock")
    folders = sorted(path.name for path in where.iterdir() if "-" in path.name)
    assert folders == [one.name for one in store.index().releases]


def publish_some(where: str, bundles: list[Path]) -> None:
    for bundle in bundles:
        ReleaseStore(where).publish(bundle, "")
        ReleaseStore(where).prune(3)


@pytest.mark.slow
def test_many_writers_at_once_lose_nothing_while_others_read(
    store: ReleaseStore, another: Another, tmp_path: Path
) -> None:
    store.publish(another(0), "")
    writers = [[another(10 * writer + n) for n in range(1, 4)] for writer in range(3)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=publish_some, args=(store.where, some)) for some in writers]
    for process in processes:
        process.start()
    seen = set()
    while any(process.is_alive() for process in processes):
        seen.add(store.fetch("latest", tmp_path / "out").name)
        assert version(tmp_path / "out") in {name.partition("-")[2] for name in seen}
    assert [process.exitcode for process in processes] == [0] * 3
    index = store.index()
    published = [event.release for event in index.events if event.kind == "published"]
    assert len(set(published)) == len(published) == 10
    assert [int(str(name)[:4]) for name in published] == list(range(1, 11))
    assert {index.latest, index.previous} <= {one.name for one in index.releases}


def test_a_lock_names_its_owner_and_its_age(store: ReleaseStore) -> None:
    with (
        locked(store._storage, "lock", "publish"),
        pytest.raises(ReleaseError, match=rf"locked by process {os.getpid()} on .* s, to publish, renewed \d+ s ago"),
        locked(store._storage, "lock", "prune", wait_s=0),
    ):
        pass
    with locked(store._storage, "lock", "prune", wait_s=0):
        pass


def test_a_lock_is_held_by_one_at_a_time(store: ReleaseStore) -> None:
    holders, most, done = [0], [0], []

    def work() -> None:
        for _ in range(3):
            with locked(store._storage, "lock", "count", wait_s=120):
                holders[0] += 1
                most[0] = max(most[0], holders[0])
                store._storage.get_file_info(INDEX)  # Lets the others run.
                holders[0] -= 1
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(done)) == (1, 4)


def test_an_owner_that_slept_too_long_changes_nothing(
    tmp_path: Path, another: Another, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ReleaseStore(tmp_path / "releases")
    store.publish(another(1), "")
    before = store.index()
    copy = ReleaseStore._copy

    def sleep(self: ReleaseStore, *given: object) -> None:
        copy(self, *given)  # type: ignore[arg-type]
        for claim in (tmp_path / "releases" / "lock").iterdir():
            claim.unlink()

    monkeypatch.setattr(store_module.ReleaseStore, "_copy", sleep)
    with pytest.raises(ReleaseError, match="the lock was lost"):
        store.publish(another(2), "")
    assert store.index() == before


def test_a_stale_lock_of_another_host_ends_by_itself(tmp_path: Path, another: Another) -> None:
    store = ReleaseStore(tmp_path / "releases")
    store.publish(another(1), "")
    claim = tmp_path / "releases" / "lock" / "far.json"
    claim.write_text(json.dumps({"purpose": "publish", "host": "far", "place": "far", "pid": 1, "claimed": 0.0}))
    with (
        pytest.raises(ReleaseError, match=r"process 1 on far for \d+ s, to publish, renewed \d+ s ago"),
        locked(store._storage, "lock", "prune", wait_s=0),
    ):
        pass
    os.utime(claim, (1, 1))
    store.publish(another(2), "")
    assert not claim.exists()


def test_what_is_published_cannot_be_written_to(tmp_path: Path, another: Another) -> None:
    store = ReleaseStore(tmp_path / "releases")
    release = store.publish(another(1), "")
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "releases" / release.name).iterdir()}
    assert modes == {0o444}
    store.publish(another(2), "")
    store.publish(another(3), "")
    assert store.prune(1) == (release.name,)
    assert not (tmp_path / "releases" / release.name).exists()


def test_an_index_that_is_none_or_newer_is_named(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(ReleaseError, match=r"releases.json: expected the index of a release store: "):
        store.index()
    (tmp_path / INDEX).write_text('{"format_version": 99}')
    with pytest.raises(ReleaseError, match="expected format 1, found 99"):
        store.index()
    (tmp_path / INDEX).write_text('{"format_version": 1, "latest": "0001-0123456789ab", "checksum": ""}')
    with pytest.raises(ReleaseError, match="the checksum is not that of the content"):
        store.index()


def test_addresses_and_folders_with_an_index_are_stores(tmp_path: Path) -> None:
    assert is_store("s3://bucket/folder")
    assert not is_store(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    assert is_store(tmp_path)
    with pytest.raises(ReleaseError, match="nowhere://x: expected a folder or an address"):
        ReleaseStore("nowhere://x")


@pytest.mark.slow
def test_a_follower_sees_every_change_and_keeps_one_copy_of_a_remote_release(
    store: ReleaseStore, another: Another, tmp_path: Path
) -> None:
    follower = Follower(store, tmp_path / "cache")
    with pytest.raises(ReleaseError, match="release latest: expected one of none"):
        follower.latest()
    for number in range(3):
        release = store.publish(another(number), "")
        assert follower.moved()
        here = follower.latest()
        assert (here.release, here.bundle.manifest.version) == (release, release.version)
        assert not follower.moved()
    copies = [path.name for path in tmp_path.glob("cache/*/*")]
    assert copies == ([] if store.path(release) else [release.name])
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert follower.latest().bundle.manifest.version == release.version
