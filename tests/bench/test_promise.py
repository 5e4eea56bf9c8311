"""The comparison of promises: what is best, what is ours, and when one is broken."""

import numpy as np

from segue.bench.promise import Said, best_share, is_broken, ours

SAID = Said(np.linspace(0, 1, 1000), np.arange(1000) % 10 == 9)  # Every tenth song of rising doubt is in disagreement.


def test_the_best_threshold_takes_every_song_up_to_the_first_disagreement_too_many() -> None:
    accepted = max(n for n in range(1001) if SAID.disagree[:n].sum() <= 50)
    assert best_share(SAID, 0.95) == 1 - accepted / 1000
    assert best_share(Said(SAID.doubt_nats, np.zeros(1000, bool)), 0.95) == 0


def test_a_promise_is_broken_by_one_song_more_than_it_allows() -> None:
    by_teacher = np.ones(1000, bool)
    wrong = np.flatnonzero(SAID.disagree)
    by_teacher[wrong[:50]] = False
    assert not is_broken(SAID, by_teacher, 0.95)
    by_teacher[wrong[50]] = False
    assert is_broken(SAID, by_teacher, 0.95)


def test_ours_is_broken_no_more_often_than_it_says() -> None:
    draws, rng = 200, np.random.default_rng(0)
    broken = sum(is_broken(SAID, ours(SAID, 0.95, 0.95, rng), 0.95) for _ in range(draws))
    assert broken / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
