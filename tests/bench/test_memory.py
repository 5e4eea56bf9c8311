"""Peak memory of a command: what it holds counts, files mapped into it do not."""

from pathlib import Path

import pytest

from segue.bench.memory import peak_bytes
from segue.errors import ConfigError

SIZE = 100_000_000
WORK = "sum(range(5_000_000))"  # So that there is a moment to look.


def test_what_a_command_holds_counts_and_mapped_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    nothing = peak_bytes(["-c", WORK])
    held = peak_bytes(["-c", f"held = b'1' * {SIZE}; {WORK}"])
    reading = (
        "import mmap, sys; f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); m.find(b'1')"
    )
    mapped = peak_bytes(["-c", f"{reading}; {WORK}", str(tmp_path / "file")])
    assert held - nothing == pytest.approx(SIZE, rel=0.05)
    assert mapped - nothing < 0.05 * SIZE


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(ConfigError, match="`python -c raise SystemExit"):
        peak_bytes(["-c", "raise SystemExit(3)"])
