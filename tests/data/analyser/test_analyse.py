import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segue.data.analyser.analyse import analyse
from segue.data.analyser.onsets import onset_frames
from segue.data.analyser.segments import basis, decibels, levelled, patches, smoothed, timbre
from segue.data.analyser.spectra import HOP, spectra
from segue.data.song import CHROMA, LOUDNESS, check_segments
from tests.data.analyser.recordings import RATE_HZ, clicks, music, save


@pytest.mark.parametrize("read_values", [1_000, 44_100, 2**22])
def test_the_size_of_reads_changes_no_bit(tmp_path: Path, read_values: int) -> None:
    stereo = np.stack([music(8, seed=1), music(8, seed=2)], axis=1)
    file = save(tmp_path / "song.flac", stereo, 44_100)
    expected, found = analyse(file), analyse(file, read_values=read_values)
    np.testing.assert_array_equal(found.segments, expected.segments)
    np.testing.assert_array_equal(found.starts_s, expected.starts_s)


def test_the_blocks_change_no_bit() -> None:
    samples = music(15)
    whole = spectra([samples])
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, len(samples), 50))
    for one, other in zip(whole, spectra(np.split(samples, edges)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_threads_of_a_blas_change_no_bit(tmp_path: Path) -> None:
    file = save(tmp_path / "song.wav", music(10))
    program = (
        "import sys, hashlib; from pathlib import Path; from segue.data.analyser.analyse import analyse;"
        "print(hashlib.sha256(analyse(Path(sys.argv[1])).segments.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program, str(file)],
            env={"OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for threads in ("1", "4")
    }
    assert digests == {hashlib.sha256(analyse(file).segments.tobytes()).hexdigest()}


def test_the_clicks_of_a_click_track_are_found_within_15_ms(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    at_s = 0.5 + np.cumsum(rng.uniform(0.25, 0.9, 60))
    found = analyse(save(tmp_path / "clicks.wav", clicks(at_s, at_s[-1] + 1), 44_100)).starts_s[1:]
    hits = sum(np.abs(found - second).min() <= 0.015 for second in at_s)
    assert 2 * hits / (len(found) + len(at_s)) >= 0.98


@pytest.mark.parametrize("octave", [3, 4, 5])
@pytest.mark.parametrize("pitch_class", range(12))
def test_the_chroma_of_a_tone_is_its_pitch_class(octave: int, pitch_class: int) -> None:
    hz = 440 * 2 ** ((pitch_class - 9) / 12 + octave - 4)
    time = np.arange(2 * RATE_HZ) / RATE_HZ
    _, chroma = spectra([(0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32)])
    assert set(chroma.sum(axis=1).nonzero()[0]) >= set(range(2, len(chroma) - 2))
    np.testing.assert_array_equal(chroma[2:-2].argmax(axis=1), pitch_class)


@pytest.mark.parametrize("gain", [0.05, 0.25, 1.7])
def test_a_louder_copy_is_the_same_song(tmp_path: Path, gain: float) -> None:
    quiet = 0.5 * music(10)
    expected = analyse(save(tmp_path / "a.wav", quiet, subtype="FLOAT"))
    found = analyse(save(tmp_path / "b.wav", gain * quiet, subtype="FLOAT"))
    np.testing.assert_array_equal(found.starts_s, expected.starts_s)
    np.testing.assert_allclose(found.segments, expected.segments, atol=2e-3)


def test_segments_keep_the_contract_of_songs(tmp_path: Path) -> None:
    found = analyse(save(tmp_path / "song.wav", music(10, "band")))
    check_segments(found.segments, "song")
    np.testing.assert_array_equal(found.segments[:, CHROMA].max(axis=1), 1)
    assert -25 < np.median(found.segments[:, LOUDNESS]) < -8
    assert found.starts_s[0] == 0
    assert np.diff(found.starts_s).min() > 0.08


def test_the_basis_is_orthonormal_and_its_signs_are_frozen() -> None:
    mean, components = basis()
    np.testing.assert_allclose(components @ components.T, np.eye(11), atol=1e-6)
    assert mean.shape == (460,)
    sums = components.reshape(11, 20, 23).sum(axis=1)
    largest = np.abs(sums).argmax(axis=1)
    assert (sums[np.arange(11), largest] > 0).all()


def test_the_basis_explains_music_it_was_not_fitted_to() -> None:
    bands, _ = spectra([music(20, "band", seed=123)])
    power = levelled(bands)
    starts = onset_frames(decibels(power))
    _, shapes = patches(decibels(smoothed(power)), starts, slice(0, len(starts)))
    mean, components = basis()
    centred = shapes - mean
    explained = ((centred @ components.T) ** 2).sum() / (centred**2).sum()
    assert 0.6 < explained < 1


def test_timbre_is_the_mean_and_the_products_of_a_patch_written_plainly() -> None:
    rng = np.random.default_rng(0)
    bands_db = rng.uniform(-60, 0, (200, 23)).astype(np.float32)
    starts = np.array([0, 31, 45, 120])  # Rests of 21, 4, 65 and 70 frames.
    mean, components = basis()
    for (start, end), found in zip(
        [(0, 31), (31, 45), (45, 120), (120, 200)], timbre(bands_db, starts).astype(np.float64), strict=True
    ):
        rest = bands_db[start + 10 : end].astype(np.float64)
        fine = np.repeat(rest, 10, axis=0)  # Each frame ten times, so that ten equal shares are whole.
        columns = [share.mean(axis=0) for share in np.split(fine, 10)]
        patch = np.concatenate([bands_db[start : start + 10], columns]).reshape(460)
        expected = [patch.mean() + 60, *(components.astype(np.float64) @ (patch - patch.mean() - mean))]
        np.testing.assert_allclose(found, expected, atol=2e-2)


def test_frames_are_centred_where_they_say(tmp_path: Path) -> None:
    samples = np.zeros(RATE_HZ, np.float32)
    samples[50 * HOP] = 1
    bands, _ = spectra([samples])
    assert bands.sum(axis=1).argmax() == 50
