"""Blocks of a page: only the block changes, and a page without it is refused."""

from pathlib import Path

import pytest

from segue.errors import ConfigError
from segue.publish import write_block

BEGIN, END = "<!-- written by `make x`, do not edit -->\n", "<!-- end -->\n"


def test_only_the_block_of_the_command_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    other = f"<!-- written by `make y`, do not edit -->\nkept\n{END}"
    page.write_text(f"before\n{other}{BEGIN}old\n{END}after\n")
    for text in ("new", "newer\nlines\n"):
        write_block(page, "make x", text)
        assert page.read_text() == f"before\n{other}{BEGIN}\n{text.strip()}\n\n{END}after\n"


@pytest.mark.parametrize("content", ["", f"{BEGIN}never ended\n", f"{BEGIN}{END}{BEGIN}{END}", f"{END}{BEGIN}"])
def test_a_page_without_one_such_block_is_refused_and_left_as_it_was(tmp_path: Path, content: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(ConfigError, match=r"page\.md: expected one block from <!-- written by `make x`"):
        write_block(page, "make x", "new")
    assert page.read_text() == content
