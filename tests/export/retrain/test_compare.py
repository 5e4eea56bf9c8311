"""Comparing two bundles on the same songs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segue.data.table import SongTable
from segue.export.retrain.compare import Compared, compare, main
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from tests.support.bundles import another_bundle


def test_two_bundles_are_compared_by_class_and_by_doubt(
    bundle: Path, mixed_songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = another_bundle(bundle, tmp_path / "other", 1)
    write_manifest(other, replace(load_bundle(other).manifest, threshold_nats=0.0))  # The teacher answers all.
    found: Compared = compare(bundle, other, mixed_songs)
    table = SongTable(mixed_songs)
    said: Sequence[np.ndarray] = [
        open_cascade(load_bundle(one)).answer(table.songs(range(len(table)))).choice for one in (bundle, other)
    ]
    same = said[0] == said[1]
    assert found.agreement == same.mean() < 1
    classes = load_bundle(bundle).manifest.classes
    assert {one.name: (one.songs, one.agreement) for one in found.by_class} == {
        classes[index]: ((said[0] == index).sum(), same[said[0] == index].mean()) for index in np.unique(said[0])
    }
    assert sum(one.songs for one in found.by_doubt) == found.songs == len(table)
    assert sum(count for _, _, count in found.changes) == (~same).sum()
    assert found.fallback_rates[1] == 1.0
    assert found.labelled
    right = [one == table.labels_among(classes) for one in said]
    assert (found.labelled.both, found.labelled.only_first) == (
        (right[0] & right[1]).sum(),
        (right[0] & ~right[1]).sum(),
    )
    assert set(found.differing) <= {table.song_ids[row] for row in np.flatnonzero(~same)}
    assert main([str(bundle), str(bundle), str(mixed_songs)]) == 0
    assert "agree on 100.0% of 500 songs" in capsys.readouterr().out
