"""The data path: the FastAPI app with everything under /v1."""

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from segue.errors import SegueError
from segue.serving.bundle.manifest import Manifest
from segue.serving.http import schemas
from segue.serving.http.bodies import ARROW, SongsIn, read
from segue.serving.http.bundle_slot import BundleSlot
from segue.serving.http.dial import Dial, dial, query_dial, set_dial
from segue.serving.http.refusal import Reason, Refusal, internal_error
from segue.serving.http.replies import Reply, encode, media_type
from segue.serving.http.settings import Settings

LARGE_BODY_BYTES = 2**20  # A larger one is read in a thread, so that others are answered meanwhile.
WATCH_AFTER_S = 0.05  # Most answers take less; only longer ones are worth watching whether the caller has left.

PUBLIC = (
    "format_version", "version", "classes", "units", "features", "threshold_nats", "guarantee", "metrics",
    "metrics_split", "split_songs", "student", "teacher",
)  # fmt: skip  # Of the manifest; the rest says where the bundle was made.
MANIFEST = TypeAdapter(Manifest)  # Made once: that takes as long as a model.


class PlainRoute(APIRoute):
    """A route that hands its function the request as it is, and is documented like any other."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function itself."""
        return cast(Callable[[Request], Coroutine[Any, Any, Response]], self.endpoint)


router = APIRouter(tags=["Service APIs"])


class DataPath(FastAPI):
    """The app; whoever serves it puts a `BundleSlot` into its `state.slot`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: classification at once, the others by way of FastAPI, which takes as long as a model."""
        if scope["type"] == "http" and scope["path"] == "/v1/classify" and scope["method"] == "POST":
            scope["app"] = self
            response = await classify(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def data_path() -> DataPath:
    """Return the app with its routes."""
    app = DataPath(title="Segue", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    app.add_exception_handler(Refusal, _refuse)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(Exception, _fail)
    return app


def refused(refusal: Refusal) -> Response:
    """Return the answer that a refusal is."""
    return _json({"error": refusal.message}, refusal.status, refusal.headers)


async def _refuse(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    request.scope["segue.refusal"] = refusal.reason
    return refused(refusal)


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason: Reason = "no such method" if error.status_code == 405 else "no such path"
    request.scope["segue.refusal"] = reason
    return _json({"error": str(error.detail)}, error.status_code, dict(error.headers or {}))


async def _fail(request: Request, _: Exception) -> Response:
    return refused(internal_error())


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Problem} for status in statuses}


async def classify(request: Request) -> Response:
    """Put a genre on each song. 200 if at least one song has an answer, 422 if each has an error."""
    slot: BundleSlot = request.app.state.slot
    settings = slot.settings
    stage = "the body did not arrive"
    try:
        async with asyncio.timeout(settings.deadline_s):
            kind = media_type(", ".join(request.headers.getlist("accept")))
            in_query = query_dial(request.scope["query_string"])
            body = await _body(request, settings)
            stage = "the answer was not ready"
            with _while_connected(request):
                reply = await _reply(request, body, in_query, slot)
    except TimeoutError:
        message = f"{stage} within {settings.deadline_s:g} seconds"
        raise Refusal(408 if stage == "the body did not arrive" else 504, "deadline", message) from None
    return Response(encode(reply, kind), reply.status, media_type=kind)


async def _body(request: Request, settings: Settings) -> bytes:
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise Refusal(415, "unsupported type", "content-encoding: expected gzip or none, found another")
    return await asyncio.to_thread(inflate, body, settings.max_body_bytes)


def inflate(body: bytes, most: int) -> bytes:
    """Return what a gzip body holds, if that is at most `most` bytes; no more than that is ever in memory."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = stream.decompress(body, most + 1)
    except zlib.error:
        raise Refusal(400, "malformed body", "body: expected gzip, found something else") from None
    if len(content) > most:
        raise Refusal(413, "too large", f"body: expected at most {most} bytes after gzip, found more")
    if not stream.eof or stream.unused_data:
        raise Refusal(
            400, "malformed body", "body: expected one whole gzip stream, found one cut off or followed by more"
        )
    return content


@contextmanager
def _while_connected(request: Request) -> Iterator[None]:
    """Cancel the block when the caller hangs up: nobody would read the answer."""
    task = cast("asyncio.Task[None]", asyncio.current_task())
    watchers: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    loop = asyncio.get_running_loop()
    timer = loop.call_later(WATCH_AFTER_S, lambda: watchers.append(loop.create_task(watch())))
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task.uncancel():
            raise
        raise Refusal(499, "caller gone", "the caller has left") from None
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()


async def _reply(request: Request, body: bytes, in_query: Dial, slot: BundleSlot) -> Reply:
    engine = slot.engine
    manifest = engine.bundle.manifest
    arguments = (body, request.headers.get("content-type", ""), manifest.units, slot.settings.max_songs)
    songs: SongsIn = await asyncio.to_thread(read, *arguments) if len(body) > LARGE_BODY_BYTES else read(*arguments)
    in_body = dial(songs.mode, songs.threshold)
    if in_query.is_turned and in_body.is_turned:
        raise Refusal(422, "bad dial", "expected the dial in the query or in the body, found it in both")
    setting = set_dial(in_query if in_query.is_turned else in_body, manifest, slot.settings)
    if songs.errors:
        slot.monitoring.bad_songs(len(songs.errors))
    answered = await engine.answer(songs.sound, setting.threshold_nats) if len(songs.sound) else None
    errors = {place: str(error) for place, error in songs.errors.items()}
    return Reply.of(songs.song_ids, errors, answered, manifest, setting)


router.add_api_route(
    "/v1/classify",
    classify,
    methods=["POST"],
    route_class_override=PlainRoute,
    response_model=schemas.ClassifyResponse,
    responses={
        200: {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}},
        422: {"model": schemas.ClassifyResponse | schemas.Problem},
        **_problems(400, 401, 406, 408, 413, 415, 500, 503, 504),
    },
    openapi_extra={
        "requestBody": schemas.REQUEST_BODY,
        "parameters": [
            {"name": name, "in": "query", "description": schemas.DIAL[name], "schema": schema}
            for name, schema in {
                "mode": {"enum": ["fast", "balanced", "accurate"], "type": "string"},
                "threshold": {"type": "number", "minimum": 0},
            }.items()
        ],
    },
)


@router.get("/v1/model", responses=_problems(401, 500))
async def model(request: Request) -> Response:
    """Say which bundle answers: classes, threshold and guarantee, and how good it is."""
    manifest = request.app.state.slot.engine.bundle.manifest
    card = MANIFEST.dump_python(manifest, mode="json", include=set(PUBLIC))
    return _json({name: card[name] for name in PUBLIC} | {"guarantee_text": str(manifest.guarantee)})


@router.get("/v1/tradeoff", responses=_problems(401, 500))
async def tradeoff(request: Request) -> Response:
    """Say what each threshold gives and costs, in order of rising fallback rate."""
    bundle = request.app.state.slot.engine.bundle
    return _json({"bundle": bundle.manifest.version, "rows": [asdict(row) for row in bundle.tradeoff]})


@router.post("/v1/admin/reload", response_model=schemas.Reloaded, responses=_problems(401, 403, 409, 500))
async def reload(request: Request) -> Response:
    """Read the bundle's folder again: verified, warmed up and swapped, or refused and the old one stays."""
    slot: BundleSlot = request.app.state.slot
    try:
        version = await slot.reload()
    except SegueError as error:
        message = str(error).replace(str(slot.settings.bundle), "bundle")
        raise Refusal(409, "bad bundle", f"the old bundle stays: {message}") from None
    slot.tell_the_others()
    return _json({"bundle": version})


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
