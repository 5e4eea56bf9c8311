"""The OpenAPI document is true: whatever a request says, the status and the shape of the answer are documented."""

import io
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.song import WINDOW
from segue.serving.http.bodies import ARROW, NPY, RAW, READERS
from tests.serving.conftest import Client
from tests.support.random_songs import random_segments

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ALWAYS = settings(
    max_examples=70, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
OPERATIONS = (
    ("POST", "/v1/classify"), ("GET", "/v1/model"), ("GET", "/v1/tradeoff"), ("POST", "/v1/admin/reload")
)  # fmt: skip


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def arrow(lengths: Sequence[int], kind: pa.DataType, ids: pa.DataType) -> bytes:
    songs = [random_segments(length, seed=length) for length in lengths]
    values = [song.ravel().tolist() if kind == FLAT_WINDOW else song.tolist() for song in songs]
    table = pa.table({"song_id": pa.array(range(len(songs))).cast(ids), "segments": pa.array(values, kind)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


sizes = st.lists(st.integers(0, 300), max_size=3)
WINDOWS = random_segments(WINDOW)[None]
BODIES = {
    RAW: st.binary() | st.sampled_from([1, 2, 1025]).map(lambda n: np.repeat(WINDOWS, n, axis=0).tobytes()),
    NPY: st.binary()
    | arrays(
        st.sampled_from([np.float32, np.float64, np.int8, np.bool_]), st.sampled_from([(2, 25), (1, 120, 25), (1,)])
    ).map(npy)
    | st.integers(1, 3000).map(lambda end: npy(WINDOWS)[:-end]),
    ARROW: st.binary()
    | sizes.map(lambda lengths: arrow(lengths, SEGMENTS, pa.string()))
    | sizes.map(lambda lengths: arrow([WINDOW for _ in lengths], FLAT_WINDOW, pa.string()))
    | sizes.map(lambda lengths: arrow(lengths, pa.list_(pa.list_(pa.float64())), pa.int64())),
}
for kind, bodies in BODIES.items():
    schemathesis.openapi.media_type(kind, bodies)


def references(part: Any) -> list[str]:
    """Return where each reference of a document leads."""
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    own = [part["$ref"]] if isinstance(part, dict) and isinstance(part.get("$ref"), str) else []
    return own + [one for inner in parts for one in references(inner)]


def test_every_reference_leads_somewhere(service: Client) -> None:
    described = service.get("/docs.json").json()
    for reference in references(described):
        found = described
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


@pytest.mark.parametrize("allowed", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_gets_an_undocumented_answer(
    service: Client, method: str, path: str, allowed: GenerationMode
) -> None:
    described = service.get("/docs.json").json()
    assert {one for one in described["paths"] if one.startswith("/v1/")} == {one for _, one in OPERATIONS}
    operation = schemathesis.openapi.from_dict(described)[path][method]
    if allowed == GenerationMode.NEGATIVE and not (operation.body or operation.query):
        return  # Nothing can be wrong with it.

    seen = set()

    @ALWAYS
    @given(case=operation.as_strategy(generation_mode=allowed))
    def ask(case: Any) -> None:
        asked: Any = requests.Request(**case.as_transport_kwargs(base_url="http://segue")).prepare()
        answer: httpx.Response = service.runner.run(
            service.http.request(method, asked.url, content=asked.body, headers=dict(asked.headers))
        )
        case.validate_response(answer, checks=CHECKS)
        seen.add((case.media_type, answer.status_code))

    ask()
    if path == "/v1/classify" and allowed == GenerationMode.POSITIVE:
        assert {*READERS} <= {kind for kind, _ in seen} <= {*READERS, "audio/mpeg", "multipart/form-data"}
        assert {status for _, status in seen} >= {200, 400, 422}
