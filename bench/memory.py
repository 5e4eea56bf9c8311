"""How much memory a command holds at its peak."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from segue.errors import ConfigError

EVERY_S = 0.02


def peak_bytes(words: Sequence[str], output: int | IO[bytes] = subprocess.DEVNULL) -> int:
    """Return the most anonymous memory, in bytes, that `python WORDS` holds: files mapped into it not counted.

    Linux only. What the command prints goes to `output`. A command that fails is a `ConfigError`.
    """
    running = subprocess.Popen([sys.executable, *words], stdout=output, stderr=subprocess.DEVNULL)
    peak = 0
    while running.poll() is None:
        try:
            status = Path(f"/proc/{running.pid}/status").read_text()
        except OSError:
            break
        held = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max(peak, *(int(kilobytes) * 1024 for kilobytes in held), 0)
        time.sleep(EVERY_S)
    if running.wait():
        raise ConfigError(f"`python {' '.join(words)}` failed")
    return peak
