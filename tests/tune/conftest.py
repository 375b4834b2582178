"""A small collection with queries of people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedlab.data.documents import Document
from embedlab.search import Collection

_SUBJECTS = (
    "river mountain glacier forest engine turbine piston valve sonata fugue violin oboe enzyme protein membrane neuron "
    "ledger invoice dividend audit comet nebula quasar orbit harbour rudder keel mast"
)
WORDS = _SUBJECTS.split()


def make_documents(count: int = 120, *, seed: int = 0) -> list[Document]:
    """Texts about three subjects each; the first sentence names them, the rest goes on about them."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        subject = [WORDS[place] for place in draw.choice(len(WORDS), 3, replace=False)]
        talk = " ".join(
            f"Of the {draw.choice(subject)} and the {draw.choice(subject)} there is much to tell in part {part}."
            for part in range(int(draw.integers(6, 14)))
        )
        made.append(
            Document(f"d{number}.txt", f"A study of the {subject[0]}, the {subject[1]} and the {subject[2]}. {talk}")
        )
    return made


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "home"))
    made = Collection.create(str(tmp_path / "texts"))
    made.add(make_documents())
    return made


@pytest.fixture
def people() -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Queries that name two of a document's subjects."""
    documents = make_documents()
    queries = {
        f"q{n}": " ".join(each.text.split(".")[0].replace(",", "").split()[4:7:2]) for n, each in enumerate(documents)
    }
    return queries, {f"q{n}": {each.source: 1.0} for n, each in enumerate(documents)}
