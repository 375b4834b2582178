"""Functions of Python's standard library: what the docstring says, and the code that does it."""

from __future__ import annotations

import ast
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from embedlab.data.loaders.packages import STDLIB_EXCLUDE, stdlib_folder


@dataclass(frozen=True, slots=True)
class Function:
    """A documented function.

    Args:
        module: Path of its file below the standard library, with ``/``.
        name: Its name, without those of the classes around it.
        summary: First paragraph of its docstring, on one line.
        code: Its source without decorators, docstring and comments, indented from the margin.
        held_out: Whether its whole module is kept for testing: one module in five, by its name.
    """

    module: str
    name: str
    summary: str
    code: str
    held_out: bool


def load_stdlib_functions(*, limit: int | None = None, min_chars: int = 80, max_chars: int = 1200) -> list[Function]:
    """Load the documented functions and methods of the running interpreter's standard library, parsed, not imported.

    Args:
        limit: Stop after so many; modules come in an order that mixes their subjects, so that these are a fair sample.
        min_chars: Shortest code to take.
        max_chars: Longest code to take.

    Returns:
        The functions, module by module, each docstring and each code once; those whose docstring says next to nothing
        (under twenty characters) are left out.

    Example:
        >>> len(load_stdlib_functions(limit=3))
        3
    """
    found: list[Function] = []
    seen: set[str] = set()
    for module, path in sorted(_modules(), key=lambda one: (crc32(one[0].encode()), one[0])):
        for function in _functions(path, module):
            fresh = {function.summary, function.code}
            if min_chars <= len(function.code) <= max_chars and len(function.summary) >= 20 and not fresh & seen:
                seen |= fresh
                found.append(function)
                if len(found) == limit:
                    return found
    return found


def _modules() -> Iterator[tuple[str, Path]]:
    for path in stdlib_folder().rglob("*.py"):
        inside = path.relative_to(stdlib_folder())
        if not any(part in STDLIB_EXCLUDE or part.endswith("-packages") for part in inside.parts):
            yield inside.as_posix(), path


def _functions(path: Path, module: str) -> Iterator[Function]:
    try:
        with tokenize.open(path) as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in old sources
            tree = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError):
        return  # a file that is wrong on purpose
    held_out = crc32(module[::-1].encode()) % 5 == 0  # reversed: apart from the order of the modules
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1:
            summary = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if summary:
                node.body, node.decorator_list = node.body[1:], []
                yield Function(module, node.name, summary, ast.unparse(node), held_out)
