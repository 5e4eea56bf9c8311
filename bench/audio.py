"""Measure the audio analyser on a folder of real clips: speed, memory, segments, robustness, genres.

The folder has `clips.csv` (path, genre, artist). Compression needs the program ffmpeg, genres need scikit-learn, and
the lines about librosa need librosa: install them into an environment of its own, beside numpy, scipy, soundfile and
soxr.

Example:
    python -m segue.bench.audio CLIPS speed segments robustness genres
"""

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from segue.data.analyser.analyse import Analysis, analyse
from segue.data.analyser.workers import Workers

EVERY = 4  # Clips that are compressed: every fourth.
VARIANTS: dict[str, list[str]] = {
    "mp3 64k": ["-b:a", "64k", "x.mp3"],
    "mp3 128k": ["-b:a", "128k", "x.mp3"],
    "ogg q5": ["-c:a", "libvorbis", "-q:a", "5", "x.ogg"],
    "22.05 kHz": ["-ar", "22050", "x.wav"],
    "48 kHz": ["-ar", "48000", "x.wav"],
    "mono": ["-ac", "1", "x.wav"],
    "flac": ["x.flac"],
    "-12 dB": ["-af", "volume=-12dB", "x.wav"],
    "50 ms shift": ["-ss", "0.05", "x.wav"],
}


def speed(files: list[Path]) -> dict[str, Any]:
    """Return seconds of sound a second, one core, of decoding alone, of the analyser, and of librosa."""
    some = files[::12]

    def times(work: Callable[[Path], Any]) -> float:
        started = time.process_time()
        for file in some:
            work(file)
        spent = time.process_time() - started
        return float(round(sum(soundfile.info(file).duration for file in some) / spent, 1))

    analyse(some[0])
    found: dict[str, Any] = {"decode_times_real_time": times(soundfile.read), "analyse_times_real_time": times(analyse)}
    if find_spec("librosa"):
        _librosa(some[0])
        found["librosa_times_real_time"] = times(_librosa)
        found["times_librosa"] = round(found["analyse_times_real_time"] / found["librosa_times_real_time"], 2)
    for n in (1, 2):
        with Workers(n) as workers:
            list(workers.map(files[:n]))
            started = time.perf_counter()
            list(workers.map(files[:24]))
            found[f"files_per_s_{n}_workers"] = round(24 / (time.perf_counter() - started), 2)
    return found


def memory(files: list[Path]) -> dict[str, Any]:
    """Return the largest memory of a process that analyses an hour of sound, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        hour = Path(folder) / "hour.flac"
        sound, rate = soundfile.read(files[0], dtype="int16")
        with soundfile.SoundFile(hour, "w", rate, sound.shape[1]) as out:
            for _ in range(3600 // (len(sound) // rate)):
                out.write(sound)
        program = (
            "import sys, resource; from pathlib import Path; from segue.data.analyser.analyse import analyse;"
            "analyse(Path(sys.argv[1])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        ended = subprocess.run([sys.executable, "-c", program, hour], capture_output=True, text=True, check=True)
    return {"hour_peak_mb": int(ended.stdout)}


def segments(files: list[Path]) -> dict[str, Any]:
    """Return how many segments a second there are, and how long they last."""
    analyses = [analyse(file) for file in files]
    durations = np.concatenate([np.diff([*one.starts_s, one.seconds]) for one in analyses])
    rates = [len(one.segments) / one.seconds for one in analyses]
    return {
        "median_segments_per_s": round(float(np.median(rates)), 2),
        "segments_per_s_10_90": np.percentile(rates, [10, 90]).round(2).tolist(),
        "duration_s_25_50_75": np.percentile(durations, [25, 50, 75]).round(3).tolist(),
    }


def robustness(files: list[Path]) -> dict[str, Any]:
    """Return, for copies of each kind, the medians of onset F (30 ms) and of the cosine of songs."""
    originals = [analyse(file) for file in files]
    vectors = np.stack([summary(one) for one in originals])
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in VARIANTS.items():
            scores, raw, standardised = [], [], []
            for file, original in list(zip(files, originals, strict=True))[::EVERY]:
                copy = Path(folder) / options[-1]
                command = ["ffmpeg", "-v", "error", "-y", "-i", str(file), *options[:-1], str(copy)]
                subprocess.run(command, check=True)
                other = analyse(copy)
                shift = 0.05 if "shift" in name else 0.0
                scores.append(onset_f(original.starts_s, other.starts_s + shift))
                a, b = summary(original), summary(other)
                raw.append(cosine(a, b))
                standardised.append(cosine((a - mean) / spread, (b - mean) / spread))
            medians = [round(float(np.median(values)), 4) for values in (scores, raw, standardised)]
            found[name] = dict(zip(("onset_f", "cosine", "cosine_standardised"), medians, strict=True))
    return found


def genres(folder: Path, files: list[Path], rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the balanced accuracy of an SVC on summaries, artists kept apart, ours beside librosa's features."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    labels, artists = np.array([row["genre"] for row in rows]), np.array([row["artist"] for row in rows])
    features = {"segue-audio-1": np.stack([summary(analyse(file)) for file in files])}
    if find_spec("librosa"):
        features["librosa MFCC + chroma"] = np.stack([_librosa_summary(file) for file in files])
    found = {}
    for name, values in features.items():
        scores, right = [], np.zeros(len(labels))
        for seed in range(5):
            folds = StratifiedGroupKFold(4, shuffle=True, random_state=seed)
            model = make_pipeline(StandardScaler(), SVC(C=3))
            says = cross_val_predict(model, values, labels, groups=artists, cv=folds)
            scores.append(balanced_accuracy_score(labels, says))
            right += says == labels
        rng = np.random.default_rng(0)
        share = right / 5
        drawn = [share[rng.integers(0, len(share), len(share))].mean() for _ in range(2000)]
        found[name] = {
            "balanced_accuracy": round(float(np.mean(scores)), 3),
            "interval_95": np.percentile(drawn, [2.5, 97.5]).round(3).tolist(),
            "clips": len(labels),
        }
    return found


def summary(one: Analysis) -> NDArray[np.float64]:
    """Return mean, spread, mean |difference| and deciles of a song's segments, (125,)."""
    values = one.segments.astype(np.float64)
    steps = np.abs(np.diff(values, axis=0)).mean(axis=0) if len(values) > 1 else np.zeros(25)
    return np.concatenate([values.mean(axis=0), values.std(axis=0), steps, *np.percentile(values, [10, 90], axis=0)])


def onset_f(found: NDArray[Any], expected: NDArray[Any], within_s: float = 0.03) -> float:
    """Return the F score of onsets, each matched once at most."""
    i = j = hits = 0
    while i < len(found) and j < len(expected):
        if abs(found[i] - expected[j]) <= within_s:
            hits, i, j = hits + 1, i + 1, j + 1
        elif found[i] < expected[j]:
            i += 1
        else:
            j += 1
    return 2 * hits / (len(found) + len(expected))


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the cosine of two vectors."""
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _librosa(file: Path) -> None:
    import librosa

    sound, rate = librosa.load(file)
    librosa.feature.melspectrogram(y=sound, sr=rate)
    librosa.feature.chroma_stft(y=sound, sr=rate)
    librosa.onset.onset_detect(y=sound, sr=rate)


def _librosa_summary(file: Path) -> NDArray[np.float64]:
    import librosa

    sound, rate = librosa.load(file)
    frames = np.concatenate(
        [librosa.feature.mfcc(y=sound, sr=rate, n_mfcc=20), librosa.feature.chroma_stft(y=sound, sr=rate)]
    ).T.astype(np.float64)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=0)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0), steps, *np.percentile(frames, [10, 90], axis=0)])


def main(folder: Path, parts: list[str]) -> int:
    """Measure what is asked for, and print it as one JSON document."""
    with (folder / "clips.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    files = [folder / row["path"] for row in rows]
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(files),
        "memory": lambda: memory(files),
        "segments": lambda: segments(files),
        "robustness": lambda: robustness(files),
        "genres": lambda: genres(folder, files, rows),
    }
    print(json.dumps({part: ways[part]() for part in parts or ways}, indent=2))
    print(f"load of the machine: {os.getloadavg()}", file=sys.stderr)
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
