"""Which servers are compared. To add one, write a module in `servers/`, its requirements, and a line here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from segue.bench.peers.dialects import PLAIN_JSON, PLAIN_RAW, SEGUE_JSON, SEGUE_RAW, V2_BINARY, V2_JSON, Dialect


@dataclass(frozen=True)
class Peer:
    """A server, and how to start it."""

    label: str  # In reports.
    command: tuple[str, ...]  # After `python -m`; {port} and {bundle} are filled in.
    dialects: tuple[Dialect, ...]
    environment: str | None  # The virtual environment it runs in, a folder below `.venv-peers`; None: Segue's own.
    settings: Mapping[str, str] = field(default_factory=dict)  # Environment variables.


SERVERS = "segue.bench.peers.servers"
SEGUE = ("segue", "serve", "{bundle}", "--port", "{port}")
BENTOML = ("bentoml", "serve", "--host", "127.0.0.1", "--port", "{port}")

PEERS: dict[str, Peer] = {
    "segue": Peer("Segue, 1 worker", SEGUE, (SEGUE_RAW, SEGUE_JSON), None, {"SEGUE_WORKERS": "1"}),
    "segue-2": Peer("Segue, 2 workers", SEGUE, (SEGUE_RAW, SEGUE_JSON), None, {"SEGUE_WORKERS": "2"}),
    "fastapi": Peer(
        "FastAPI + uvicorn",
        ("uvicorn", f"{SERVERS}.on_fastapi:app", "--port", "{port}", "--workers", "2", "--no-access-log"),
        (PLAIN_RAW, PLAIN_JSON),
        "fastapi",
    ),
    "pytriton": Peer("PyTriton", (f"{SERVERS}.on_pytriton",), (V2_BINARY, V2_JSON), "pytriton"),
    "kserve": Peer("KServe", (f"{SERVERS}.on_kserve",), (V2_BINARY, V2_JSON), "kserve"),
    "litserve": Peer("LitServe", (f"{SERVERS}.on_litserve",), (PLAIN_RAW, PLAIN_JSON), "litserve"),
    "mlserver": Peer("MLServer", (f"{SERVERS}.on_mlserver",), (V2_JSON,), "mlserver"),
    "ray": Peer("Ray Serve", (f"{SERVERS}.on_ray",), (PLAIN_RAW, PLAIN_JSON), "ray"),
    "bentoml": Peer("BentoML", (*BENTOML, f"{SERVERS}.on_bentoml:Cascade"), (PLAIN_JSON,), "bentoml"),
    "bentoml-depends": Peer(
        "BentoML, depends", (*BENTOML, f"{SERVERS}.on_bentoml_depends:Cascade"), (PLAIN_JSON,), "bentoml"
    ),
}
