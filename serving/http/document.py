"""The endpoints as a FastAPI app, for BentoML's OpenAPI document. No request passes it: the guard has the endpoints."""

from collections.abc import Callable, Sequence

from fastapi import FastAPI

from segue.serving.http.endpoints.endpoint import Endpoint


def documented(endpoints: Sequence[Endpoint]) -> FastAPI:
    """Return an app whose OpenAPI document describes the endpoints."""
    app = FastAPI(title="Segue", docs_url=None, redoc_url=None, openapi_url=None)
    for endpoint in endpoints:
        words = {"parameters": list(endpoint.query.values())} | (
            {"requestBody": endpoint.body} if endpoint.body else {}
        )
        app.add_api_route(
            endpoint.path,
            _described(endpoint),
            methods=[endpoint.method],
            tags=["Service APIs"],
            name=endpoint.answer.__name__,
            description=endpoint.answer.__doc__,
            response_model=endpoint.reply,
            responses=dict(endpoint.responses),
            openapi_extra=words,
        )
    return app


def _described(endpoint: Endpoint) -> Callable[[], None]:
    def never_called() -> None:
        raise NotImplementedError(f"{endpoint.path}: expected the guard to answer")

    return never_called
