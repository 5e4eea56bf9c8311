"""What a body costs to read, measured in a process of its own."""

import numpy as np
import pytest

from segue.bench.body_cost import BodyCosts, Cost, cost_of
from segue.serving.http.bodies import JSON, RAW


def test_memory_is_that_of_reading_and_refusals_are_told() -> None:
    song = np.zeros((1, 120, 25), np.float32).tobytes()
    found = cost_of("a song", RAW, song, packed=False)
    assert (found.n_bytes, found.refused) == (12_000, False)
    assert found.peak_bytes < 32e6
    assert cost_of("no song", JSON, b"[" * 100_000, packed=False).refused


@pytest.mark.parametrize(("stall_s", "peak_bytes", "code"), [(0.05, 1e8, 0), (0.2, 1e8, 1), (0.05, 5e8, 1)])
def test_the_exit_code_tells_whether_all_is_within_bounds(stall_s: float, peak_bytes: float, code: int) -> None:
    cost = Cost("a body", 2**25, 1.0, stall_s, int(peak_bytes), False)
    assert BodyCosts((cost,)).exit_code == code
    assert f"{stall_s * 1e3:.0f} ms (a body)" in str(BodyCosts((cost,)))
