"""The demo: train, export, evaluate, serve, classify and score, with the commands that a user would type.

Example:
    python -m segue.export.demo
    SEGUE_SONGS=folder python -m segue.export.demo        # real songs, whole ones, in that folder
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from segue.command import run
from segue.data.table import SongTable
from segue.errors import RunError
from segue.export.retrain.recipe import read_recipe

RECIPES = Path("export/recipes")
CLASSIFIED = 5
CATALOGUE_SONGS = 10_000
START_TIMEOUT_S = 120


@dataclass(frozen=True)
class Demonstrated:
    """Where everything lies."""

    bundle: Path
    workspace: Path
    scores: Path
    seconds: float

    def __str__(self) -> str:
        return (
            f"\nDone in {self.seconds:.0f} s. Where everything lies:\n"
            f"  {self.bundle}/               the bundle: two ONNX files, manifest.json\n"
            f"  {self.bundle}/tradeoff.png   the trade-off as a picture: look at it\n"
            f"  {self.scores}   a genre for every song of the catalogue\n"
            f"  {self.workspace}/   songs and training runs\n"
            f"Next: segue serve {self.bundle}"
        )


def demo(recipe: Positional[Path | None] = None) -> Demonstrated:
    """Show the main job from end to end.

    Args:
        recipe: What to train. Default: real songs where SEGUE_SONGS names their folder, else synthetic ones.
    """
    started = time.perf_counter()
    real = recipe is None and bool(os.environ.get("SEGUE_SONGS"))
    recipe = recipe or RECIPES / ("msd.toml" if real else "synthetic.toml")
    plan = read_recipe(recipe)
    space, catalogue, scores = plan.workspace, plan.workspace / "catalogue.arrow", plan.workspace / "genres.parquet"
    _segue("retrain", recipe)
    _segue("evaluate", plan.bundle, space / "test.arrow")
    if plan.songs.synth:
        _segue("synth", catalogue, "--songs", CATALOGUE_SONGS, "--seed", 2)
    else:
        _segue("songs", *plan.songs.sources, catalogue)
    with _serving(plan.bundle) as url:
        _classify(url, SongTable(space / "test.arrow"))
    _segue("score", plan.bundle, catalogue, scores)
    return Demonstrated(plan.bundle, space, scores, time.perf_counter() - started)


def _segue(*arguments: object) -> None:
    """Run a verb as a user would, and show the command."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ segue {shlex.join(words)}", flush=True)
    if subprocess.run([sys.executable, "-m", "segue", *words]).returncode:
        raise RunError(f"the demo stops here: `segue {words[0]}` failed, as it says above")


@contextmanager
def _serving(bundle: Path) -> Iterator[str]:
    """Run the service while the block lasts, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    print(f"\n$ segue serve {bundle} --port {port} &", flush=True)
    log = bundle.parent / "serve.log"
    with log.open("w") as output:
        words = [sys.executable, "-m", "segue", "serve", str(bundle), "--port", str(port)]
        service = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        _wait_until_ready(service, url, log)
        yield url
    finally:
        service.terminate()
        service.wait(timeout=30)


def _wait_until_ready(service: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and service.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RunError(f"the service did not become ready; {log} says:\n{log.read_text()}")


def _classify(url: str, songs: SongTable) -> None:
    """Ask the service about some songs and print what it says."""
    rows = range(min(CLASSIFIED, len(songs)))
    body = {"songs": [{"id": songs.song_ids[row], "segments": songs.segments(row).tolist()} for row in rows]}
    request = urllib.request.Request(
        f"{url}/v1/classify", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    print(f"$ curl {url}/v1/classify -H 'content-type: application/json' -d @{len(rows)}-songs.json")
    with urllib.request.urlopen(request, timeout=30) as response:
        answers = json.load(response)["songs"]
    for row, answer in zip(rows, answers, strict=True):
        label = songs.classes[songs.labels[row]]
        print(
            f"  {answer['id']}  {answer['genre']:<12} (labelled {label})  "
            f"{answer['cross_entropy_nats']:.3f} nats, by the {answer['answered_by']}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo."""
    return run(demo, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
