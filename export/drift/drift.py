"""Tell whether songs have drifted from those that a bundle was made for, and whether to retrain.

Compares new songs, which need no labels, with the reference in the bundle: every feature's mean and spread within a
song, lengths, the student's cross-entropy, the fallback rate, the genres that the cascade says. One song of each artist
counts. Tests are corrected for their number, and a difference must be large as well as beyond chance.

The exit code is 0 where the songs are of the same kind, 4 where they are not. --textfile writes gauges for the node
exporter of Prometheus.

Example:
    segue drift artifacts/bundle artifacts/new-songs.arrow
    segue drift artifacts/bundle week.arrow --page week.html --textfile /var/lib/node_exporter/segue.prom
"""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from tabulate import tabulate
from tyro.conf import Positional

from segue.atomic import atomic_file
from segue.command import DONE, run
from segue.data.describe.describe import page_of
from segue.data.table import SongTable
from segue.errors import SongError
from segue.export.drift.drift_page import write_drift
from segue.export.drift.moved import DriftRules, Moved, moved
from segue.export.drift.reference import Reference, one_of_each_artist
from segue.places import check_out
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.tables import check_units, predict_rungs

RETRAIN = 4
LEAST_SONGS = 20
LISTED = 12


@dataclass(frozen=True)
class Drifted:
    """What `segue drift` found."""

    bundle: Path
    version: str
    songs: Path
    compared: int  # Songs, one of each artist.
    of: int  # Songs in the table.
    reference_songs: int
    retrain: bool
    moved: tuple[Moved, ...]  # The largest effects first.
    page: Path

    @property
    def exit_code(self) -> int:
        """4 where the songs have drifted, else 0."""
        return RETRAIN if self.retrain else DONE

    @property
    def words(self) -> str:
        """The result in a sentence."""
        drifted = [one.what for one in self.moved if one.drifted]
        if not drifted:
            return "songs of the same kind: nothing has moved beyond chance and by enough to matter"
        more = f" and {len(drifted) - 4} more" if len(drifted) > 4 else ""
        return f"retrain: {', '.join(drifted[:4])}{more} moved"

    def __str__(self) -> str:
        rows = [
            ("drifted" if one.drifted else "", one.what, one.effect, one.p_value, one.before, one.now)
            for one in self.moved[:LISTED]
        ]
        headers = ("", "what", "effect", "p (corrected)", "before", "now")
        return (
            f"{self.songs} and bundle {self.version}: {self.words}\n"
            f"compared {self.compared:,} of {self.of:,} songs, one an artist, with {self.reference_songs:,}\n\n"
            f"{tabulate(rows, headers, floatfmt=('', '', '.3f', '.2g', '.3g', '.3g'))}\n\n"
            f"{self.page}   the page: look at it"
        )


def drift(
    bundle: Positional[Path],
    songs: Positional[Path],
    page: Path | None = None,
    textfile: Path | None = None,
    rules: DriftRules = DriftRules(),
) -> Drifted:
    """Tell whether songs have drifted.

    Args:
        bundle: The bundle's folder.
        songs: A table of new songs; labels are not asked for.
        page: The HTML page to write.
        textfile: A file of gauges to write, for the node exporter of Prometheus.
        rules: When songs count as drifted.
    """
    page = page or page_of(songs.with_name(f"{songs.stem}-drift.arrow"), None)
    check_out(page, "drift", [songs, bundle], overwrite=False)
    opened, table = load_bundle(bundle), SongTable(songs)
    reference, now = Reference.read(opened), describe_songs(opened, table)
    found = moved(reference, now, rules)
    result = Drifted(
        bundle=bundle,
        version=opened.manifest.version,
        songs=songs,
        compared=now.songs,
        of=len(table),
        reference_songs=reference.songs,
        retrain=any(one.drifted for one in found),
        moved=found,
        page=page,
    )
    write_drift(result, reference, now, opened.manifest.classes)
    if textfile is not None:
        with atomic_file(textfile) as draft:
            draft.write_bytes(gauges(result))
    return result


def describe_songs(bundle: Bundle, songs: SongTable) -> Reference:
    """Return how the songs of a table are, and what a bundle says of them: one of each artist."""
    check_units(songs, bundle)
    rows = one_of_each_artist(songs.groups, np.arange(len(songs)))
    if len(rows) < LEAST_SONGS:
        raise SongError(f"{songs.path}: expected songs of at least {LEAST_SONGS} artists to compare, found {len(rows)}")
    cascade = open_cascade(bundle)
    says = predict_rungs(cascade, songs, rows, bundle.manifest.rung_names)
    answered = cascade.ladder.climb(lambda rung, some: says[rung].take(some))
    return Reference.of(songs, rows, answered, says[0].cross_entropy_nats, len(bundle.manifest.classes))


def gauges(result: Drifted) -> bytes:
    """Return the result in the text format of Prometheus."""
    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, value: float) -> None:
        Gauge(name, meaning, registry=registry).set(value)

    gauge("segue_drift_retrain", "1 where the songs have drifted from the bundle's.", result.retrain)
    gauge("segue_drift_songs", "Songs that were compared, one an artist.", result.compared)
    gauge("segue_drift_time_seconds", "When the songs were compared, in seconds since 1970.", time.time())
    effects = Gauge("segue_drift_effect", "How far something has moved, 0 to 1.", ["what"], registry=registry)
    p_values = Gauge(
        "segue_drift_p_value", "By chance, corrected for the number of tests.", ["what"], registry=registry
    )
    for one in result.moved:
        effects.labels(one.what).set(one.effect)
        p_values.labels(one.what).set(1.0 if math.isnan(one.p_value) else one.p_value)
    text: bytes = generate_latest(registry)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue drift`."""
    return run(drift, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
