"""Late chunking reads once and pools per chunk; thinking encoders search with what was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from embedlab._core.errors import InputError
from embedlab.models import Encoder, load_model
from embedlab.testing.tiny import tiny_encoder
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text.prompting import ThinkingEncoder, late_chunks

TEXT = "a cat sat on the mat. the dog ran away from it. on the mat a cat sat again."
SPANS = [(0, 21), (22, 47), (48, len(TEXT))]


def by_hand(model: Any, text: str, pieces: Sequence[str]) -> np.ndarray:
    """All tokens of the text at once; then the mean over each piece's tokens, counted by tokenising the pieces."""
    tokenizer = model.tokenizer
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        states = model[0].model(torch.tensor([ids])).last_hidden_state[0]
    rows, place = [], 1  # after the mark of the beginning
    for piece in pieces:
        count = len(tokenizer(piece, add_special_tokens=False)["input_ids"])
        rows.append(states[place : place + count].mean(0).numpy())
        place += count
    return np.stack([row / np.linalg.norm(row) for row in rows])


@pytest.mark.parametrize("make", [tiny_encoder, tiny_decoder])
def test_chunks_are_pooled_from_one_reading(make: Any) -> None:
    model = make([TEXT])
    pieces = [TEXT[start:end] for start, end in SPANS]
    found = late_chunks(model, TEXT, SPANS)
    assert_allclose(found, by_hand(model, TEXT, pieces), atol=1e-5)
    alone = model.encode(pieces, normalize_embeddings=True)
    assert np.abs(found - alone).max() > 1e-3  # each has seen the others
    if make is tiny_encoder:  # the mean over everything without the marks is the mean of the chunks' sums
        assert_allclose(late_chunks(model, TEXT, [(0, len(TEXT))]), by_hand(model, TEXT, [TEXT]), atol=1e-5)


def test_long_texts_are_read_in_windows() -> None:
    model = tiny_encoder([TEXT], max_length=20)  # 18 tokens beside the marks: two chunks of 7 fit, three do not
    pieces = [TEXT[start:end] for start, end in SPANS]
    found = late_chunks(model, TEXT, SPANS)
    assert_allclose(found[:2], by_hand(model, TEXT[:47], pieces[:2]), atol=1e-5)
    assert_allclose(found[2:], by_hand(model, TEXT[48:], pieces[2:]), atol=1e-5)
    shared = late_chunks(model, TEXT, SPANS, overlap=1)
    assert_allclose(shared[:2], found[:2], atol=1e-6)
    assert_allclose(shared[2], by_hand(model, TEXT[22:], pieces[1:])[1], atol=1e-5)


def test_what_cannot_be_chunked() -> None:
    model = tiny_encoder([TEXT], max_length=8)
    with pytest.raises(InputError, match="smaller than the context"):
        late_chunks(model, TEXT, SPANS)
    for spans in ([(5, 2)], [(0, 10), (5, 20)], [(0, len(TEXT) + 1)]):
        with pytest.raises(InputError, match="span"):
            late_chunks(model, TEXT, spans)
    with pytest.raises(InputError, match="overlap"):
        late_chunks(model, TEXT, SPANS, overlap=-1)
    blank = late_chunks(tiny_encoder([TEXT]), "a cat", [(0, 5), (5, 5)])
    assert np.linalg.norm(blank[0]) == pytest.approx(1)
    assert not blank[1].any()
    assert late_chunks(model, "", []).shape == (0, 32)


class Oracle:
    """Writes, for any prompt, what is known about the word after "is"."""

    name = "oracle"

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        self.prompts += prompts
        return [f"moss is a small green plant, number {seed}" for _ in prompts]

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        return [0.0] * len(options)


def test_hyde_is_the_mean_of_query_and_passages() -> None:
    encoder, oracle = load_model(), Oracle()
    thinking = ThinkingEncoder(encoder, oracle, num_passages=2)
    assert isinstance(thinking, Encoder)
    assert thinking.fingerprint == encoder.fingerprint
    query = "what grows on stones"
    passages = encoder.encode_document([f"moss is a small green plant, number {turn}" for turn in (0, 1)])
    total = encoder.encode_query([query])[0] + passages.sum(0)
    assert_allclose(thinking.encode_query([query])[0], total / np.linalg.norm(total), atol=1e-6)
    assert all(query in prompt for prompt in oracle.prompts)
    assert_allclose(thinking.encode_document([query]), encoder.encode_document([query]))


@pytest.mark.parametrize(("thought", "times"), [("query2doc", 3), ("think", 1)])
def test_text_is_put_behind_the_query(thought: Any, times: int) -> None:
    encoder = load_model()
    thinking = ThinkingEncoder(encoder, Oracle(), thought=thought)
    expected = encoder.encode_query([" ".join(["why"] * times + ["moss is a small green plant, number 0"])])
    assert_allclose(thinking.encode_query(["why"]), expected, atol=1e-6)


def test_a_thought_finds_what_the_question_does_not() -> None:
    encoder = load_model()
    documents = encoder.encode_document(["Moss is a small green plant.", "Stones are hard.", "What is a question?"])
    query = "what grows up there"
    thinking = ThinkingEncoder(encoder, Oracle())
    assert (thinking.encode_query([query]) @ documents.T).argmax() == 0
    assert not thinking.encode_query(["", "  "]).any()


def test_bad_values() -> None:
    for options, says in (
        ({"thought": "dream"}, "thought"),
        ({"num_passages": 0}, "num_passages"),
        ({"repeats": 0}, "repeats"),
    ):
        with pytest.raises(InputError, match=says):
            ThinkingEncoder(load_model(), Oracle(), **options)  # type: ignore[arg-type]
