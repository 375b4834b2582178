"""Look at an embedding space from every side at once, and say what was seen: as JSON, in a terminal, as a page.

space = Space(vectors, name="notes", texts=texts)
found = inspect_space(space, against=Space(queries, name="queries", texts=query_texts))
found.to_dict()
write_page(found, "notes.html")
"""

from __future__ import annotations

from embedlab.understand.inspection.gather import inspect_space
from embedlab.understand.inspection.page import page_of, write_page
from embedlab.understand.inspection.record import Against, DepthSummary, GroupSummary, Inspection, TextMark
from embedlab.understand.inspection.sections import Section, sections_of
from embedlab.understand.inspection.space import Space
from embedlab.understand.inspection.terminal import print_inspection

__all__ = [
    "Against",
    "DepthSummary",
    "GroupSummary",
    "Inspection",
    "Section",
    "Space",
    "TextMark",
    "inspect_space",
    "page_of",
    "print_inspection",
    "sections_of",
    "write_page",
]
