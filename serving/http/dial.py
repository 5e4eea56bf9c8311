"""The dial of a request: how far it is turned, in the query or in a JSON body, and what that means for a bundle."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from segue.serving.bundle.manifest import Manifest
from segue.serving.http.refusal import Refusal
from segue.serving.http.settings import Settings

Mode = Literal["fast", "balanced", "accurate"]
NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)  # Not all that `float` reads, such as 1_0.
EXPECTED_NATS = "threshold: expected a finite number of nats, at least 0, found another value"


@dataclass(frozen=True)
class Dial:
    """What a request says: a mode, or a threshold in nats, or neither."""

    mode: Mode | None = None
    threshold_nats: float | None = None

    @property
    def is_turned(self) -> bool:
        """Whether the request says anything."""
        return self.mode is not None or self.threshold_nats is not None


@dataclass(frozen=True)
class Setting:
    """What the dial of an answer is set to."""

    name: str  # fast, balanced, accurate, or threshold where the request named one.
    shown_nats: float | None  # None where the mode asks no threshold.
    threshold_nats: float | None  # For every rung: infinite for fast, below 0 for accurate. None: the bundle's own.


def query_dial(query: Mapping[str, str]) -> Dial:
    """Read the dial of a query; a `Refusal` if it is not understood."""
    text = query.get("threshold")
    if text is None:
        return dial(query.get("mode"), None)
    if not NUMBER.fullmatch(text):
        raise Refusal(422, "bad dial", EXPECTED_NATS)
    return dial(query.get("mode"), float(text))


def dial(mode: Any, threshold: Any) -> Dial:
    """Check a mode and a threshold, as JSON or a query has them; a `Refusal` if they cannot be."""
    if mode is not None and threshold is not None:
        raise Refusal(422, "bad dial", "expected a mode or a threshold, found both")
    if mode is not None and mode not in get_args(Mode):
        raise Refusal(422, "bad dial", f"mode: expected one of {', '.join(get_args(Mode))}, found another")
    if threshold is None:
        return Dial(mode=mode)
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold < float("inf"):  # A NaN is neither.
        raise Refusal(422, "bad dial", EXPECTED_NATS)
    try:
        return Dial(threshold_nats=float(threshold))
    except OverflowError:  # An integer of more than 308 digits.
        raise Refusal(422, "bad dial", EXPECTED_NATS) from None


def set_dial(asked: Dial, manifest: Manifest, settings: Settings) -> Setting:
    """Return what a request's dial means for a bundle; a `Refusal` if it is outside the bounds of the settings."""
    low, high = settings.lowest_threshold, settings.highest_threshold
    nats = asked.threshold_nats
    if nats is not None:
        if not low <= nats <= high:
            raise Refusal(422, "bad dial", f"threshold: expected {low:g} to {high:g} nats, found {nats:g}")
        return Setting("threshold", nats, nats)
    if asked.mode == "fast":
        if high < float("inf"):
            raise Refusal(422, "bad dial", f"mode: fast is not allowed here, where thresholds end at {high:g} nats")
        return Setting("fast", None, float("inf"))
    if asked.mode == "accurate":
        if low > 0:
            raise Refusal(
                422, "bad dial", f"mode: accurate is not allowed here, where thresholds begin at {low:g} nats"
            )
        return Setting("accurate", None, -1.0)
    return Setting("balanced", manifest.threshold_nats, None)
