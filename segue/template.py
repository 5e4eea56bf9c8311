"""Pages from templates: HTML files that extend `page.html.j2` and so share one look."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **values: Any) -> str:
    """Return the HTML of a template that extends `page.html.j2`; every value but `Markup` is escaped."""
    templates = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return templates.get_template(template.name).render(values)
