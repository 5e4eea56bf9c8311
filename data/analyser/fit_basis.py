"""Fit the patches that timbre is measured with: principal components of patches of music we make ourselves.

It writes `basis.npy`, float32 (12, 460): the mean patch and eleven orthonormal ones. A patch is 20 columns of 23 bands.
The signs are frozen: each component's largest sum over a band's 20 columns is positive. Another basis is another
version of the features, so this is run once a version.

Example:
    python -m segue.data.analyser.fit_basis
"""

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from segue.data.analyser.onsets import onset_frames
from segue.data.analyser.segments import BASIS_FILE, N_COMPONENTS, PATCH, decibels, levelled, patches, smoothed
from segue.data.analyser.spectra import N_BANDS, spectra
from segue.data.analyser.synthesiser import STYLES, song
from segue.data.song import Floats

SONGS_A_STYLE = 30
SONG_S = 10.0


def synthesised_patches(seed: int, songs_a_style: int = SONGS_A_STYLE) -> Iterator[Floats]:
    """Yield the patches of each song, (n, 460), their mean taken out."""
    for number, style in enumerate(STYLES.values()):
        for one in range(songs_a_style):
            bands, _ = spectra([song(style, SONG_S, np.random.default_rng([seed, number, one]))])
            starts = onset_frames(decibels(levelled(bands)))
            yield patches(decibels(smoothed(bands)), starts, slice(0, len(starts)))[1]


def fit(seed: int = 0) -> tuple[NDArray[np.float64], float]:
    """Return the mean patch and the components, (12, 460), and the share of the variance that they explain."""
    count, total, products = 0, np.zeros(PATCH), np.zeros((PATCH, PATCH))
    for some in synthesised_patches(seed):
        exact = some.astype(np.float64)
        count += len(exact)
        total += exact.sum(axis=0)
        products += exact.T @ exact
    mean = total / count
    variances, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    components = vectors[:, : -N_COMPONENTS - 1 : -1].T
    band_sums = components.reshape(N_COMPONENTS, -1, N_BANDS).sum(axis=1)
    largest = np.abs(band_sums).argmax(axis=1)
    components *= np.sign(band_sums[np.arange(N_COMPONENTS), largest])[:, None]
    return np.concatenate([mean[None], components]), float(variances[-N_COMPONENTS:].sum() / variances.sum())


if __name__ == "__main__":
    fitted, explained = fit()
    np.save(BASIS_FILE, fitted.astype(np.float32), allow_pickle=False)
    print(f"{BASIS_FILE}: {N_COMPONENTS} components explain {explained:.1%} of the variance of the patches")
    sys.exit(0)
