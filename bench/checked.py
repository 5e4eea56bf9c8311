"""Callers that know the right answer: what a server says is compared, song by song, with what its version's models say.

For runs in which bundles are exchanged, workers killed and bodies hostile meanwhile: `exchange` and `soak`.
"""

import asyncio
import gzip
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import orjson
import pyarrow as pa
from onnx import helper

from segue.bench.bundle_speed import synthetic
from segue.data.song import Songs
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.bundle.manifest import MANIFEST
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW
from segue.serving.predictions import Answers

POOL = 256  # Distinct songs.
MOST_SONGS = 8  # Of a request.
TOLERANCE = 1e-5  # Of a probability: a batch changes the last digits.
DIALS = ("", "?mode=fast", "?mode=accurate", "?mode=balanced", "?threshold=0.9")
KINDS = (JSON, RAW, NPY, ARROW)
KEPT = 20  # Wrong answers that are kept word for word.
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Question:
    """A request, and the songs of the pool that it is about."""

    path: str
    dial: str
    headers: dict[str, str]
    body: bytes
    rows: tuple[int, ...]
    song_ids: tuple[str, ...]


@dataclass
class Tally:
    """What became of the requests."""

    songs: int = 0
    answers: int = 0
    degraded: int = 0  # Songs that the student answered because the teacher was in trouble; compared with the student.
    by_version: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)  # By status.
    broken_at: list[float] = field(default_factory=list)  # When a request ended without an answer.
    n_wrong: int = 0
    wrong: list[str] = field(default_factory=list)


class Oracle:
    """The right answers of some bundles to all questions about a pool of songs."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        """Ask the models of each bundle, in this process, about every song and with every dial."""
        n_classes = len(bundles[0].manifest.classes)
        self.windows = np.stack(synthetic(POOL, n_classes))
        songs = Songs.of(self.windows)
        self._classes = {one.manifest.version: one.manifest.classes for one in bundles}
        self._right: dict[tuple[str, str], Answers] = {}
        for one in bundles:
            cascade = open_cascade(one, threads=1)
            own = one.manifest.threshold_nats
            thresholds = {"": own, "?mode=balanced": own, "?mode=fast": np.inf, "?mode=accurate": -1.0}
            for dial in DIALS:
                threshold = thresholds[dial] if dial in thresholds else float(dial.rpartition("=")[2])
                self._right[one.manifest.version, dial] = cascade.answer(songs, threshold)

    def questions(self, seed: int) -> Iterator[Question]:
        """Yield requests without end: every type of body, as it is and in gzip, every dial, both types of answers."""
        rng = np.random.default_rng(seed)
        while True:
            rows = tuple(rng.integers(0, POOL, rng.integers(1, MOST_SONGS + 1)).tolist())
            kind, dial = KINDS[rng.integers(len(KINDS))], DIALS[rng.integers(len(DIALS))]
            named = kind in (JSON, ARROW)
            song_ids = tuple(f"song-{row}" if named else str(place) for place, row in enumerate(rows))
            body = _encode(kind, song_ids, self.windows[list(rows)])
            headers = {"content-type": kind, "accept": ARROW if rng.random() < 0.3 else JSON}
            if rng.random() < 0.5:
                body = gzip.compress(body, 1)
                headers["content-encoding"] = "gzip"
            yield Question(f"/v1/classify{dial}", dial, headers, body, rows, song_ids)

    def check(self, question: Question, response: httpx.Response, tally: Tally) -> None:
        """Count a response, and what is wrong with it."""
        if response.status_code != 200:
            tally.refused[response.status_code] += 1
            return
        version, songs = _decode(response)
        tally.answers += 1
        tally.by_version[version] += 1
        tally.songs += len(songs)
        right = self._right.get((version, question.dial))
        if right is None:
            _wrong(tally, f"no bundle here has the version {version}")
            return
        if [one["id"] for one in songs] != [*question.song_ids]:
            _wrong(tally, f"expected songs {question.song_ids}, found {[one['id'] for one in songs]}")
            return
        classes = self._classes[version]
        for row, one in zip(question.rows, songs, strict=True):
            tally.degraded += bool(one["degraded"])
            expected = self._right[version, "?mode=fast"] if one["degraded"] else right
            probs = np.array([one["probabilities"][name] for name in classes])
            difference = float(np.abs(probs - expected.probs[row]).max())
            told = (one["genre"], one["answered_by"], one["windows"])
            meant = (classes[expected.choice[row]], expected.answered_by(row), int(expected.windows[row]))
            if not difference <= TOLERANCE or told != meant:
                _wrong(
                    tally, f"{version}{question.dial} song {row}: expected {meant}, found {told}, {difference:.2g} off"
                )


async def ask(
    port: int, oracle: Oracle, tally: Tally, *, callers: int, goes_on: Callable[[], bool], seed: int = 0
) -> None:
    """Let so many callers ask one question after the other, and check every answer, as long as `goes_on` says."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        timeout=TIMEOUT_S,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=callers, keepalive_expiry=2.0),
    ) as client:

        async def call(number: int) -> None:
            questions = oracle.questions(seed * callers + number)
            while goes_on():
                question = next(questions)
                try:
                    response = await client.post(question.path, headers=question.headers, content=question.body)
                except httpx.HTTPError:
                    tally.broken_at.append(time.perf_counter())
                    await asyncio.sleep(0.05)
                    continue
                oracle.check(question, response, tally)
                if response.status_code == 503:
                    await asyncio.sleep(1.0)  # As Retry-After says.

        await asyncio.gather(*(call(number) for number in range(callers)))


def copy_bundle(bundle: Path, folder: Path) -> None:
    """Copy a bundle to `folder`, its own files only."""
    folder.mkdir(parents=True)
    for name in (MANIFEST, *load_bundle(bundle).contents):
        (folder / name).write_bytes((bundle / name).read_bytes())


def exchange_names(one: Path, other: Path) -> None:
    """Let two folders exchange their names; for a moment the first is nowhere, as after two `mv`."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def make_opposite(bundle: Bundle, folder: Path) -> Bundle:
    """Write a bundle of the same kind to `folder`, whose models say the opposite."""
    folder.mkdir(parents=True)
    for name, content in bundle.contents.items():
        (folder / name).write_bytes(content)
    for entry in (bundle.manifest.student, bundle.manifest.teacher):
        model = onnx.load_from_string(bundle.model(entry))
        for node in model.graph.node:
            node.output[:] = ["before" if one == "logits" else one for one in node.output]
        model.graph.node.append(helper.make_node("Neg", ["before"], ["logits"]))
        onnx.save(model, folder / entry.file)
    write_manifest(folder, replace(bundle.manifest, licence="of the opposite"))
    return load_bundle(folder)


def _wrong(tally: Tally, text: str) -> None:
    tally.n_wrong += 1
    if len(tally.wrong) < KEPT:
        tally.wrong.append(text)


def _encode(kind: str, song_ids: Sequence[str], windows: Any) -> bytes:
    if kind == RAW:
        return bytes(windows.astype("<f4").tobytes())
    if kind == NPY:
        file = io.BytesIO()
        np.save(file, windows)
        return file.getvalue()
    if kind == JSON:
        songs = [{"id": one, "segments": song} for one, song in zip(song_ids, windows, strict=True)]
        return orjson.dumps({"songs": songs}, option=orjson.OPT_SERIALIZE_NUMPY)
    segments = pa.array([song.tolist() for song in windows], pa.list_(pa.list_(pa.float32(), 25)))
    table = pa.table({"song_id": pa.array(song_ids), "segments": segments})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _decode(response: httpx.Response) -> tuple[str, list[dict[str, Any]]]:
    """Return the version and the songs of an answer."""
    if response.headers["content-type"] == ARROW:
        table = pa.ipc.open_stream(response.content).read_all()
        songs = [{**row, "id": row["song_id"]} for row in table.to_pylist()]
        return table.schema.metadata[b"segue.bundle"].decode(), songs
    answer = orjson.loads(response.content)
    return answer["bundle"], answer["songs"]
