"""Concept spaces and items: what is taken, what is refused and how the refusal reads."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.text.sesa import ConceptSpace, Item, negative_pairs
from embedlab.text.sesa.space import as_item

SPACE = ConceptSpace(["tea", "coffee", "milk"], ["leaves", "beans", ""])


def test_rows_follow_the_names() -> None:
    rows = SPACE.multi_hot([["milk", "tea"], {"coffee": 0.25}, []])
    assert rows.tolist() == [[1, 0, 1], [0, 0.25, 0], [0, 0, 0]]
    assert SPACE.multi_hot([]).shape == (0, 3)
    assert SPACE.articles == ("tea. leaves", "coffee. beans", "milk")


def test_equal_spaces_are_equal() -> None:
    assert ConceptSpace(["a", "b"]) == ConceptSpace(("a", "b"))
    assert ConceptSpace(["a", "b"]) != ConceptSpace(["b", "a"])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: SPACE.multi_hot([["cofee"]]), "unknown concept 'cofee': did you mean 'coffee'"),
        (lambda: SPACE.multi_hot(["tea"]), "put the names into a list"),
        (lambda: SPACE.multi_hot([{"tea": -1.0}]), "'tea' has the weight -1.0"),
        (lambda: SPACE.multi_hot([{"tea": float("nan")}]), "weight nan"),
        (lambda: ConceptSpace("tea"), "expected a sequence"),
        (lambda: ConceptSpace(["tea", " "]), "every concept needs a name"),
        (lambda: ConceptSpace(["tea", "milk", "tea"]), "'tea' is there twice"),
        (lambda: ConceptSpace(["tea"], ["a", "b"]), "descriptions has 2 entries for 1 names"),
        (lambda: as_item(3), "expected a text, or an Item"),  # type: ignore[arg-type]
        (lambda: as_item(Item()), "expected a text, or an Item"),
    ],
)
def test_refusals(bad, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        bad()


def test_negatives_are_not_relevant_and_half_of_them_share_a_concept() -> None:
    rng = np.random.default_rng(0)
    sets = (rng.random((60, 12)) < 0.1).astype(float)
    held = (rng.random((40, 12)) < 0.15).astype(float)
    held[0] = 0  # shares nothing with anybody
    relevant = [rng.choice(60, 3, replace=False).tolist() for _ in range(39)] + [[]]
    texts, items, labels = negative_pairs(relevant, sets, held, per_positive=4, hard=0.5, seed=1)
    for text in range(39):
        mine = items[(texts == text) & (labels == 1)]
        others = items[(texts == text) & (labels == 0)]
        assert len(mine) == 1
        assert mine[0] in relevant[text]
        assert len(set(others)) == 4
        assert not set(others) & set(relevant[text])
        free = np.setdiff1d(np.arange(60), relevant[text])
        possible = int((sets[free] @ held[text] > 0).sum())
        assert (sets[others] @ held[text] > 0).sum() >= min(2, possible)
    assert 39 not in texts
    every = negative_pairs(relevant, sets, held, positives=None, seed=1)
    assert (every[2] == 1).sum() == 39 * 3
    with pytest.raises(InputError, match="hard=2"):
        negative_pairs(relevant, sets, held, hard=2)
    with pytest.raises(InputError, match="declared"):
        negative_pairs(relevant, sets, held[:3])
