"""Music of our own making: a few instruments, a few rhythms, four styles. Seeded; the same on every machine of a kind.

The analyser's basis is fitted to it, tests and the demo play it, so that neither needs a recording of anybody's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from segue.data.analyser.spectra import RATE_HZ
from segue.data.song import Floats

Samples = NDArray[np.float64]
Instrument = Callable[[float, float, np.random.Generator], Samples]  # Pitch in Hz, seconds, dice.

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


def _time(seconds: float) -> Samples:
    return np.arange(max(int(seconds * RATE_HZ), 1)) / RATE_HZ


def _partials(hz: float, most: int) -> NDArray[np.int64]:
    """Return the numbers of the harmonics that the sampling rate can carry."""
    return np.arange(1, max(2, min(most + 1, int(0.48 * RATE_HZ / hz))))


def _edges(sound: Samples, attack_s: float, release_s: float) -> Samples:
    """Fade a sound in and out."""
    n, time = len(sound), _time(len(sound) / RATE_HZ + 1)[: len(sound)]
    fade_out = time[::-1] / release_s
    shaped: Samples = sound * np.minimum(time / attack_s, 1) * np.minimum(fade_out[:n], 1)
    return shaped


def pluck(hz: float, seconds: float, rng: np.random.Generator) -> Samples:
    """Return a plucked string: the higher a partial, the sooner it has faded."""
    time, k = _time(seconds), _partials(hz, 24)[:, None]
    fading = np.exp(-time * (1.5 + 0.9 * k) * rng.uniform(0.7, 1.5))
    return _edges((np.sin(2 * np.pi * hz * k * time) * fading / k**1.1).sum(axis=0), 0.003, 0.03)


def organ(hz: float, seconds: float, rng: np.random.Generator) -> Samples:
    """Return a pipe: few partials that stay."""
    time = _time(seconds)
    parts = [
        amount * np.sin(2 * np.pi * hz * k * time) for k, amount in ((1, 1), (2, 0.6), (3, 0.3), (4, 0.3), (6, 0.1))
    ]
    return _edges(np.sum(parts, axis=0), rng.uniform(0.02, 0.06), 0.08)


def strings(hz: float, seconds: float, rng: np.random.Generator) -> Samples:
    """Return bowed strings: many partials, a slow attack, vibrato."""
    time, k = _time(seconds), _partials(hz, 30)[:, None]
    phase = 2 * np.pi * hz * (time + 0.0008 * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * time) / 2)
    return _edges((np.sin(k * phase + rng.uniform(0, 6, k.shape)) / k**1.3).sum(axis=0), rng.uniform(0.08, 0.25), 0.15)


def lead(hz: float, seconds: float, rng: np.random.Generator) -> Samples:
    """Return a sawtooth through a filter that closes."""
    time, k = _time(seconds), _partials(hz, 40)[:, None]
    cutoff = rng.uniform(600, 2500) * (1 + 4 * np.exp(-time * rng.uniform(3, 10)))
    return _edges((np.sin(2 * np.pi * hz * k * time) / k / (1 + (hz * k / cutoff) ** 4)).sum(axis=0), 0.005, 0.04)


def bell(hz: float, seconds: float, rng: np.random.Generator) -> Samples:
    """Return a bell or an electric piano: a sine that another one modulates."""
    time, ratio = _time(seconds), float(rng.choice([1.0, 2.0, 3.5, 7.0]))
    depth = rng.uniform(0.5, 3) * np.exp(-time * rng.uniform(2, 8))
    sound = np.sin(2 * np.pi * hz * time + depth * np.sin(2 * np.pi * hz * ratio * time))
    return _edges(sound * np.exp(-time * rng.uniform(1, 4)), 0.002, 0.05)


def voice(hz: float, seconds: float, rng: np.random.Generator) -> Samples:
    """Return a voice on a vowel: partials under three formants."""
    time, k = _time(seconds), _partials(hz, 40)[:, None]
    formants = np.array([rng.uniform(300, 800), rng.uniform(900, 2200), rng.uniform(2300, 3200)])
    gain = (1 / (1 + ((k * hz - formants) / 120) ** 2)).sum(axis=1, keepdims=True)
    phase = 2 * np.pi * hz * (time + 0.001 * np.sin(2 * np.pi * 5.5 * time))
    breath = 0.02 * rng.standard_normal(len(time))
    return _edges((gain * np.sin(k * phase) / k**0.5).sum(axis=0) + breath, rng.uniform(0.02, 0.1), 0.1)


def kick(_: float, __: float, rng: np.random.Generator) -> Samples:
    """Return a bass drum: a sine that falls."""
    time = _time(0.3)
    fall = rng.uniform(45, 60) * time + rng.uniform(3, 6) * (1 - np.exp(-30 * time))
    return _edges(np.sin(2 * np.pi * fall) * np.exp(-9 * time) * 1.8, 0.001, 0.02)


def snare(_: float, __: float, rng: np.random.Generator) -> Samples:
    """Return a snare drum: noise over a tone."""
    time = _time(0.22)
    noise = rng.standard_normal(len(time)) * np.exp(-time * rng.uniform(12, 28))
    return 0.5 * noise + 0.5 * np.sin(2 * np.pi * rng.uniform(170, 230) * time) * np.exp(-25 * time)


def hat(_: float, __: float, rng: np.random.Generator) -> Samples:
    """Return a cymbal: noise without its low half."""
    time = _time(float(rng.choice([0.06, 0.06, 0.25])))
    noise = np.diff(np.diff(rng.standard_normal(len(time) + 2)))
    struck: Samples = 0.15 * noise * np.exp(-4 * time / time[-1])
    return struck


@dataclass(frozen=True)
class Style:
    """How a kind of music is made."""

    tempo_bpm: tuple[float, float]
    chords: tuple[Instrument, ...]  # One of these plays the chords,
    melody: tuple[Instrument, ...]  # one the melody, on
    melody_notes: float  # this share of the eighths; a few notes are held.
    drums: tuple[tuple[Instrument, str], ...]  # What is struck, and on which sixteenths of a bar.
    drive: tuple[float, float]  # How hard the mix is driven into saturation.
    room: tuple[float, float]  # Share of reverberation.
    swell_db: float  # How much the level wanders.


STYLES = {
    "chamber": Style(
        tempo_bpm=(60, 100),
        chords=(strings, organ),
        melody=(strings, pluck, voice),
        melody_notes=0.45,
        drums=(),
        drive=(0.2, 0.6),
        room=(0.2, 0.45),
        swell_db=8.0,
    ),
    "dance": Style(
        tempo_bpm=(118, 132),
        chords=(lead, organ),
        melody=(lead, bell),
        melody_notes=0.5,
        drums=((kick, "x...x...x...x..."), (snare, "....x.......x..."), (hat, "..x...x...x...x.")),
        drive=(1.0, 2.5),
        room=(0.05, 0.2),
        swell_db=1.0,
    ),
    "band": Style(
        tempo_bpm=(90, 150),
        chords=(lead, strings),
        melody=(voice, lead),
        melody_notes=0.4,
        drums=((kick, "x.....x.x.x....."), (snare, "....x.......x..x"), (hat, "x.x.x.x.x.x.x.x.")),
        drive=(2.0, 6.0),
        room=(0.05, 0.2),
        swell_db=1.5,
    ),
    "ballad": Style(
        tempo_bpm=(65, 95),
        chords=(pluck, bell),
        melody=(voice, pluck),
        melody_notes=0.4,
        drums=((kick, "x.........x....."), (hat, "....x.......x...")),
        drive=(0.3, 1.0),
        room=(0.1, 0.3),
        swell_db=4.0,
    ),
}


def song(style: Style, seconds: float, rng: np.random.Generator) -> Floats:
    """Return a song of a style, (n,) mono samples at 22,050 Hz between -1 and 1."""
    n = int(seconds * RATE_HZ)
    sixteenth = 15 / rng.uniform(*style.tempo_bpm)
    root = 110 * 2 ** (rng.integers(12) / 12)
    scale = MAJOR if rng.random() < 0.5 else MINOR
    mix = np.zeros(n + RATE_HZ)
    chords, melody = rng.choice(len(style.chords)), rng.choice(len(style.melody))
    loudness = rng.uniform([0.15, 0.3, 0.3, 0.3], [0.4, 0.8, 0.9, 0.8])

    def play(instrument: Instrument, degree: int, octave: int, at_s: float, lasts_s: float, gain: float) -> None:
        hz = root * 2 ** (octave + degree // 7 + scale[degree % 7] / 12)
        sound = instrument(hz, lasts_s, rng) * gain * rng.uniform(0.7, 1.2)
        first = int(at_s * RATE_HZ)
        mix[first : first + len(sound)] += sound[: max(len(mix) - first, 0)]

    bar_s, degree = 16 * sixteenth, 0
    for bar in range(int(seconds / bar_s) + 1):
        begins, chord = bar * bar_s, int(rng.choice([0, 0, 3, 4, 5]))
        for third in (0, 2, 4):
            play(style.chords[chords], chord + third, 1, begins, bar_s, loudness[0])
        for half in range(2):
            play(pluck if style.drums else strings, chord, -1, begins + half * bar_s / 2, bar_s / 2, loudness[1])
        for eighth in range(8):
            if rng.random() < style.melody_notes:
                degree = int(np.clip(degree + rng.integers(-2, 3), -3, 9))
                held = 2 * sixteenth * float(rng.choice([1, 1, 2, 3]))
                play(style.melody[melody], degree, 2, begins + eighth * 2 * sixteenth, held, loudness[2])
        for drum, pattern in style.drums:
            for step, mark in enumerate(pattern):
                if (mark == "x") != (rng.random() < 0.05):
                    play(drum, 0, 0, begins + step * sixteenth, 0.0, loudness[3])
    return _produced(mix[:n], style, rng)


def _produced(mix: Samples, style: Style, rng: np.random.Generator) -> Floats:
    """Return a mix in a room, with a tone of its own, saturated, over a little noise."""
    room = rng.standard_normal(RATE_HZ // 2) * np.exp(-np.arange(RATE_HZ // 2) / RATE_HZ * rng.uniform(6, 15))
    room *= rng.uniform(*style.room) / np.sqrt((room**2).sum())
    room[0] += 1
    size = scipy.fft.next_fast_len(len(mix) + len(room), real=True)
    hz = np.arange(size // 2 + 1) * (RATE_HZ / size)
    tilt = (np.maximum(hz, 100) / 1000) ** rng.uniform(-0.4, 0.3)
    mix = scipy.fft.irfft(scipy.fft.rfft(mix, size) * scipy.fft.rfft(room, size) * tilt, size)[: len(mix)]
    swell_db = style.swell_db * np.sin(2 * np.pi * np.arange(len(mix)) / RATE_HZ / rng.uniform(4, 12))
    mix *= 10 ** (swell_db / 20) / np.sqrt((mix**2).mean() + 1e-12)
    drive = rng.uniform(*style.drive)
    mix = np.tanh(mix * 0.35 * drive) + rng.standard_normal(len(mix)) * 10 ** rng.uniform(-4.5, -3)
    produced: Floats = (0.8 * mix / np.abs(mix).max()).astype(np.float32)
    return produced
