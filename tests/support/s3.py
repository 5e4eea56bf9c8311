"""A real S3 protocol server in a process of its own: moto's, from an environment of its own.

moto wants older libraries than ours, so it is a tool and no dependency; `make test` installs it in `.venv/moto`.
"""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyarrow import fs

from tests.support.server import free_port

START_TIMEOUT_S = 60


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server while the block lasts and yield the address of an empty bucket; without moto the test is skipped."""
    command = os.environ.get("SEGUE_S3_SERVER")
    if not command:
        pytest.skip("needs an S3 server: `make test` has one; or set SEGUE_S3_SERVER to the path of a `moto_server`")
    port = free_port()
    words = [command, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    query = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=true"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            _wait_until_ready(server, port)
            storage, bucket = fs.FileSystem.from_uri(f"s3://songs?{query}")
            storage.create_dir(bucket)
            yield f"s3://songs/genres?{query}"
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("the S3 server did not become ready")
