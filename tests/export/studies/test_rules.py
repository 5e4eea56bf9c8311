"""Rules compared: every figure against a plain loop, and a verdict that noise does not sway."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segue.errors import ConfigError
from segue.export.studies.rules import (
    DEFAULT,
    FALLBACKS,
    SIGNALS,
    Comparison,
    Dials,
    Songs,
    compare,
    main,
    rules,
    signals_of,
)
from segue.provenance import provenance
from segue.serving.evaluate import evaluate
from tests.export.calibration.test_thresholds import world


def songs(n: int, seed: int = 0) -> Songs:
    student, teacher, labels = world(n, seed)
    names = [f"{seed}-{row}" for row in range(n)]
    return Songs(student, teacher, labels, names, names)


def test_a_dial_is_a_plain_loop_over_all_fallback_rates() -> None:
    rng = np.random.default_rng(0)
    signal, own, fallen = rng.random(50), rng.random(50) < 0.5, rng.random(50) < 0.8
    drawn = rng.integers(50, size=50)
    found = Dials.of(signal, own, fallen, np.vstack([np.ones(50), np.bincount(drawn, minlength=50)]))
    for place, rows in enumerate((np.arange(50), drawn)):
        order = rows[np.argsort(-signal[rows], kind="stable")]
        curve = [np.concatenate([fallen[order[:k]], own[order[k:]]]).mean() for k in range(51)]
        mean = sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 50
        assert found.mean_accuracy[place] == pytest.approx(mean)
        assert found.area_above_random[place] == pytest.approx(mean - (curve[0] + curve[-1]) / 2)
        assert found.accuracy_at[1.0][place] == pytest.approx(curve[-1])
    order = np.argsort(-signal)
    assert found.accuracy_at[0.2][0] == pytest.approx(np.concatenate([fallen[order[:10]], own[order[10:]]]).mean())


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


def test_the_default_gains_nothing_over_itself_and_every_rule_is_there() -> None:
    found = compare("drawn", [songs(300), songs(200, seed=1)])
    assert (found.songs, found.bundles) == (500, 2)
    rows = {(one.signal, one.fallback): one for one in found.rules}
    assert list(rows) == [(signal, fallback) for fallback in FALLBACKS for signal in SIGNALS]
    assert rows[DEFAULT].gain.value == rows[DEFAULT].gain.low == rows[DEFAULT].gain.high == 0
    for one in found.rules:
        assert one.gain.low <= one.gain.value <= one.gain.high
    teacher = rows["-log max p", "teacher"]
    assert teacher.accuracy_at["1"] == pytest.approx(found.teacher_accuracy)


def test_an_artist_is_drawn_whole_and_a_song_that_comes_again_is_the_same_song() -> None:
    """Every song ten times, under ten seeds that say the same: nothing is known better than from each song once."""
    once, again = (compare("drawn", [songs(300)] * times) for times in (1, 10))
    assert (again.songs, again.artists, again.bundles) == (300, 300, 10)
    for one, ten in zip(once.rules, again.rules, strict=True):
        if one.signal != "learned":
            assert ten.area_above_random.low == pytest.approx(one.area_above_random.low, abs=1e-9)
            assert ten.gain.high == pytest.approx(one.gain.high, abs=1e-9)


def test_a_bundle_is_compared_and_the_page_says_so(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    results, page = tmp_path / "rules.json", tmp_path / "rules.md"
    found: Comparison = rules((f"mixed={bundle}:{mixed_songs}",), results, page)
    assert json.loads(results.read_text())["sets"][0]["songs"] == 500
    assert page.read_text() == str(found)
    assert "## Mixed\n\n500 songs of 500 artists, unseen by the models of 1 bundle: student " in str(found)
    expected = evaluate(bundle, mixed_songs, threshold=0).evaluation
    default = found.sets[0].rules[0]
    assert default.accuracy_at["1"] == pytest.approx(expected.cascade.accuracy)
    assert found.sets[0].student_accuracy == expected.student.accuracy


@pytest.mark.parametrize("text", ["real", "=a:b", "real=a", "real=a:b:c", "real=a:b,c"])
def test_a_set_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="sets: expected NAME=BUNDLE:SONGS"):
        rules((text,))
    assert main([text]) == 1
    assert "segue rules: sets: expected NAME=BUNDLE:SONGS" in capsys.readouterr().err


def test_only_what_is_better_everywhere_is_called_better() -> None:
    one = compare("one", [songs(400)])
    assert "none, so the rule of the first row stays" in str(Comparison((one,), (), provenance()))
    text = str(Comparison((one, replace(one, name="other")), ("margin, teacher",), provenance()))
    assert "Better than the first row beyond noise on one and other songs: margin, teacher.\n" in text
