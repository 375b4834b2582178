"""A method's public face, read from its source without importing it: signature, docstring, sections."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(r"^(Args|Attributes|Shape|Returns|Yields|Raises|Example|Note|References):\s*$", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}\*{0,2}(\w+)(?:, \*{0,2}(\w+))*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Face:
    """What a caller sees of one public function or class.

    Attributes:
        name: Its name.
        is_class: Whether it is a class.
        signature: How to call it, as text.
        parameters: Names of its parameters, without ``self``.
        docstring: Its docstring, without indentation; empty if it has none.
        line: Where it starts in its file.
    """

    name: str
    is_class: bool
    signature: str
    parameters: tuple[str, ...]
    docstring: str
    line: int

    def sections(self) -> dict[str, str]:
        """Split the docstring at its Google-style headings.

        Returns:
            Heading -> text below it; the text before the first heading under ``""``.
        """
        pieces = _SECTION.split(self.docstring)
        return {"": pieces[0].strip(), **dict(zip(pieces[1::2], pieces[2::2], strict=True))}

    def documented(self) -> tuple[str, ...]:
        """Return the names that the ``Args`` section (``Attributes`` of a dataclass) explains, in its order."""
        sections = self.sections()
        text = sections.get("Args", sections.get("Attributes", ""))
        return tuple(name for entry in _ENTRY.finditer(text) for name in re.findall(r"\w+", entry.group().rstrip(":")))


def public_faces(*paths: Path) -> dict[str, Face]:
    """Read the public functions and classes that some modules define.

    Args:
        paths: The modules' files; those whose names start with ``_`` count as well.

    Returns:
        Name -> face, in the order of the files.
    """
    faces = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        faces += [_face(node) for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {face.name: face for face in faces if not face.name.startswith("_")}


def _face(node: ast.FunctionDef | ast.ClassDef) -> Face:
    is_class = isinstance(node, ast.ClassDef)
    arguments, drop = ast.arguments([], [], None, [], [], None, []), 0
    if isinstance(node, ast.FunctionDef):
        arguments, returns = node.args, f" -> {ast.unparse(node.returns)}" if node.returns else ""
    else:
        returns, drop = "", 1
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                arguments = item.args
        if not arguments.args:  # a dataclass: its fields are its parameters
            arguments, drop = _fields(node), 0
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)][drop:]
    names += [each.arg for each in (arguments.vararg, *arguments.kwonlyargs, arguments.kwarg) if each]
    shown = ast.unparse(arguments)
    signature = f"{node.name}({shown.removeprefix('self').removeprefix(', ') if drop else shown}){returns}"
    docstring = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
    return Face(node.name, is_class, signature, tuple(names), docstring, node.lineno)


def _fields(node: ast.ClassDef) -> ast.arguments:
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    public = [f for f in fields if not f.target.id.startswith("_")]  # type: ignore[union-attr]
    names = [ast.arg(f.target.id, f.annotation) for f in public]  # type: ignore[union-attr]
    defaults = [f.value for f in public if f.value is not None]
    return ast.arguments([], names, None, [], [], None, defaults)
