"""A server to compare with: the same models behind uvicorn and Starlette, without BentoML, and with nothing else.

It checks no song, refuses nobody, counts nothing and logs nothing. `alone` calls the models once a request, as a first
version would; `batched` has the service's own engine, so that what is left of a difference is the price of the rest.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from segue.data.song import N_FEATURES, WINDOW, Songs
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.engine import Engine
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.settings import Settings
from segue.serving.predictions import Answers

SETTINGS = Settings.from_environment()


def alone() -> Starlette:
    """Return an app that runs the models in threads, one call a request."""
    cascade = open_cascade(load_bundle(SETTINGS.bundle), threads=SETTINGS.threads)

    async def answer(songs: Songs) -> Answers:
        return await asyncio.to_thread(cascade.answer, songs)

    return _app(answer)


def batched() -> Starlette:
    """Return an app that batches songs across requests."""
    engine = Engine.open(load_bundle(SETTINGS.bundle), SETTINGS, Monitoring())

    async def answer(songs: Songs) -> Answers:
        return await engine.answer(songs)

    return _app(answer)


def _app(answer: Callable[[Songs], Awaitable[Answers]]) -> Starlette:
    async def classify(request: Request) -> Response:
        windows = np.frombuffer(await request.body(), "<f4").reshape(-1, WINDOW, N_FEATURES)
        answers = await answer(Songs.of(windows))
        content = {field.name: getattr(answers, field.name).tolist() for field in dataclasses.fields(answers)}
        return Response(orjson.dumps(content), media_type="application/json")

    async def ready(_: Request) -> Response:
        return Response()

    return Starlette(routes=[Route("/classify", classify, methods=["POST"]), Route("/readyz", ready)])
