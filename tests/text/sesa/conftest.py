"""A small world: eight concepts with words of their own, texts that mix the words of theirs, sets that are halves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from embedlab.text.sesa import ConceptSpace, Item, negative_pairs

NAMES = ("baking", "sailing", "mining", "weaving", "tuning", "grazing", "casting", "drawing")
SYLLABLES = ("ba", "do", "ki", "lu", "me", "no", "pa", "ri", "su", "ta", "ve", "zo")


@dataclass(frozen=True)
class World:
    """Texts with the concepts that they hold, and pairs of them with declared sets."""

    space: ConceptSpace
    texts: list[str]
    held: list[list[str]]
    pairs: list[tuple[str, Item]]
    labels: np.ndarray

    @property
    def concepts(self) -> dict[str, list[str]]:
        return dict(zip(self.texts, self.held, strict=True))


def make_world(seed: int, count: int = 300) -> World:
    rng = np.random.default_rng(seed)
    words = np.random.default_rng(7).permutation([a + b + c for a in SYLLABLES for b in SYLLABLES for c in "nr"])
    own = {name: words[8 * place : 8 * place + 8] for place, name in enumerate(NAMES)}
    held = [sorted(rng.choice(NAMES, 3, replace=False)) for _ in range(count)]
    texts = [" ".join(rng.permutation([rng.choice(own[name]) for name in each for _ in range(4)])) for each in held]
    space = ConceptSpace(NAMES)
    sets = [[str(name) for name in rng.choice(each, 2, replace=False)] for each in held]
    truth = space.multi_hot(held)
    rows, columns, labels = negative_pairs([[place] for place in range(count)], space.multi_hot(sets), truth, seed=seed)
    items = [Item(concepts=each) for each in sets]
    pairs = [(texts[row], items[column]) for row, column in zip(rows, columns, strict=True)]
    return World(space, texts, [[str(name) for name in each] for each in held], pairs, labels)


@pytest.fixture(scope="session")
def world() -> World:
    """To train on."""
    return make_world(0)


@pytest.fixture(scope="session")
def unseen() -> World:
    """To measure on."""
    return make_world(1, 60)
