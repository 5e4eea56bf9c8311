"""Timing: models in turn, by a clock that only they advance."""

import numpy as np
import pytest

from segue.data.song import Floats, Songs
from segue.serving.timing import songs_per_s_in_turn, us_per_window


class Clock:
    """A clock that stands still unless a model works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


class Works:
    """A model that takes so long for a call and for each song; its first call takes a second more."""

    def __init__(self, clock: Clock, calls: list[str], name: str, call_s: float, song_s: float) -> None:
        self._clock, self._calls, self._name, self._call_s, self._song_s = clock, calls, name, call_s, song_s
        self._warm = False

    def logits(self, windows: Floats) -> Floats:
        self._calls.append(self._name)
        self._clock.now_s += self._call_s + self._song_s * len(windows) + (not self._warm)
        self._warm = True
        return np.zeros((len(windows), 2), dtype=np.float32)


def test_models_take_turns_and_the_first_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(), list[str]()
    monkeypatch.setattr("segue.serving.timing.time", clock)
    models = [Works(clock, calls, "a", 0.01, 0.001), Works(clock, calls, "b", 0.0, 0.004)]
    windows = np.zeros((3, 120, 25), dtype=np.float32)
    a, b = songs_per_s_in_turn(models, windows, batches=(1, 10), budget_s=0.5)
    assert a == pytest.approx({1: 1 / 0.011, 10: 10 / 0.02})
    assert b == pytest.approx({1: 1 / 0.004, 10: 10 / 0.04})
    assert calls == ["a", "b"] * (len(calls) // 2)


def test_a_window_costs_its_share_of_a_serving_batch_of_songs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(), list[str]()
    monkeypatch.setattr("segue.serving.timing.time", clock)
    songs = Songs.of(
        [np.zeros((length, 25), dtype=np.float32) for length in (120, 500)]
    )  # 128 of each: of one window, and of 3.
    assert us_per_window(Works(clock, calls, "a", 0.1, 0.001), songs, 3) == pytest.approx(1e6 * (0.1 / 512 + 0.001))
