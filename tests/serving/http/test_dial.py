"""The dial of a request: what is understood, and what is refused."""

from typing import Any

import pytest

from segue.errors import ConfigError
from segue.serving.http.dial import Dial, dial, query_dial
from segue.serving.http.refusal import Refusal
from segue.serving.http.settings import Settings


@pytest.mark.parametrize(
    ("mode", "threshold", "expected"),
    [
        (None, None, Dial()),
        ("fast", None, Dial(mode="fast")),
        (None, 0, Dial(threshold_nats=0.0)),
        (None, 1.5, Dial(threshold_nats=1.5)),
    ],
)
def test_the_dial_is_a_mode_or_a_threshold(mode: Any, threshold: Any, expected: Dial) -> None:
    assert dial(mode, threshold) == expected


@pytest.mark.parametrize(
    ("mode", "threshold"),
    [("loud", None), (["fast"], None), ("fast", 0.5), (None, -1), (None, float("nan")), (None, float("inf")),
     (None, True), (None, "0.4"), (None, [0.4]), (None, 10**400)],
)  # fmt: skip
def test_what_cannot_be_a_dial_is_refused(mode: Any, threshold: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        dial(mode, threshold)
    assert (refusal.value.status, refusal.value.reason) == (422, "bad dial")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Dial()),
        ({"threshold": "0.25"}, Dial(threshold_nats=0.25)),
        ({"threshold": "1e-05"}, Dial(threshold_nats=1e-05)),
        ({"threshold": "1E2"}, Dial(threshold_nats=100.0)),
        ({"mode": "accurate"}, Dial(mode="accurate")),
    ],
)
def test_a_query_turns_the_dial(query: dict[str, str], expected: Dial) -> None:
    assert query_dial(query) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"mode": "fast", "threshold": "0.4"}, "expected a mode or a threshold, found both"),
        ({"mode": ""}, "mode: expected one of fast, balanced, accurate, found another"),
        ({"mode": "FAST"}, "mode: expected one of fast, balanced, accurate, found another"),
        *[
            ({"threshold": text}, "threshold: expected a finite number of nats")
            for text in ("", "1_0", " 0.4", "0.4 ", "0.4;mode=fast", "-1", "+1", "nan", "inf", "1e999", "0x1", "0,4",
                         "\u0664", ".", "1e")
        ],
    ],
)  # fmt: skip
def test_a_query_that_is_not_understood_is_refused(query: dict[str, str], message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        query_dial(query)
    assert refusal.value.status == 422
    assert refusal.value.message.startswith(message)


def test_bounds_without_a_threshold_between_them_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected the lowest at or below the highest, found 0\.5 and 0\.4 nats"):
        Settings.from_environment({"SEGUE_LOWEST_THRESHOLD": "0.5", "SEGUE_HIGHEST_THRESHOLD": "0.4"})
    with pytest.raises(ConfigError):
        Settings.from_environment({"SEGUE_LOWEST_THRESHOLD": "nan"})
    assert Settings(lowest_threshold=0.4, highest_threshold=0.4).lowest_threshold == 0.4
