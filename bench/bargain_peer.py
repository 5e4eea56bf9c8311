"""Ask BARGAIN which songs its oracle must see; run by `segue.bench.promise` in a Python where only BARGAIN is.

Its models look answers up, all at once, where those of the package ask a language model in threads.
"""

import json
import sys
from typing import Any

import numpy as np
from BARGAIN import BARGAIN_A, Oracle, Proxy  # type: ignore[import-not-found]


class Student(Proxy):  # type: ignore[misc]
    """Says 1 of every song, with a score that falls with its doubt."""

    def __init__(self, score: Any) -> None:
        """Know the score of every song."""
        super().__init__(verbose=False)
        self._score = score

    def get_preds_and_scores(self, indxs: Any, data_records: Any) -> tuple[Any, Any]:
        """Return the answers and scores for some songs."""
        return np.ones(len(indxs), int), self._score[np.asarray(indxs, int)]


class Teacher(Oracle):  # type: ignore[misc]
    """Says 1 where the models agree, else 0."""

    def __init__(self, disagree: Any) -> None:
        """Know of every song whether the models disagree."""
        super().__init__(verbose=False)
        self._disagree = disagree

    def is_answer_correct(self, data_indxs: Any, data_records: Any, proxy_output_at_indxs: Any) -> Any:
        """Return whether the models agree on some songs."""
        return ~self._disagree[np.asarray(data_indxs, int)]

    def get_pred(self, data_records: Any, indxs: Any = None) -> Any:
        """Return the answers for some songs."""
        return (~self._disagree[np.asarray(indxs, int)]).astype(int)


given, told, asked = sys.argv[1:]
songs, asked_for = np.load(given), json.loads(asked)
bargain = BARGAIN_A(Student(songs["score"]), Teacher(songs["disagree"]), verbose=False, **asked_for)
_, by_oracle = bargain.process([str(row) for row in range(len(songs["score"]))], return_oracle_usage=True)
np.save(told, np.array(by_oracle, bool))
