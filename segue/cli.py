"""Segue classifies songs by genre: a fast student answers, and a hard song goes on to the teacher without a pause."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

from segue.streams import open_streams, tell

# In the order of the pipeline; a verb's module is imported only when the verb is called.
VERBS = {
    "songs": ("segue.data.songs", "turn any source of songs into the song table"),
    "describe": ("segue.data.describe.describe", "look at songs before anything is made from them, with a page"),
    "synth": ("segue.data.synth", "make synthetic songs"),
    "train-teacher": ("segue.training.train_teacher", "train the accurate network, and fold teachers for the student"),
    "join": ("segue.training.join", "let several teachers answer as one"),
    "train-student": ("segue.training.train_student", "distil the fast network from the teacher"),
    "report": ("segue.training.report.report", "look at a training run, with a page"),
    "export": ("segue.export.export", "write both as a bundle: ONNX, parity, calibration, manifest"),
    "calibrate": (
        "segue.export.calibrate",
        "set the dial anew: to an accuracy, a fallback rate, a speed, or a promise",
    ),
    "evaluate": ("segue.serving.evaluate", "measure a bundle on labelled songs, with the trade-off table"),
    "classify": ("segue.serving.classify", "classify a few files: audio, or any other source"),
    "serve": ("segue.serving.http.serve", "answer over HTTP"),
    "score": ("segue.serving.batch.score", "classify every song of a catalogue"),
    "bench": ("segue.bench.speed", "songs per second and latency of student, teacher and cascade; what got slower"),
    "load": ("segue.bench.load", "put a running service under load: latency, throughput, the rate that keeps a p99"),
    "bench-report": ("segue.bench.report", "a page about the results of benchmarks"),
    "study": ("segue.training.study", "run an experiment of the study, or your own, cell by cell, with a page"),
    "retrain": ("segue.export.retrain.retrain", "the whole chain from a recipe; what is unchanged is skipped"),
    "drift": ("segue.export.drift.drift", "whether songs have drifted from a bundle's, with a page"),
    "compare": ("segue.export.retrain.compare", "ask two bundles about the same songs, and tell where they differ"),
    "releases": ("segue.serving.releases.releases", "keep releases: list, show, diff, publish, rollback, prune, fetch"),
    "doctor": ("segue.serving.doctor", "look at this installation, and at a bundle"),
}

# The extra that brings a library which the base install lacks.
EXTRAS = {
    "torch": "train",
    "onnx": "train",
    "sklearn": "train",
    "safetensors": "train",
    "dacite": "train",
    "optuna": "study",
    "soundfile": "audio",
    "soxr": "audio",
    "ray": "cluster",
}

USAGE = "usage: segue VERB [OPTIONS]      segue VERB --help tells all about one"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that `argv` begins with and return the exit code: 0 done, 1 failed, 2 bad usage, 130 stopped."""
    open_streams()
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(manual())
        return 0
    if name == "--version":
        print(version("segue-genres"))
        return 0
    if name not in VERBS:
        close = get_close_matches(name, VERBS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        tell(f"segue: there is no verb {name!r}.{hint}\n{USAGE}")
        return 2
    try:
        verb = import_module(VERBS[name][0])
    except KeyboardInterrupt:  # Importing takes a second or two; a verb that has begun says more.
        tell(f"segue {name}: stopped before it began")
        return 130
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        hint = f"`pip install 'segue-genres[{EXTRAS[library]}]'`"
        print(f"segue {name}: {library} is not installed: {hint}", file=sys.stderr)
        return 1
    code: int = verb.main(rest)
    return code


def manual() -> str:
    """Return the list of verbs."""
    lines = [f"  {name:<14} {summary}" for name, (_, summary) in VERBS.items()]
    return "\n".join([str(__doc__), "", USAGE, "", *lines])
