"""500 songs get the answers of `segue evaluate` in every format, alone and among 64 callers at a time."""

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from segue.data.columns import SEGMENTS
from segue.data.song import Floats, Songs
from segue.data.table import SongTable
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW
from segue.serving.predictions import Answers
from segue.serving.tables import predict_rows
from segue.serving.tradeoff import answers
from tests.serving.conftest import Client
from tests.support.bundles import BOTH_ANSWER_NATS, CLASSES

CLOSE = 1e-5
CALLERS = 64


def as_json(ids: list[str], songs: list[Floats]) -> bytes:
    return json.dumps({"songs": [{"id": i, "segments": s.tolist()} for i, s in zip(ids, songs, strict=True)]}).encode()


def as_raw(_: list[str], songs: list[Floats]) -> bytes:
    return np.stack(songs).astype("<f4").tobytes()


def as_npy(_: list[str], songs: list[Floats]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.stack(songs))
    return file.getvalue()


def as_arrow(ids: list[str], songs: list[Floats]) -> bytes:
    table = pa.table({"song_id": ids, "segments": pa.array([song.tolist() for song in songs], SEGMENTS)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


WRITERS: dict[str, Callable[[list[str], list[Floats]], bytes]] = {
    JSON: as_json, RAW: as_raw, NPY: as_npy, ARROW: as_arrow,
}  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """Songs, and what `segue evaluate` says of them."""

    ids: list[str]
    songs: Songs
    answers: Answers


@pytest.fixture(scope="module")
def whole(bundle: Path, mixed_songs: Path) -> Expected:
    """Return songs of all lengths, evaluated as `segue evaluate` does."""
    table = SongTable(mixed_songs)
    rows = np.arange(len(table))
    cascade = open_cascade(load_bundle(bundle))
    student, teacher = (predict_rows(model, table, rows, "") for model in (cascade.student, cascade.teacher))
    return Expected(table.song_ids, table.songs(rows), answers(student, teacher, BOTH_ANSWER_NATS))


@pytest.fixture(scope="module")
def central(bundle: Path, whole: Expected) -> Expected:
    """Return the central window of each of them, which is all that some bodies can carry."""
    songs = Songs.of(whole.songs.windows()[0])
    ids = [str(row) for row in range(len(songs))]
    return Expected(ids, songs, open_cascade(load_bundle(bundle)).answer(songs, BOTH_ANSWER_NATS))


def answers_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    if response.headers["content-type"] == ARROW:
        rows: list[dict[str, Any]] = pa.ipc.open_stream(response.content).read_all().to_pylist()
        return [row | {"id": row["song_id"]} for row in rows]
    found: list[dict[str, Any]] = response.json()["songs"]
    return found


def check(found: list[dict[str, Any]], expected: Expected, rows: list[int], *, named: bool) -> None:
    for place, (one, row) in enumerate(zip(found, rows, strict=True)):
        assert one["id"] == (expected.ids[row] if named else str(place))
        assert one["genre"] == CLASSES[expected.answers.choice[row]]
        assert one["answered_by"] == expected.answers.answered_by(row)
        assert one["windows"] == expected.answers.windows[row]
        assert abs(one["cross_entropy_nats"] - expected.answers.cross_entropy_nats[row]) < CLOSE
        probs = [one["probabilities"][name] for name in CLASSES]
        np.testing.assert_allclose(probs, expected.answers.probs[row], rtol=0, atol=CLOSE)


async def ask(http: httpx.AsyncClient, kind: str, accept: str, expected: Expected, rows: list[int]) -> None:
    body = WRITERS[kind]([expected.ids[row] for row in rows], [expected.songs[row] for row in rows])
    response = await http.post(
        f"/v1/classify?threshold={BOTH_ANSWER_NATS}", content=body, headers={"content-type": kind, "accept": accept}
    )
    check(answers_of(response), expected, rows, named=kind in (JSON, ARROW))


@pytest.mark.parametrize("accept", [JSON, ARROW])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_answers_like_the_evaluation(
    service: Client, whole: Expected, central: Expected, kind: str, accept: str
) -> None:
    expected = whole if kind in (JSON, ARROW) else central
    for some in np.array_split(np.arange(len(expected.songs)), 4):
        service.runner.run(ask(service.http, kind, accept, expected, some.tolist()))


def test_no_caller_among_many_gets_the_answer_of_another(service: Client, whole: Expected, central: Expected) -> None:
    rng = np.random.default_rng(3)
    kinds = list(WRITERS)

    async def caller(number: int) -> None:
        kind = kinds[number % len(kinds)]
        expected = whole if kind in (JSON, ARROW) else central
        rows = rng.permutation(len(expected.songs))[:20].tolist()
        for start, end in ((0, 1), (1, 2), (2, 8), (8, 20)):
            await ask(service.http, kind, (JSON, ARROW)[number % 3 == 0], expected, rows[start:end])

    async def all_callers() -> None:
        await asyncio.gather(*map(caller, range(CALLERS)))

    service.runner.run(all_callers())
