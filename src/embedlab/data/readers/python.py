"""Python sources: docstrings with their signatures, explaining comments and long texts. Parsed, never imported."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from embedlab.data.documents import Block, Document, FoundFile
from embedlab.data.limits import ReadLimits, Refused
from embedlab.data.readers.plain import read_bytes

_LINE = re.compile(r"\r\n?|\n")
# three lines up explain; fewer annotate
_COMMENTS = re.compile(r"^(?:[ \t]*#[^\r\n]*(?:\r\n?|\n|\Z)){3,}", re.MULTILINE)
_LONG_TEXT = 200  # characters from which a text constant is worth finding
_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")
_Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read the documentation inside a Python file; the text is the source, the blocks are what explains it."""
    data = read_bytes(file, limits.max_code_bytes)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise Refused(f"not valid Python: {' '.join(str(error).split())[:200]}") from None
    except (RecursionError, MemoryError):
        raise Refused("not readable Python: it is nested too deeply") from None
    module = module_name(file.path)
    blocks = _Finder(text).blocks(tree, module)
    # one empty block when nothing is documented: no blocks at all would mean the whole text
    yield Document(file.source, text, module, "py", blocks=blocks or (Block(0, 0),))


def module_name(path: Path) -> str:
    """Name a module as an import statement would: below the outermost of the packages it lies in.

    Args:
        path: The source file.

    Returns:
        The dotted name.
    """
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts) or path.stem


class _Finder:
    """Finds the spans of one source that explain it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = [0, *(found.end() for found in _LINE.finditer(text))]
        self.ascii = text.isascii()

    def blocks(self, tree: ast.Module, module: str) -> tuple[Block, ...]:
        spans: list[tuple[int, int, str]] = []
        scopes: list[tuple[int, int, str]] = [(0, len(self.text), module)]
        stack: list[tuple[ast.AST, str]] = [(tree, module)]
        while stack:  # no recursion: a chain of a thousand elifs nests a thousand deep
            node, name = stack.pop()
            if isinstance(node, _Definition):
                spans.extend(self._docstring(node, name))
                if not isinstance(node, ast.Module):
                    scopes.append(
                        (self._start_with_decorators(node), self._at(node.end_lineno, node.end_col_offset), name)
                    )
            for body in _BODIES:
                for inner in getattr(node, body, ()):
                    if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                        stack.append((inner, f"{name}.{inner.name}"))
                    elif isinstance(inner, ast.Assign) and isinstance(node, ast.Module | ast.ClassDef):
                        spans.extend(self._long_texts(inner, name))
                    elif hasattr(inner, "body"):
                        stack.append((inner, name))
        spans.sort()
        spans.extend(self._comments(spans, sorted(scopes)))
        return tuple(Block(start, end, (name,)) for start, end, name in sorted(spans))

    def _docstring(self, node: _Definition, name: str) -> Iterator[tuple[int, int, str]]:
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            head = first if isinstance(node, ast.Module) else node  # the signature comes along
            yield self._at(head.lineno, head.col_offset), self._at(first.end_lineno, first.end_col_offset), name

    def _long_texts(self, node: ast.Assign, name: str) -> Iterator[tuple[int, int, str]]:
        target = node.targets[0]
        where = f"{name}.{target.id}" if isinstance(target, ast.Name) else name
        values: list[tuple[ast.expr | None, ast.expr]] = [(None, node.value)]
        if isinstance(node.value, ast.Dict):
            values = list(zip(node.value.keys, node.value.values, strict=True))
        for key, value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and len(value.value) >= _LONG_TEXT:
                entry = f"{where}[{key.value!r}]" if isinstance(key, ast.Constant) else where
                yield self._at(value.lineno, value.col_offset), self._at(value.end_lineno, value.end_col_offset), entry

    def _comments(
        self, spans: list[tuple[int, int, str]], scopes: list[tuple[int, int, str]]
    ) -> Iterator[tuple[int, int, str]]:
        inside: list[tuple[int, int, str]] = []  # the scopes open at the comment, outermost first
        coming = iter([*scopes, (len(self.text) + 1, 0, "")])
        scope = next(coming)
        for found in _COMMENTS.finditer(self.text):
            start, end = found.start(), found.end()
            after = bisect_left(spans, (end,))
            if after and spans[after - 1][1] > start:
                continue  # these lines are within a string
            while scope[0] <= end:  # also one that begins right after the comment, which then speaks about it
                inside.append(scope)
                scope = next(coming)
            while inside[-1][1] <= start:
                inside.pop()
            yield start, end, inside[-1][2]

    def _start_with_decorators(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        return self.lines[line - 1]

    def _at(self, line: int | None, column: int | None) -> int:
        """Character offset of a position of the syntax tree, which counts columns in bytes of UTF-8."""
        start = self.lines[(line or 1) - 1]
        if self.ascii or not column:
            return start + (column or 0)
        return start + len(self.text[start : start + column].encode()[:column].decode("utf-8", "ignore"))
