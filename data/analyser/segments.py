"""From spectra to segments: 12 timbre coefficients, 12 chroma values and the loudness at the start of each.

A segment's timbre is read from a patch of 23 bands x 20 columns: the ten frames at its start as they are, where the
attack is, and the rest of it stretched to ten columns. The first coefficient is the mean loudness of the patch, the
others its products with eleven orthonormal patches (Jehan 2005 describes this form). Ours were fitted to music that
`segue.data.analyser.synthesiser` makes, by `segue.data.analyser.fit_basis`; the Echo Nest's own are not used.
"""

from pathlib import Path

import numpy as np

from segue.data.analyser.onsets import onset_frames
from segue.data.analyser.spectra import HOPS_A_CHROMA_FRAME, N_BANDS
from segue.data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, N_FEATURES, TIMBRE, Floats, Ints

LEVEL_DB = -14.0  # What the loud parts of every recording are brought to.
RAW_COLUMNS, STRETCHED_COLUMNS = 10, 10
PATCH = (RAW_COLUMNS + STRETCHED_COLUMNS) * N_BANDS
N_COMPONENTS = 11
BASIS_FILE = Path(__file__).with_name("basis.npy")

_QUIETER_DB = 10.0  # What is this much quieter than the mean does not count for the level.
_BLUR = (np.hanning(11)[1:-1] / np.hanning(11).sum()).astype(np.float32)
_SEGMENTS_AT_A_TIME = 256


def levelled(bands: Floats) -> Floats:
    """Take the level of the recording out of the power in its bands (n_frames, 23), which is changed and returned.

    The mean power of its loud frames becomes `LEVEL_DB`, so that a louder copy is the same song. Loud frames are found
    in two passes, as in ITU-R BS.1770: those less than 10 dB below the mean.
    """
    total = bands.sum(axis=1)
    loud = total[total > total.mean(dtype=np.float64) * 10 ** (-_QUIETER_DB / 10)]
    bands *= np.float32(10 ** (LEVEL_DB / 10) / loud.mean(dtype=np.float64))
    return bands


def decibels(power: Floats) -> Floats:
    """Return 10 log10 of a power, -60 at least, in a new array."""
    values: Floats = np.maximum(power, np.float32(10 ** (LOUDNESS_RANGE_DB[0] / 10)))
    np.log10(values, out=values)
    values *= 10
    return values


def smoothed(power: Floats) -> Floats:
    """Return the power in the bands averaged over 26 ms: a single spectrum of noise is off by as much as its mean."""
    reach = len(_BLUR) // 2
    padded = np.pad(power, ((reach, reach), (0, 0)))
    smooth = np.zeros_like(power)
    for shift, weight in enumerate(_BLUR):
        smooth += weight * padded[shift : shift + len(power)]
    return smooth


def segments_of(bands: Floats, chroma: Floats) -> tuple[Floats, Ints]:
    """Return the segments (T, 25) of a recording, and the frames at which they begin (T,).

    Args:
        bands: (n_frames, 23) power in the bands; overwritten.
        chroma: (n_chroma_frames, 12).
    """
    bands = levelled(bands)
    starts = onset_frames(decibels(bands))
    smooth = smoothed(bands)
    values = np.empty((len(starts), N_FEATURES), np.float32)
    values[:, TIMBRE] = timbre(decibels(smooth), starts)
    values[:, CHROMA] = _chroma(chroma, starts)
    values[:, LOUDNESS] = np.minimum(decibels(smooth[starts].sum(axis=1)), np.float32(LOUDNESS_RANGE_DB[1]))
    return values, starts


def timbre(bands_db: Floats, starts: Ints) -> Floats:
    """Return the 12 timbre coefficients of each segment, (T, 12)."""
    mean, components = basis()
    coefficients = np.empty((len(starts), 1 + N_COMPONENTS), np.float32)
    for first in range(0, len(starts), _SEGMENTS_AT_A_TIME):
        some = slice(first, first + _SEGMENTS_AT_A_TIME)
        level, shape = patches(bands_db, starts, some)
        coefficients[some, 0] = level - LOUDNESS_RANGE_DB[0]
        # Not a BLAS product, whose bits depend on its threads.
        coefficients[some, 1:] = np.einsum("tp,kp->tk", shape - mean, components, optimize=False)
    return coefficients


def patches(bands_db: Floats, starts: Ints, which: slice) -> tuple[Floats, Floats]:
    """Return the mean of the patch of some segments (n,), in dB, and what is left of the patches (n, 460)."""
    ends = np.append(starts[1:], len(bands_db))[which]
    begins = starts[which]
    raw = bands_db[begins[:, None] + np.arange(RAW_COLUMNS)]
    # A stretched column is the mean over its share of the rest: a difference of cumulative sums at fractional ends.
    origin = begins[0]
    sums = np.concatenate([np.zeros((1, N_BANDS)), bands_db[origin : ends[-1]].cumsum(axis=0, dtype=np.float64)])
    rest = begins - origin + RAW_COLUMNS
    edges = rest[:, None] + (ends - origin - rest)[:, None] * (np.arange(STRETCHED_COLUMNS + 1) / STRETCHED_COLUMNS)
    whole = np.minimum(edges.astype(np.int64), len(sums) - 2)
    part = (edges - whole)[..., None]
    at_edges = sums[whole] * (1 - part) + sums[whole + 1] * part
    stretched = np.diff(at_edges, axis=1) / np.diff(edges, axis=1)[..., None]
    patch: Floats = np.concatenate([raw, stretched.astype(np.float32)], axis=1).reshape(len(begins), PATCH)
    level = patch.mean(axis=1)
    return level, patch - level[:, None]


def basis() -> tuple[Floats, Floats]:
    """Return the mean patch (460,) and the eleven orthonormal ones (11, 460): columns in time order, 23 bands each."""
    stored: Floats = np.load(BASIS_FILE, allow_pickle=False)
    return stored[0], stored[1:]


def _chroma(chroma: Floats, starts: Ints) -> Floats:
    """Return the chroma of each segment (T, 12): the sum over the frames in it, the strongest pitch class 1."""
    firsts = np.minimum(-(-starts // HOPS_A_CHROMA_FRAME), len(chroma) - 1)
    sums = np.add.reduceat(chroma, firsts, axis=0)
    strongest = sums.max(axis=1, keepdims=True)
    shares: Floats = sums / np.maximum(strongest, np.float32(1e-30))
    return shares
