"""Tries the models of a bundle in a process of its own, which may hang, crash or fill the memory at nobody's cost.

A model is a program. One that never ends, or brings ONNX Runtime down, is found here, before the worker that answers
requests loads the same bytes.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import segue
from segue.errors import SegueError
from segue.serving.bundle.load import Bundle
from segue.serving.http.engine import open_warm_rungs
from segue.serving.http.settings import Settings
from segue.serving.predictions import MODELS, ModelName

HOME = Path(segue.__file__).resolve().parents[1]  # The folder that `segue` is imported from.
PARENT_CHECKED_EVERY_S = 0.5
MOST_TEXT = 2000  # Characters of an error.

Faults = dict[ModelName, str]


def find_faults(bundle: Bundle, settings: Settings) -> Faults:
    """Load both models of a bundle and warm them up, elsewhere; return what is wrong with those that fail."""
    trial = subprocess.Popen(
        [sys.executable, "-m", "segue.serving.http.trial", str(os.getpid())],
        cwd=HOME, env=os.environ | settings.to_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    limit_s = settings.load_timeout_s
    try:
        said, _ = trial.communicate(pickle.dumps(bundle), timeout=limit_s)
        ended = f"the process that tried it ended with {_name_of(trial.returncode)}"
    except subprocess.TimeoutExpired:
        trial.kill()
        said, _ = trial.communicate()
        ended = f"it did not load and warm up within {limit_s:g} s (SEGUE_LOAD_TIMEOUT_S)"
    verdicts = dict(json.loads(line) for line in said.splitlines())
    faults: Faults = {}
    for name in MODELS:
        file = getattr(bundle.manifest, name).file
        verdict = verdicts.get(name, f"{bundle.path / file}: {ended}")
        if verdict:
            faults[name] = verdict
    return faults


def _name_of(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"


def main() -> None:
    """Try the bundle on the standard input; print, a line a model, its name and what is wrong with it, or nothing."""
    parent = int(sys.argv[1])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with suppress(OSError):  # Where memory runs out, this process goes first.
        Path("/proc/self/oom_score_adj").write_text("1000")
    bundle: Bundle = pickle.load(sys.stdin.buffer)  # From our own parent, through a pipe.
    settings = Settings.from_environment()
    for name in MODELS:
        try:
            open_warm_rungs(bundle, name, settings)
            verdict = ""
        except Exception as error:
            verdict = (str(error) if isinstance(error, SegueError) else repr(error))[:MOST_TEXT]
        print(json.dumps([name, verdict]), flush=True)
    os._exit(0)  # Nothing is left to do, and a thread of a model might.


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECKED_EVERY_S)
    os._exit(1)


if __name__ == "__main__":
    main()
