"""GET /v1/model: which bundle answers, and how good it is."""

from pydantic import TypeAdapter

from segue.serving.bundle.manifest import Manifest
from segue.serving.http.endpoints.endpoint import Asked, Endpoint, Response, json_response, problems

PUBLIC = (
    "format_version", "version", "classes", "units", "features", "feature_names", "threshold_nats", "guarantee",
    "metrics", "metrics_split", "split_songs", "student", "teacher",
)  # fmt: skip  # Of the manifest; the rest says where the bundle was made.
MANIFEST = TypeAdapter(Manifest)  # Made once: that takes as long as a model.


async def model(asked: Asked) -> Response:
    """Say which bundle answers: classes, threshold and guarantee, and how good it is."""
    manifest = asked.slot.engine.bundle.manifest
    card = MANIFEST.dump_python(manifest, mode="json", include=set(PUBLIC))
    found = {name: card[name] for name in PUBLIC} | {"guarantee_text": str(manifest.guarantee)}
    if asked.slot.release is not None:
        found["release"] = asked.slot.release
    return json_response(found)


ENDPOINT = Endpoint(path="/v1/model", method="GET", answer=model, responses=problems(400, 401, 422, 500, 503))
