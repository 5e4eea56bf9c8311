"""How every verb runs: options from its signature, result to stdout, the rest to stderr, and an exit code.

A verb is a function with annotated arguments. It returns a frozen dataclass whose `__str__` is the answer for people
and whose fields are the answer for programs (`--json`: exactly one JSON document). One that has an `exit_code` ends so:
3 says that a challenger was rejected, 4 that songs have drifted.
"""

import dataclasses
import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import tyro

from segue.errors import SegueError
from segue.streams import open_streams, tell

DONE, FAILED, INTERRUPTED = 0, 1, 130  # bad usage is 2, by the option parser
METAVARS = {  # By the name of an option, where its unit says more than its type.
    "accuracy": "SHARE",
    "confidence": "SHARE",
    "fallback_rate": "SHARE",
    "seconds": "SECONDS",
    "songs_per_s": "SONGS",
    "threshold": "NATS",
    "within": "POINTS",
}


def unset(metavar: str) -> Any:
    """Return how help shows an optional field of an options dataclass: `--threads INT`, silent of the default None."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def run(verb: Callable[..., Any], argv: Sequence[str] | None, manual: str | None) -> int:
    """Run `verb` with the command line `argv` and return the exit code; `manual` is the verb's module docstring."""
    open_streams()
    given = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in given
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # It has a line for each request.
    name = verb.__name__.replace("_", "-")
    try:
        result = tyro.cli(
            _with_plain_help(verb),
            prog=f"segue {name}",
            description=f"{(manual or '').strip()}\n\nWith --json the result is one JSON document.",
            args=[argument for argument in given if argument != "--json"],
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName),
        )
        _answer(to_json(result) if as_json else str(result))
    except (SegueError, OSError) as error:
        tell(f"segue {name}: {error}")
        return FAILED
    except KeyboardInterrupt as stop:  # A verb that knows how to go on says so.
        tell(f"segue {name}: stopped; what was finished is kept, nothing is half written. {stop}".rstrip())
        return INTERRUPTED
    code: int = getattr(result, "exit_code", DONE)
    return code


def _answer(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # Whoever read the answer has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _with_plain_help(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return `verb` with help that names units, `--threshold NATS`, and is silent of defaults that are None."""
    signature = inspect.signature(verb)
    hints = get_type_hints(verb, include_extras=True)
    parameters = []
    for parameter in signature.parameters.values():
        hint, name = hints[parameter.name], parameter.name
        plain_hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        optional = parameter.default is None and NoneType in get_args(plain_hint)
        if optional or name in METAVARS:
            metavar = METAVARS.get(name) or _type_name(plain_hint)
            hint = Annotated[hint, tyro.conf.arg(metavar=metavar, help_behavior_hint="" if optional else None)]
        parameters.append(parameter.replace(annotation=hint))

    @functools.wraps(verb)
    def plain(*args: Any, **options: Any) -> Any:
        return verb(*args, **options)

    del plain.__wrapped__  # The option parser would look behind it.
    plain.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    plain.__annotations__ = {one.name: one.annotation for one in parameters}
    return plain


def _type_name(hint: Any) -> str:
    """Return what to type for an option of type `hint`: INT, PATH, {raw,standardised}."""
    names = []
    for one in get_args(hint):
        if get_origin(one) is Literal:
            names.append("{" + ",".join(map(str, get_args(one))) + "}")
        elif one is not NoneType:
            names.append(one.__name__.upper())
    return "|".join(names)


def to_json(result: Any) -> str:
    """Return a dataclass, or a dict of them, as one JSON document; floats keep every digit, and a NaN becomes null."""
    text = json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace").decode()  # A file's name need not be text; JSON spells that \\udce9.


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
