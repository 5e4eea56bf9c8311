"""Rules of the cascade: the dial against a plain loop, signals against their formulas."""

import numpy as np
import pytest

from segue.export.studies.cascade_rules import SIGNALS, dial, signals_of


def test_a_dial_is_a_plain_loop_over_all_fallback_rates() -> None:
    rng = np.random.default_rng(0)
    signal, own, fallen = rng.random(50), rng.random(50) < 0.5, rng.random(50) < 0.8
    order = np.argsort(-signal)
    expected = [np.concatenate([fallen[order[:k]], own[order[k:]]]).mean() for k in range(51)]
    np.testing.assert_allclose(dial(signal, own, fallen), expected, atol=1e-12)


def test_signals_are_what_they_are_called() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]] * 20)
    gains = np.array([False, True] * 20)
    found = signals_of(probs, gains, np.arange(40))
    assert tuple(found) == SIGNALS
    for row in (0, 1):
        assert found["-log max p"][row] == pytest.approx(-np.log(probs[row, 0]))
        assert found["entropy"][row] == pytest.approx(-sum(p * np.log(p) for p in probs[row]))
        assert found["margin"][row] == pytest.approx(probs[row, 1] - probs[row, 0])
    assert (found["learned"][gains] > found["learned"][~gains].max()).all()


def test_a_song_does_not_teach_the_rule_that_judges_it() -> None:
    """Gains that no song tells of another: what is learnt is worth nothing, though each song's would tell of itself."""
    rng = np.random.default_rng(0)
    probs, gains = rng.dirichlet(np.ones(4), size=600), rng.random(600) < 0.3
    learned = signals_of(np.repeat(probs, 2, axis=0), np.repeat(gains, 2), np.repeat(np.arange(600), 2))["learned"]
    assert abs(np.corrcoef(learned, np.repeat(gains, 2))[0, 1]) < 0.1
