"""Which type of answer an Accept header gets."""

import pytest

from segue.serving.http.bodies import ARROW, JSON
from segue.serving.http.refusal import Refusal
from segue.serving.http.replies import media_type


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (ARROW, ARROW),
        (f"{ARROW}, {JSON}", ARROW),
        (f"{JSON}, {ARROW}", ARROW),
        (f"{JSON}, {ARROW};q=0", JSON),
        (f"*/*, {ARROW}; Q=0.000", JSON),
        (f"{JSON}, {ARROW};q=0.9", JSON),
        (f"{JSON};q=0.5, {ARROW};q=0.9", ARROW),
        (f"{JSON};q=0, {ARROW}", ARROW),
        (f"application/*;q=0, {JSON}", JSON),
    ],
)
def test_the_answer_is_of_the_type_that_is_liked_best(accept: str, expected: str) -> None:
    assert media_type(accept) == expected


@pytest.mark.parametrize(
    "accept",
    ["text/html", f"{JSON};q=0", "*/*;q=0", f"{JSON};q=0, {ARROW};q=0", f"{JSON};q=0, */*", f"{JSON};q=2",
     f"{JSON};q=-1", f"{JSON};q=", f"{JSON};q=nan", f"{JSON};q=0.1234", ","],
)  # fmt: skip
def test_a_type_that_is_not_wanted_is_never_sent(accept: str) -> None:
    with pytest.raises(Refusal) as refusal:
        media_type(accept)
    assert refusal.value.status == 406
