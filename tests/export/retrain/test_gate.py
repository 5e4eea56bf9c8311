"""The gate: a challenger that is no better is hardly ever published, one that is better nearly always."""

import dataclasses
import math
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import norm

from segue.data.song import Bools, Ints
from segue.errors import ConfigError
from segue.export.retrain.answered import Answered
from segue.export.retrain.gate import GateRules, Verdict, bootstrap_means, gain_of, verdict
from segue.export.retrain.verdict_page import verdict_page
from segue.serving.bundle.manifest import Form, Parity, TradeoffRow

CLASSES = ("jazz", "pop", "rock")
RULES = GateRules()


def binomial_tail(won: int, lost: int) -> float:
    """Return P(at least `won` heads of `won + lost` throws of a fair coin), by counting."""
    n = won + lost
    return float(sum(math.comb(n, k) for k in range(won, n + 1)) / 2**n)


def test_the_p_value_is_the_binomial_tail_of_the_songs_that_differ() -> None:
    for won, lost in ((0, 0), (5, 0), (9, 4), (3, 8), (30, 17)):
        champion = np.array([True] * lost + [False] * won + [True] * 20)
        challenger = np.array([False] * lost + [True] * won + [True] * 20)
        found = gain_of(champion, challenger, [None] * len(champion), RULES)
        assert found.p_value == pytest.approx(binomial_tail(won, lost))
        assert (found.only_challenger, found.only_champion, found.artists) == (won, lost, None)


def test_the_bootstrap_draws_artists_with_all_their_songs() -> None:
    values, artists = np.array([1, 1, 0, -1, 0, 1]), ["a", "a", "b", "c", "c", "d"]
    found = bootstrap_means(values, artists, 20_000, 0)
    rng, plain = np.random.default_rng(1), []
    of = {name: values[[one == name for one in artists]] for name in "abcd"}
    for _ in range(20_000):
        plain.append(np.concatenate([of[name] for name in rng.choice(list("abcd"), 4)]).mean())
    assert found.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert np.quantile(found, (0.05, 0.95)) == pytest.approx(np.quantile(plain, (0.05, 0.95)), abs=0.02)


def draw(rng: np.random.Generator, artists: int, songs: int, gain: float) -> tuple[Bools, Bools]:
    """Draw which songs champion and challenger get right: alike within an artist, each with luck of its own there."""
    luck = rng.normal(0, 0.8, (3, artists, 1))  # Of the artist with both, and of each with the artist.
    own = rng.normal(0, 1, (3, artists, songs))
    common, first, second = luck + own
    spread = math.sqrt(2 * (1 + 0.8**2))
    at = [norm.isf(share) * spread for share in (0.6, 0.6 + gain)]
    return (common + first > at[0]).reshape(-1), (common + second > at[1]).reshape(-1)


@pytest.mark.long
@pytest.mark.parametrize(("artists", "songs"), [(300, 1), (60, 5)])
def test_of_1000_challengers_that_are_no_better_at_most_5_percent_are_published(artists: int, songs: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"artist {n}" for n in range(artists) for _ in range(songs)]
    rules = GateRules(resamples=500)
    published = sum(gain_of(*draw(rng, artists, songs, 0.0), names, rules).is_real(rules.alpha) for _ in range(1000))
    margin = 2.33 * math.sqrt(0.05 * 0.95 / 1000)  # Of the simulation, one-sided 99 %.
    assert published / 1000 <= 0.05 + margin
    better = sum(gain_of(*draw(rng, artists, songs, 0.15), names, rules).is_real(rules.alpha) for _ in range(200))
    assert better / 200 >= 0.9


@pytest.mark.long
def test_the_number_of_songs_that_would_tell_does_tell_four_times_in_five() -> None:
    rng, rules = np.random.default_rng(0), GateRules(worth_points=8)
    pilot = gain_of(*draw(rng, 4000, 1, 0.08), [None] * 4000, rules)
    told = [
        gain_of(*draw(rng, pilot.songs_to_tell, 1, 0.08), [None] * pilot.songs_to_tell, rules).is_real(rules.alpha)
        for _ in range(400)
    ]
    assert np.mean(told) == pytest.approx(0.8, abs=0.07)


def answered(choice: Ints, labels: Ints, *, us: float = 100.0, size: int = 1000, agreement: float = 1.0) -> Answered:
    """Return what a bundle answers, sure to 0.9 of each choice."""
    probs = np.full((len(labels), 3), 0.05)
    probs[np.arange(len(labels)), choice] = 0.9
    form = Form("scan", "fp32", Parity(0.0, agreement, 10, 0, (1,)), None, {}, None)
    row = TradeoffRow(1.0, 0.0, float((choice == labels).mean()), us, 0.0, 0.0)
    doubt = np.full(len(labels), 0.1)
    fell = np.zeros(len(labels), dtype=bool)
    return Answered(
        "v", CLASSES, labels, choice, choice, choice, probs, doubt, fell, (row,), us, size, (form, form)
    )  # fmt: skip


def judged(champion_wrong: slice, challenger_wrong: slice, rules: GateRules = RULES, **challenger: Any) -> Verdict:
    """Judge two that are right on 900 songs but for a span of each."""
    labels = np.arange(900) % 3
    choices = []
    for wrong in (champion_wrong, challenger_wrong):
        choice = labels.copy()
        choice[wrong] = (choice[wrong] + 1) % 3
        choices.append(choice)
    sides = answered(choices[0], labels), answered(choices[1], labels, **challenger)
    return verdict(sides, [None] * 900, rules)


def test_a_better_challenger_is_published_and_the_reason_has_the_figures() -> None:
    found = judged(slice(0, 300), slice(0, 200))
    assert found.publish
    assert found.reason.startswith("better: +11.1 points on 900 held-out songs (champion 0.667, challenger 0.778; ")
    assert str(found).count("held") == 6


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (slice(0, 300), "not better beyond chance: +0.0 points"),
        (slice(100, 400), "not better beyond chance: +0.0 points"),
        (slice(0, 330), "worse: -3.3 points"),
    ],
)
def test_a_challenger_that_is_no_better_is_rejected(wrong: slice, reason: str) -> None:
    found = judged(slice(0, 300), wrong, GateRules(worth_points=6))
    assert not found.publish
    assert reason in found.reason


def test_too_few_songs_are_named_and_the_rule_may_let_any_gain_pass() -> None:
    labels = np.zeros(30, dtype=np.int64)
    before, after = labels.copy(), labels.copy()
    before[:12], after[:10] = 1, 1
    sides = answered(before, labels), answered(after, labels)
    kept = verdict(sides, [None] * 30, RULES)
    assert not kept.publish
    assert f"{kept.gain.songs_to_tell:,} would tell a gain of 2 points" in kept.reason
    assert kept.gain.songs_to_tell > 300
    assert verdict(sides, [None] * 30, GateRules(when_too_few="publish")).publish
    assert not verdict((sides[1], sides[0]), [None] * 30, GateRules(when_too_few="publish")).publish


@pytest.mark.parametrize(
    ("challenger", "floor"),
    [
        ({"us": 151.0}, "cost at equal accuracy"),
        ({"size": 2001}, "size of the models"),
        ({"agreement": 0.97}, "parity of the graphs"),
    ],
)
def test_a_broken_floor_rejects_the_better_one(challenger: dict[str, Any], floor: str) -> None:
    found = judged(slice(0, 300), slice(0, 200), **challenger)
    assert not found.publish
    assert found.reason.startswith(f"a floor is broken: {floor}")
    assert [one.name for one in found.floors if not one.held] == [floor]


def test_a_class_that_loses_recall_beyond_chance_rejects_the_better_one() -> None:
    labels = np.arange(900) % 3
    before = np.where(np.arange(900) % 2, labels, (labels + 1) % 3)
    after = np.where(labels == 0, 1, labels)  # Jazz is lost altogether, for a gain of 17 points.
    found = verdict((answered(before, labels), answered(after, labels)), [None] * 900, RULES)
    assert found.gain.points > 15
    assert not found.publish
    assert found.reason.startswith("a floor is broken: recall of jazz 0.000 (champion 0.500, limit 0.400)")


def test_worse_calibration_rejects_the_better_one() -> None:
    labels = np.arange(900) % 3
    before, after = labels.copy(), labels.copy()
    before[:120], after[:90] = (labels[:120] + 1) % 3, (labels[:90] + 1) % 3
    challenger = answered(after, labels)
    unsure = dataclasses.replace(challenger, probs=(challenger.probs + 1) / 4)
    assert verdict((answered(before, labels), challenger), [None] * 900, RULES).publish
    found = verdict((answered(before, labels), unsure), [None] * 900, RULES)
    assert [one.name for one in found.floors if not one.held] == ["calibration error"]


def test_the_page_tells_the_verdict() -> None:
    found = judged(slice(0, 300), slice(0, 200))
    html = verdict_page(found, RULES, "weekly <.toml")
    assert "weekly &lt;.toml" in html
    assert html.count("<svg") == 3
    assert "+11.1 points" in html


@pytest.mark.parametrize("setting", ["alpha", "worth_points", "recall_points", "ece_rise", "cost_factor", "resamples"])
def test_rules_that_no_challenger_can_be_judged_by_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"gate.{setting}: expected"):
        dataclasses.replace(RULES, **cast(Any, {setting: 0}))
