"""Texts for tests of compression: made-up words, enough of them for queries to be made, the same in every process."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..tiny_model import HashingEncoder

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def documents(count: int, *, seed: int = 0, name: str = "d") -> list[dict[str, object]]:
    """Make documents of two passages each, about a few of many topics."""
    chance = random.Random(seed)
    words = ["".join(chance.choice(CONSONANTS) + chance.choice(VOWELS) for _ in range(3)) for _ in range(400)]
    made = []
    for number in range(count):
        topic = random.Random(f"{seed} {number}").sample(words, 12)
        sentences = [" ".join(chance.choices(topic, k=9)).capitalize() + "." for _ in range(8)]
        text = " ".join(sentences[:4]) + "\n\n" + " ".join(sentences[4:])
        metadata = {"lang": "en" if number % 2 else "de", "code": number % 7}
        made.append({"source": f"{name}{number}", "text": text, "title": f"About {topic[0]}", "metadata": metadata})
    return made


class TurnedEncoder(HashingEncoder):
    """The hashing model after a turn of space: another model, but one that a map can undo."""

    def __init__(self, dim: int = 32, *, blur: float = 0.0) -> None:
        super().__init__(dim, name="turned", salt="")
        self.fingerprint = f"turned:{int(blur * 100):016d}"
        numbers = np.random.default_rng(1)
        self.turn = np.linalg.qr(numbers.standard_normal((dim, dim)))[0].astype(np.float32)
        self.other = HashingEncoder(dim, salt="other")
        self.blur = np.float32(blur)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = super().encode_query(texts) @ self.turn + self.blur * self.other.encode_query(texts)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(lengths > 0, lengths, 1.0).astype(np.float32)
