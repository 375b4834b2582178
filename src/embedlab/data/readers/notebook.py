"""Jupyter notebooks: the text and the code of the cells under the notebook's headings; outputs are dropped."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import nbformat

from embedlab.data.documents import Document, FoundFile, Value
from embedlab.data.limits import ReadLimits
from embedlab.data.outline import Extract, outline
from embedlab.data.readers.markdown import parts_of
from embedlab.data.readers.plain import read_text


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read a notebook of any version."""
    text, _ = read_text(file, limits.max_file_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about cells without ids and the like
        notebook: Any = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    extract = Extract()
    for cell in notebook.cells:
        source = cell.source if isinstance(cell.source, str) else "".join(cell.source)
        if cell.cell_type == "markdown" and len(source) <= limits.max_outline_bytes:
            for part in parts_of(source):
                extract.add(source[part.start : part.end], part.level, part.title)
        elif cell.cell_type in ("markdown", "code"):
            extract.add(source)
    title = next((part.title for part in extract.parts if part.level), file.path.stem)
    language = notebook.metadata.get("kernelspec", {}).get("language")
    metadata: dict[str, Value] = {"language": str(language)} if language else {}
    yield Document(file.source, extract.text, title, "ipynb", blocks=outline(extract.parts), metadata=metadata)
