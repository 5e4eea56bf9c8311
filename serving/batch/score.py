"""Classify every song of a catalogue: any number of files, in one run that may be stopped and repeated.

SONGS are song tables (Arrow IPC, Parquet), folders of them, globs, URIs (`s3://bucket/folder`), or anything else that
`segue songs` reads. OUT is a folder, which gets a Parquet file for each 32,768 songs, or one file that ends in
`.parquet` or `.csv`. The columns are song_id, genre, cross_entropy_nats, answered_by (student or teacher), rung (1 is
the first) and windows; `--probs` adds the probability of every class, `--keep` your own columns.

A song that cannot be scored never stops the others: it goes to rejects.parquet with the reason. A run that was stopped
goes on where it was when the same command is given again, and what it writes is the same, byte for byte.

The dial is the bundle's, or `--threshold`, or `--mode fast` (student only) or `accurate` (all songs to the teacher), or
`--budget` (a time to be done in), or `--agree`: a promise about these very songs, without labels. With 95 % confidence
at least that share of them gets the answer that the teacher would have given.

Examples:
    segue score artifacts/bundle artifacts/catalogue.arrow artifacts/genres.parquet
    segue score artifacts/bundle 'catalogue/*.parquet' --out artifacts/genres --agree 0.98
    segue score artifacts/bundle s3://songs/2026 --out artifacts/genres --keep artist year --probs
"""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from tyro.conf import Positional, UseAppendAction, arg

from segue.command import run
from segue.data.song import Units
from segue.data.table_file import SUFFIXES
from segue.errors import ConfigError, SongError
from segue.places import check_folder, check_last, check_out
from segue.serving.batch.catalogue import Catalogue
from segue.serving.batch.dial import Asked, Mode, set_dial
from segue.serving.batch.run import Columns, Engine, LocalEngine, run_parts
from segue.serving.batch.run_folder import PLAN, open_run
from segue.serving.batch.scorer import Scorer
from segue.serving.batch.summary import FILES, Scored, finish, summarise
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.runtime import Provider

PART_SONGS = 32_768  # 400 MB of fixed windows: a second or some of work, which is what a kill may cost.


def score(
    bundle: Positional[Path],
    paths: Positional[Annotated[tuple[str, ...], arg(metavar="SONGS... [OUT]")]],
    out: Path | None = None,
    threshold: float | None = None,
    mode: Mode | None = None,
    agree: float | None = None,
    confidence: float = 0.95,
    budget: float | None = None,
    windows: int | None = None,
    probs: bool = False,
    keep: UseAppendAction[tuple[str, ...]] = (),
    competition: bool = False,
    units: Units | None = None,
    strict: bool = False,
    max_rejects: float = 1.0,
    overwrite: bool = False,
    provider: Provider = "auto",
    threads: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> Scored:
    """Classify every song of a catalogue.

    Args:
        bundle: The bundle's folder.
        paths: Files, folders, globs or URIs of songs. Without --out the last path is what is written: it must not be
            there yet, or be what this verb made of such songs.
        out: The folder or the .parquet or .csv file to write. What this verb made is replaced.
        threshold: Cross-entropy in nats above which a song falls back to the teacher. Default: the bundle's.
        mode: fast: the student alone; accurate: the teacher answers every song; balanced: the bundle's threshold.
        agree: At least this share of the songs gets the teacher's answer, promised about these very songs.
        confidence: Of the promise of --agree.
        budget: Be done in so many seconds: the threshold follows from the time that is left.
        windows: Windows of a song that both models see, at most. Default: what the bundle says.
        probs: Write the probability of every class too.
        keep: A column of the song tables to carry along. Can be repeated.
        competition: Write a CSV of Id and Class, the number of the class, instead.
        units: What the numbers are, where a table does not say.
        strict: Stop at the first song that cannot be scored.
        max_rejects: Stop when more than this share of the songs cannot be scored.
        overwrite: Replace what is there, whatever made it; never what is read.
        provider: Where the models run; auto takes a GPU where there is one.
        threads: Threads that score. Default: one for each core.
        engine: local: this process; ray: the actors of a Ray cluster, one for each core or GPU.
        address: The Ray cluster, as ray.init takes it. Default: this machine becomes one.
    """
    started = time.perf_counter()
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what is freed: 300 MB of it here.
    asked = Asked(threshold, mode, agree, budget, confidence)
    opened = load_bundle(bundle)
    places, target = _named(paths, out)
    if competition and target.suffix != ".csv":
        raise ConfigError(f"{target}: --competition writes a CSV; expected a name that ends in .csv")
    catalogue = Catalogue.open(places, units)
    _check_place(target, bundle, places, catalogue, last=out is None, overwrite=overwrite)
    check_units(catalogue, opened)
    files = [
        {"name": file.name, "rows": file.rows, "fingerprint": fingerprint}
        for file, fingerprint in zip(catalogue.files, catalogue.fingerprints, strict=True)
    ]
    plan = {
        "bundle": opened.manifest.version,
        "dial": vars(asked),
        "windows": windows,
        "probs": probs,
        "keep": list(keep),
        "part_songs": PART_SONGS,
        "files": files,
    }
    folder = target.with_name(f".{target.name}.parts") if target.suffix in FILES else target
    ranges = catalogue.ranges(PART_SONGS)
    columns = Columns(probs, keep)
    with (
        open_run(folder, plan, overwrite=overwrite) as kept,
        Scorer.of(opened, windows=windows, provider=provider, threads=threads, ends_only=agree is not None) as scorer,
    ):
        dial = set_dial(asked, opened, catalogue, scorer)
        makers: AbstractContextManager[Engine] = nullcontext(LocalEngine(catalogue, scorer, columns))
        if engine == "ray":
            from segue.serving.batch.ray_engine import RayEngine  # Only who asks for it needs Ray.

            makers = RayEngine(
                opened,
                catalogue,
                columns,
                windows=windows,
                provider=provider,
                address=address,
                ends_only=agree is not None,
            )
        with makers as made:
            began = time.perf_counter()
            try:
                resumed = run_parts(catalogue, ranges, made, dial, kept, strict=strict, max_rejects=max_rejects)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("The same command goes on from there.") from None
        scored = summarise(
            target,
            [note for index in range(len(ranges)) if (note := kept.note(index))],
            opened.manifest.classes,
            bundle_version=opened.manifest.version,
            catalogue_songs=len(catalogue),
            files=len(files),
            agreement=dial.agreement,
            resumed_songs=resumed,
            seconds=time.perf_counter() - started,
            setup_seconds=began - started,
        )
        finish(scored, kept, len(ranges), files, competition=competition)
    return scored


def _named(paths: Sequence[str], out: Path | None) -> tuple[Sequence[str], Path]:
    """Return what is read and what is written."""
    if out is not None:
        return paths, out
    if len(paths) < 2:
        raise ConfigError("expected SONGS... and --out OUT, or OUT as the last path; found one path")
    return paths[:-1], Path(paths[-1])


def _check_place(
    out: Path, bundle: Path, places: Sequence[str], catalogue: Catalogue, *, last: bool, overwrite: bool
) -> None:
    """Refuse an output over anything that is read, or that another verb made; see `segue.places`."""
    local = [Path(place) for place in places if "://" not in place and Path(place).exists()]
    reads = [bundle, *local, *(Path(file.name) for file in catalogue.files if "://" not in file.name)]
    if out.suffix not in FILES:
        if last and (out.is_file() or out.suffix in SUFFIXES):
            raise ConfigError(
                f"{out}: expected OUT as the last path, a folder or a name that ends in {' or '.join(FILES)}; found "
                "songs. Or say --out OUT."
            )
        check_folder(out, PLAN, reads)
    elif last:
        sources = local if len(local) == len(places) else [Path(file.name) for file in catalogue.files]
        check_last(sources, out, "score", reads, FILES, overwrite=overwrite)
    else:
        check_out(out, "score", reads, overwrite=overwrite)


def check_units(catalogue: Catalogue, bundle: Bundle) -> None:
    """Refuse songs in other units than the bundle's models were trained on."""
    if catalogue.units != bundle.manifest.units:
        raise SongError(
            f"{catalogue.files[0].name}: expected {bundle.manifest.units} songs for this bundle, found "
            f"{catalogue.units} ones"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue score`."""
    return run(score, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
