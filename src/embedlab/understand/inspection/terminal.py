"""The report for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.understand.inspection.record import Inspection
from embedlab.understand.inspection.sections import headline, sections_of

if TYPE_CHECKING:
    from rich.console import Console


def print_inspection(found: Inspection, console: Console) -> None:
    """Print what was found: a line of reading, the numbers and the texts of each section.

    Args:
        found: The inspection.
        console: Where to print.
    """
    from rich.table import Table
    from rich.text import Text

    console.print(Text(headline(found), style="bold"))
    for section in sections_of(found):
        console.print()
        console.print(Text(section.title, style="bold"))
        console.print(Text(section.reading))
        numbers = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        numbers.add_column(style="dim", no_wrap=True)
        numbers.add_column(no_wrap=True)
        numbers.add_column(style="dim")
        for name, value, meaning in section.numbers:
            numbers.add_row(Text(name), Text(value), Text(meaning))
        if section.numbers:
            console.print(numbers)
        for table in section.tables:
            shown = Table(*table.header, title=Text(table.title), box=None, pad_edge=False, title_justify="left")
            for row in table.rows:
                cells = [Text(cell) for cell in row]
                if table.texts:
                    cells[-1].truncate(console.width - 30 if console.is_terminal else 100, overflow="ellipsis")
                shown.add_row(*cells)
            console.print(shown)
        if section.note:
            console.print(Text(section.note, style="dim"))
    for what, why in found.missing.items():
        if what != "texts":
            console.print(Text(f"{what}: not looked at, {why}", style="dim"))
