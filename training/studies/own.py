"""A user's own study, from a TOML file: a network and a training, and which of their settings vary, over what.

    title = "How wide the student should be"
    seeds = 3

    [network]
    shape = "dense"
    look = "flat"

    [loop]
    epochs = 20

    [varies]
    "network.hidden" = [[128], [512], [1784]]
    "loop.learning_rate" = [1e-3, 1e-4]

Every combination is a setting. `original` and `fixed`, both text, may say what is known already.
"""

import tomllib
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import dacite

from segue.errors import ConfigError
from segue.training.fit.loop import LoopConfig
from segue.training.fit.losses import LabelConfig
from segue.training.networks.build import shapes
from segue.training.studies.fits import LabelFit, Objective
from segue.training.studies.study import Cell, Scale, Study, grid

PARTS = ("network", "loop", "labels")


@dataclass(frozen=True)
class OwnStudy:
    """The content of the file."""

    title: str
    network: dict[str, Any]
    varies: dict[str, list[Any]]  # By `part.field`, the part one of network, loop, labels.
    loop: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    seeds: int = 3
    fixed: str = ""
    original: str = ""
    compare: Objective = "best"


def read_study(path: Path) -> Study:
    """Read a study; an unknown key, a wrong type or an impossible value is a `ConfigError` that names it."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a study, found no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    try:
        own = dacite.from_dict(OwnStudy, given, dacite.Config(strict=True))
        if own.seeds < 1:
            raise ConfigError(f"seeds: expected at least 1, found {own.seeds}")
        fits = fits_of(own)
    except dacite.MissingValueError as error:
        raise ConfigError(f"{path}: expected a `{error.field_path}`, found none") from None
    except (dacite.DaciteError, ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    varied = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in own.varies.items())
    return Study(
        title=own.title,
        varies=varied,
        fixed=own.fixed or f"network {own.network}, loop {own.loop or 'as it comes'}",
        original=own.original,
        cells=partial(_cells, fits),
        pictures=("bars", "curves"),
        seeds=own.seeds,
    )


def _cells(fits: dict[str, LabelFit], scale: Scale) -> list[Cell]:
    scaled = {
        name: LabelFit(scale.network(one.network), scale.loop(one.loop), one.labels, one.compare)
        for name, one in fits.items()
    }
    return grid(scale, scaled)


def fits_of(own: OwnStudy) -> dict[str, LabelFit]:
    """Return the fit of every combination, by its name."""
    for name, over in own.varies.items():
        part, dot, setting = name.partition(".")
        if part not in PARTS or not dot or not setting:
            raise ConfigError(f"varies: expected network.FIELD, loop.FIELD or labels.FIELD, found {name!r}")
        if not over:
            raise ConfigError(f"varies: expected at least one value of {name}, found none")
    if not own.varies:
        raise ConfigError("varies: expected at least one setting, found none")
    fits = {}
    for values in product(*own.varies.values()):
        parts = {part: dict(getattr(own, part)) for part in PARTS}
        named = []
        for name, value in zip(own.varies, values, strict=True):
            part, _, setting = name.partition(".")
            parts[part][setting] = value
            named.append(f"{setting} {' '.join(map(str, value)) if isinstance(value, list) else value}")
        fits[", ".join(named)] = LabelFit(
            _network(parts["network"]), _config(LoopConfig, parts["loop"]), _config(LabelConfig, parts["labels"]),
            own.compare,
        )  # fmt: skip
    return fits


def _network(given: dict[str, Any]) -> Any:
    known = shapes()
    shape = given.get("shape")
    if shape not in known:
        raise ConfigError(f"network.shape: expected one of {', '.join(known)}, found {shape!r}")
    return _config(known[shape], given)


def _config(kind: Any, given: dict[str, Any]) -> Any:
    hooks: dict[Any, Any] = {
        float: lambda value: float(value) if type(value) is int else value,
        tuple[int, ...]: lambda value: tuple(value) if isinstance(value, list) else (value,),
    }
    return dacite.from_dict(kind, given, dacite.Config(type_hooks=hooks, strict=True))
