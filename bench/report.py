"""One page from the results of any benchmarks: pictures with their spread, and where each comes from.

Reads what `segue bench --out`, `segue bench --study --out`, `segue load --out`, `make bench` and `make peers` wrote.

Example:
    segue bench-report artifacts/bench/*.json --out artifacts/bench.html
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from segue.bench.report_page import write_report
from segue.bench.results import read_results
from segue.command import run
from segue.errors import ConfigError
from segue.places import check_out


@dataclass(frozen=True)
class Reported:
    """What was written."""

    page: Path
    runs: int
    pictures: int

    def __str__(self) -> str:
        return f"{self.page}: {self.pictures} pictures of {self.runs} runs"


def bench_report(results: Positional[tuple[Path, ...]], out: Path, overwrite: bool = False) -> Reported:
    """Write a page about the results of benchmarks.

    Args:
        results: Results files.
        out: The page to write. One that this verb made is replaced.
        overwrite: Replace what is there, whatever made it; never what is read.
    """
    if not results:
        raise ConfigError("expected results files, found none: segue bench-report RESULTS... --out page.html")
    check_out(out, "bench-report", results, overwrite=overwrite)
    runs = [read_results(path) for path in results]
    return Reported(out, len(runs), write_report(runs, out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue bench-report`."""
    return run(bench_report, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
