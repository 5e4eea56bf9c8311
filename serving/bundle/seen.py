"""Which songs a bundle's models have seen: hashes of their ids, so that none counts as new to them."""

import io
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from segue.data.song import Bools
from segue.errors import BundleError
from segue.serving.bundle.load import Bundle
from segue.serving.bundle.manifest import TRAINED_ON

HASH_BYTES = 8  # Two of a million ids share one with a chance of 3 in 100 million.


def write_seen(folder: Path, song_ids: Sequence[str]) -> None:
    """Write the hashes of the ids of the songs that training has seen into a bundle's folder."""
    np.save(folder / TRAINED_ON, np.unique(_hashes(song_ids)))


def were_seen(bundle: Bundle, song_ids: Sequence[str]) -> Bools:
    """Return which songs the bundle's models have seen in training, (n,), by their ids."""
    try:
        seen = np.load(io.BytesIO(bundle.contents[TRAINED_ON]), allow_pickle=False)
    except KeyError:
        raise BundleError(f"{bundle.path}: expected {TRAINED_ON} among its files, found none") from None
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{bundle.path / TRAINED_ON}: expected hashes of song ids: {error}") from None
    return np.isin(_hashes(song_ids), seen)


def _hashes(song_ids: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    digests = b"".join(blake2b(one.encode(), digest_size=HASH_BYTES).digest() for one in song_ids)
    return np.frombuffer(digests, dtype="<u8")
