"""Write docs/studies.md from the studies' results in docs/results/studies/: the original and ours side by side.

Example:
    segue study batch-norm songs.arrow --out artifacts/batch-norm
    python -m segue.training.studies.docs --add artifacts/batch-norm/study.json
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.atomic import atomic_file
from segue.command import run
from segue.publish import write_block
from segue.training.studies.registry import STUDIES, load_study

PAGE, RESULTS = Path("docs/studies.md"), Path("docs/results/studies")
COMMAND = "python -m segue.training.studies.docs"
MOST_ROWS = 16  # Of a table; the others are in the results.


@dataclass(frozen=True)
class Written:
    """What was written."""

    page: Path
    studies: int
    results: int

    def __str__(self) -> str:
        return f"{self.page}: {self.studies} studies, {self.results} with results"


def docs(add: tuple[Path, ...] = (), page: Path = PAGE, results: Path = RESULTS) -> Written:
    """Write the page of all studies.

    Args:
        add: Results to add first, `study.json` each, without their epochs and what they tell of single songs.
        page: The page whose block is written.
        results: The folder of results, NAME.SONGS.json each, as `segue study` writes them.
    """
    for file in add:
        _add(json.loads(file.read_text(encoding="utf-8")), results)
    found = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))}
    parts = []
    for name in STUDIES:
        study = load_study(name)
        own = {file: one for file, one in found.items() if file.split(".")[0] == name}
        parts.append(
            f"## {name}\n\n{study.title}.\n\n- varies: {study.varies}\n- fixed: {study.fixed}\n"
            f"- the original found: {study.original or 'nothing, it is ours'}\n"
        )
        parts += [section(one) for one in own.values()] or ["Not run yet at more than `--quick`.\n"]
    write_block(page, COMMAND, "\n".join(parts))
    return Written(page, len(STUDIES), len(found))


def _add(studied: dict[str, Any], results: Path) -> None:
    found = studied["found"]
    for some in found["outcomes"].values():
        for one in some:
            one |= {"epochs": len(one["epochs"]), "notes": []}
    studied["notes"] = []
    found["songs"] = Path(found["songs"]).name
    with atomic_file(results / f"{studied['name']}.{Path(found['songs']).stem}.json") as draft:
        draft.write_text(json.dumps(studied, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def section(studied: dict[str, Any]) -> str:
    """Return what one run found, as Markdown."""
    found, made = studied["found"], studied["provenance"]
    scale = found["scale"]
    outcomes = {name: [one["accuracy"] for one in some] for name, some in found["outcomes"].items()}
    mean = {name: sum(values) / len(values) for name, values in outcomes.items()}
    best = sorted(mean, key=lambda name: -mean[name])[:MOST_ROWS]
    rows = [f"| {name} | {mean[name]:.3f} |" for name in mean if name in best]
    left = len(mean) - len(rows)
    size = f"{scale['epochs']} epochs each in place of the study's" if scale["epochs"] else "epochs as in the study"
    songs = Path(found["songs"]).stem
    return "\n".join(
        [
            f"**On {found['n_train']:,} training and {found['n_validation']:,} validation songs (`{songs}`), "
            f"{scale['seeds']} "
            f"seed{'s' * (scale['seeds'] > 1)}, {size}; the most frequent class has {found['majority']:.3f}:**",
            "",
            *(f"- {line}" for line in studied["verdicts"]),
            "",
            "| setting | accuracy, mean over the seeds |",
            "|---|---|",
            *rows,
            *([f"| {left} more, all below | |"] if left else []),
            "",
            f"{made['time'][:10]}, commit {made['commit']}.",
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    return run(docs, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
