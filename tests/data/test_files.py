"""Finding files: which, in what order, under what name, and what never."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedlab._core.errors import InputError
from embedlab.data.documents import FoundFile, Unreadable
from embedlab.data.files import READERS, Skipped, find_files, read_file


def sources(*paths: Path, exclude: Sequence[str] = (), skipped: Skipped | None = None) -> list[str]:
    return [file.source for file in find_files(list(paths), exclude=exclude, skipped=skipped)]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def test_order_names_and_facts(tmp_path: Path) -> None:
    touch(tmp_path, "b.txt", "a/z.md", "a/b/c.rst", "A.py", "c.TXT")
    assert sources(tmp_path) == ["A.py", "a/b/c.rst", "a/z.md", "b.txt", "c.TXT"]
    (file,) = find_files(tmp_path / "b.txt")
    assert file == FoundFile(tmp_path / "b.txt", "b.txt", 1, (tmp_path / "b.txt").stat().st_mtime_ns)


def test_hidden_caches_and_environments_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.txt", ".git/a.txt", "node_modules/a.md", "__pycache__/a.txt", "env/lib/a.py", "kept.txt")
    touch(tmp_path, "env/pyvenv.cfg")
    assert sources(tmp_path) == ["kept.txt"]
    assert sources(tmp_path / "env") == ["lib/a.py"]  # asked for by name, it is read


def test_other_endings_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "Makefile", "c.txt")
    skipped = Skipped()
    assert sources(tmp_path, skipped=skipped) == ["c.txt"]
    assert skipped.endings == {".png": 2, "": 1}


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    touch(outside, "secret.txt")
    touch(root, "sub/a.txt")
    (root / "loop").symlink_to(root)
    (root / "sub" / "up").symlink_to("..")
    (root / "out").symlink_to(outside)
    (root / "secret.txt").symlink_to(outside / "secret.txt")
    (root / "dangling.txt").symlink_to("nowhere")
    assert sources(root) == ["sub/a.txt"]
    (tmp_path / "alias").symlink_to(root)
    assert sources(tmp_path / "alias") == ["sub/a.txt"]  # a link given by name is what the user means


def test_several_paths_share_one_base_and_no_file_comes_twice(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.txt", "two/a.txt")
    assert sources(tmp_path / "one", tmp_path / "two") == ["one/a.txt", "two/a.txt"]
    assert sources(tmp_path / "one", tmp_path / "one" / "a.txt") == ["a.txt"]


def test_missing_path_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"paths: .*nowhere' does not exist"):
        find_files([tmp_path, tmp_path / "nowhere"])


def test_no_paths_no_files() -> None:
    assert list(find_files([])) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_neither_found_nor_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert sources(tmp_path) == []
    with pytest.raises(InputError, match="neither a file nor a folder"):
        find_files(tmp_path / "pipe.txt")
    (result,) = read_file(FoundFile(tmp_path / "pipe.txt", "pipe.txt", 0, 0))
    assert isinstance(result, Unreadable)


def test_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "locked/a.txt", "b.txt")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    skipped = Skipped()
    assert sources(tmp_path, skipped=skipped) == ["b.txt"]
    assert skipped.folders == [Unreadable("locked", "cannot be opened: Permission denied")]


def test_names_that_are_not_utf8_can_be_stored(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    (source,) = sources(tmp_path)
    assert source.encode() == b"caf\\xe9.txt"


def test_every_ending_has_its_reader(tmp_path: Path) -> None:
    for ending in READERS:
        path = tmp_path / f"empty{ending}"
        path.touch()
        list(read_file(FoundFile(path, path.name, 0, 0)))  # must not raise
    (result,) = read_file(FoundFile(tmp_path / "a.xyz", "a.xyz", 0, 0))
    assert isinstance(result, Unreadable)
    assert result.reason.startswith("no reader for .xyz")


def test_excluded_names_and_paths_are_left_out_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "drafts/b.txt", "notes/c.txt", "notes/drafts/d.txt", "notes/e.md", "f.min.md")
    assert sources(tmp_path, exclude=["drafts", "*.min.md"]) == ["a.txt", "notes/c.txt", "notes/e.md"]
    assert sources(tmp_path, exclude=["notes/*.txt"]) == ["a.txt", "drafts/b.txt", "f.min.md", "notes/e.md"]


def test_a_file_named_outright_is_never_excluded(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt")
    assert sources(tmp_path / "a.txt", exclude=["*.txt"]) == ["a.txt"]
