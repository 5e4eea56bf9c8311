"""Worker processes that analyse files: one a core, each with limits, each killed and replaced where a file breaks them.

A decoder reads what strangers wrote. It does so in a process of its own, which is started afresh, not forked, has one
thread for its BLAS, and answers with plain arrays.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Any, Self

import numpy as np

from segue.data.analyser.analyse import MOST_S, Analysis
from segue.data.song import N_FEATURES
from segue.errors import AudioError, MissingDependencyError
from segue.machine import usable_cores

_ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
_AHEAD = 4  # Files that wait for each worker, so that none is idle where one file takes long.


@dataclass(frozen=True)
class Limits:
    """What one file may take."""

    most_s: float = MOST_S  # Seconds of sound.
    memory_bytes: int = 2 * 2**30  # Address space of the worker, with the libraries that it has loaded.
    processor_s: float = 600.0
    wall_s: float = 1200.0


class Worker:
    """One worker process; it is started when it is first asked, and again where it was killed."""

    def __init__(self, limits: Limits) -> None:
        """Prepare a worker that keeps to `limits`."""
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def analyse(self, path: Path) -> Analysis:
        """Return the analysis of the file at `path`.

        Raises:
            AudioError: the file cannot be analysed, or not within the limits.
            MissingDependencyError: soundfile or soxr is not installed.
        """
        process = self._process or self._start()
        asked = {"path": os.fspath(path)} | {
            name: getattr(self._limits, name) for name in ("most_s", "memory_bytes", "processor_s")
        }
        reader = _Reader(process, time.monotonic() + self._limits.wall_s)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(reader.line())
            n = answer.get("segments", 0)
            segments = np.frombuffer(reader.read(4 * n * N_FEATURES), np.float32).reshape(n, N_FEATURES)
            starts_s = np.frombuffer(reader.read(4 * n), np.float32)
        except TimeoutError:
            self.kill()
            raise AudioError(f"took longer than {self._limits.wall_s:g} s, and was given up") from None
        except (OSError, EOFError, ValueError):
            raise AudioError(f"the decoder {self._how_it_ended()}") from None
        except BaseException:  # Whoever waited is gone; the next file must not get this one's answer.
            self.kill()
            raise
        if "error" in answer:
            kind = MissingDependencyError if answer["kind"] == "MissingDependencyError" else AudioError
            raise kind(answer["error"])
        noise = [f"the decoder says: {answer['noise']}"] if answer["noise"] else []
        return Analysis(segments, starts_s, answer["seconds"], (*answer["warnings"], *noise))

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "segue.data.analyser.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is the parent's to answer; and ffmpeg ends with its worker.
        )
        return self._process

    def _how_it_ended(self) -> str:
        process = self._process
        with suppress(subprocess.TimeoutExpired):
            if process is not None:
                process.wait(5)
        code = None if process is None else process.returncode
        self.kill()
        if code == -getattr(signal, "SIGXCPU", 0):
            return f"took more than {self._limits.processor_s:g} s of processor time, and was ended"
        return f"crashed (exit code {code}): the file is damaged, or takes too much memory"


class _Reader:
    """Reads a worker's answer until a deadline."""

    def __init__(self, process: "subprocess.Popen[bytes]", deadline: float) -> None:
        assert process.stdout is not None
        self._pipe = process.stdout.fileno()
        self._deadline = deadline
        self._held = bytearray()

    def line(self) -> bytes:
        while b"\n" not in self._held:
            self._more()
        return self.read(self._held.index(b"\n") + 1)

    def read(self, n: int) -> bytes:
        while len(self._held) < n:
            self._more()
        taken = bytes(self._held[:n])
        del self._held[:n]
        return taken

    def _more(self) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0 or not select.select([self._pipe], [], [], left_s)[0]:
            raise TimeoutError
        data = os.read(self._pipe, 2**20)
        if not data:
            raise EOFError
        self._held += data


class Workers:
    """A number of workers, shared by threads; a context manager that ends them."""

    def __init__(self, n: int | None = None, limits: Limits = Limits()) -> None:
        """Prepare `n` workers, by default one for each core this process may use."""
        self.n = n or usable_cores()
        self._all = [Worker(limits) for _ in range(self.n)]
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self.n, thread_name_prefix="analyser")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def submit(self, path: Path) -> "Future[Analysis]":
        """Return what becomes the analysis of a file, or its `AudioError`."""
        return self._threads.submit(self._analyse, path)

    def submit_bytes(self, content: bytes) -> "Future[Analysis]":
        """Return what becomes the analysis of a file with this content, or its `AudioError`."""
        return self._threads.submit(self._analyse_bytes, content)

    def map(self, paths: Iterable[Path]) -> Iterator[Analysis | AudioError]:
        """Yield the analysis of each file, or why there is none, in order; few are in memory at a time."""
        waiting: deque[Future[Analysis]] = deque()
        for path in paths:
            waiting.append(self.submit(path))
            if len(waiting) >= _AHEAD * self.n:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())

    def close(self) -> None:
        """End all workers, whatever they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.kill()

    def _analyse_bytes(self, content: bytes) -> Analysis:
        with NamedTemporaryFile(prefix="segue-") as file:
            file.write(content)
            file.flush()
            return self._analyse(Path(file.name))

    def _analyse(self, path: Path) -> Analysis:
        worker = self._idle.get()
        try:
            return worker.analyse(path)
        finally:
            self._idle.put(worker)


def _result(future: "Future[Any]") -> Analysis | AudioError:
    try:
        found: Analysis = future.result()
    except AudioError as error:
        return error
    return found
