"""The two files that a new method starts from; what is missing in them is marked, and named by the contract tests."""

from __future__ import annotations

import keyword
from pathlib import Path

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.files import atomic_write
from embedlab._core.papers import papers
from embedlab._core.registry import KINDS, ROOMS

MISSING = "?"  # stands where a text is still to be written; the contract tests name every one that is left

# what a method of a room most often is; `embedlab new --kind` says otherwise
USUAL_KIND = {
    "text": "loss",
    "words": "embedder",
    "graphs": "embedder",
    "categorical": "table",
    "vision": "module",
    "multimodal": "module",
    "concepts": "concept",
    "search": "codec",
    "evaluate": "task",
    "understand": "probe",
}

_METHOD = '''\
"""?"""

from __future__ import annotations

from typing import Any

from embedlab._core.errors import EmbedlabError

METHOD = {{
    "card": {card},
    "title": "{title}",
    "authors": "?",
    "year": 2000,
    "source": "?",
    "kinds": {{"{kind}": "{public}"}},
    "extras": [],
    "official_code": None,
    "deviations": [],
    "known_failures": [],
}}


def {public}(inputs: Any) -> Any:
    """?

    Args:
        inputs: ?

    Shape:
        ?

    Returns:
        ?

    Raises:
        InputError: ?

    Example:
        ?

    References:
        ?
    """
    raise EmbedlabError("{public} is not written yet")


def example(seed: int = 0) -> dict[str, Any]:
    """Return the smallest ready instance: ``{{"{kind}": {example}(...)}}`` of ``embedlab.testing.{kind}``."""
    raise EmbedlabError("example() of {name} is not written yet: return {{'{kind}': {example}(...)}}")
'''

_REPRODUCTION = '''\
"""?

Small here: ?
Falsified if: ?
"""

from __future__ import annotations

from embedlab.testing import Claim, ContractViolation, data_hash

CLAIMS = (
    Claim(
        id="?",
        words="?",
        metric="ours",
        baseline="plain",
        direction="higher",
        margin=0.0,
    ),
)


def oracle() -> None:
    """Check {name} against a slow form written from the paper's equation."""
    raise ContractViolation("the oracle of {name} is not written yet")


def run(seed: int, level: str) -> dict[str, float | str]:
    """Measure once: both arms, the same data and budget."""
    return {{"ours": 0.0, "plain": 0.0, "data": data_hash(seed, level)}}
'''


def write_stubs(room: str, name: str, root: Path, *, kind: str | None = None) -> tuple[Path, Path]:
    """Write the stubs of a new method into a source checkout.

    Args:
        room: The room it belongs to.
        name: Its name: a Python identifier in lower case.
        root: Folder of the checkout.
        kind: What it promises to be; the room's usual kind by default.

    Returns:
        The method's file and its reproduction's.

    Raises:
        InputError: the room or kind is unknown, the name is not allowed, ``root`` is no checkout, or a file exists.
    """
    if room not in ROOMS:
        raise unknown_name("room", room, ROOMS)
    kind = kind or USUAL_KIND[room]
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    plain = name.isascii() and name.isidentifier() and name == name.lower() and not name.startswith("_")
    if not plain or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise InputError(f"name={name!r} must be a Python identifier in lower case that is no keyword, as in my_method")
    if not (root / "src" / "embedlab" / room).is_dir():
        raise InputError(f"{root} is not a checkout of the source: run this where pyproject.toml is, or give --root")
    source, reproduction = root / "src" / "embedlab" / room / f"{name}.py", root / "reproductions" / f"{name}.py"
    for path in (source, source.with_suffix(""), reproduction):
        if path.exists():
            raise InputError(f"{path} exists already and is left as it is: choose another name")
    planned = next((paper for paper in papers() if name in paper.methods), None)
    words = {
        "name": name,
        "kind": kind,
        "public": name,
        "example": f"{kind.capitalize()}Example",
        "card": planned.card if planned else len(papers()) + 1,
        "title": planned.title.replace('"', "'") if planned else MISSING,
    }
    atomic_write(source, _METHOD.format(**words))
    atomic_write(reproduction, _REPRODUCTION.format(**words))
    return source, reproduction
