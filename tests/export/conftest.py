"""Fixtures of the export floor's tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Let torch use one thread: in networks this small a second one only waits for the first."""
    torch.set_num_threads(1)
