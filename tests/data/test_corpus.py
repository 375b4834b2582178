"""A folder as a flat corpus of passages."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedlab._core.errors import InputError
from embedlab.data.corpus import read_corpus


def test_passages_know_their_place(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("# Guide\n\nIntroduction.\n\n## Keys\n\nTurn the key.\n")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "blank.txt").write_text("  \n")
    found = list(read_corpus(tmp_path))
    assert [each.document for each in found] == ["guide.md"] * len(found)
    (keys,) = [each for each in found if "Turn the key." in each.text]
    assert keys.headings[0] == "Guide"
    assert keys.headings[-1] == "Keys"


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list(read_corpus(tmp_path / "nowhere"))
