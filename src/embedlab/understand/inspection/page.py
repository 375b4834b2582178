"""The report as one page: self-contained, by day and by night, without a script."""

from __future__ import annotations

import os
from html import escape

from embedlab._core.files import atomic_write
from embedlab.understand.inspection.plots import pictures_of
from embedlab.understand.inspection.record import Inspection
from embedlab.understand.inspection.sections import Section, Table, headline, sections_of

_LONG = 15  # rows of a table that is folded up

_CSS = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #22262b; --soft: #646b75; --line: #cfd4da; --card: #f3f4f6;
  --first: #2f6fc4; --second: #d9731a; --third: #3d8b57; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e7eb; --soft: #9aa3ae; --line: #474e58;
  --card: #20242a; --first: #6ea8f2; --second: #f0a050; --third: #74c48f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 58rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 .35rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.2rem;
  overflow-wrap: anywhere; }
caption, summary { margin: 1.25rem 0 .35rem; font-size: .95rem; font-weight: 600; text-align: left; }
p { margin: .35rem 0; max-width: 46rem; }
.soft, .note { color: var(--soft); }
.note { font-size: .88rem; margin-top: .75rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: .75rem; margin: 1.5rem 0 0;
  padding: 0; list-style: none; }
.tiles li { padding: .7rem .75rem; border-radius: .6rem; background: var(--card); }
.tiles b { display: block; white-space: nowrap; font-size: 1.4rem; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tiles span { display: block; color: var(--soft); font-size: .82rem; line-height: 1.35; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 500; color: var(--soft); white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
td:not(:last-child) { white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; }
.numbers td:last-child { color: var(--soft); }
.texts th:first-child { width: 5rem; }
figure { margin: 1rem 0 0; }
figure svg { display: block; width: 100%; height: auto; }
.tables { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.wide { overflow-x: auto; }
summary { cursor: pointer; }
summary .soft { font-weight: 400; }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
@media print { h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
@media (max-width: 40rem) { td:not(:last-child) { white-space: normal; } }
"""


def page_of(found: Inspection) -> str:
    """Write the report as one page of HTML that loads nothing and runs nothing.

    Args:
        found: The inspection.

    Returns:
        The page. Names and texts are escaped, whatever they hold.

    Raises:
        MissingExtraError: the extra ``evaluate`` (matplotlib) is not installed.
    """
    pictures = pictures_of(found)
    sections = "\n".join(_section(section, pictures.get(section.key)) for section in sections_of(found))
    absent = "".join(
        f"<li>{escape(what)}: {escape(why)}</li>" for what, why in found.missing.items() if what != "texts"
    )
    more = f"<h2>Not looked at</h2><ul>{absent}</ul>" if absent else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(found.name)}: embedding space</title>
<style>{_CSS}</style>
</head>
<body>
<h1>{escape(found.name)}</h1>
<p class="soft">{escape(headline(found).removeprefix(found.name + ": "))}</p>
{_tiles(found)}
{sections}
{more}
<footer>Written by embedlab inspect. Numbers in brackets are {found.isotropy.mean_cosine.confidence:.0%} intervals that
take the texts as independent of each other.</footer>
</body>
</html>
"""


def write_page(found: Inspection, path: str | os.PathLike[str]) -> None:
    """Write ``page_of`` to a file, in one step.

    Args:
        found: The inspection.
        path: The file; an existing one is replaced.
    """
    atomic_write(path, page_of(found))


def _tiles(found: Inspection) -> str:
    tiles = [
        (f"{found.isotropy.mean_cosine.estimate:.2f}", "mean cosine of two texts"),
        (f"{found.isotropy.effective_rank.estimate:.0f}", f"dimensions in use, of {found.dim}"),
    ]
    if found.dimension is not None:
        tiles.append((f"{found.dimension.likelihood.estimate:.0f}", "dimensions near a text"))
    if found.hubness is not None:
        tiles.append((f"{found.hubness.orphan_share.estimate:.0%}", "orphans: in nobody's list"))
        tiles.append((f"{found.hubness.skewness.estimate:.1f}", "hubness (above 1: hubs)"))
    if found.against is not None:
        tiles.append((f"{found.against.q.estimate:.2f}", "Q of the other corpus (0.5: no shift)"))
    if found.similarity is not None:
        tiles.append((f"{found.similarity.overlap:.0%}", "neighbours shared with the other model"))
    return (
        "<ul class=tiles>" + "".join(f"<li><b>{escape(v)}</b><span>{escape(w)}</span></li>" for v, w in tiles) + "</ul>"
    )


def _section(section: Section, picture: tuple[str, str] | None) -> str:
    parts = [f'<section id="{section.key}">', f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.reading)}</p>"]
    if picture is not None:
        svg, words = picture
        parts.append(f'<figure role="img" aria-label="{escape(words)}">{svg}</figure>')
    if section.numbers:
        rows = "".join(
            f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td><td>{escape(meaning)}</td></tr>"
            for name, value, meaning in section.numbers
        )
        parts.append(f'<div class=wide><table class="numbers">{rows}</table></div>')
    tables = "".join(map(_table, section.tables))
    side_by_side = len(section.tables) > 1 and not any(table.texts for table in section.tables)
    parts.append(f"<div class=tables>{tables}</div>" if side_by_side else tables)
    if section.note:
        parts.append(f'<p class="note">{escape(section.note)}</p>')
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in table.header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    cells = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    title = escape(table.title)
    kind = " class=texts" if table.texts and table.header[-1] == "text" else ""
    if len(table.rows) > _LONG:
        count = f"<span class=soft>{len(table.rows)} rows</span>"
        return f"<details><summary>{title} {count}</summary><div class=wide><table{kind}>{cells}</details>"
    return f"<div class=wide><table{kind}><caption>{title}</caption>{cells}"
