"""The page of benchmarks: a picture for each group of figures, with units, spread and origin."""

from dataclasses import replace
from pathlib import Path

import pytest

from segue.bench.report import bench_report, main
from segue.bench.report_page import PICTURES
from segue.bench.results import Condition, Figure, Results, Watch, results
from segue.bench.study import PUBLISHED, study_figures
from segue.errors import ConfigError


def figure(group: str, name: str, unit: str, *rounds: float, **conditions: Condition) -> Figure:
    return Figure.of(group, name, unit, rounds, better="higher", **conditions)


def some_figures() -> list[Figure]:
    """Return figures of every group that has a picture of its own."""
    bodies = ("raw", "json")
    loads: list[dict[str, Condition]] = [
        {"loop": "open", "body": body, "songs": 1, "offered": rate} for body in bodies for rate in (100, 200)
    ]
    kinds: list[dict[str, Condition]] = [
        {"server": server, "body": body, "songs": 64} for server in ("Segue", "<b>other</b>") for body in bodies
    ]
    models: list[dict[str, Condition]] = [
        {"model": model, "batch_songs": n, "threads": 2} for model in ("student", "teacher") for n in (1, 64)
    ]
    return [
        *(figure("models", "throughput", "songs/s", 900, 1000, 1200, **one) for one in models),
        figure("ceilings", "matrix product", "GFLOP/s", 10, 11, 12, threads=1),
        *(
            figure("dial", name, unit, 0.6 + at, 0.7 + at, 0.8 + at, asked=at)
            for at in (0.0, 0.1)
            for name, unit in (("throughput", "songs/s"), ("fallback rate", "share"), ("accuracy", "share"))
        ),
        *(figure("load", "throughput", "requests/s", 90, 100, 110, **one) for one in loads),
        *(figure("load", name, "ms", 1, 2, 3, **one) for one in loads for name in ("p50", "p99")),
        *study_figures("eager torch, teacher", [2.0, 2.5, 3.0], 1000),
        *(figure("peers", "throughput", "requests/s", 90, 100, 110, **one) for one in kinds),
        *(figure("peers", "p99", "ms", 1, 2, 3, **one) for one in kinds),
        *(figure("song table", "throughput", "songs/s", 90, 100, 110, reader=one) for one in ("Segue", "pyarrow")),
    ]


@pytest.fixture(scope="module")
def run() -> Results:
    with Watch() as watch:
        pass
    return results("bench", "segue bench bundle", some_figures(), watch, ["The <i>note</i>."])


def test_every_group_has_a_picture_with_units_and_origin(run: Results, tmp_path: Path) -> None:
    run.write(tmp_path / "run.json")
    done = bench_report((tmp_path / "run.json",), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert done.pictures == len(PICTURES) == page.count("<svg")
    assert page.count(f"<figcaption>{run.origin}") == done.pictures
    assert "matrix product, GFLOP/s" in page
    for unit in ("songs/s", "requests/s", "latency p99, ms", "p99, ms", "accuracy, share of songs"):
        assert f">{unit}<" in page
    assert "&lt;b&gt;other" in page
    assert "The &lt;i&gt;note" in page
    assert "<b>other" not in page


def test_a_busy_machine_is_told(run: Results, tmp_path: Path) -> None:
    for share, warned in ((0.3, True), (0.01, False)):
        replace(run, others_share=share).write(tmp_path / "run.json")
        bench_report((tmp_path / "run.json",), tmp_path / "page.html")
        assert ("Stop them and measure again" in (tmp_path / "page.html").read_text()) == warned


def test_the_page_replaces_only_one_of_its_kind(run: Results, tmp_path: Path) -> None:
    run.write(tmp_path / "run.json")
    words = [str(tmp_path / "run.json"), "--out", str(tmp_path / "page.html")]
    assert main(words) == main(words) == 0
    (tmp_path / "page.html").write_text("mine")
    assert main(words) == 1
    assert main([*words, "--overwrite"]) == 0
    with pytest.raises(ConfigError, match="expected results files, found none"):
        bench_report((), tmp_path / "page.html")


def test_the_studys_table_is_that_of_the_passes() -> None:
    found = {one.name: one.value for one in study_figures("teacher", [2.0, 3.0, 4.0], 600)}
    assert found == {
        "throughput": 200.0, "mean pass": 3.0, "shortest": 2.0, "longest": 4.0, "variance": 1.0, "wall": 9.0
    }  # fmt: skip
    for one in PUBLISHED.values():
        assert one.least < one.mean < one.most
        assert one.wall == pytest.approx(20 * one.mean, rel=0.02)
