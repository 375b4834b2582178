"""What becomes of each format: text, title, headings, pages, metadata, and offsets that lead back."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from pathlib import Path

import docx
import nbformat.v4
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedlab.data.documents import Block, Document
from embedlab.data.limits import ReadLimits
from embedlab.data.passages import split_passages


def under(document: Document) -> dict[tuple[str, ...], str]:
    """The passages by their headings."""
    return {passage.headings: passage.text for passage in split_passages(document)}


def test_txt(one: Callable[..., Document]) -> None:
    document = one("notes.txt", "One.\r\n\r\nTwo.")
    assert (document.text, document.title, document.format) == ("One.\r\n\r\nTwo.", "notes", "txt")
    assert document.metadata == {}
    assert one("old.txt", "déjà vu".encode("cp1252")).metadata == {"encoding": "cp1252"}


MARKDOWN = """---
title: "Tea"
year: 1999
draft: false
weight: 1.5
tags: [a, b]
nested:
  key: value
---
# How to

## Boil [water](x.html) `now`

Fill.

```python
# not a heading
```

Setext
------
* one
* two

# Other
Last."""


def test_markdown(one: Callable[..., Document]) -> None:
    document = one("tea.md", MARKDOWN)
    assert document.text == MARKDOWN
    assert (document.title, document.format) == ("Tea", "md")
    assert document.metadata == {"title": "Tea", "year": 1999, "draft": False, "weight": 1.5, "tags": "a, b"}
    assert under(document) == {
        (
            "How to",
            "Boil water now",
        ): "# How to\n\n## Boil [water](x.html) `now`\n\nFill.\n\n```python\n# not a heading\n```",
        ("How to", "Setext"): "Setext\n------\n* one\n* two",
        ("Other",): "# Other\nLast.",
    }


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_markdown_offsets_hold_with_any_line_end(one: Callable[..., Document], end: str) -> None:
    text = MARKDOWN.replace("\n", end)
    document = one("tea.md", text)
    assert document.text == text
    assert list(under(document)) == [("How to", "Boil water now"), ("How to", "Setext"), ("Other",)]
    assert document.metadata["year"] == 1999


def test_large_markdown_is_read_without_its_outline(one: Callable[..., Document]) -> None:
    document = one("tea.md", MARKDOWN, ReadLimits(max_outline_bytes=100))
    assert [passage.headings for passage in split_passages(document)] == [()]


RST = """=====
Title
=====

Intro :py:func:`x`.

.. toctree::
   :maxdepth: 2

Part ``one``
============

.. include:: secret.txt
.. raw:: html
   :file: secret.txt
.. automodule:: os
   :members:

Sub
---
Deep \x0c text.

===  ===
a    b
===  ===
1    2
===  ===

Part two
========
End."""


def test_rst(one: Callable[..., Document], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret.txt").write_text("SECRET\n======\n")
    document = one("a.rst", RST)
    assert (document.text, document.title, document.format) == (RST, "Title", "rst")
    found = under(document)
    assert list(found) == [("Title",), ("Title", "Part one"), ("Title", "Part one", "Sub"), ("Title", "Part two")]
    assert found["Title",].startswith("=====\nTitle\n=====\n\nIntro")
    assert found["Title", "Part one", "Sub"].endswith("1    2\n===  ===")
    assert capfd.readouterr() == ("", "")


HTML = """<!doctype html><html lang="en"><head><title>My
 page</title><meta name="author" content="Ann"><style>p {}</style></head><body>
<nav>menu</nav><div role="navigation">menu</div><p hidden>hidden</p>
<h1>One <em>big</em></h1><p>First <b>bo</b>ld<br>next
line. <script>x()</script>After &amp; on.</p><ul><li>alpha</li><li>beta</li></ul>
<h2>Two</h2><table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>
<pre>def f():
    return 1
</pre>tail<!-- comment --></body></html>"""


def test_html(one: Callable[..., Document]) -> None:
    document = one("a.html", HTML)
    assert (document.title, document.format) == ("My page", "html")
    assert document.metadata == {"lang": "en", "author": "Ann"}
    assert under(document) == {
        ("One big",): "One big\n\nFirst bold\nnext line. After & on.\n\nalpha\nbeta",
        ("One big", "Two"): "Two\n\nA | B\n1 | 2\n\ndef f():\n    return 1\n\ntail",
    }


@pytest.mark.parametrize(
    "data",
    [
        '<meta charset="iso-8859-2"><p>žlutý kůň'.encode("iso8859-2"),
        '<?xml version="1.0" encoding="iso-8859-2"?><html><body><p>žlutý kůň</p></body></html>'.encode("iso8859-2"),
        "<p>žlutý kůň".encode("utf-16"),
    ],
)
def test_html_encodings(one: Callable[..., Document], data: bytes) -> None:
    assert one("a.html", data).text == "žlutý kůň"


def test_pdf(one: Callable[..., Document], pdf: Callable[[list[str]], bytes]) -> None:
    document = one("a.pdf", pdf(["Hello wor-\nld.", "", "Third page."]))
    assert document.text == "Hello world.\n\nThird page."
    assert document.blocks == (Block(0, 12, page=1), Block(14, 25, page=3))
    assert document.metadata == {"pages": 3}
    assert [passage.page for passage in split_passages(document)] == [1, 3]


def test_docx(one: Callable[..., Document]) -> None:
    word = docx.Document()
    word.add_heading("Report", 0)
    word.add_paragraph("Intro.")
    word.add_heading("Results", 1)
    word.add_paragraph("Some ").add_run("bold").bold = True
    table = word.add_table(2, 2)
    for place, text in enumerate("abcd"):
        table.cell(place // 2, place % 2).text = text
    word.core_properties.author = "Ann"
    stream = io.BytesIO()
    word.save(stream)
    document = one("a.docx", stream.getvalue())
    assert (document.title, document.format, document.metadata["author"]) == ("Report", "docx", "Ann")
    assert under(document) == {
        ("Report",): "Report\n\nIntro.",
        ("Report", "Results"): "Results\n\nSome bold\n\na | b\nc | d",
    }


def test_csv_with_a_text_column(read: Callable[..., list[Document]]) -> None:
    rows = read(
        "a.csv", 'Title;Text;Year\nTea;"Boil; water\nthen wait";1999\n;;\nCoffee;Grind;2001\n'.encode("utf-8-sig")
    )
    assert [row.source for row in rows] == ["a.csv#row=1", "a.csv#row=3"]
    assert (rows[0].text, rows[0].title, rows[0].format) == ("Tea\n\nBoil; water\nthen wait", "Tea", "csv")
    assert rows[0].metadata == {"Year": "1999"}


def test_csv_without_one(read: Callable[..., list[Document]]) -> None:
    (row,) = read("a.tsv", "animal\tcolour\tnote\nfox\tred\t" + "x" * 300)
    assert row.text == f"animal: fox\ncolour: red\nnote: {'x' * 300}"
    assert row.metadata == {"animal": "fox", "colour": "red"}


def test_csv_without_header(read: Callable[..., list[Document]]) -> None:
    rows = read("a.csv", "A girl sings.,A girl hums.,2.5\nA man runs.,A man walks.,3,extra\n")
    assert [row.text for row in rows] == ["A girl sings.\nA girl hums.\n2.5", "A man runs.\nA man walks.\n3\nextra"]


def test_jsonl(read: Callable[..., list[Document]]) -> None:
    lines = [
        {"_id": "7", "title": "Tea", "text": "Boil."},
        {"text": ""},
        {"a": "half \ud800", "tags": ["u", "v"], "n": 3},
    ]
    rows = read("a.jsonl", "\n\n".join(json.dumps(line) for line in lines))
    assert [row.source for row in rows] == ["a.jsonl#row=1", "a.jsonl#row=3", "a.jsonl#row=5"]
    assert [row.text for row in rows] == ["Tea\n\nBoil.", "", "a: half \ufffd\ntags: u, v\nn: 3"]
    assert rows[0].metadata == {"_id": "7"}
    assert rows[2].metadata == {"a": "half \ufffd", "tags": "u, v", "n": 3}


def test_parquet(read: Callable[..., list[Document]], tmp_path: Path) -> None:
    table = pa.table(
        {
            "title": ["Tea", None],
            "text": ["Boil.", "Wait."],
            "n": [1, None],
            "day": [datetime.date(2020, 1, 2)] * 2,
            "words": [["a", "b"], []],
            "vector": [[1.0, 2.0]] * 2,
            "bytes": [b"x", b"y"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    rows = read("a.parquet")
    assert [(row.source, row.text) for row in rows] == [
        ("a.parquet#row=1", "Tea\n\nBoil."),
        ("a.parquet#row=2", "Wait."),
    ]
    assert rows[0].metadata == {"n": 1, "day": "2020-01-02", "words": "a, b"}


PYTHON = '''# Copyright
# of
# somebody

"""Brew things."""

HELP = """%s"""
TEXTS = {"tea": "%s"}


@decorated(
    "x"
)
class Tea(Drink):
    """Ein Getränk: größer."""

    @property
    def cup(self) -> "Tasse":  # é
        "One cup."

        # Why this is
        # done here, and
        # not elsewhere.
        def inner():
            """Hidden."""

    def bare(self): pass

if True:
    async def brew(): """Async."""
''' % ("h" * 200, "t" * 300)  # noqa: UP031 - the source is full of braces


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_python(one: Callable[..., Document], end: str) -> None:
    text = PYTHON.replace("\n", end)
    document = one("tea.py", text)
    assert (document.text, document.title, document.format) == (text, "tea", "py")
    found = {name: text.replace(end, "\n") for (name,), text in under(document).items()}
    assert found == {
        "tea": '# Copyright\n# of\n# somebody\n\n"""Brew things."""',
        "tea.HELP": f'"""{"h" * 200}"""',
        "tea.TEXTS['tea']": f'"{"t" * 300}"',
        "tea.Tea": 'class Tea(Drink):\n    """Ein Getränk: größer."""',
        "tea.Tea.cup": 'def cup(self) -> "Tasse":  # é\n        "One cup."',
        "tea.Tea.cup.inner": "# Why this is\n        # done here, and\n        # not elsewhere.\n"
        '        def inner():\n            """Hidden."""',
        "tea.brew": 'async def brew(): """Async."""',
    }


def test_python_modules_are_named_as_imported(one: Callable[..., Document], tmp_path: Path) -> None:
    (tmp_path / "src" / "pkg" / "sub").mkdir(parents=True)
    (tmp_path / "src" / "pkg" / "sub" / "__init__.py").touch()
    assert one("src/pkg/__init__.py", '"""Doc."""').title == "pkg"
    assert one("src/pkg/sub/mod.py", '"""Doc."""').title == "pkg.sub.mod"
    assert one("src/script.py", '"""Doc."""').title == "script"


def test_python_without_documentation_has_no_passages(one: Callable[..., Document]) -> None:
    assert split_passages(one("a.py", "import this\n")) == []


def test_python_is_never_run(one: Callable[..., Document], tmp_path: Path) -> None:
    one("a.py", f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    assert not (tmp_path / "trace").exists()


def test_notebook(one: Callable[..., Document]) -> None:
    cells = [
        nbformat.v4.new_markdown_cell("# Head\n\nhello"),
        nbformat.v4.new_code_cell("print(1)", outputs=[nbformat.v4.new_output("stream", text="SECRET")]),
        nbformat.v4.new_markdown_cell("## Next\ntext"),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"language": "python", "name": "p", "display_name": "P"}}
    )
    document = one("a.ipynb", nbformat.writes(notebook))
    assert (document.title, document.metadata) == ("Head", {"language": "python"})
    assert under(document) == {("Head",): "# Head\n\nhello\n\nprint(1)", ("Head", "Next"): "## Next\n\ntext"}


def test_content_hash_follows_what_is_indexed_and_nothing_else() -> None:
    first = Document("a", "text", "title", "txt", metadata={"k": 1})
    assert first.content_hash == Document("b", "text", "title", "txt", metadata={"k": 1}).content_hash
    others = [
        Document("a", "text2", "title", "txt", metadata={"k": 1}),
        Document("a", "text", "title2", "txt", metadata={"k": 1}),
        Document("a", "text", "title", "md", metadata={"k": 1}),
        Document("a", "text", "title", "txt", metadata={"k": 2}),
        Document("a", "text", "title", "txt", blocks=(Block(0, 4, ("h",)),), metadata={"k": 1}),
    ]
    assert len({document.content_hash for document in [first, *others]}) == 6
