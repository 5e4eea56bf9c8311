"""Fixtures of the export floor's tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Let torch use one thread: in networks this small a second one only waits for the first."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let export time its forms for as short as it can: which is the fastest is not what tests are about."""
    monkeypatch.setattr("segue.export.forms.BUDGET_S", 0.0)
