"""Measure a bundle: songs per second and latency of student, teacher and cascade, and what the dial trades for them.

All are called in turn, round after round, from songs in memory to answers. In the same rounds the machine shows what it
can do: products of matrices and copies of memory. "of ceiling" is how much of that a model reaches. Absolute figures
drift with the machine; ratios and shares are what to quote. Spreads are 95 % intervals of the median.

With --study, the study's own measurement instead: its eager teacher and student beside Segue's models, pass after pass
over 50,000 songs. Needs the extra `train`.

Examples:
    segue bench artifacts/bundle --quick
    segue bench artifacts/bundle --songs artifacts/test.arrow --out before.json
    segue bench artifacts/bundle --songs artifacts/test.arrow --compare before.json
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from segue.bench.bundle_speed import Plan, measure_bundle
from segue.bench.compare import compare as compare_runs
from segue.bench.results import Results, Watch, command_of, read_results, results
from segue.command import run
from segue.errors import ConfigError
from segue.serving.bundle.load import load_bundle
from segue.serving.runtime import Provider


def bench(
    bundle: Positional[Path | None] = None,
    songs: Path | None = None,
    quick: bool = False,
    study: bool = False,
    compare: Path | None = None,
    out: Path | None = None,
    batches: tuple[int, ...] | None = None,
    threads: tuple[int, ...] | None = None,
    seconds: float | None = None,
    provider: Provider = "auto",
) -> Results:
    """Measure songs per second and latency.

    Args:
        bundle: The bundle's folder; the study can do without.
        songs: A song table to measure on; with labels, accuracy along the dial is measured too. Default: synthetic
            songs.
        quick: Fewer batch sizes, threads and rounds.
        study: The study's measurement instead: 20 passes over 50,000 songs, its eager networks beside Segue's models.
        compare: An older run, by --out or --json; say what got slower, and end with exit code 5 if something did.
        out: A file for the results, as JSON.
        batches: Songs in a call. Default: 1 8 64 256 1024; quick: 1 64 1024.
        threads: Threads of each model, each number of them in turn. Default: 1, and one for each core; quick: only
            the latter.
        seconds: How long each figure is measured. Default: 1; quick: 0.4.
        provider: Where the models run; auto takes a GPU where there is one.
    """
    command = command_of(
        "segue bench", bundle, songs=songs, quick=quick, study=study, batches=batches, threads=threads, seconds=seconds
    )
    plan = Plan.of(quick, batches, threads, seconds)
    older = None if compare is None else read_results(compare)
    opened = None if bundle is None else load_bundle(bundle)
    if study:
        from segue.bench.study import measure_study  # Needs torch.

        found = measure_study(opened, command, songs=songs, quick=quick)
    elif opened is None:
        raise ConfigError("expected a bundle to measure, found none: segue bench BUNDLE")
    else:
        with Watch() as watch:
            figures = measure_bundle(opened, songs, plan, provider)
        found = results("bench", command, figures, watch, [f"Bundle {opened.manifest.version}."])
    if older is not None:
        found = replace(found, comparison=compare_runs(found, older))
    if out is not None:
        found.write(out)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue bench`."""
    return run(bench, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
