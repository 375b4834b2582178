"""What every verb prints with: data to stdout, remarks and progress to stderr, so that output can be piped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from embedlab.search.records import Progress

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print one error to stderr."""
    err.print("[bold red]error:[/]", end=" ")
    err.print(message, markup=False)


def print_json(value: Any) -> None:
    """Print a value as JSON to stdout, indented on a terminal and on one line in a pipe."""
    indent = 2 if out.is_terminal else None
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent, default=_plain) + "\n")


def print_indented(text: Text) -> None:
    """Print a text to stdout, three columns in and wrapped to the terminal; unwrapped in a pipe."""
    width = out.width - 3 if out.is_terminal else sys.maxsize
    for line in text.wrap(out, width):
        line.rstrip()
        out.print(Text("   ") + line)


def format_bytes(size: float | None) -> str:
    """Say a number of bytes the way people read it.

    Example:
        >>> format_bytes(1_536)
        '1.5 KiB'
        >>> format_bytes(None)
        'unknown'
    """
    if size is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""


@contextmanager
def indexing_progress(*, hidden: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar with documents per second and the time left while a collection is written.

    Args:
        hidden: Show nothing, as with ``--json``.

    Yields:
        The function to hand to ``Collection.index`` as ``on_progress``.
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        TextColumn("{task.fields[files]}"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=err, disable=hidden or not err.is_terminal, transient=True) as bar:
        task = bar.add_task("finding", total=None, files="", speed="", left="")

        def show(progress: Progress) -> None:
            total = "" if progress.files_total is None else f"/{progress.files_total:,}"
            left = "" if progress.remaining_s is None else f"{progress.remaining_s:,.0f} s left"
            bar.update(
                task,
                description=progress.phase,
                completed=progress.bytes_done,
                total=progress.bytes_total,
                files=f"{progress.files_done:,}{total} files, {progress.passages:,} passages",
                speed=f"{progress.documents_per_s:,.0f} documents/s",
                left=left,
            )

        yield show


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if hasattr(value, "items"):
        return dict(value)
    return str(value)
