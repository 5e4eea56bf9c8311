"""Serve a bundle over HTTP: `POST /v1/classify`.

Prints the address and a request to try, then becomes the BentoML server; Ctrl-C or SIGTERM stops it.

Example:
    segue serve artifacts/bundle --port 3000
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from data.command import run
from data.errors import ConfigError
from serving.bundle import load_bundle

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLE_SEGMENT = [45, *[0] * 11, *[0.5] * 12, -20]


def serve(bundle: Positional[Path], port: int = 3000, host: str = "127.0.0.1", windows: int | None = None) -> None:
    """Serve a bundle over HTTP.

    Args:
        bundle: The bundle's folder.
        port: The port to listen on.
        host: The address to listen on; 0.0.0.0 opens the service to the network.
        windows: Windows of a song that both models see, at most. Default: what the bundle says.
    """
    if windows is not None and windows < 1:
        raise ConfigError(f"windows: expected at least 1, found {windows}")
    manifest = load_bundle(bundle).manifest
    _check_free(host, port)
    body = json.dumps({"songs": [{"id": "try-me", "segments": [EXAMPLE_SEGMENT]}]}, separators=(",", ":"))
    print(
        f"bundle {manifest.version}: {len(manifest.classes)} classes, threshold {manifest.threshold_nats:.3f} nats\n"
        f"serving on http://{host}:{port}, documented at http://{host}:{port}/\n"
        f"curl http://{host}:{port}/v1/classify -H 'content-type: application/json' -d '{body}'",
        flush=True,
    )
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:GenreService"]
    settings = {"SEGUE_BUNDLE": str(bundle.resolve()), "BENTOML_DO_NOT_TRACK": "true"}
    if windows is not None:
        settings["SEGUE_WINDOWS"] = str(windows)
    os.chdir(PROJECT)
    os.execve(sys.executable, [*command, "--host", host, "--port", str(port)], os.environ | settings)


def _check_free(host: str, port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error}. Choose another with --port.") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue serve`."""
    return run(serve, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
