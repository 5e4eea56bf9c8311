"""FastAPI behind uvicorn with two workers, the models in its thread pool, orjson for JSON."""

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from segue.bench.peers.servers.plain_cascade import PlainCascade, songs_from_bytes

app = FastAPI()
cascade = PlainCascade()


@app.post("/classify")
async def classify(request: Request) -> Response:
    """Answer about the songs of a JSON or a raw body."""
    body = await request.body()
    return Response(
        await run_in_threadpool(answer, body, request.headers["content-type"]), media_type="application/json"
    )


def answer(body: bytes, content_type: str) -> bytes:
    """Return the JSON answer to a body."""
    if content_type == "application/json":
        songs = np.array(orjson.loads(body)["songs"], np.float32)
    else:
        songs = songs_from_bytes(body)
    return orjson.dumps(cascade.to_json(cascade.answer(songs)))
