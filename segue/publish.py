"""Blocks of a page that a command writes, so that no figure on it is typed by hand."""

from pathlib import Path

from segue.atomic import atomic_file
from segue.errors import ConfigError

END = "<!-- end -->\n"


def write_block(page: Path, command: str, text: str) -> None:
    """Write `text` into the block of `page` that belongs to `command`.

    The block begins after the comment `<!-- written by COMMAND, do not edit -->`, ends before `<!-- end -->`, each on
    a line of its own. A page without it, or with two, is a `ConfigError`.
    """
    begin = f"<!-- written by `{command}`, do not edit -->\n"
    content = page.read_text(encoding="utf-8")
    before, found, rest = content.partition(begin)
    _, ended, after = rest.partition(END)
    if not found or not ended or begin in rest:
        raise ConfigError(f"{page}: expected one block from {begin.strip()} to {END.strip()}")
    with atomic_file(page) as draft:
        draft.write_text(f"{before}{begin}\n{text.strip()}\n\n{END}{after}", encoding="utf-8")
