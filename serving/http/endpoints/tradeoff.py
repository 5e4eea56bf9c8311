"""GET /v1/tradeoff: what each threshold gives and costs."""

from dataclasses import asdict

from segue.serving.http.endpoints.endpoint import Asked, Endpoint, Response, json_response, problems


async def tradeoff(asked: Asked) -> Response:
    """Say what each threshold gives and costs, in order of rising fallback rate."""
    bundle = asked.slot.engine.bundle
    return json_response({"bundle": bundle.manifest.version, "rows": [asdict(row) for row in bundle.tradeoff]})


ENDPOINT = Endpoint(path="/v1/tradeoff", method="GET", answer=tradeoff, responses=problems(400, 401, 422, 500, 503))
