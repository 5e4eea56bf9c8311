"""The look that all pages share: their colours, how pictures are drawn, the frame that every page fills."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from segue.atomic import atomic_file
from segue.errors import ConfigError
from segue.template import render

FINE, WATCH, NONE, BAND, INK = "#3b5bdb", "#e8590c", "#adb5bd", "#e9ecef", "#343a40"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # Text stays text: the page's own font, searchable, and small.
    "svg.hashsalt": "segue",  # The same songs make the same page.
    "text.parse_math": False,  # A dollar in a class name is a dollar.
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": NONE,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw every picture of the block in the style of the pages."""
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # Only matplotlib's font lacks it; the browser draws the text.
        yield


def svg(figure: Figure) -> Markup:
    """Return a picture as an SVG element; matplotlib escapes the text in it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])


def write_page(page: Path, template: Path, **values: Any) -> None:
    """Write the page of a template that extends `page.html.j2`; every value but a picture is escaped.

    Raises:
        ConfigError: nothing can be written there.
    """
    verb, _, _ = template.name.partition(".")
    html = render(template, **values, verb=verb)
    try:
        with atomic_file(page) as draft:
            draft.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{page}: expected a place to write the page, found: {error.strerror}") from None
