"""Help: every option of the training verbs is explained in a sentence."""

import re
from collections.abc import Callable, Sequence

import pytest

from segue.training import join, train_student, train_teacher
from segue.training.report import report

Verb = Callable[[Sequence[str]], int]
HELP = [
    *((train_teacher.main, words) for words in ([], ["recurrent"], ["convolutional"], ["dense"])),
    (train_student.main, []),
    (join.main, []),
    (report.main, []),
]


@pytest.mark.parametrize(("verb", "words"), HELP)
def test_every_option_is_explained_in_a_sentence(
    verb: Verb, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # Narrow, so that all options stand in one column.
    with pytest.raises(SystemExit):
        verb([*words, "--help"])
    blocks: list[list[str]] = [[]]
    for line in capsys.readouterr().out.partition("positional arguments")[2].splitlines():
        text = line.strip(" │")
        if not text or text.startswith("--"):
            blocks.append([])
        blocks[-1].append(text)
    options = [" ".join(" ".join(block).split()) for block in blocks if block and re.match("--[a-z]", block[0])]
    # Help is silent of a default that is nothing.
    explained = re.compile(r"--[a-z-]+ .*([a-z,']+ ){3}.*\.( \((default|required)|$)")
    assert len(options) > 1
    assert [option for option in options if not explained.match(option)] == []
