"""POST /v1/classify: songs in, genres out."""

from typing import Any

from segue.serving.http import schemas
from segue.serving.http.audio import is_audio, read_audio
from segue.serving.http.bodies import ARROW, SongsIn, read_unchecked
from segue.serving.http.dial import Dial, dial, query_dial, set_dial
from segue.serving.http.endpoints.endpoint import Asked, Endpoint, Response, problems
from segue.serving.http.receiving import LARGE_BODY_BYTES, inflate, inflated_bytes
from segue.serving.http.refusal import Refusal
from segue.serving.http.replies import Reply, encode, media_type


async def classify(asked: Asked) -> Response:
    """Put a genre on each song. 200 if at least one song has an answer, 422 if each has an error."""
    kind = media_type(asked.accept)
    in_query = query_dial(asked.query)
    try:
        with asked.before_its_deadline():
            reply = await _reply(asked, in_query)
    except TimeoutError:
        seconds = asked.settings.deadline_s
        raise Refusal(504, "deadline", f"the answer was not ready within {seconds:g} seconds") from None
    return Response(encode(reply, kind), reply.status, kind)


async def _reply(asked: Asked, in_query: Dial) -> Reply:
    kind = asked.header("content-type")
    if is_audio(kind):
        return await _answered(asked, await _audio(asked), in_query)
    encoding = asked.header("content-encoding").strip().lower() or "identity"
    if encoding not in ("identity", "gzip"):
        raise Refusal(415, "unsupported type", "content-encoding: expected gzip or none, found another")
    is_gzip = encoding == "gzip"
    settings, manifest = asked.settings, asked.slot.engine.bundle.manifest
    n_bytes = inflated_bytes(asked.body, settings.max_body_bytes) if is_gzip else len(asked.body)

    def songs() -> SongsIn:
        body = inflate(asked.body, settings.max_body_bytes) if is_gzip else asked.body
        return read_unchecked(body, kind, manifest.units, settings.max_songs, manifest.features)

    if n_bytes <= LARGE_BODY_BYTES:
        return await _answered(asked, songs(), in_query)
    async with asked.bodies.turn(n_bytes) as in_thread:
        return await _answered(asked, await in_thread(lambda: songs().checked(manifest.units)), in_query)


async def _audio(asked: Asked) -> SongsIn:
    if asked.header("content-encoding"):
        raise Refusal(415, "unsupported type", "content-encoding: expected none for audio, found one")
    manifest, most = asked.slot.engine.bundle.manifest, asked.settings.max_songs
    return await read_audio(asked.body, asked.header("content-type"), manifest, most, asked.slot.analysers)


async def _answered(asked: Asked, songs: SongsIn, in_query: Dial) -> Reply:
    engine, monitoring = asked.slot.engine, asked.slot.monitoring
    manifest = engine.bundle.manifest
    in_body = dial(songs.mode, songs.threshold)
    if in_query.is_turned and in_body.is_turned:
        raise Refusal(422, "bad dial", "expected the dial in the query or in the body, found it in both")
    setting = set_dial(in_query if in_query.is_turned else in_body, manifest, asked.settings)
    said = await engine.ask(songs, setting.threshold_nats)
    if said.songs.errors:
        monitoring.bad_songs(len(said.songs.errors))
    if said.batch is not None and asked.slot.shadow is not None:
        genres = [one["genre"] for one in said.batch.named[said.rows]]
        asked.slot.shadow.offer(said.songs.sound, genres)
    return Reply.of(said, manifest, setting)


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": schemas.DIAL[name], "schema": schema}


ENDPOINT = Endpoint(
    path="/v1/classify",
    method="POST",
    answer=classify,
    query={
        "mode": _parameter("mode", {"enum": ["fast", "balanced", "accurate"], "type": "string"}),
        "threshold": _parameter("threshold", {"type": "number", "minimum": 0}),
    },
    body=schemas.REQUEST_BODY,
    reply=schemas.ClassifyResponse,
    responses={
        200: {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}},
        422: {"model": schemas.ClassifyResponse | schemas.Problem},
        **problems(400, 401, 406, 408, 413, 415, 500, 503, 504),
    },
)
