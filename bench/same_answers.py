"""Check that it makes no difference how songs are scored: killed and restarted, on Ray, over HTTP, by `evaluate`.

A run of `segue score` is killed (SIGKILL) at random moments and repeated until it is done, and so is one on Ray, whose
actors are killed: both must leave the bytes of a run that nobody disturbed. Then some songs are scored in every way,
and every answer is compared. The exit code is 1 where anything differs.

Example:
    python -m segue.bench.same_answers artifacts/bundle
    python -m segue.bench.same_answers artifacts/bundle --songs 20000 --kills 3 --actors 1
"""

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from tyro.conf import Positional

from segue.bench.servers import serving
from segue.command import DONE, FAILED, run
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import RunError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.bodies import ARROW
from segue.serving.tables import predict_rows

REQUEST_SONGS, CALLERS = 100, 4
LOOK_EVERY_S = 0.01
COLUMNS = (
    "genre",
    "answered_by",
    "rung",
    "windows",
)  # What must be the same; of a probability, the last digits differ.


@dataclass(frozen=True)
class SameAnswers:
    """What was found."""

    songs: int
    kills: int  # Of a local run, each followed by a restart.
    killed_is_same: bool  # Byte for byte.
    actors_killed: int
    ray_is_same: bool  # Byte for byte.
    compared: int  # Songs whose answers were compared one by one.
    different: dict[str, int]  # Songs with another answer than the local run's, by way.

    @property
    def exit_code(self) -> int:
        """Whether everything is the same."""
        return DONE if self.killed_is_same and self.ray_is_same and not any(self.different.values()) else FAILED

    def __str__(self) -> str:
        def same(yes: bool) -> str:
            return "the same bytes" if yes else "OTHER BYTES"

        ways = ", ".join(f"{way} {count}" for way, count in self.different.items())
        return (
            f"{self.songs:,} songs, killed {self.kills} times and restarted: {same(self.killed_is_same)}\n"
            f"{self.songs:,} songs on Ray, {self.actors_killed} actors killed: {same(self.ray_is_same)}\n"
            f"{self.compared:,} songs one by one, other answers than the local run's: {ways}"
        )


def same_answers(
    bundle: Positional[Path],
    songs: int = 200_000,
    kills: int = 10,
    actors: int = 3,
    compared: int = 20_000,
    seed: int = 0,
) -> SameAnswers:
    """Compare the ways of scoring.

    Args:
        bundle: The bundle's folder.
        songs: Songs of the runs that are disturbed.
        kills: How often the local run is killed.
        actors: How many actors of Ray are killed, in one run.
        compared: Songs whose answers are compared one by one.
        seed: Of the moments.
    """
    rng = random.Random(seed)
    with TemporaryDirectory(prefix="segue-same-") as temporary:
        folder = Path(temporary)
        table = folder / "songs.arrow"
        synth(table, songs=songs, classes=len(load_bundle(bundle).manifest.classes), seed=2)
        some = folder / "some.arrow"
        synth(some, songs=compared, classes=len(load_bundle(bundle).manifest.classes), seed=3)
        words = ["-m", "segue", "score", str(bundle), str(table), "--keep", "label", "--out"]
        started = time.perf_counter()
        _ended(_start([*words, str(folder / "undisturbed")]))
        whole_s = time.perf_counter() - started
        killed = _kill([*words, str(folder / "killed")], kills, whole_s, rng)
        on_ray = [*words, str(folder / "ray"), "--engine", "ray"]
        actors_killed = _kill_actors(on_ray, folder / "ray", actors, whole_s, rng)
        undisturbed = _bytes_of(folder / "undisturbed")
        return SameAnswers(
            songs,
            killed,
            _bytes_of(folder / "killed") == undisturbed,
            actors_killed,
            _bytes_of(folder / "ray") == undisturbed,
            compared,
            _compare(bundle, some, folder),
        )


# --- kills ---


def _kill(words: Sequence[str], kills: int, whole_s: float, rng: random.Random) -> int:
    """Run a command, kill it at random moments and run it again, until it ends; return how often it was killed."""
    for kill in range(kills):
        running = _start(words)
        try:
            running.wait(rng.uniform(0, 2 * whole_s / kills))
            return kill  # It was done before.
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
    _ended(_start(words))
    return kills


def _kill_actors(words: Sequence[str], out: Path, kills: int, whole_s: float, rng: random.Random) -> int:
    """Run a command on Ray, and kill an actor at some moment before each of its first parts; return how many."""
    running, killed = _start(words), 0
    while running.poll() is None:
        actors = _actors(running.pid) if killed < kills and len([*out.glob("part-*.parquet")]) >= killed else []
        if actors:
            time.sleep(rng.uniform(0, whole_s / 4))
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(actors).kill()
                killed += 1
        time.sleep(LOOK_EVERY_S)
    _ended(running)
    return killed


def _actors(pid: int) -> list[psutil.Process]:
    """Return the actors of the cluster that a process has started."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Actor"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _start(words: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _ended(running: "subprocess.Popen[str]") -> None:
    _, complaint = running.communicate()
    if running.returncode:
        raise RunError(f"segue score ended with code {running.returncode}: {complaint.strip()[-500:]}")


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.parquet"))}


# --- one by one ---


def _compare(bundle: Path, songs: Path, folder: Path) -> dict[str, int]:
    """Return how many songs get another answer than the local run's, by way."""
    words = ["-m", "segue", "score", str(bundle), str(songs), "--out"]
    _ended(_start([*words, str(folder / "local.parquet")]))
    _ended(_start([*words, str(folder / "on-ray.parquet"), "--engine", "ray"]))
    with serving(bundle) as server:
        over_http = asyncio.run(_ask(server.port, songs))
    local = pq.read_table(folder / "local.parquet")
    ways = {
        "Ray": pq.read_table(folder / "on-ray.parquet"),
        "HTTP": over_http,
        "evaluate": _as_evaluate(bundle, songs),
    }
    return {way: _different(local, found) for way, found in ways.items()}


def _different(one: pa.Table, other: pa.Table) -> int:
    names = ("song_id", *(name for name in COLUMNS if name in other.column_names))
    rows = [list(zip(*(table[name].to_pylist() for name in names), strict=True)) for table in (one, other)]
    return sum(a != b for a, b in zip(*rows, strict=True))


async def _ask(port: int, songs: Path) -> pa.Table:
    """Return the answers of a server for all songs of a table, in their order."""
    with pa.OSFile(str(songs)) as file:
        table = pa.ipc.open_file(file).read_all().select(["song_id", "segments"])
    parts: dict[int, pa.Table] = {}
    starts = iter(range(0, len(table), REQUEST_SONGS))

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:

        async def call() -> None:
            headers = {"content-type": ARROW, "accept": ARROW}
            for start in starts:
                body = _stream(table.slice(start, REQUEST_SONGS).combine_chunks())
                while (answer := await client.post("/v1/classify", headers=headers, content=body)).status_code == 503:
                    await asyncio.sleep(1)
                parts[start] = pa.ipc.open_stream(answer.raise_for_status().content).read_all()

        await asyncio.gather(*(call() for _ in range(CALLERS)))
    return pa.concat_tables([part.replace_schema_metadata() for _, part in sorted(parts.items())])


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _as_evaluate(bundle: Path, songs: Path) -> pa.Table:
    """Return the answers from which `segue evaluate` takes its figures."""
    opened, table = load_bundle(bundle), SongTable(songs)
    cascade, rows = open_cascade(opened), np.arange(len(table))
    named = zip(opened.manifest.rung_names, cascade.models, strict=True)
    says = [predict_rows(model, table, rows, name) for name, model in named]
    answers = cascade.ladder.climb(lambda rung, some: says[rung].take(some))
    columns: dict[str, Any] = {
        "song_id": table.song_ids,
        "genre": [opened.manifest.classes[choice] for choice in answers.choice],
        "answered_by": [answers.answered_by(row) for row in range(len(table))],
        "rung": (answers.rung + 1).tolist(),
        "windows": answers.windows.tolist(),
    }
    return pa.table(columns)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the ways of scoring; the exit code is 1 where they differ."""
    return run(same_answers, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
