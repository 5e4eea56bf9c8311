"""What every server is asked: songs of which half fall back, the cascade to serve, and the answers that are right."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segue.bench.bundle_speed import synthetic
from segue.bench.peers.dialects import Probs
from segue.data.song import Floats, Songs
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from segue.serving.tables import check_units

CANDIDATES = 2048
CLEAR_NATS = 0.01  # So far from the threshold a song is, at least, lest rounding decides who answers.


@dataclass(frozen=True)
class Workload:
    """Songs, and what answers them."""

    songs: Floats  # (n_songs, 120, 25)
    probs: Probs  # (n_songs, n_classes), the right answers.
    models: Path  # The folder that `PlainCascade` reads.
    bundle: Path  # The same cascade as a bundle.
    threshold_nats: float


def make_workload(bundle: Path, table: Path | None, folder: Path) -> Workload:
    """Set the threshold so that half of the songs fall back, and write the cascade both ways below `folder`.

    Raises:
        ConfigError: the bundle's cascade is more than a student and a teacher that look at one window.
    """
    opened = load_bundle(bundle)
    manifest = opened.manifest
    if len(manifest.all_rungs) != 2 or manifest.class_scales or manifest.on_fallback != "teacher":
        raise ConfigError(
            f"{bundle}: expected a cascade of student and teacher with one threshold, which the peers have as well"
        )
    songs = _songs(opened, table)
    student = open_cascade(opened, threads=1).student.predict(Songs.of(songs))
    threshold = float(np.median(student.cross_entropy_nats))
    songs = songs[abs(student.cross_entropy_nats - threshold) >= CLEAR_NATS]
    ours, models = folder / "bundle", folder / "models"
    for each in (ours, models):
        each.mkdir()
    for name, content in opened.contents.items():
        (ours / name).write_bytes(content)
    write_manifest(ours, replace(manifest, threshold_nats=threshold))
    (models / "student.onnx").write_bytes(opened.model(manifest.student))
    (models / "teacher.onnx").write_bytes(opened.model(manifest.teacher))
    config = {
        "classes": manifest.classes,
        "threshold_nats": threshold,
        "student_temperature": manifest.student.temperature.value,
        "teacher_temperature": manifest.teacher.temperature.value,
    }
    (models / "cascade.json").write_text(json.dumps(config))
    answers = open_cascade(load_bundle(ours), threads=1).answer(Songs.of(songs))
    return Workload(songs, answers.probs, models, ours, threshold)


def _songs(bundle: Bundle, table: Path | None) -> Floats:
    """Return central windows (n_songs, 120, 25) of a table's first songs, or synthetic ones."""
    if table is None:
        return synthetic(CANDIDATES, len(bundle.manifest.classes)).windows()[0]
    found = SongTable(table)
    check_units(found, bundle)
    if not len(found):
        raise ConfigError(f"{table}: expected songs to ask about, found none")
    return found.songs(np.arange(min(CANDIDATES, len(found)))).windows()[0]
