"""The trade-off table of a bundle, `tradeoff.csv`: what each setting of the dial gives and costs."""

import csv
import io
from dataclasses import fields
from pathlib import Path

from segue.errors import BundleError
from segue.serving.bundle.manifest import TradeoffRow


def parse_tradeoff(content: bytes, at: Path) -> tuple[TradeoffRow, ...]:
    """Return the rows that the bytes of the file `at` hold, in order of rising fallback rate."""
    try:
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return tuple(TradeoffRow(**{name: float(value) for name, value in row.items()}) for row in rows)
    except (ValueError, TypeError, csv.Error) as error:
        raise BundleError(f"{at}: not a trade-off table: {error}") from None


def write_tradeoff(path: Path, rows: tuple[TradeoffRow, ...]) -> None:
    """Write a trade-off table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(TradeoffRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(row) for row in rows)
