"""A result as people read it: a table, and one sentence that says what follows from it and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Attributes:
        title: What was asked.
        table: The numbers.
        verdict: What follows, with n and interval, or why nothing can.
        details: A second table behind the first, or None.
        note: How to read the table.
    """

    title: str
    table: DataFrame
    verdict: str
    details: DataFrame | None = None
    note: str = ""

    def markdown(self) -> str:
        """Return the finding as a section of Markdown."""
        parts = [f"## {self.title}", self.verdict, self.note, markdown_table(self.table)]
        if self.details is not None:
            parts.append(markdown_table(self.details))
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding for JSON; a number that is not there is null."""
        return {
            "title": self.title,
            "verdict": self.verdict,
            "note": self.note,
            "table": records(self.table),
            "details": None if self.details is None else records(self.details),
        }

    def __str__(self) -> str:
        tables = [self.table] if self.details is None else [self.table, self.details]
        shown = "\n\n".join(table.to_string(float_format=shown_number) for table in tables)
        return f"{self.title}\n{shown}\n{self.verdict}"


def markdown_table(frame: DataFrame) -> str:
    """Write a frame as a Markdown table, its index first.

    Args:
        frame: The frame.

    Returns:
        The lines, joined.
    """
    plain = frame.reset_index()
    rows = [[str(name) for name in plain.columns], ["---"] * plain.shape[1]]
    rows += [[_cell(value) for value in row] for row in plain.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def records(frame: DataFrame) -> list[dict[str, Any]]:
    """Turn a frame into rows for JSON, its index first.

    Args:
        frame: The frame.

    Returns:
        One dict a row; NaN and infinities become None, numpy's numbers Python's.
    """
    plain = frame.reset_index()
    names = [str(name) for name in plain.columns]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in plain.itertuples(index=False)]


def interval_text(estimate: float, low: float, high: float) -> str:
    """Say an estimate with its interval.

    Args:
        estimate: The estimate.
        low: Lower end; NaN or infinite where there is none.
        high: Upper end.

    Returns:
        Such as ``"-0.41 [-0.80, -0.02]"``.

    Example:
        >>> interval_text(-0.412, -0.8, -0.021), interval_text(0.5, float("nan"), float("nan"))
        ('-0.412 [-0.800, -0.021]', '0.500 [no interval]')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{estimate:.3f} [no interval]"
    return f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


def shown_number(value: float) -> str:
    """Say a number in at most four digits after the point; an F in the ten-thousands has none.

    Args:
        value: The number.

    Returns:
        Its text; a dash for NaN.

    Example:
        >>> shown_number(0.12345), shown_number(25762.4), shown_number(float("nan")), shown_number(0.00001)
        ('0.123', '25762', '–', '1e-05')
    """
    if math.isnan(value):
        return "–"
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.0e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return shown_number(value)
    return str(value).replace("|", "\\|")


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
