"""Rules that no linter checks, read off the syntax trees of every file. Each rule is shown to find what it bans."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(
    ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    capture_output=True,
    text=True,
    check=True,
).stdout.split("\0")
FILES = [path for path in map(Path, LISTED) if path.suffix and (ROOT / path).is_file()]
PYTHON = [path for path in FILES if path.suffix == ".py"]
SOURCE = [path for path in PYTHON if path.parts[0] == "src"]
SHIPPED = [path for path in PYTHON if path.parts[0] in ("src", "reproductions")]

Rule = Callable[[ast.AST], bool]

COMPARISONS = {"allclose", "array_equal", "array_equiv", "equal", "isclose"}
SEEDING = {"np.random.seed", "numpy.random.seed", "random.seed", "torch.manual_seed", "torch.cuda.manual_seed"}
SEEDING |= {"torch.cuda.manual_seed_all", "torch.random.manual_seed", "transformers.set_seed", "set_seed"}
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"}
PLAIN = {"random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform", "gauss", "getrandbits"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def name_of(node: ast.AST) -> str:
    """Dotted name of a call's function, or of any name; empty if it has none."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def comparison_thrown_away(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return name_of(node.value).rpartition(".")[2] in COMPARISONS and "testing" not in name_of(node.value)


def assertion(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert)


def global_seeding(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and name_of(node) in SEEDING


def unseeded_randomness(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = name_of(node)
    module, _, function = name.rpartition(".")
    if function == "default_rng" or name == "random.Random":
        return not node.args and not node.keywords
    if module in ("np.random", "numpy.random"):
        return function[:1].islower() and function not in ("get_state", "set_state")  # Generator and the like are fine
    if module == "torch" and function in DRAWS:
        return not any(keyword.arg == "generator" for keyword in node.keywords)
    return module == "random" and function in PLAIN


def pickling(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in PICKLES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in PICKLES
    if isinstance(node, ast.Call):
        allowed = {k.arg for k in node.keywords if isinstance(k.value, ast.Constant) and k.value.value is True}
        return name_of(node) in ("torch.load", "torch.save") or "allow_pickle" in allowed
    return False


def printing(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and name_of(node) == "print"


def silenced_error(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    broad = node.type is None or name_of(node.type) in ("Exception", "BaseException")
    return broad and all(isinstance(step, ast.Pass) for step in node.body)


def unfinished(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "NotImplementedError"


RULES: list[tuple[Rule, list[Path], str, str]] = [
    # rule, where it holds, what it must find, what it must let pass
    (comparison_thrown_away, PYTHON, "np.allclose(a, b)", "assert np.allclose(a, b)\nnp.testing.assert_allclose(a, b)"),
    (assertion, SHIPPED, "assert x > 0", "if x <= 0: raise ValueError"),
    (global_seeding, PYTHON, "torch.manual_seed(0)", "torch.Generator().manual_seed(0)"),
    (global_seeding, PYTHON, "torch.manual_seed(0)", "with torch.random.fork_rng():\n torch.manual_seed(0)"),
    (global_seeding, PYTHON, "np.random.seed(0)", "rng.seed"),
    (unseeded_randomness, SHIPPED, "np.random.default_rng()", "np.random.default_rng(3)"),
    (unseeded_randomness, SHIPPED, "np.random.normal()", "np.random.SeedSequence(3)"),
    (unseeded_randomness, SHIPPED, "torch.randn(3)", "torch.randn(3, generator=g)"),
    (unseeded_randomness, SHIPPED, "random.shuffle(x)", "random.Random(1).shuffle(x)"),
    (pickling, SHIPPED, "import pickle", "import json"),
    (pickling, SHIPPED, "from joblib import load", "from embedlab import load"),
    (pickling, SHIPPED, "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=False)"),
    (pickling, SHIPPED, "torch.load(f)", "safetensors.torch.load_file(f)"),
    (printing, SHIPPED, "print(1)", "out.print(1)"),
    (silenced_error, SHIPPED, "try: x\nexcept Exception: pass", "try: x\nexcept KeyError: pass"),
    (unfinished, SHIPPED, "raise NotImplementedError", "raise InputError"),
]


def found(rule: Rule, text: str) -> Iterator[int]:
    """Yield the lines that break a rule; inside ``with torch.random.fork_rng()`` the global state is only borrowed."""
    nodes = list(ast.walk(ast.parse(text)))
    borrowing = [
        n for n in nodes if isinstance(n, ast.With) and "fork_rng" in map(_last, (i.context_expr for i in n.items))
    ]
    borrowed = {id(inner) for block in borrowing for inner in ast.walk(block)}
    for node in nodes:
        if rule(node) and not (rule in (global_seeding, unseeded_randomness) and id(node) in borrowed):
            yield getattr(node, "lineno", 0)


def _last(node: ast.AST) -> str:
    return name_of(node).rpartition(".")[2]


@pytest.mark.parametrize(("rule", "bad", "good"), [(r, b, g) for r, _, b, g in RULES])
def test_the_rule_finds_what_it_bans(rule: Rule, bad: str, good: str) -> None:
    assert list(found(rule, bad))
    assert not list(found(rule, good))


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, *_ in RULES), ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_rule(rule: Rule) -> None:
    places = next(files for each, files, *_ in RULES if each is rule)
    broken = [f"{path}:{line}" for path in places for line in found(rule, (ROOT / path).read_text(encoding="utf-8"))]
    assert not broken, f"{rule.__name__.replace('_', ' ')}: {', '.join(broken)}"


TEXTUAL = {
    "an unfinished place": (SHIPPED, re.compile(r"\b(TODO|FIXME|XXX)\b")),
    "an ignored type error without its code": (PYTHON, re.compile(r"#\s*type:\s*ignore(?!\[)")),
    "a path of one machine": (FILES, re.compile(r"(?<![\w.~*-])/(w[o]rk|r[o]ot|home/\w+)/")),
    "a word about how it was made": (
        FILES,
        re.compile(r"\b(iss[u]e \d+|chatb[o]t|language m[o]del assist)", re.IGNORECASE),
    ),
}


@pytest.mark.parametrize("what", TEXTUAL)
def test_no_file_holds(what: str) -> None:
    places, pattern = TEXTUAL[what]
    binary = {".safetensors", ".png", ".npy", ".pdf", ".docx", ".parquet", ".zip"}
    hits = []
    for path in places:
        if path.suffix not in binary:
            text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
            hits += [f"{path}: {match.group()}" for match in pattern.finditer(text)]
    assert not hits, f"{what}: {'; '.join(hits[:5])}"


def test_modules_have_telling_names_and_a_readable_length() -> None:
    vague = [path for path in PYTHON if path.stem in ("utils", "util", "helpers", "helper", "common", "misc")]
    assert not vague, f"say what is in it: {vague}"
    long = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in SOURCE}
    assert not {str(path): lines for path, lines in long.items() if lines > 420}, (
        "make a folder of it, with the same face"
    )


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in SOURCE if not ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))]
    assert not silent
