"""Short-time spectra of a recording, reduced as they are made: 23 bands every 5.8 ms, 12 pitch classes every 46 ms.

The spectra are taken in steps of a fixed number of frames, counted from the start of the recording, and nothing here is
a matrix product: so the bits depend on the samples alone, not on how they were read nor on the threads of a BLAS.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from segue.data.song import Floats

RATE_HZ = 22_050
HOP = 128  # Samples from one frame of bands to the next, as in Echo Nest's timbre: 5.8 ms.
N_BANDS = 23

_BAND_WINDOW = 512  # 23 ms
_CHROMA_WINDOW = 4096  # 186 ms: partials of 65 Hz and up can be told from their neighbours a semitone away.
_CHROMA_HOP = 1024
HOPS_A_CHROMA_FRAME = _CHROMA_HOP // HOP
_STEP_FRAMES = 1024  # Frames of bands in one step: 6 s.
_PAD = _CHROMA_WINDOW // 2  # Silence before the first sample and after the last, so that frames are centred.
_C0_HZ = 440 * 2 ** (-4.75)
_PITCH_RANGE_HZ = (60.0, 5000.0)
_FAINTEST_PEAK = 1e-4  # Power of the faintest peak that counts, beside the strongest of its frame: 40 dB below.


class Spectra:
    """The bands and the chroma of a recording, from its samples as they come."""

    def __init__(self) -> None:
        """Begin before the first sample."""
        self._waiting: list[Floats] = [np.zeros(_PAD, np.float32)]
        self._n_waiting = _PAD
        self._bands: list[Floats] = []
        self._chroma: list[Floats] = []
        self.n_samples = 0

    def add(self, samples: Floats) -> None:
        """Take the next samples, (n,) at 22,050 Hz, any number of them."""
        self._waiting.append(samples)
        self._n_waiting += len(samples)
        self.n_samples += len(samples)
        while self._n_waiting >= _STEP_FRAMES * HOP + _CHROMA_WINDOW:
            self._step(_STEP_FRAMES)

    def end(self) -> tuple[Floats, Floats]:
        """Return the power in the bands, (n_frames, 23), and the chroma, (n_chroma_frames, 12)."""
        self._waiting.append(np.zeros(_CHROMA_WINDOW, np.float32))
        self._n_waiting += _CHROMA_WINDOW
        left = -(-self.n_samples // HOP) - _STEP_FRAMES * len(self._bands)
        if left > 0:
            self._step(left)
        return np.concatenate(self._bands), np.concatenate(self._chroma)

    def _step(self, n_frames: int) -> None:
        """Reduce the next `n_frames` frames of what waits."""
        samples = np.concatenate(self._waiting)
        self._bands.append(_bands(samples[_PAD - _BAND_WINDOW // 2 :], n_frames))
        self._chroma.append(_chroma(samples, -(-n_frames // HOPS_A_CHROMA_FRAME)))
        self._waiting = [samples[n_frames * HOP :].copy()]
        self._n_waiting = len(self._waiting[0])


def spectra(blocks: Iterable[Floats]) -> tuple[Floats, Floats]:
    """Return what `Spectra.end` does for samples that come in `blocks`."""
    taken = Spectra()
    for block in blocks:
        taken.add(block)
    return taken.end()


def _frames(samples: Floats, n_frames: int, size: int, hop: int) -> Floats:
    """Return overlapping frames of `samples`, (n_frames, size), a view."""
    view: Floats = np.lib.stride_tricks.sliding_window_view(samples, size)[: n_frames * hop : hop]
    return view


def _power(frames: Floats, window: Floats) -> Floats:
    """Return the power spectra of frames (n, size), (n, size / 2 + 1)."""
    spectrum = scipy.fft.rfft(frames * window, axis=1, overwrite_x=True)
    power: Floats = spectrum.real**2 + spectrum.imag**2
    return power


def _bands(samples: Floats, n_frames: int) -> Floats:
    """Return the power in each band of the first frames, (n_frames, 23), as the ear hears it."""
    power = _power(_frames(samples, n_frames, _BAND_WINDOW, HOP), _BAND_HANN)
    power *= _EAR
    bands: Floats = np.add.reduceat(power, _BAND_STARTS, axis=1)
    return bands


def _chroma(samples: Floats, n_frames: int) -> Floats:
    """Return the amplitude in each pitch class of the first frames, (n_frames, 12), from the peaks of the spectrum."""
    power = _power(_frames(samples, n_frames, _CHROMA_WINDOW, _CHROMA_HOP), _CHROMA_HANN)[:, _FIRST_BIN:_END_BIN]
    inner = power[:, 1:-1]
    floor = np.maximum(power.max(axis=1, keepdims=True) * np.float32(_FAINTEST_PEAK), np.float32(1e-20))
    frame, at = np.nonzero((inner > power[:, :-2]) & (inner >= power[:, 2:]) & (inner > floor))
    peak = inner[frame, at]
    below, here, above = (np.log(np.maximum(one, 1e-30)) for one in (power[frame, at], peak, power[frame, at + 2]))
    # The top of the parabola through three points of the logarithm is within a few hundredths of a bin of the partial.
    offset = 0.5 * (below - above) / np.minimum(below - 2 * here + above, -1e-6)
    pitch = 12 * np.log2((at + (_FIRST_BIN + 1) + offset.clip(-0.5, 0.5)) * (RATE_HZ / _CHROMA_WINDOW / _C0_HZ))
    lower = np.floor(pitch)
    share = pitch - lower
    amplitude = np.sqrt(peak)
    chroma = np.zeros(n_frames * 12)
    for pitch_class, part in ((lower, 1 - share), (lower + 1, share)):
        chroma += np.bincount(
            frame * 12 + pitch_class.astype(np.int64) % 12, weights=amplitude * part, minlength=n_frames * 12
        )
    return chroma.reshape(n_frames, 12).astype(np.float32)


def _hann(size: int) -> Floats:
    window: Floats = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    return window * np.float32(2 / size)  # A sine of amplitude 1 has power 1/4 in its bin, whatever the size.


def _bark(hz: NDArray[Any]) -> NDArray[Any]:
    """Return the critical-band rate (Traunmüller 1990)."""
    rate: NDArray[np.float64] = 26.81 * hz / (1960 + hz) - 0.53
    return rate


def _band_starts() -> NDArray[np.int64]:
    """Return the first bin of each band: equal steps on the Bark scale, at least one bin each."""
    hz = np.arange(_BAND_WINDOW // 2 + 1, dtype=np.float64) * (RATE_HZ / _BAND_WINDOW)
    low, high = _bark(np.array([30.0, RATE_HZ / 2], dtype=np.float64))
    starts = np.searchsorted(_bark(hz), np.linspace(low, high, N_BANDS + 1)[:-1])
    for band in range(1, N_BANDS):
        starts[band] = max(starts[band], starts[band - 1] + 1)
    return starts


def _ear() -> Floats:
    """Return the weight of each bin's power: the outer and middle ear (Terhardt 1979); none of where 0 Hz leaks to."""
    khz = np.arange(2, _BAND_WINDOW // 2 + 1) * (RATE_HZ / _BAND_WINDOW / 1000)
    gain_db = -3.64 * khz**-0.8 + 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) - 1e-3 * khz**4
    return np.concatenate([[0, 0], 10 ** (gain_db / 10)]).astype(np.float32)


_BAND_HANN, _CHROMA_HANN = _hann(_BAND_WINDOW), _hann(_CHROMA_WINDOW)
_BAND_STARTS, _EAR = _band_starts(), _ear()
_FIRST_BIN, _END_BIN = (round(hz * _CHROMA_WINDOW / RATE_HZ) for hz in _PITCH_RANGE_HZ)
