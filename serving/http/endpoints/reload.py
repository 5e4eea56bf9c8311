"""POST /v1/admin/reload: read the bundle's folder again."""

from segue.errors import SegueError
from segue.serving.http import schemas
from segue.serving.http.endpoints.endpoint import Asked, Endpoint, Response, json_response, problems
from segue.serving.http.refusal import Refusal


async def reload(asked: Asked) -> Response:
    """Read the bundle's folder again: verified, warmed up and swapped, or refused and the old one stays."""
    try:
        version = await asked.slot.reload()
    except SegueError as error:
        message = str(error).replace(str(asked.settings.bundle), "bundle")
        raise Refusal(409, "bad bundle", f"the old bundle stays: {message}") from None
    asked.slot.tell_the_others()
    return json_response({"bundle": version})


ENDPOINT = Endpoint(
    path="/v1/admin/reload",
    method="POST",
    answer=reload,
    role="admin",
    reply=schemas.Reloaded,
    responses=problems(400, 401, 403, 409, 422, 500, 503),
)
