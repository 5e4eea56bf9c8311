"""The results document: what is written is read again, and its intervals hold what they claim."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segue.bench.results import Figure, Watch, command_of, median_interval, read_results, results
from segue.errors import ConfigError


def throughput(*rounds: float, server: str = "service") -> Figure:
    return Figure.of("http", "throughput", "requests/s", rounds, better="higher", server=server, songs=1)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    with Watch() as watch:
        figures = [throughput(3.0, 1.0, 2.0), throughput(5.0, server="bare uvicorn")]
    found = results("load", "segue load URL", figures, watch, ["One note."])
    found.write(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == found
    assert (figures[0].value, figures[0].low, figures[0].high) == (2.0, 1.0, 3.0)
    assert found.select("http", "throughput", server="bare uvicorn") == [figures[1]]
    assert figures[0].title == "throughput, service, songs 1"


def test_what_is_no_results_document_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with pytest.raises(ConfigError, match=r"results\.json: expected a results file: No such file"):
        read_results(file)
    with Watch() as watch:
        pass
    results("bench", "segue bench", [throughput(1.0)], watch).write(file)
    sound = json.loads(file.read_text())
    for spoiled, where in [
        ("[]", "the document"),
        ("{", "the document"),
        (json.dumps(sound | {"format": 2}), "format"),
        (json.dumps(sound | {"figures": [sound["figures"][0] | {"value": None}]}), r"figures\.0\.value"),
    ]:
        file.write_text(spoiled)
        with pytest.raises(ConfigError, match=f"expected results of a benchmark, in format 1; found at {where}: "):
            read_results(file)


def test_figures_that_cannot_be_told_apart_are_refused() -> None:
    with Watch() as watch:
        pass
    with pytest.raises(ConfigError, match="found two with throughput, service, songs 1"):
        results("load", "segue load URL", [throughput(1.0), throughput(2.0)], watch)
    for rounds in ([], [1.0, float("nan")]):
        with pytest.raises(ConfigError, match="expected rounds with finite numbers"):
            throughput(*rounds)


@pytest.mark.parametrize("n", [6, 9, 15, pytest.param(40, marks=pytest.mark.long)])
def test_the_interval_holds_the_median_as_often_as_it_says(n: int) -> None:
    drawn = np.random.default_rng(n).lognormal(sigma=1.0, size=(4000, n))  # Its median is 1.
    intervals = [median_interval(rounds.tolist()) for rounds in drawn]
    held = np.mean([low <= 1.0 <= high for low, high in intervals])
    assert 0.95 - 0.01 < held < 0.995


def test_few_rounds_span_all_of_them() -> None:
    assert median_interval([2.0]) == (2.0, 2.0)
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_a_command_tells_no_folder_of_anyone() -> None:
    options = {"songs": Path("/data/my songs.arrow"), "batches": (1, 8), "quick": True, "study": False, "out": None}
    typed = "segue bench bundle --songs 'my songs.arrow' --batches 1 8 --quick"
    assert command_of("segue bench", Path("/home/me/bundle"), **options) == typed
    argv = ["http://127.0.0.1:3000/v1", "--out=/home/me/load.json", "/home/me/bundle"]
    assert command_of("segue load", *argv) == "segue load http://127.0.0.1:3000/v1 --out=load.json bundle"


SPIN = "import time; start = time.process_time()\nwhile time.process_time() < start + {}: pass"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the share of others is read from /proc/stat")
def test_the_work_of_children_is_not_the_work_of_others() -> None:
    """Both of a child that has ended and of one that runs; what others do meanwhile is out of this test's hands."""
    from segue.bench.results import _processor_seconds

    before = _processor_seconds()
    subprocess.run([sys.executable, "-c", SPIN.format(0.5)], check=True)
    running = subprocess.Popen(
        [sys.executable, "-c", SPIN.format(0.5) + "\nprint(flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout
    running.stdout.readline()
    after = _processor_seconds()
    running.communicate(b"\n")
    assert before
    assert after
    whole, busy, own = (now - then for now, then in zip(after, before, strict=True))
    assert own >= 1.0
    assert busy - 1e-6 <= whole  # Of a machine that is wholly busy they are the same.
    assert busy >= own - 0.2  # Ticks are a hundredth of a second.
