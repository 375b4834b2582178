"""Tiny decoders on disk, of two architectures: rotary and absolute positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedlab.testing.tiny_decoder import save_tiny_decoder

TEXTS = [
    "a cat sat on the mat",
    "the dog ran away from the cat",
    "a mat",
    "on the mat the dog sat and the cat ran away",
]
PROMPT_WORDS = 'this sentence : " means in one word:" text of the topic most important is rewrite rewritten'


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the folder of a decoder of a family, once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            save_tiny_decoder(
                made[family],
                texts=[*TEXTS, PROMPT_WORDS],
                family=family,
                num_layers=4,
                max_length=96,  # type: ignore[arg-type]
            )
        return made[family]

    return get
