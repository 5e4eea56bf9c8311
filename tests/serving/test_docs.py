"""The documents of the service name what there is: settings, paths, metrics."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from segue.serving.http.endpoints.registry import ENDPOINTS
from segue.serving.http.guard import BENTOML_PATHS
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.settings import PREFIX, Settings

DOCS = Path(__file__).parents[2] / "docs" / "serving"
METRIC = re.compile(r"segue_[a-z_]+")
SUFFIXES = ("_bucket", "_count", "_sum", "_total")


def exported() -> set[str]:
    """Return the names of all series."""
    registry = CollectorRegistry()
    Monitoring(registry)
    names = set()
    for metric in registry.collect():
        names.add(metric.name)
        names |= {metric.name + suffix for suffix in SUFFIXES if metric.type in ("histogram", "counter")}
    return names


def expressions(value: Any) -> list[str]:
    """Return every query of a dashboard."""
    if isinstance(value, dict):
        own = [text for key, text in value.items() if key in ("expr", "query") and isinstance(text, str)]
        return own + [text for item in value.values() for text in expressions(item)]
    return [text for item in value for text in expressions(item)] if isinstance(value, list) else []


def test_the_dashboard_asks_for_every_metric_and_for_none_that_is_not_there() -> None:
    asked = {
        name for text in expressions(json.loads((DOCS / "grafana.json").read_text())) for name in METRIC.findall(text)
    }
    assert asked <= exported()
    registry = CollectorRegistry()
    Monitoring(registry)
    assert {metric.name for metric in registry.collect()} == {
        next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name) for name in asked
    }


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24


@pytest.mark.parametrize("name", ["alarms.yml", "README.md"])
def test_a_document_names_no_metric_that_is_not_there(name: str) -> None:
    named = set(METRIC.findall((DOCS / name).read_text()))
    assert named
    assert named <= exported()


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(SEGUE_\w+)` \| ?`?([^`|]*?)`? \|", (DOCS / "README.md").read_text(), re.MULTILINE))
    expected = {PREFIX + field.name.upper(): field.default for field in fields(Settings)}
    assert rows == {name: "" if default in (None, ()) else str(default) for name, default in expected.items()}


def test_every_path_is_listed() -> None:
    text = (DOCS / "README.md").read_text()
    for path in {*(one.path for one in ENDPOINTS), *BENTOML_PATHS} - {
        "/healthz",
        "/schema.json",
    }:  # BentoML's own, which are not for people.
        assert f"{path}`" in text
