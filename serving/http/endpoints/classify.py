"""POST /v1/classify: songs in, genres out."""

import asyncio
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from segue.serving.http import schemas
from segue.serving.http.audio import is_audio, read_audio
from segue.serving.http.bodies import ARROW, SongsIn, read
from segue.serving.http.dial import Dial, dial, query_dial, set_dial
from segue.serving.http.endpoints.endpoint import Asked, Endpoint, problems
from segue.serving.http.receiving import LARGE_BODY_BYTES, inflate, inflated_bytes
from segue.serving.http.refusal import Refusal
from segue.serving.http.replies import Reply, encode, media_type


async def classify(asked: Asked) -> Response:
    """Put a genre on each song. 200 if at least one song has an answer, 422 if each has an error."""
    kind = media_type(asked.accept)
    in_query = query_dial(asked.query)
    seconds = asked.settings.deadline_s
    try:
        async with asyncio.timeout(seconds):
            with asked.while_connected():
                reply = await _reply(asked, in_query)
    except TimeoutError:
        raise Refusal(504, "deadline", f"the answer was not ready within {seconds:g} seconds") from None
    return Response(encode(reply, kind), reply.status, media_type=kind)


async def _reply(asked: Asked, in_query: Dial) -> Reply:
    if is_audio(asked.header("content-type")):
        return await _answered(asked, await _audio(asked), in_query)
    encoding = asked.header("content-encoding").strip().lower() or "identity"
    if encoding not in ("identity", "gzip"):
        raise Refusal(415, "unsupported type", "content-encoding: expected gzip or none, found another")
    is_gzip = encoding == "gzip"
    n_bytes = inflated_bytes(asked.body, asked.settings.max_body_bytes) if is_gzip else len(asked.body)

    def songs() -> SongsIn:
        body = inflate(asked.body, asked.settings.max_body_bytes) if is_gzip else asked.body
        manifest, most = asked.slot.engine.bundle.manifest, asked.settings.max_songs
        return read(body, asked.header("content-type"), manifest.units, most, manifest.features)

    if n_bytes <= LARGE_BODY_BYTES:
        return await _answered(asked, songs(), in_query)
    async with asked.bodies.turn(n_bytes) as in_thread:
        return await _answered(asked, await in_thread(songs), in_query)


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
    if songs.errors:
        monitoring.bad_songs(len(songs.errors))
    answers = await engine.answer(songs.sound, setting.threshold_nats) if len(songs.sound) else None
    if answers is not None and asked.slot.shadow is not None:
        asked.slot.shadow.offer(songs.sound, [manifest.classes[choice] for choice in answers.choice])
    errors = {place: str(error) for place, error in songs.errors.items()}
    reply = Reply.of(songs.song_ids, errors, answers, manifest, setting)
    return replace(reply, recordings=songs.recordings) if songs.recordings else reply


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
