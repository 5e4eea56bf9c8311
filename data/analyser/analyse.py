"""From an audio file to a song: decode, reduce to spectra, cut into segments, measure each.

Everything is relative to the recording's own level: a louder copy is the same song. The same file gives the same bits,
whatever the size of its reads, the number of workers and the threads of a BLAS. Another basis, threshold or
normalisation is another version, and a name of its own: `FEATURES`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segue.data.analyser.decode import READ_VALUES, Decoding
from segue.data.analyser.onsets import SHORTEST_FRAMES
from segue.data.analyser.segments import segments_of
from segue.data.analyser.spectra import HOP, RATE_HZ, Spectra
from segue.data.song import Floats
from segue.errors import AudioError

MOST_S = 2 * 3600.0  # 0.6 GB of memory
LEAST_S = 0.25
_EDGE_FRAMES = 8
SILENCE = 10 ** (-80 / 10)  # Mean power in the bands; full scale is about 1.


@dataclass(frozen=True)
class Analysis:
    """What the analyser finds in a recording."""

    segments: Floats  # (T, 25), raw.
    starts_s: Floats  # (T,) seconds from the beginning.
    seconds: float  # How long the recording is.
    warnings: tuple[str, ...] = ()  # What is odd about the file, though it could be decoded.


def analyse(path: Path, most_s: float = MOST_S, read_values: int = READ_VALUES) -> Analysis:
    """Return the segments of the recording in the file at `path`.

    Args:
        path: an audio file; its content tells the format, its name does not matter.
        most_s: a longer recording is refused; memory is 17 kB a second.
        read_values: how much is decoded at a time; the result does not depend on it.

    Raises:
        AudioError: the file is no audio, cut, damaged, silent, too short or too long.
        MissingDependencyError: soundfile or soxr is not installed.
    """
    decoding = Decoding(path, most_s, read_values)
    spectra = Spectra()
    for block in decoding.blocks():
        spectra.add(block)
    if spectra.n_samples < max(LEAST_S * RATE_HZ, SHORTEST_FRAMES * HOP):
        raise AudioError(f"expected at least {LEAST_S:g} s of sound, found {decoding.seconds:.4g} s")
    bands, chroma = spectra.end()
    # A recording that is not at zero where it begins or ends makes a step there.
    if not bands[_EDGE_FRAMES:-_EDGE_FRAMES].sum(axis=1).max() > SILENCE:
        raise AudioError("expected sound, found silence")
    segments, starts = segments_of(bands, chroma)
    starts_s = (starts * (HOP / RATE_HZ)).astype(np.float32)
    return Analysis(segments, starts_s, decoding.seconds, tuple(decoding.warnings))
