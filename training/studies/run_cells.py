"""Run a study: its cells in processes of one thread each, every result kept as soon as it is there."""

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from segue.data.joined import open_songs
from segue.data.song import Ints
from segue.data.splits import Shares, split
from segue.data.table import SongTable
from segue.errors import ConfigError, LabelError, SongError
from segue.stages import Stages
from segue.training.fit.execution import Device, Execution
from segue.training.studies.study import Bench, Cell, Outcome, describe, outcome_from

log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Songs:
    """The songs of a study: which table, which songs validate, how many train at most."""

    path: Path
    validation: Path | None = None  # A table that validates; else a share of the songs does, artists kept apart.
    most_train: int | None = None
    most_validation: int | None = None
    least_segments: int = 1

    def open(self) -> tuple[SongTable, Ints, Ints]:
        """Return the table, the rows that train and those that validate."""
        return _open(self)


@lru_cache(maxsize=2)
def _open(songs: Songs) -> tuple[SongTable, Ints, Ints]:
    table = open_songs(songs.path, songs.validation)
    splits = split(table, Shares(validation=VALIDATION_SHARE, calibration=0.0), seed=0)
    rng = np.random.default_rng(0)
    rows = []
    for some, most in ((splits.train, songs.most_train), (splits.validation, songs.most_validation)):
        long_enough = some[table.lengths[some] >= songs.least_segments]
        if len(long_enough) < len(table.classes):
            raise SongError(
                f"{songs.path}: expected labelled songs of at least {songs.least_segments} segments for this study, "
                f"found {len(long_enough)} of {len(some)}. It needs whole songs, or others that are long enough."
            )
        rows.append(np.sort(rng.permutation(long_enough)[:most]))
    return table, rows[0], rows[1]


def check_artists(table: SongTable) -> None:
    """Refuse songs of which no artist is known."""
    if all(group is None for group in table.groups):
        raise LabelError(
            f"{table.path}: expected songs with a group (the artist), which this study keeps apart; found none. "
            "Sources with artists: the Million Song Dataset, whole songs, audio with a list of artists."
        )


def run_cells(
    cells: Sequence[Cell], songs: Songs, out: Path, jobs: int, device: Device = "cpu"
) -> dict[str, list[Outcome]]:
    """Run the cells that are not in `out` yet, `jobs` at a time, and return the outcomes of each setting.

    A study that is stopped or killed loses the cells that were running, and no other.
    """
    names = [name_of(cell) for cell in cells]
    if len(set(names)) < len(names):
        raise ConfigError("a study: expected settings whose names differ in letters and digits")
    table, _, _ = songs.open()
    made_from = {"table": table.fingerprint(), "songs": songs}
    notes = Stages(out / "cells")
    found: dict[str, Outcome] = {}
    for cell, name in zip(cells, names, strict=True):
        kept = notes.found(name, settings=_settings(cell, made_from))
        if kept is not None:
            found[name] = outcome_from(kept)
    if found:
        log.info("%d of %d cells were run before", len(found), len(cells))
    with tqdm(total=len(cells), initial=len(found), unit=" cells", disable=None, file=sys.stderr) as progress:
        for wave in sorted({cell.wave for cell in cells}):
            pending = [cell for cell in cells if cell.wave == wave and name_of(cell) not in found]
            for cell, outcome in _run(pending, songs, out, jobs, made_from, device):
                found[name_of(cell)] = outcome
                progress.update()
    outcomes: dict[str, list[Outcome]] = {}
    for cell, name in zip(cells, names, strict=True):
        outcomes.setdefault(cell.setting, []).append(found[name])
    return outcomes


def _run(
    cells: Sequence[Cell], songs: Songs, out: Path, jobs: int, made_from: object, device: Device
) -> Iterator[tuple[Cell, Outcome]]:
    """Yield every cell with its outcome, as they are done."""
    if min(jobs, len(cells)) < 2:
        for cell in cells:
            yield cell, run_cell(cell, songs, out, made_from, device)
        return
    # A fresh process each, and not a fork of this one, whose threads would not come along.
    with ProcessPoolExecutor(min(jobs, len(cells)), get_context("spawn"), initializer=_begin) as pool:
        running = {pool.submit(run_cell, cell, songs, out, made_from, device): cell for cell in cells}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)


def run_cell(cell: Cell, songs: Songs, out: Path, made_from: object, device: Device = "cpu") -> Outcome:
    """Run a cell in this process and keep its outcome."""
    table, train, validation = songs.open()
    bench = Bench(table, train, validation, out / "kept", Execution(device=device))
    bench.folder.mkdir(parents=True, exist_ok=True)
    kept = Stages(out / "cells").result(
        name_of(cell), lambda: cell.fit.run(bench, cell.seed), settings=_settings(cell, made_from)
    )
    return outcome_from(kept)


def name_of(cell: Cell) -> str:
    """Return the name of a cell's file."""
    return f"{re.sub('[^a-z0-9.]+', '-', cell.setting.lower()).strip('-')}-seed-{cell.seed}"


def _settings(cell: Cell, made_from: object) -> dict[str, object]:
    return {"fit": describe(cell.fit), "kind": type(cell.fit).__name__, "seed": cell.seed, "made from": made_from}
