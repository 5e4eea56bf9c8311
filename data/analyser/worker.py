"""The worker process: analyses one file after the other, as its parent asks, and can be killed at any time.

A request is a line of JSON on standard input; the answer is a line of JSON on standard output, and then the arrays.
What decoders print on standard error goes with the answer for their file. The other end is
`segue.data.analyser.workers`.
"""

import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from segue.data.analyser.analyse import analyse
from segue.data.analyser.decode import audio_libraries
from segue.errors import SegueError

NOISE_BYTES = 2000  # Of what a decoder prints, so much is kept.


def main() -> int:
    """Answer requests until standard input ends."""
    with suppress(SegueError):  # Loaded before memory is limited; each answer will say what is missing.
        audio_libraries()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # A library that prints must not spoil an answer.
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        for line in requests:
            header, arrays = _answer(json.loads(line))
            header["noise"] = _taken(noise)
            answers.write(json.dumps(header).encode() + b"\n")
            for array in arrays:
                answers.write(array)
            answers.flush()
    return 0


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    limit(request["memory_bytes"], request["processor_s"])
    try:
        found = analyse(Path(request["path"]), request["most_s"])
    except SegueError as error:
        return {"error": str(error), "kind": type(error).__name__}, []
    except MemoryError:
        return {
            "error": f"needs more than {request['memory_bytes'] / 2**20:.0f} MB of memory",
            "kind": "AudioError",
        }, []
    except OSError as error:
        return {"error": f"not a readable file: {error.strerror or error}", "kind": "AudioError"}, []
    header = {"segments": len(found.segments), "seconds": found.seconds, "warnings": found.warnings}
    return header, [found.segments.tobytes(), found.starts_s.tobytes()]


def limit(memory_bytes: int, processor_s: float) -> None:
    """Let the operating system end this process where it takes more memory, or more processor time from now on."""
    with suppress(ImportError, ValueError, OSError):  # Not every system has such limits.
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        until = int(used.ru_utime + used.ru_stime + processor_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _taken(noise: Any) -> str:
    """Return what was printed since the last answer."""
    noise.seek(0)
    text: str = noise.read(NOISE_BYTES).decode(errors="replace").strip()
    noise.seek(0)
    noise.truncate()
    return text


if __name__ == "__main__":
    sys.exit(main())
