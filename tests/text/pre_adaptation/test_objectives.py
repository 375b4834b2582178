"""The two objectives against loops written from their equations, and what they must never touch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedlab._core.errors import InputError
from embedlab.models.bidirectional import to_bidirectional
from embedlab.testing.tiny import tiny_encoder
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text.pre_adaptation import BagOfWordsLoss, MaskedNextTokenLoss, bag_loss
from embedlab.text.prompting import PromptModule, load_templates

TEXTS = ["a cat sat on the mat", "the dog ran away from the cat on the mat", "a mat", "on the mat a dog"]


def log_softmax(values: list[float]) -> list[float]:
    largest = max(values)
    total = math.log(sum(math.exp(value - largest) for value in values)) + largest
    return [value - total for value in values]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_masked_next_token_matches_the_loop(family: str, side: str) -> None:
    """One text at a time, without padding: token i is guessed from the state of place i - 1, with i hidden."""
    model = to_bidirectional(tiny_decoder(TEXTS, family=family, padding_side=side))  # type: ignore[arg-type]
    loss = MaskedNextTokenLoss(model, mask_share=0.4, seed=3)
    features = model.preprocess(TEXTS)
    hidden = loss.hidden(features["input_ids"], features["attention_mask"])
    body: Any = model[0].model
    words = body.get_input_embeddings().weight
    surprises = []
    with torch.no_grad():
        for ids, mask, chosen in zip(features["input_ids"], features["attention_mask"], hidden, strict=True):
            places = [place for place in range(len(ids)) if mask[place]]
            row = [int(ids[place]) for place in places]
            shown = [model.tokenizer.mask_token_id if chosen[place] else int(ids[place]) for place in places]
            states = body(torch.tensor([shown])).last_hidden_state[0]
            for number, place in enumerate(places):
                if chosen[place]:
                    logits = [float(states[number - 1] @ word) for word in words]
                    surprises.append(-log_softmax(logits)[row[number]])
        assert loss([features]).item() == pytest.approx(sum(surprises) / len(surprises), abs=1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_is_hidden(side: str) -> None:
    model = tiny_decoder(TEXTS, padding_side=side)  # type: ignore[arg-type]
    features = model.preprocess(TEXTS)
    ids, mask = features["input_ids"], features["attention_mask"]
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids))
    for share in (0.01, 0.2, 0.5, 1.0):
        hidden = MaskedNextTokenLoss(model, mask_share=share).hidden(ids, mask)
        assert not (hidden & special).any()
        assert not (hidden & ~mask.bool()).any()
        free = (~special & mask.bool()).sum(1)
        expected = [max(1, round(share * int(count) + 1e-9)) for count in free]
        assert torch.equal(hidden.sum(1), torch.tensor(expected)) or share == 0.5  # halves round to even in torch
    one, other = (MaskedNextTokenLoss(model, seed=seed).hidden(ids, mask) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_each_step_of_training_hides_others() -> None:
    model = tiny_decoder(TEXTS)
    loss, features = MaskedNextTokenLoss(model), model.preprocess(TEXTS)
    pick = lambda: loss.hidden(features["input_ids"], features["attention_mask"])  # noqa: E731
    assert torch.equal(pick(), pick())
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, second = pick(), pick()
        torch.manual_seed(1)
        again = pick()
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_texts_of_one_token_are_no_trouble() -> None:
    model = tiny_decoder(TEXTS)
    ids = torch.tensor([[5], [6]])
    value = MaskedNextTokenLoss(model)([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    assert value.item() == 0
    value.backward()


def prompted(model: SentenceTransformer) -> SentenceTransformer:
    first: Any = model[0]
    module = PromptModule(first.model, first.tokenizer, templates=load_templates().of("ebae"))
    return SentenceTransformer(modules=[module], device="cpu").eval()


@pytest.mark.parametrize("target", ["self", "next"])
@pytest.mark.parametrize("slot", [lambda model: model, prompted], ids=["pooling", "prompt"])
def test_bag_of_words_matches_the_loop(slot: Callable[[SentenceTransformer], SentenceTransformer], target: Any) -> None:
    model = slot(tiny_decoder([*TEXTS, "the same text again :"], max_length=96))
    texts, following = TEXTS[:-1], TEXTS[1:]
    columns = [model.preprocess(texts)] + ([model.preprocess(following)] if target == "next" else [])
    words = model[0].model.get_input_embeddings().weight
    tokenizer = model.tokenizer
    each = []
    with torch.no_grad():
        for text, after in zip(texts, following, strict=True):
            vector = model(model.preprocess([text]))["sentence_embedding"][0]
            log_probabilities = log_softmax([float(vector @ word) for word in words])
            bag = set(tokenizer(text if target == "self" else after, add_special_tokens=False)["input_ids"])
            each.append(-sum(log_probabilities[token] for token in bag) / len(bag))
        value = BagOfWordsLoss(model, target=target)(columns)
    assert value.item() == pytest.approx(sum(each) / len(each), abs=1e-4)


def test_texts_without_words_are_left_out() -> None:
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    bag = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]])
    assert bag_loss(scores, bag).item() == pytest.approx(bag_loss(scores[[0, 2]], bag[[0, 2]]).item())
    assert bag_loss(scores, torch.zeros_like(bag)).item() == 0


def test_a_model_without_head_is_refused() -> None:
    untied = tiny_decoder(TEXTS)
    untied[0].model.config.tie_word_embeddings = False  # type: ignore[union-attr]
    with pytest.raises(InputError, match="head"):
        BagOfWordsLoss(untied)
    bare = SentenceTransformer(modules=[tiny_encoder(TEXTS)[1]])
    with pytest.raises(InputError, match="Pooling"):
        MaskedNextTokenLoss(bare)
