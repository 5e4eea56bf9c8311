"""The page at / that documents the service, and the OpenAPI document that it shows.

Both are BentoML's, without what is BentoML's own in them: a tracker, badges from other sites, its team's address. What
the page loads comes from the server, so that it works without a network. Where the server takes audio, one can drop a
file on the page.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus's text format.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Segue</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css">
<link rel="stylesheet" href="./static_content/index.css">
<style>
.swagger-ui .info .main .title { visibility: visible; }
.swagger-ui .info .main .title span { position: static; }
</style>
<link rel="icon" href="data:,">
</head>
<body>
AUDIO<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js" charset="utf-8"></script>
<script src="./static_content/swagger-ui-standalone-preset.js" charset="utf-8"></script>
<script src="./static_content/swagger-initializer.js" charset="utf-8"></script>
</body>
</html>
"""
STATIC = Path(__file__).with_name("static")
AUDIO_SCRIPT = "/static_content/segue-audio.js"
DESCRIPTION = """
Puts a genre on songs. A fast student answers; a song that it is unsure of goes on to an accurate teacher. How unsure is
the threshold: the server's, or your request's.

A song is any number of segments of 25 numbers: 12 timbre, 12 chroma (0..1), 1 loudness (dB, -60..0), as in the Million
Song Dataset. Every song gets an answer or an error of its own.

Where the server wants a token, *Authorize* takes it.
"""
TAGS = [
    {"name": "Service APIs", "description": "Genres for songs, and what the bundle that answers is worth."},
    {"name": "Infrastructure", "description": "Probes, and metrics for Prometheus."},
]


class Pages:
    """BentoML's app, but for four paths."""

    def __init__(
        self,
        bentoml: ASGIApp,
        document: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        takes_audio: Callable[[], bool],
    ) -> None:
        """Stand before BentoML's app.

        Args:
            bentoml: the app.
            document: makes its OpenAPI document, which takes a while.
            metrics: makes /metrics.
            takes_audio: tells whether the bundle that is served now takes audio.
        """
        self._bentoml = bentoml
        self._document = document
        self._metrics = metrics
        self._takes_audio = takes_audio
        self._audio = (STATIC / "audio.html").read_text()
        self._script = (STATIC / "audio.js").read_bytes()
        self._described: Response | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"] if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else None
        if path == "/":
            page = PAGE.replace("AUDIO", self._audio if self._takes_audio() else "")
            await HTMLResponse(page)(scope, receive, send)
        elif path == AUDIO_SCRIPT:
            await Response(self._script, media_type="text/javascript")(scope, receive, send)
        elif path == "/docs.json":
            if self._described is None:
                self._described = Response(orjson.dumps(own(self._document())), media_type="application/json")
            await self._described(scope, receive, send)
        elif path == "/metrics":
            await Response(self._metrics(), media_type=METRICS_TYPE)(scope, receive, send)
        else:
            await self._bentoml(scope, receive, send)


def own(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document of BentoML's with our words in it, and without the schemas that it does not use."""
    info = {"title": "Segue", "version": "1", "description": DESCRIPTION.strip()}
    schemas = document["components"]["schemas"]
    while unused := {name for name in schemas if not _uses(document, f"#/components/schemas/{name}")}:
        for name in unused:
            del schemas[name]
    components = document["components"] | {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
    return document | {"info": info, "tags": TAGS, "components": components, "security": [{}, {"token": []}]}


def _uses(part: Any, reference: str) -> bool:
    if isinstance(part, dict):
        return part.get("$ref") == reference or any(_uses(one, reference) for one in part.values())
    return isinstance(part, list) and any(_uses(one, reference) for one in part)
