"""Fingerprints: of source code, changing when the code does and not when its words do; and of data."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from embedlab._core.errors import InputError


def source_hash(paths: Iterable[Path]) -> str:
    """Fingerprint Python files, leaving out comments, docstrings, blank lines and trailing space.

    Args:
        paths: The files; their names and order count, their folder does not.

    Returns:
        ``"sha256:"`` and 16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\n{bare_code(path.read_text(encoding='utf-8'))}\n\0".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def bytes_hash(paths: Iterable[Path]) -> str:
    """Fingerprint Python files as they are, comments and all; see ``source_hash``."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name}\n{len(content)}\n".encode() + content)
    return f"sha256:{digest.hexdigest()}"


def bare_code(source: str) -> str:
    """Strip comments, docstrings, blank lines and trailing space from Python source.

    Args:
        source: Valid Python.

    Returns:
        The lines that remain. It is a text to compare, not to run.

    Example:
        >>> bare_code('def f(x):  # note\\n    "Words."\\n\\n    return x\\n')
        'def f(x):\\n    return x'
    """
    lines = [line.encode() for line in source.splitlines()]  # ast counts columns in bytes
    for first, start, last, end in _docstrings(source):
        if first == last:
            lines[first] = lines[first][:start] + lines[first][end:]
        else:
            lines[first], lines[last] = lines[first][:start], lines[last][end:]
            lines[first + 1 : last] = [b""] * (last - first - 1)
    text = "\n".join(line.decode() for line in lines)
    comments: dict[int, int] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0] - 1] = len(token.string)
    bare = []
    for number, line in enumerate(text.split("\n")):
        kept = line[: len(line) - comments[number]] if number in comments else line
        if kept.strip():
            bare.append(kept.rstrip())
    return "\n".join(bare)


def data_hash(*parts: Any) -> str:
    """Fingerprint the data that a reproduction really used.

    Args:
        parts: Texts, bytes, numbers, arrays, paths of files (their content counts), or lists and dicts of these.

    Returns:
        ``"sha256:"`` and 16 hexadecimal digits; the same for the same data on every machine.

    Raises:
        InputError: a part is of a type whose content cannot be told.

    Example:
        >>> data_hash(["a", "b"], 3) == data_hash(["a", "b"], 3) != data_hash(["ab"], 3)
        True
    """
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return f"sha256:{digest.hexdigest()[:16]}"


def _docstrings(source: str) -> list[tuple[int, int, int, int]]:
    """Return (first line, column, last line, column) of every docstring, lines from 0."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
            continue
        head = node.body[0]
        if isinstance(head, ast.Expr) and isinstance(head.value, ast.Constant) and isinstance(head.value.value, str):
            spans.append((head.lineno - 1, head.col_offset, (head.end_lineno or 1) - 1, head.end_col_offset or 0))
    return spans


def _feed(digest: Any, part: Any) -> None:
    """Add one part with its type and length, so that no two different inputs look alike."""
    if isinstance(part, Mapping):
        part = [item for pair in part.items() for item in pair]
    if isinstance(part, list | tuple):
        digest.update(b"list %d " % len(part))
        for item in part:
            _feed(digest, item)
        return
    if isinstance(part, bytes):
        data = part
    elif isinstance(part, PathLike):
        data = Path(part).read_bytes()
    elif isinstance(part, str | int | float | bool) or part is None:
        data = json.dumps(part).encode()
    elif hasattr(part, "tobytes") and hasattr(part, "dtype"):
        data = f"{part.dtype.str} {part.shape} ".encode() + part.tobytes()
    else:
        raise InputError(f"data_hash cannot tell the content of a {type(part).__name__}: give text, numbers or arrays")
    digest.update(b"%d " % len(data) + data)
