"""Measure the audio analyser on a folder of real clips: speed, memory, bits, segments, robustness, genres.

The folder has `clips.csv` (path, genre, artist). Compressed copies need the program ffmpeg, and what is measured beside
librosa is left out where librosa is not installed. Speed is seconds of sound a second of processor time, of one core;
in rounds, each way in turn. All parts take about five minutes, twelve with librosa, --quick about one.

Example:
    python -m segue.bench.audio CLIPS --out audio.json
    python -m segue.bench.audio CLIPS --parts speed memory --quick
"""

import csv
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.results import Better, Figure, Results, Watch, command_of, results
from segue.command import run
from segue.data.analyser.analyse import Analysis, analyse
from segue.data.analyser.workers import Workers
from segue.errors import AudioError, ConfigError

Part = Literal["speed", "workers", "memory", "bits", "segments", "robustness", "genres"]
PARTS: tuple[Part, ...] = ("speed", "workers", "memory", "bits", "segments", "robustness", "genres")

HOUR_S = 3600
SHIFT_S = 0.05
COPIES: dict[str, tuple[str, ...]] = {  # What ffmpeg is told, and the file it writes.
    "mp3 64k": ("-b:a", "64k", "x.mp3"),
    "mp3 128k": ("-b:a", "128k", "x.mp3"),
    "ogg q5": ("-c:a", "libvorbis", "-q:a", "5", "x.ogg"),
    "22.05 kHz": ("-ar", "22050", "x.wav"),
    "48 kHz": ("-ar", "48000", "x.wav"),
    "mono": ("-ac", "1", "x.wav"),
    "flac": ("x.flac",),
    "50 ms shift": ("-ss", str(SHIFT_S), "x.wav"),
    "-12 dB": ("-af", "volume=-12dB", "x.wav"),
}
SEEDS, FOLDS = 5, 4
LAGS = (1, 2, 3, 4, 6, 8, 12, 16)  # As in `segue.training.networks.summary`.

# What is asked of a figure, by its name and one of its conditions: at least, at most, or between.
TARGETS: dict[tuple[str, str], tuple[float, float]] = {
    ("times real time", "the analyser"): (150, np.inf),
    ("times librosa", ""): (1.5, np.inf),
    ("speed-up", "2 workers"): (1.8, np.inf),
    ("peak of an hour", "flac"): (0, 400),
    ("peak of an hour", "mp3"): (0, 400),
    ("the same bits", ""): (1, 1),
    ("segments a second", "median"): (3.0, 4.5),
    ("duration", "median"): (0.20, 0.26),
    ("onset F", "mp3 64k"): (0.97, 1),
    ("onset F", "50 ms shift"): (0.98, 1),
    ("cosine", "mp3 64k"): (0.99, 1),
    **{("cosine", copy): (0.999, 1) for copy in ("mp3 128k", "ogg q5", "22.05 kHz", "48 kHz", "mono", "flac")},
    ("same answers", "-12 dB"): (0.98, 1),
    ("balanced accuracy", "segue-audio-1, as the pooled student"): (0.70, 1),
    ("above librosa", "moments"): (0, 1),
}


@dataclass(frozen=True)
class Clip:
    """A line of `clips.csv`."""

    path: Path
    genre: str
    artist: str


@dataclass(frozen=True)
class AudioFigures:
    """What was measured."""

    results: Results

    def __str__(self) -> str:
        rows = [(one.group, one.title, one.value, f"{one.low:.4g} to {one.high:.4g}", *_asked(one)) for one in self.all]
        table = tabulate(rows, ("", "", "value", "spread", "target", "met"), floatfmt=".4g")
        return "\n".join([table, *self.results.notes, self.results.origin, *filter(None, [self.results.warning])])

    @property
    def all(self) -> tuple[Figure, ...]:
        """The figures."""
        return self.results.figures


def _asked(figure: Figure) -> tuple[str, str]:
    """Return what is asked of a figure, and whether it is met; nothing where nothing is asked."""
    names = [str(value) for value in figure.conditions.values()] or [""]
    limits = next((TARGETS[figure.name, name] for name in names if (figure.name, name) in TARGETS), None)
    if limits is None:
        return "", ""
    low, high = limits
    asked = f"at least {low:g}" if high in (1, np.inf) else f"{low:g} to {high:g}"
    return asked, "yes" if low <= figure.value <= high else "NO"


def audio(
    clips: Positional[Path], parts: tuple[Part, ...] = PARTS, quick: bool = False, out: Path | None = None
) -> AudioFigures:
    """Measure the analyser.

    Args:
        clips: A folder with clips.csv (path, genre, artist) and the files it names.
        parts: What is measured.
        quick: Fewer clips and rounds; no figures to report.
        out: Where the results are written as JSON; by default nowhere.
    """
    try:
        with (clips / "clips.csv").open(encoding="utf-8") as lines:
            rows = [Clip(clips / row["path"], row["genre"], row["artist"]) for row in csv.DictReader(lines)]
    except (OSError, KeyError) as error:
        raise ConfigError(f"{clips}: expected clips.csv with path, genre and artist, found: {error!r}") from None
    files = [row.path for row in rows]
    measure: dict[Part, Callable[[], list[Figure]]] = {
        "speed": lambda: speed(files[:: 24 if quick else 12], rounds=2 if quick else 5),
        "workers": lambda: workers(files[: 8 if quick else 48], rounds=1 if quick else 3),
        "memory": lambda: memory(files[0]),
        "bits": lambda: bits(files[:: 48 if quick else 12]),
        "segments": lambda: segments(files[:: 8 if quick else 1]),
        "robustness": lambda: robustness(rows[:: 8 if quick else 1], every=4),
        "genres": lambda: genres(rows),
    }
    with Watch() as watch:
        figures = [figure for part in parts for figure in measure[part]()]
    notes = ["--quick: too few clips and rounds to report."] if quick else []
    found = results("audio", command_of("python -m segue.bench.audio", *sys.argv[1:]), figures, watch, notes)
    if out:
        found.write(out)
    return AudioFigures(found)


def speed(files: Sequence[Path], rounds: int) -> list[Figure]:
    """Return seconds of sound a processor second: decoding alone, the analyser, and librosa's usual features."""
    sound_s = sum(soundfile.info(file).duration for file in files)
    ways: dict[str, Callable[[Path], Any]] = {"soundfile, decoding alone": soundfile.read, "the analyser": analyse}
    if find_spec("librosa"):
        ways["librosa: load, mel, chroma, onsets"] = _librosa
    for work in ways.values():
        work(files[0])
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in _progress(range(rounds), "speed"):
        for name, work in ways.items():
            started = time.process_time()
            for file in files:
                work(file)
            times[name].append(sound_s / (time.process_time() - started))
    figures = [
        Figure.of("speed", "times real time", "s/s", found, better="higher", way=name) for name, found in times.items()
    ]
    if "librosa: load, mel, chroma, onsets" in times:
        pairs = zip(times["the analyser"], times["librosa: load, mel, chroma, onsets"], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        figures.append(Figure.of("speed", "times librosa", "ratio", ratios, better="higher"))
    return figures


def workers(files: Sequence[Path], rounds: int) -> list[Figure]:
    """Return how much faster two workers are than one, by the clock: a core of its own for each is needed."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in _progress(range(rounds), "workers"):
        for n, found in rates.items():
            with Workers(n) as some:
                list(some.map(files[: 2 * n]))  # They start with their first file.
                started = time.perf_counter()
                list(some.map(files))
                found.append(len(files) / (time.perf_counter() - started))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return [
        *(
            Figure.of("workers", "files a second", "files/s", found, better="higher", workers=f"{n} workers")
            for n, found in rates.items()
        ),
        Figure.of("workers", "speed-up", "ratio", ratios, better="higher", workers="2 workers"),
    ]


def memory(file: Path) -> list[Figure]:
    """Return the largest memory of a process that analyses an hour of sound: what is resident, libraries and all."""
    program = (
        "import sys, resource; from pathlib import Path; from segue.data.analyser.analyse import analyse;"
        "analyse(Path(sys.argv[1])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    figures = []
    with TemporaryDirectory() as folder:
        for name in _progress(("flac", "mp3"), "memory"):
            hour = Path(folder) / f"hour.{name}"
            times = int(HOUR_S / soundfile.info(file).duration)
            how = ["-c", "copy"] if hour.suffix == file.suffix else ["-compression_level", "0"]
            _ffmpeg("-stream_loop", str(times), "-i", str(file), "-t", str(HOUR_S), *how, str(hour))
            ended = subprocess.run([sys.executable, "-c", program, hour], capture_output=True, text=True, check=True)
            peak_mb = [float(ended.stdout)]
            figures.append(Figure.of("memory", "peak of an hour", "MB", peak_mb, better="lower", format=name))
    return figures


def bits(files: Sequence[Path]) -> list[Figure]:
    """Return the share of files whose segments are the same over sizes of reads, workers and threads of a BLAS."""
    program = (
        "import sys, hashlib; from pathlib import Path; from segue.data.analyser.analyse import analyse\n"
        "for file in sys.argv[1:]: print(hashlib.sha256(analyse(Path(file)).segments.tobytes()).hexdigest())"
    )
    names = [str(file) for file in files]
    found: list[list[str]] = [[_digest(analyse(file, read_values=n)) for file in files] for n in (4096, 2**18, 2**22)]
    for n in (1, 2):
        with Workers(n) as some:
            found.append([_digest(_sound(one)) for one in some.map(files)])
    for threads in ("1", "2", "4"):
        limits = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        words = [sys.executable, "-c", program, *names]
        ended = subprocess.run(words, env=os.environ | limits, capture_output=True, text=True, check=True)
        found.append(ended.stdout.split())
    same = float(np.mean([len(set(of_file)) == 1 for of_file in zip(*found, strict=True)]))
    return [Figure.of("bits", "the same bits", "share", [same], better="higher", files=len(files), ways=len(found))]


def segments(files: Sequence[Path]) -> list[Figure]:
    """Return how many segments a second there are, and how long they last."""
    analyses = _analyses(files, "segments")
    durations = np.concatenate([np.diff([*one.starts_s, one.seconds]) for one in analyses])
    rates = [len(one.segments) / one.seconds for one in analyses]
    return [
        Figure.of("segments", name, unit, [float(np.percentile(values, percent))], better="higher", of=of)
        for name, unit, values in (("segments a second", "1/s", rates), ("duration", "s", durations))
        for of, percent in (("10th percentile", 10), ("25th", 25), ("median", 50), ("75th", 75), ("90th", 90))
    ]


def robustness(clips: Sequence[Clip], every: int) -> list[Figure]:
    """Return, for copies of every fourth clip, medians of onset F (30 ms) and of the cosine of songs.

    And, for quieter copies of all clips, the share that gets the same answer from a model that was trained on the
    others.
    """
    analyses = _analyses([clip.path for clip in clips], "robustness")
    figures: list[Figure] = []
    with TemporaryDirectory() as folder:
        for name, words in _progress(COPIES.items(), "robustness, copies"):
            onsets, cosines = [], []
            shift_s = SHIFT_S if "shift" in name else 0.0
            some = list(zip(clips, analyses, strict=True))[::every]
            for original, copy in zip(some, _copies([clip for clip, _ in some], words, Path(folder)), strict=True):
                onsets.append(onset_f(original[1].starts_s, copy.starts_s + shift_s))
                cosines.append(cosine(moments(_values(original[1])), moments(_values(copy))))
            for what, found in (("onset F", onsets), ("cosine", cosines)):
                figures.append(Figure.of("robustness", what, "share", found, better="higher", copy=name))
        quiet = list(_progress(_copies(clips, COPIES["-12 dB"], Path(folder)), "robustness, -12 dB"))
    same = float(np.mean(_predictions(clips, analyses, quiet) == _predictions(clips, analyses, analyses)))
    return [*figures, Figure.of("robustness", "same answers", "share", [same], better="higher", copy="-12 dB")]


def genres(clips: Sequence[Clip]) -> list[Figure]:
    """Return the balanced accuracy of an SVC on summaries, artists kept apart, ours beside librosa's features.

    Two summaries: plain moments, and the one that the pooled student sees. The settings are fixed beforehand; nothing
    is chosen by these clips. The spread is a 95 % interval, from drawing artists.
    """
    features = {"segue-audio-1": [_values(one) for one in _analyses([clip.path for clip in clips], "genres")]}
    if find_spec("librosa"):
        features["librosa MFCC + chroma"] = [
            _librosa_frames(clip.path) for clip in _progress(clips, "genres, librosa's features")
        ]
    right: dict[tuple[str, str], NDArray[np.float64]] = {}
    for way, summary in (("moments", moments), ("as the pooled student", statistics)):
        for name, songs in features.items():
            right[name, way] = _shares_right(clips, np.stack([summary(song) for song in songs]))
    figures = [
        _interval(clips, "balanced accuracy", share, features=f"{name}, {way}") for (name, way), share in right.items()
    ]
    for way in ("moments", "as the pooled student"):
        if ("librosa MFCC + chroma", way) in right:
            difference = right["segue-audio-1", way] - right["librosa MFCC + chroma", way]
            figures.append(_interval(clips, "above librosa", difference, summary=way))
    return figures


def moments(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean, spread, mean |difference| and deciles over time of (T, d) values, (5 d,)."""
    steps = np.abs(np.diff(values, axis=0)).mean(axis=0) if len(values) > 1 else np.zeros(values.shape[1])
    return np.concatenate([values.mean(axis=0), values.std(axis=0), steps, *np.percentile(values, [10, 90], axis=0)])


def statistics(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the pooled student sees of (T, d) values: means, spreads, steps, autocorrelations, correlations."""
    spread = np.maximum(values.std(axis=0), 1e-6)
    unit = (values - values.mean(axis=0)) / spread
    steps = np.abs(np.diff(values, axis=0)).mean(axis=0)
    lagged = [(unit[lag:] * unit[:-lag]).mean(axis=0) for lag in LAGS]
    correlations = (unit.T @ unit / len(unit))[np.triu_indices(values.shape[1], 1)]
    return np.concatenate([values.mean(axis=0), np.log(spread), np.log(steps + 1e-6), *lagged, correlations])


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


def _folds(clips: Sequence[Clip], seed: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    labels, artists = [clip.genre for clip in clips], [clip.artist for clip in clips]
    yield from StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels, artists)


def _shares_right(clips: Sequence[Clip], features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how often each clip was put right by models that heard none of its artist, over draws of the folds."""
    labels = np.array([clip.genre for clip in clips])
    right = np.zeros(len(clips))
    for seed in range(SEEDS):
        for train, test in _folds(clips, seed):
            model = make_pipeline(StandardScaler(), SVC(C=3)).fit(features[train], labels[train])
            right[test] += model.predict(features[test]) == labels[test]
    return right / SEEDS


def _interval(
    clips: Sequence[Clip], name: str, shares: NDArray[np.float64], better: Better = "higher", **conditions: str
) -> Figure:
    """Return the mean of the genres' means of `shares`, a value a clip, with the interval by drawing artists."""
    labels, artists = np.array([clip.genre for clip in clips]), np.array([clip.artist for clip in clips])
    of_artist = [np.flatnonzero(artists == artist) for artist in np.unique(artists)]
    rng = np.random.default_rng(0)

    def balanced(rows: NDArray[Any]) -> float:
        return float(np.mean([shares[rows][labels[rows] == genre].mean() for genre in np.unique(labels[rows])]))

    drawn = [
        balanced(np.concatenate([of_artist[at] for at in rng.integers(0, len(of_artist), len(of_artist))]))
        for _ in range(2000)
    ]
    value, (low, high) = balanced(np.arange(len(clips))), np.percentile(drawn, [2.5, 97.5]).tolist()
    return Figure("genres", name, "share", value, low, high, (value,), better, {**conditions, "clips": len(clips)})


def _predictions(clips: Sequence[Clip], heard: Sequence[Analysis], asked: Sequence[Analysis]) -> NDArray[Any]:
    """Return the genre of each clip `asked` about, by a model trained on the clips `heard` of other artists."""
    labels = np.array([clip.genre for clip in clips])
    features, others = (np.stack([statistics(_values(one)) for one in some]) for some in (heard, asked))
    says = np.empty(len(clips), labels.dtype)
    for train, test in _folds(clips, seed=0):
        model = make_pipeline(StandardScaler(), SVC(C=3)).fit(features[train], labels[train])
        says[test] = model.predict(others[test])
    return says


def _copies(clips: Sequence[Clip], words: Sequence[str], folder: Path) -> Iterator[Analysis]:
    copy = folder / words[-1]
    for clip in clips:
        _ffmpeg("-i", str(clip.path), *words[:-1], str(copy))
        yield analyse(copy)


def _ffmpeg(*words: str) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *words], check=True)


def _analyses(files: Sequence[Path], what: str) -> list[Analysis]:
    with Workers() as some:
        return [_sound(one) for one in _progress(some.map(files), what, len(files))]


def _sound(found: Analysis | AudioError) -> Analysis:
    if isinstance(found, AudioError):
        raise found
    return found


def _values(one: Analysis) -> NDArray[np.float64]:
    return one.segments.astype(np.float64)


def _digest(one: Analysis) -> str:
    return hashlib.sha256(one.segments.tobytes()).hexdigest()


def _progress(items: Any, what: str, total: int | None = None) -> Any:
    return tqdm(items, desc=what, total=total, disable=None, file=sys.stderr)


def _librosa(file: Path) -> None:
    import librosa

    sound, rate = librosa.load(file)
    librosa.feature.melspectrogram(y=sound, sr=rate)
    librosa.feature.chroma_stft(y=sound, sr=rate)
    librosa.onset.onset_detect(y=sound, sr=rate)


def _librosa_frames(file: Path) -> NDArray[np.float64]:
    import librosa

    sound, rate = librosa.load(file)
    mfcc = librosa.feature.mfcc(y=sound, sr=rate, n_mfcc=20)
    frames: NDArray[np.float64] = np.concatenate([mfcc, librosa.feature.chroma_stft(y=sound, sr=rate)]).T.astype(float)
    return frames


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    return run(audio, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
