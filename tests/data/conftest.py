"""Small real files for the readers, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedlab.data.documents import Document, FoundFile, Unreadable
from embedlab.data.files import read_file
from embedlab.data.limits import ReadLimits

Read = Callable[..., list[Document | Unreadable]]
One = Callable[..., Document]
Refusal = Callable[..., str]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a file and read it: ``read("a.txt", b"...")`` gives what its reader gave."""

    def write_and_read(
        name: str, content: bytes | str | None = None, limits: ReadLimits | None = None
    ) -> list[Document | Unreadable]:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        facts = path.stat()
        return list(read_file(FoundFile(path, name, facts.st_size, facts.st_mtime_ns), limits))

    return write_and_read


@pytest.fixture
def one(read: Read) -> One:
    """As `read`, for a file that is one good document."""

    def read_one(*args: object, **options: object) -> Document:
        (document,) = read(*args, **options)
        assert isinstance(document, Document), document
        return document

    return read_one


@pytest.fixture
def refusal(read: Read) -> Refusal:
    """As `read`, for a file that can't be read: the reason."""

    def read_refusal(*args: object, **options: object) -> str:
        (unreadable,) = read(*args, **options)
        assert isinstance(unreadable, Unreadable), unreadable
        return unreadable.reason

    return read_refusal


@pytest.fixture
def pdf_of() -> Callable[[list[str]], bytes]:
    """Make a PDF of objects, the first of which is the catalogue."""

    def make(objects: list[str]) -> bytes:
        out, starts = "%PDF-1.4\n", []
        for number, body in enumerate(objects, start=1):
            starts.append(len(out))
            out += f"{number} 0 obj\n{body}\nendobj\n"
        table = "".join(f"{start:010d} 00000 n \n" for start in starts)
        end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
        return f"{out}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode("latin-1")

    return make


@pytest.fixture
def pdf(pdf_of: Callable[[list[str]], bytes]) -> Callable[[list[str]], bytes]:
    """Make a PDF of pages of Latin text."""

    def make(pages: list[str]) -> bytes:
        kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(len(pages)))
        objects = [
            "<< /Type /Catalog /Pages 2 0 R >>",
            f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
        for place, text in enumerate(pages):
            shown = "".join(f"({line}) Tj T* " for line in text.split("\n"))
            stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown}ET"
            objects.append(
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * place} 0 R"
                " /Resources << /Font << /F1 3 0 R >> >> >>"
            )
            objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        return pdf_of(objects)

    return make
