"""Put a genre on files, one after the other: audio, or any other source of songs.

Examples:
    segue classify artifacts/bundle song.mp3 another.flac
    segue classify artifacts/bundle analysis.json --json
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tabulate import tabulate
from tyro.conf import Positional, arg

from segue.command import run
from segue.data.song import check_features
from segue.data.sources.conversion import faults
from segue.data.sources.registry import open_source
from segue.data.sources.source import Skipped, features_of
from segue.errors import SongError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.cascade import Cascade, check_threshold, open_cascade
from segue.serving.predictions import Answer
from segue.serving.runtime import Provider


@dataclass(frozen=True)
class Classification:
    """What `segue classify` found."""

    songs: tuple[Answer, ...]
    errors: dict[str, str]  # Why there is no answer, by song or file.

    def __str__(self) -> str:
        rows = [
            (song.song_id, song.genre, max(song.probabilities.values()), song.cross_entropy_nats, song.answered_by)
            for song in self.songs
        ]
        table = tabulate(rows, ("song", "genre", "probability", "nats", "answered by"), floatfmt=".3f")
        return "\n".join([table, *(f"{name}: {reason}" for name, reason in self.errors.items())])


def classify(
    bundle: Positional[Path],
    files: Positional[Annotated[tuple[Path, ...], arg(metavar="FILE...")]],
    threshold: float | None = None,
    windows: int | None = None,
    provider: Provider = "auto",
) -> Classification:
    """Put a genre on the songs of files.

    Args:
        bundle: The bundle's folder.
        files: Audio files, or any other source that `segue songs` reads.
        threshold: Cross-entropy in nats above which a song falls back to the teacher. Default: the bundle's.
        windows: Windows of a song that both models see, at most. Default: what the bundle says.
        provider: Where the models run; auto takes a GPU where there is one.
    """
    if threshold is not None:
        check_threshold(threshold)
    opened = load_bundle(bundle)
    cascade = open_cascade(opened, windows=windows, provider=provider)
    songs: list[Answer] = []
    errors: dict[str, str] = {}
    for file in files:
        try:
            for found in _answers(file, opened, cascade, threshold):
                if isinstance(found, Skipped):
                    errors[found.name] = found.reason
                else:
                    songs.append(found)
        except SongError as error:
            errors[str(file)] = str(error).removeprefix(f"{file}: ")
    if not songs:
        raise SongError("; ".join(f"{name}: {reason}" for name, reason in errors.items()) or "expected a file")
    return Classification(tuple(songs), errors)


def _answers(file: Path, bundle: Bundle, cascade: Cascade, threshold_nats: float | None) -> Iterator[Answer | Skipped]:
    source = open_source(file)
    manifest = bundle.manifest
    check_features(features_of(source), manifest.features, "its songs", "this bundle")
    if source.units != manifest.units:
        raise SongError(f"expected {manifest.units} songs for this bundle, found {source.units} ones")
    for batch in source.batches():
        if isinstance(batch, Skipped):
            yield batch
            continue
        faulty = faults(batch, manifest.units, set())
        yield from faulty.values()
        sound = batch.take([row for row in range(len(batch)) if row not in faulty])
        if len(sound):
            answers = cascade.answer(sound.songs, threshold_nats)
            yield from answers.one_by_one(sound.song_ids, manifest.classes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue classify`."""
    return run(classify, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
