"""Files made to break a reader: each costs bounded time and memory and gives one clear reason."""

from __future__ import annotations

import io
import json
import resource
import time
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import docx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter

from embedlab.data.documents import Document, FoundFile, Unreadable
from embedlab.data.files import READERS, read_file
from embedlab.data.limits import MIB, ReadLimits
from embedlab.data.passages import split_passages

Read = Callable[..., list[Document | Unreadable]]
Refusal = Callable[..., str]


def word(body: str = "<w:p><w:r><w:t>x</w:t></w:r></w:p>", head: str = "", **parts: bytes) -> bytes:
    """A Word file with this body."""
    source, target = io.BytesIO(), io.BytesIO()
    docx.Document().save(source)
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            xml = f"<?xml version='1.0'?>{head}<w:document {space}><w:body>{body}</w:body></w:document>".encode()
            new.writestr(name, xml if name == "word/document.xml" else old.read(name))
        for name, content in parts.items():
            new.writestr(name, content)
    return target.getvalue()


def test_docx_zip_bombs(refusal: Refusal) -> None:
    assert "MiB, 256.0 MiB are allowed" in refusal("a.docx", word(bomb=bytes(257 * MIB)))
    assert "times its size" in refusal("b.docx", word(bomb=bytes(100 * MIB)))
    assert "'word/document.xml' has" in refusal("c.docx", word("<w:p/>" * (3 * MIB)), ReadLimits(max_expansion=1000))


def test_docx_entities_are_not_expanded(read: Read) -> None:
    lines = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    start = time.process_time()
    results = read(
        "a.docx", word("<w:p><w:r><w:t>a&l9;b</w:t></w:r></w:p>", f'<!DOCTYPE x [<!ENTITY l0 "lol">{lines}]>')
    )
    assert time.process_time() - start < 5
    assert all(isinstance(result, Unreadable) or len(result.text) < 10 for result in results)


def test_docx_external_entities_are_not_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SECRET")
    head = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]>'
    assert "SECRET" not in str(read("a.docx", word("<w:p><w:r><w:t>a&e;b</w:t></w:r></w:p>", head)))


@pytest.mark.slow
def test_hundred_megabytes_on_one_line(refusal: Refusal, read: Read) -> None:
    line = b"x" * (100 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a.txt", "a.md", "a.rst", "a.html", "a.pdf", "a.docx", "a.ipynb", "a.py"):
        assert "100.0 MiB" in refusal(name, line)
    assert "has over 1,000,000 characters" in refusal("a.csv", line)
    assert "the line has over 4,000,000 bytes" in refusal("a.jsonl", line)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    document = read("a.txt", limits=ReadLimits(max_file_bytes=100 * MIB))[0]
    assert isinstance(document, Document)
    assert sum(len(passage.text) for passage in split_passages(document)) == 100 * MIB


def test_one_long_line_does_not_hide_the_others(read: Read) -> None:
    lines = [b'{"text": "first"}', b'{"text": "' + b"x" * (5 * MIB) + b'"}', b'{"text": "last"}']
    first, bad, last = read("a.jsonl", b"\n".join(lines))
    assert isinstance(first, Document)
    assert bad == Unreadable("a.jsonl#row=2", "the line has over 4,000,000 bytes")
    assert isinstance(last, Document)
    assert (last.source, last.text) == ("a.jsonl#row=3", "last")


def test_long_records_are_refused_one_by_one(read: Read) -> None:
    results = read("a.jsonl", b'{"text": "123456"}\n{"text": "1234"}', ReadLimits(max_record_chars=5))
    assert results[0] == Unreadable("a.jsonl#row=1", "the record has 6 characters, 5 are allowed")
    assert isinstance(results[1], Document)


DEEP = 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.html", "<div>" * DEEP),
        ("b.html", "<b><i>" * DEEP),
        ("a.py", "(" * DEEP),
        ("b.py", "-" * DEEP + "1"),
        ("c.py", "a" + ".b" * DEEP),
        ("d.py", "not " * DEEP + "1"),
        ("e.py", "lambda: " * DEEP + "1"),
        ("f.py", "if x:\n pass\n" + "elif x:\n pass\n" * (DEEP // 4)),
        ("a.ipynb", '{"a":' * DEEP),
        ("b.ipynb", "[" * DEEP),
        ("a.jsonl", "[" * DEEP),
        ("b.jsonl", '{"a":' * DEEP),
    ],
)
def test_deep_nesting(refusal: Refusal, name: str, content: str) -> None:
    start = time.process_time()
    reason = refusal(name, content)
    assert time.process_time() - start < 10
    assert "\n" not in reason
    assert any(word in reason for word in ("nested", "not valid Python", "no JSON", "damaged")), reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", "> " * 50_000),
        ("b.md", "[" * 200_000),
        ("c.md", "`" * 200_000 + " x"),
        ("d.md", "\n".join(" " * (2 * depth) + "- a" for depth in range(500))),
        ("e.md", "<" * 200_000),
        ("f.md", "---\n" + "a: b\n" * 50_000),
        ("a.rst", "\n".join(" " * depth + "a" for depth in range(500))),
        ("b.rst", "*" * 200_000),
        ("c.rst", ".. |a| replace:: |b|\n.. |b| replace:: |a|\n\n|a|"),
        ("d.rst", "a\n=\n" * 5_000),
        ("a.html", "<" * 500_000),
        ("b.html", "<p>a" * 50_000),
        ("c.html", "<!--" * 100_000),
        ("d.html", "&amp" * 100_000),
        ("a.csv", '"' * 500_000),
        ("b.csv", "," * 500_000),
        ("c.csv", ",\n" * 50_000),
        ("d.csv", '"a\n' * 100_000),
        ("a.txt", " " * 5_000_000),
        ("b.txt", "." * 2_000_000),
        ("c.txt", "\u0301" * 1_000_000),
        ("a.py", '"a" ' * 100_000),
        ("b.py", "@a\n" * 50_000 + "def f(): pass"),
        ("c.py", "# a\n" * 200_000),
    ],
)
def test_odd_content_takes_bounded_time(read: Read, name: str, content: str) -> None:
    start = time.process_time()
    for result in read(name, content):
        if isinstance(result, Document):
            split_passages(result)
    assert time.process_time() - start < 15


def test_encrypted_pdf(read: Read, refusal: Refusal, pdf: Callable[[list[str]], bytes]) -> None:
    def encrypted(*passwords: str) -> bytes:
        writer, out = PdfWriter(clone_from=io.BytesIO(pdf(["Text."]))), io.BytesIO()
        writer.encrypt(*passwords, algorithm="RC4-128")
        writer.write(out)
        return out.getvalue()

    assert refusal("a.pdf", encrypted("secret")) == "it is encrypted: store a copy without a password"
    (document,) = read("b.pdf", encrypted("", "owner"))  # anyone may read it
    assert isinstance(document, Document)
    assert document.text == "Text."


def test_pdf_limits(refusal: Refusal, pdf: Callable[[list[str]], bytes]) -> None:
    assert refusal("a.pdf", pdf(["", ""])) == "no text in its 2 pages: scanned pictures need text recognition first"
    assert "3 pages, 2 are allowed" in refusal("a.pdf", pdf(["a"] * 3), ReadLimits(max_pages=2))
    assert "had come to page 1" in refusal("a.pdf", pdf(["a"]), ReadLimits(max_seconds=-1))


def test_pdf_page_that_calls_itself_up_a_billion_times(refusal: Refusal, pdf_of: Callable[[list[str]], bytes]) -> None:
    def stream(content: str, facts: str = "") -> str:
        return f"<< {facts} /Length {len(content)} >>\nstream\n{content}\nendstream"

    font = "/Font << /F1 3 0 R >>"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Type /Page /Parent 2 0 R /Contents 5 0 R /Resources << {font} /XObject << /X 6 0 R >> >> >>",
        stream("/X Do " * 10),
    ]
    form = "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources"
    for number in range(7, 15):
        objects.append(stream("/X Do " * 10, f"{form} << {font} /XObject << /X {number} 0 R >> >>"))
    objects.append(stream("BT /F1 12 Tf (lol) Tj ET", f"{form} << {font} >>"))
    start = time.process_time()
    assert "reading took over 1 s" in refusal("a.pdf", pdf_of(objects), ReadLimits(max_seconds=1))
    assert time.process_time() - start < 10


def test_parquet_of_one_huge_value_a_million_times(read: Read, tmp_path: Path) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 500_000]))
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stream = read_file(FoundFile(tmp_path / "a.parquet", "a.parquet", 0, 0))
    assert sum(isinstance(row, Document) for row in islice(stream, 600)) == 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024  # KiB; unfolded it has 50 GB


def test_parquet_row_group_beyond_the_limit(refusal: Refusal, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": list(range(100_000))}), tmp_path / "a.parquet")
    assert "row group 0 has" in refusal("a.parquet", limits=ReadLimits(max_expanded_bytes=1000))


def test_parquet_of_vectors_alone(refusal: Refusal, tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [[1.0, 2.0]]}), tmp_path / "a.parquet")
    assert refusal("a.parquet") == "none of its columns holds text, numbers or lists of these"


def test_many_bad_records_are_counted_not_listed(read: Read) -> None:
    results = read("a.jsonl", "no json\n" * 1000 + '{"text": "good"}')
    assert sum(isinstance(result, Document) for result in results) == 1
    bad = [result for result in results if isinstance(result, Unreadable)]
    assert len(bad) == 21
    assert bad[-1] == Unreadable("a.jsonl", "980 more of its records could not be read")


def good_files(pdf: Callable[[list[str]], bytes], tmp_path: Path) -> dict[str, bytes]:
    pq.write_table(pa.table({"text": ["one", "two"] * 500}), tmp_path / "made.parquet")
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "# Head"}]
    notebook = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
    return {
        ".txt": "größer\n\nund".encode("utf-16"),
        ".md": b"---\na: b\n---\n# H\n\n```\ncode\n```\n| a |\n|---|\n",
        ".rst": b"Title\n=====\n\n.. note:: x\n\n+--+\n|a |\n+--+\n",
        ".html": b"<html><body><h1>a</h1><table><tr><td>b</td></tr></table></body></html>",
        ".pdf": pdf(["one", "two"]),
        ".docx": word(),
        ".csv": b'a,b\n"x\ny",2\n',
        ".jsonl": b'{"text": "a"}\n{"text": "b"}\n',
        ".parquet": (tmp_path / "made.parquet").read_bytes(),
        ".py": b'"""Doc."""\ndef f():\n    """Doc."""\n',
        ".ipynb": notebook.encode(),
    }


def test_truncated_files_of_each_format(read: Read, pdf: Callable[[list[str]], bytes], tmp_path: Path) -> None:
    for ending, content in good_files(pdf, tmp_path).items():
        for share in range(20):
            for result in read(f"cut{ending}", content[: len(content) * share // 20]):
                if isinstance(result, Unreadable):
                    assert 0 < len(result.reason) < 400
                    assert "\n" not in result.reason


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_raise(
    read: Read, pdf: Callable[[list[str]], bytes], tmp_path: Path, data: st.DataObject
) -> None:
    ending, content = data.draw(st.sampled_from(sorted(good_files(pdf, tmp_path).items())))
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=20)):
        damaged[place] = data.draw(st.integers(0, 255))
    for result in read(f"bad{ending}", bytes(damaged)):
        if isinstance(result, Document):
            result.text.encode()
            split_passages(result)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ending=st.sampled_from(sorted(READERS)), content=st.binary(max_size=300))
def test_any_bytes_under_any_ending_never_raise(read: Read, ending: str, content: bytes) -> None:
    read(f"any{ending}", content)


@pytest.mark.parametrize("ending", sorted(READERS))
def test_file_that_is_gone(ending: str, tmp_path: Path) -> None:
    (result,) = read_file(FoundFile(tmp_path / f"gone{ending}", "gone", 1, 1))
    assert result == Unreadable("gone", "cannot be opened: No such file or directory")


@pytest.mark.parametrize("ending", [".txt", ".csv", ".jsonl", ".docx"])
def test_file_without_permission(
    ending: str, refusal: Refusal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"a{ending}").touch()

    def denied(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(f"a{ending}") == "cannot be opened: Permission denied"


def test_file_that_grew_since_it_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 10)
    facts = path.stat()
    path.write_bytes(b"x" * 2000)
    monkeypatch.setattr(Path, "stat", lambda self: facts)
    (result,) = read_file(FoundFile(path, "a.txt", 10, 0), ReadLimits(max_file_bytes=1000))
    assert isinstance(result, Unreadable)


def test_folder_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    (result,) = read_file(FoundFile(tmp_path / "a.txt", "a.txt", 0, 0))
    assert result == Unreadable("a.txt", "it is no regular file any more")
