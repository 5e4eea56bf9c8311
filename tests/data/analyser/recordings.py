"""Recordings that tests make themselves: clicks and short pieces of synthesised music, in files of any format."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from segue.data.analyser.synthesiser import STYLES, song

RATE_HZ = 22_050


def music(seconds: float = 6.0, style: str = "ballad", seed: int = 0) -> NDArray[np.float32]:
    return song(STYLES[style], seconds, np.random.default_rng(seed))


def save(path: Path, samples: NDArray[Any], rate_hz: int = RATE_HZ, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, **how)
    return path


def clicks(at_s: NDArray[np.float64], seconds: float, rate_hz: int = 44_100) -> NDArray[np.float64]:
    """Return bursts of noise that last 5 ms over faint noise."""
    rng = np.random.default_rng(0)
    samples = 1e-4 * rng.standard_normal(int(seconds * rate_hz))
    for second in at_s:
        first = round(second * rate_hz)
        samples[first : first + 220] += 0.5 * rng.standard_normal(220)
    return samples.clip(-1, 1)
