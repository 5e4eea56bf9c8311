"""Release stores, local and in object storage, and bundles to publish."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segue.serving.releases.store import ReleaseStore
from tests.support.bundles import another_bundle
from tests.support.s3 import s3_server


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """Return the address of a folder in a bucket of a running S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ReleaseStore:
    """Return an empty store."""
    if request.param == "local":
        return ReleaseStore(tmp_path / "releases")
    address: str = request.getfixturevalue("s3_address")
    folder, _, query = address.partition("?")
    return ReleaseStore(f"{folder}/{tmp_path.name}?{query}")


@pytest.fixture
def another(bundle: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Return a function that returns a bundle of the same models and a version of its own, by a number."""
    return lambda number: another_bundle(bundle, tmp_path / "bundles" / str(number), number)
