"""Serve a bundle over HTTP: `POST /v1/classify`, and a page at / that says what else there is.

Prints the address and a request to try, then becomes the BentoML server. Ctrl-C or SIGTERM stops it once every
request in flight is answered; SIGHUP lets it read the bundle again, and swap it in if it is good.

Every option but host and port is an environment variable as well, which `docs/serving/README.md` lists. An option at
its default leaves it to the variable. Tokens come from SEGUE_TOKENS or from a file, so that no list of processes
shows them.

Of a release store the latest release is served, and the next one as soon as it is published, without a pause.

Example:
    segue serve artifacts/bundle --port 3000
    segue serve s3://models/genres
    segue serve artifacts/releases --shadow artifacts/challenger --shadow-share 0.05
    segue serve artifacts/bundle --workers 2 --tokens-file tokens --when-teacher-fails refuse
"""

import errno
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

import segue
from segue.command import run
from segue.errors import ConfigError
from segue.serving.http.bundle_slot import read_bundle
from segue.serving.http.schemas import EXAMPLE_REQUEST
from segue.serving.http.settings import Settings
from segue.serving.http.tokens import Tokens
from segue.serving.releases.store import is_store

HOME = Path(segue.__file__).resolve().parents[1]  # The folder that `segue` is imported from: a checkout, site-packages.
DEFAULT = Settings()


def serve(bundle: Positional[str], port: int = 3000, host: str = "127.0.0.1", settings: Settings = DEFAULT) -> None:
    """Serve a bundle over HTTP.

    Args:
        bundle: The bundle's folder, or a release store, whose latest release is served and followed.
        port: The port to listen on.
        host: The address to listen on, or a name of it; 0.0.0.0 and :: open the service to the network.
        settings: How to serve it.
    """
    file = settings.tokens_file
    shadow = settings.shadow and settings.shadow.absolute()
    here = replace(settings, **_served(bundle), shadow=shadow, tokens_file=None if file is None else file.resolve())
    environment = os.environ | here.to_environment() | {"BENTOML_DO_NOT_TRACK": "true"}
    tokens = Tokens.of(Settings.from_environment(environment))
    manifest = read_bundle(here).manifest
    address, port = find_address(host, port)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    token = " -H 'authorization: Bearer '\"$TOKEN\"" if tokens.callers else ""
    body = json.dumps(EXAMPLE_REQUEST, separators=(",", ":"))
    print(
        f"bundle {manifest.version}: {len(manifest.classes)} classes, threshold {manifest.threshold_nats:.3f} nats\n"
        f"serving on {url}, documented at {url}/\n"
        f"curl {url}/v1/classify{token} -H 'content-type: application/json' -d '{body}'",
        flush=True,
    )
    command = [sys.executable, "-m", "bentoml", "serve", "segue.serving.http.service:GenreService"]
    os.chdir(HOME)
    os.execve(sys.executable, [*command, "--host", address, "--port", str(port)], environment)


def _served(where: str) -> dict[str, Any]:
    """Return the setting that names a bundle, or that names a release store."""
    if not is_store(where):
        return {"bundle": Path(where).absolute()}
    return {"releases": where if "://" in where else str(Path(where).absolute())}


def find_address(host: str, port: int) -> tuple[str, int]:
    """Return the numeric address of a host, which BentoML wants, and a port that can be listened on there.

    Args:
        host: an IPv4 or IPv6 address of this machine, or a name of one.
        port: the port; 0: any that is free.

    Raises:
        ConfigError: nothing can listen there.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host}: expected an address of this machine or a name of one, found none: {error}. "
            "127.0.0.1 is this machine alone."
        ) from None
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # Of `localhost`, 127.0.0.1.
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address[0], port, *address[2:]))
        except (OSError, OverflowError) as error:
            by_port = isinstance(error, OverflowError) or error.errno in (errno.EADDRINUSE, errno.EACCES)
            advice = "--port" if by_port else "--host: it is no address of this machine"
            raise ConfigError(f"cannot listen on {host}:{port}: {error}. Choose another with {advice}.") from None
        return str(address[0]), int(trial.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue serve`."""
    return run(serve, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
