"""The documentation tells the truth: its commands run, its links lead somewhere, its generated pages are fresh."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from typer.testing import CliRunner

from embedlab._core.papers import papers
from embedlab._core.registry import ROOMS, methods
from embedlab.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
HANDWRITTEN = [page for page in PAGES if not page.read_text(encoding="utf-8").startswith("<!-- Generated")]
# their arguments are checked here, they are run by other tests
SLOW_VERBS = (
    *("serve", "reproduce", "demo", "evaluate", "inspect", "domain-gap", "train"),
    *("tune", "compress", "upgrade", "aspects", "concepts"),  # they need more documents than the folder here has
)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, text in re.findall(
        r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if language in languages:
            yield text


def commands(page: Path) -> Iterator[str]:
    for block in blocks(page, "sh", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.removeprefix("$ ").partition("  #")[0].strip()


def test_generated_pages_are_fresh() -> None:
    stale = [str(p.name) for p, text in load(ROOT / "docs" / "generate.py").pages().items() if not same(p, text)]
    assert not stale, f"run `make docs`: {', '.join(stale)}"


def same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://|mailto:|#", target):
            path, _, anchor = target.partition("#")
            goal = page.parent / path
            assert goal.exists(), f"{page.name} links to {target}"
            if anchor and goal.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], target


def test_every_page_can_be_reached() -> None:
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")} - {"docs/README.md"}
    linked = set(re.findall(r"docs/[\w-]+\.md", "".join(p.read_text(encoding="utf-8") for p in ROOT.glob("*.md"))))
    linked |= {
        f"docs/{name}" for p in HANDWRITTEN for name in re.findall(r"\]\(([\w-]+\.md)", p.read_text(encoding="utf-8"))
    }
    assert not pages - linked


@pytest.mark.parametrize("page", HANDWRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_exist(page: Path) -> None:
    """Every verb and option that a page shows is one that the command line has; every make target is one of ours."""
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in commands(page):
        if line.startswith("make "):
            done = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}: {done.stderr}"
        if line.startswith("embedlab "):
            words = shlex.split(line)[1:]
            command = verbs.get(words[0])
            assert command is not None or words[0].startswith("-"), f"{page.name}: there is no verb {words[0]!r}"
            while hasattr(command, "commands"):
                default = getattr(command, "default_command", None)  # `inspect NAME` is `inspect space NAME`
                words = words[1:] if words[1] in command.commands or default is None else [default, *words[1:]]
                command = command.commands[words[0]]
            known = {
                name for option in getattr(command, "params", []) for name in (*option.opts, *option.secondary_opts)
            }
            wrong = [w for w in words if w.startswith("--") and w.split("=")[0] not in known and w != "--help"]
            assert not wrong, f"{page.name}: `{line}` has no {', '.join(wrong)}"


def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what a reader would type, in order, on a small folder of documents of its own."""
    for name, text in {
        "notes": "Backups go to the other house every Friday.",
        "papers": "# Depth\n\nHow central a text is.",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "first.md").write_text(text, encoding="utf-8")
    for room in ROOMS:
        (tmp_path / "src" / "embedlab" / room).mkdir(parents=True)
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    ran = 0
    for line in commands(ROOT / "README.md"):
        words = [str(tmp_path / word[2:]) if word.startswith("~/") else word for word in shlex.split(line)]
        if words[:1] == ["embedlab"] and words[1] not in SLOW_VERBS:
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
            ran += 1
    assert ran >= 4


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "crashes.md").write_text("A commit survives a crash: readers see the old one or the new.")
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_list_of_papers_is_whole() -> None:
    listed = papers()
    assert [paper.card for paper in listed] == list(range(1, 53))
    assert {paper.room for paper in listed} <= set(ROOMS)
    names = [name for paper in listed for name in paper.methods]
    assert len(names) == len(set(names))
    for record in methods().values():
        planned = [paper for paper in listed if record.name in paper.methods]
        assert not planned or planned[0].card == record.card, f"{record.name} names card {record.card}"
