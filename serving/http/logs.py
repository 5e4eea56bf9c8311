"""The service's log: one JSON object a line, with the id of the request that it is about."""

import logging

from pythonjsonlogger.orjson import OrjsonFormatter

from segue.serving.http.guard import request_id


class _WithRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if request_id.get():
            record.request_id = request_id.get()
        return True


def json_handler() -> logging.Handler:
    """Return a handler that writes JSON to the standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(_WithRequestId())
    handler.setFormatter(
        OrjsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level"}, timestamp="time")
    )
    return handler


def log_json() -> None:
    """Let everything that this process logs be JSON, in place of BentoML's format."""
    logging.basicConfig(level=logging.WARNING, handlers=[json_handler()], force=True)
    logging.getLogger("segue").setLevel(logging.INFO)
    for name in ("bentoml", "uvicorn.error", "circus"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
