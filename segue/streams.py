"""Standard streams that can be written to, whatever the caller made of them.

A closed stream (`2>&-`) is a trap: the next file that is opened gets its number, and what a library writes to stderr
goes into it. And a file's name need not be text that the terminal's encoding has.
"""

import io
import os
import sys


def open_streams() -> None:
    r"""Let closed standard streams lead nowhere, and write characters that a stream lacks as `\xe9`."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:  # The lowest number that is free.
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell(text: str) -> None:
    """Write a line to stderr; where nobody reads it any more, to nobody."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Or Python fails again when it ends.
