"""A collection that is worth compressing."""

from __future__ import annotations

import pytest

from embedlab.search import Collection, Settings

from ..tiny_model import HashingEncoder
from .corpus import documents


@pytest.fixture
def collection(encoder: HashingEncoder) -> Collection:
    made = Collection.create("c", model=encoder, settings=Settings(max_chars=300))
    made.add(documents(120))
    return made
