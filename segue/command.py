"""How every verb runs: options from its signature, result to stdout, the rest to stderr, and an exit code.

A verb is a function with annotated arguments. It returns a frozen dataclass whose `__str__` is the answer for people
and whose fields are the answer for programs (`--json`: exactly one JSON document).
"""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from segue.errors import SegueError

DONE, FAILED, INTERRUPTED = 0, 1, 130  # bad usage is 2, by the option parser


def run(verb: Callable[..., Any], argv: Sequence[str] | None, manual: str | None) -> int:
    """Run `verb` with the command line `argv` and return the exit code; `manual` is the verb's module docstring."""
    given = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in given
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    name = verb.__name__.replace("_", "-")
    try:
        result = tyro.cli(
            verb,
            prog=f"segue {name}",
            description=f"{(manual or '').strip()}\n\nWith --json the result is one JSON document.",
            args=[argument for argument in given if argument != "--json"],
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName),
        )
        print(to_json(result) if as_json else result, flush=True)
    except BrokenPipeError:  # Whoever read the answer has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (SegueError, OSError) as error:
        print(f"segue {name}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"segue {name}: stopped; what was finished is kept, nothing is half written", file=sys.stderr)
        return INTERRUPTED
    return DONE


def to_json(result: Any) -> str:
    """Return a dataclass, or a dict of them, as one JSON document; floats keep every digit, and a NaN becomes null."""
    return json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
