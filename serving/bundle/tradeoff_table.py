"""The trade-off table of a bundle, `tradeoff.csv`: what each setting of the dial gives and costs."""

import csv
import io
from dataclasses import fields
from pathlib import Path

from segue.errors import BundleError
from segue.serving.bundle.manifest import TradeoffRow

NEXT = "next_thresholds_nats"  # Numbers with a space between, and only where there are more than two rungs.


def parse_tradeoff(content: bytes, at: Path) -> tuple[TradeoffRow, ...]:
    """Return the rows that the bytes of the file `at` hold, in order of rising fallback rate."""
    try:
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return tuple(
            TradeoffRow(next_thresholds_nats=_numbers(row.pop(NEXT, "")), **{name: float(row[name]) for name in row})
            for row in rows
        )
    except (ValueError, TypeError, csv.Error) as error:
        raise BundleError(f"{at}: not a trade-off table: {error}") from None


def write_tradeoff(path: Path, rows: tuple[TradeoffRow, ...]) -> None:
    """Write a trade-off table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [
            field.name
            for field in fields(TradeoffRow)
            if field.name != NEXT or any(row.next_thresholds_nats for row in rows)
        ]
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(row) | {NEXT: " ".join(map(repr, row.next_thresholds_nats))} for row in rows)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))
