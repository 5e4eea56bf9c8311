"""The figures of the models: ratios of the speeds that they name."""

import pytest

from segue.bench.models import BATCHES, EAGER, PLAIN, ratios_of


def test_ratios_are_those_of_the_speeds() -> None:
    speeds = {(graph, batch): 1000.0 * batch for graph, batches in BATCHES.items() for batch in batches}
    speeds |= {(PLAIN, 256): 64_000.0, (PLAIN, 1024): 100_000.0, (EAGER, 1): 200.0, (EAGER, 50): 2560.0}
    speeds["flat-1784-int8", 1] = 3500.0
    flop = 2 * 120 * (25 * 341 + 341 * 341)
    found = {one.what: one.ratio for one in ratios_of(speeds, product_gflop_per_s=512_000 * flop / 1e9)}
    assert found["teacher, Scan, over the RNN operator, batch 256"] == pytest.approx(4)
    assert found["teacher, Scan, over the rate of matrix products, batch 256"] == pytest.approx(0.5)
    assert found["teacher, Scan, over eager torch, batch 1"] == pytest.approx(5)
    assert found["flat-1784, int8 over fp32, batch 1"] == pytest.approx(3.5)
    assert found["pooled-512-fp32, batch 256, over the eager teacher, batch 50"] == pytest.approx(100)
