"""The metrics of all workers on one page: sums of all, gauges of those that live, and no file that ends it."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from segue.serving.http.monitoring import Monitoring
from segue.serving.http.server_folder import PREFIX, ServerFolder, is_locked

Series = Callable[..., float]


def worker(folder: Path, requests: int) -> Monitoring:
    """Return the monitoring of a worker that has its teacher and has answered so many requests."""
    monitoring = Monitoring(CollectorRegistry(), folder)
    monitoring.loaded(has_teacher=True)
    for number in range(requests):
        monitoring.requested("/v1/classify", 200, 0.001 * number, None)
    monitoring.flush()
    return monitoring


def value(monitoring: Monitoring, name: str, **labels: str) -> float | None:
    """Return the value of a series on the page."""
    for family in text_string_to_metric_families(monitoring.page().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def end(folder: Path, monitoring: Monitoring) -> None:
    """Let go of a worker's lock, as the system does when its process ends."""
    alive = folder / f"{monitoring._shared._name}.alive"
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.exists() and descriptor.samefile(alive):
            fcntl.flock(int(descriptor.name), fcntl.LOCK_UN)
    assert not is_locked(alive)


def test_the_page_adds_up_all_workers_whichever_is_asked(tmp_path: Path) -> None:
    workers = [worker(tmp_path, requests) for requests in (3, 4, 5)]
    for one in workers:
        assert value(one, "segue_requests_total", path="/v1/classify", status="200") == 12
        assert value(one, "segue_request_seconds_count", path="/v1/classify") == 12
        assert value(one, "segue_request_seconds_bucket", path="/v1/classify", le="0.001") == 6
        assert value(one, "segue_request_seconds_sum", path="/v1/classify") == pytest.approx(0.019)
        assert value(one, "segue_workers_with_teacher") == 3
        assert value(one, "segue_unreadable_metric_files") == 0


def test_what_a_worker_counted_outlives_it_and_its_gauges_do_not(tmp_path: Path) -> None:
    one, other = worker(tmp_path, 3), worker(tmp_path, 4)
    end(tmp_path, other)
    assert value(one, "segue_requests_total", path="/v1/classify", status="200") == 7
    assert value(one, "segue_workers_with_teacher") == 1


def test_files_that_cannot_be_read_are_skipped_and_counted(tmp_path: Path) -> None:
    one, _ = worker(tmp_path, 3), worker(tmp_path, 4)
    (tmp_path / "empty.metrics").touch()
    (tmp_path / "stray.metrics").write_bytes(os.urandom(100))
    (tmp_path / "other.metrics").write_text('{"json": 1}')
    (tmp_path / "kind.metrics").write_text('[["a", "song", "", []]]')
    (tmp_path / "series.metrics").write_text('[["a", "counter", "", [["a_total", [], "many"]]]]')
    (tmp_path / "folder.metrics").mkdir()
    (tmp_path / "link.metrics").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.metrics")
    os.truncate(tmp_path / "empty.metrics", 2**40)
    (tmp_path / "gauge_livesum_1.db").write_text("of another library")
    assert value(one, "segue_unreadable_metric_files") == 8
    assert value(one, "segue_requests_total", path="/v1/classify", status="200") == 7


def test_where_nothing_can_be_written_the_workers_serve_on_and_say_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = worker(tmp_path, 3), worker(tmp_path, 4)
    write = Path.write_bytes

    def full(file: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(3):
        one.requested("/v1/classify", 200, 0.001, None)
        one.flush()
    assert value(one, "segue_requests_total", path="/v1/classify", status="200") == 10
    assert value(other, "segue_requests_total", path="/v1/classify", status="200") == 7
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No space left on device" in caplog.text
    monkeypatch.setattr(Path, "write_bytes", write)
    one.flush()
    assert value(other, "segue_requests_total", path="/v1/classify", status="200") == 10


def test_a_server_folder_is_held_by_its_server_and_removed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        "import sys\nfrom segue.serving.http.server_folder import ServerFolder\n"
        "print(ServerFolder.make().path, flush=True)\nsys.stdin.read()"
    )

    def server() -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    first = server()
    assert first.stdout is not None
    folder = Path(first.stdout.readline().strip())
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert is_locked(folder)
    os.utime(folder, (0, 0))  # As if it had been there for long: it is held all the same.
    second = server()
    assert second.stdout is not None
    other = Path(second.stdout.readline().strip())
    assert folder.is_dir()
    assert other != folder
    second.communicate()
    assert not other.exists()
    first.kill()
    first.wait()
    assert folder.is_dir()
    server().communicate()
    assert [*tmp_path.glob(f"{PREFIX}*")] == []


def test_a_reload_can_be_asked_for_though_the_folder_was_tidied_away(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path / "gone")
    assert folder.reload_asked_at() == 0
    folder.ask_for_reload()
    assert folder.reload_asked_at() > 0
