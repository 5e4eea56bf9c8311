"""The callers that know the right answer: they find every kind of wrong one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from segue.bench.checked import Oracle, Question, Tally, exchange_names, make_opposite
from segue.serving.bundle.load import load_bundle
from segue.serving.http.bodies import JSON
from tests.serving.conftest import own_service  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def oracle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    loaded = load_bundle(bundle)
    return Oracle([loaded, make_opposite(loaded, tmp_path_factory.mktemp("bundles") / "opposite")])


def asked(own_service: Any, oracle: Oracle) -> tuple[Question, httpx.Response]:  # noqa: F811
    """Return a question that is answered in JSON, and its right answer."""
    service = own_service()
    question = next(one for one in oracle.questions(0) if one.headers["accept"] == JSON and not one.dial)
    response = service.runner.run(service.http.post(question.path, headers=question.headers, content=question.body))
    return question, response


def test_right_answers_to_every_kind_of_question_are_right(own_service: Any, oracle: Oracle) -> None:  # noqa: F811
    service, tally = own_service(), Tally()
    for _, question in zip(range(60), oracle.questions(1), strict=False):
        response = service.runner.run(service.http.post(question.path, headers=question.headers, content=question.body))
        oracle.check(question, response, tally)
    assert (tally.answers, tally.n_wrong, tally.refused.total()) == (60, 0, 0)


def other_genre(answer: dict[str, Any]) -> None:
    song = answer["songs"][-1]
    song["genre"] = next(name for name in song["probabilities"] if name != song["genre"])


def other_probability(answer: dict[str, Any]) -> None:
    answer["songs"][0]["probabilities"]["genre-00"] += 2e-5


def other_version(answer: dict[str, Any]) -> None:
    answer["bundle"] = "0123456789ab"


def other_order(answer: dict[str, Any]) -> None:
    answer["songs"].reverse()
    answer["songs"].append(answer["songs"][0])


def other_model(answer: dict[str, Any]) -> None:
    song = answer["songs"][0]
    song["answered_by"] = "student" if song["answered_by"] == "teacher" else "teacher"


@pytest.mark.parametrize("spoil", [other_genre, other_probability, other_version, other_order, other_model])
def test_wrong_answers_are_found(own_service: Any, oracle: Oracle, spoil: Callable[[Any], None]) -> None:  # noqa: F811
    question, response = asked(own_service, oracle)
    answer = orjson.loads(response.content)
    spoil(answer)
    tally = Tally()
    oracle.check(question, httpx.Response(200, headers=response.headers, content=orjson.dumps(answer)), tally)
    assert tally.n_wrong == 1


def test_an_answer_of_one_version_under_the_name_of_the_other_is_wrong(
    own_service: Any,  # noqa: F811
    bundle: Path,
    oracle: Oracle,
) -> None:
    question, response = asked(own_service, oracle)
    answer = orjson.loads(response.content)
    (answer["bundle"],) = {version for version, _ in oracle._right} - {load_bundle(bundle).manifest.version}
    tally = Tally()
    oracle.check(question, httpx.Response(200, headers=response.headers, content=orjson.dumps(answer)), tally)
    assert tally.n_wrong == len(question.rows)


def test_names_are_exchanged(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    exchange_names(one, other)
    assert ((one / "name").read_text(), (other / "name").read_text()) == ("other", "one")
