"""Every method gives unit vectors that neither padding nor company changes; each does what its paper says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.models import Encoder, load_model
from embedlab.models.bidirectional import to_bidirectional
from embedlab.text.prompting import PromptEmbedder, load_templates

TEXTS = [
    "a cat sat on the mat",
    "the dog ran away from the cat",
    "a mat",
    "on the mat the dog sat and the cat ran away",
]
METHODS = [name for name in load_templates().method if name != "gen_eol"]
Decoder = Callable[[str], Path]


class Shuffler:
    """Writes "paraphrases": the words of the sentence in another order."""

    name = "shuffler"

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        inside = [prompt.split("<sentence>")[1].split("</sentence>")[0].split() for prompt in prompts]
        return [" ".join(words[seed + 1 :] + words[: seed + 1]) for words in inside]

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        return [0.0] * len(options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_vectors_do_not_depend_on_padding(decoder: Decoder, family: str, method: str) -> None:
    right = PromptEmbedder(decoder(family), method=method)
    left = PromptEmbedder(decoder(family), method=method, padding_side="left")
    assert isinstance(right, Encoder)
    rows = right.encode_document(TEXTS)
    assert rows.shape == (len(TEXTS), right.dim) == (4, 32)
    assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert_allclose(left.encode_document(TEXTS), rows, atol=2e-5)
    assert_allclose(np.concatenate([right.encode_query([text]) for text in TEXTS]), rows, atol=2e-5)


def test_methods_give_different_vectors(decoder: Decoder) -> None:
    rows = {method: PromptEmbedder(decoder("llama"), method=method).encode(TEXTS) for method in METHODS}
    for first in METHODS:
        for second in METHODS:
            if first < second:
                assert np.abs(rows[first] - rows[second]).max() > 1e-4, (first, second)


def test_the_vector_is_the_state_of_the_last_prompt_token(decoder: Decoder) -> None:
    """By hand, one text at a time, without padding; and with another layer."""
    model = AutoModelForCausalLM.from_pretrained(decoder("llama")).eval()
    tokenizer = AutoTokenizer.from_pretrained(decoder("llama"))
    for layer in (-1, -2, 0, 2):
        rows = PromptEmbedder(decoder("llama"), method="eol", layer=layer).host.encode(TEXTS)
        for text, row in zip(TEXTS, rows, strict=True):
            ids = tokenizer(f'This sentence : "{text}" means in one word:"')["input_ids"][:-1]  # without the end mark
            with torch.no_grad():
                states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer]
            assert_allclose(row, states[0, -1].numpy(), atol=1e-5)


def test_meta_is_the_mean_over_its_prompts_and_contrast_a_difference(decoder: Decoder) -> None:
    names = load_templates().method["meta"]
    parts = [PromptEmbedder(decoder("llama"), method=name).host.encode(TEXTS) for name in names]
    meta = PromptEmbedder(decoder("llama"), method="meta").host.encode(TEXTS)
    assert_allclose(meta, np.mean(parts, axis=0), atol=1e-5)
    eol, auxiliary = (PromptEmbedder(decoder("llama"), method=name).host.encode(TEXTS) for name in ("eol", "auxiliary"))
    contrasted = PromptEmbedder(decoder("llama"), method="eol", contrast="auxiliary", contrast_weight=0.7)
    assert_allclose(contrasted.host.encode(TEXTS), eol - 0.7 * auxiliary, atol=1e-5)


def test_echo_lets_early_words_see_late_ones(decoder: Decoder) -> None:
    """A causal decoder's states of "a cat" are the same whatever follows; in the second copy they are not."""

    def early(method: str, text: str) -> torch.Tensor:
        module = PromptEmbedder(decoder("llama"), method=method).host[0]
        features = module.preprocess([text])
        place = features["text_mask"][0].nonzero()[0].item()
        return module.states(features)[0, place]

    one, other = "a cat sat on the mat", "a cat ran away"
    assert_allclose(early("mean", one).detach(), early("mean", other).detach(), atol=1e-6)
    assert (early("echo", one) - early("echo", other)).abs().max() > 1e-3


def test_the_slot_carries_the_whole_text_to_early_words(decoder: Decoder) -> None:
    module = PromptEmbedder(decoder("llama"), method="token_prepend").host[0]
    features = module.preprocess(["a cat sat on the mat", "a cat sat on the dog"])
    place = int(features["text_mask"][0].nonzero()[0])
    states = module.states(features)
    assert (states[0, place] - states[1, place]).abs().max() > 1e-3
    del features["slot_mask"]
    states = module.states(features)
    assert_allclose(states[0, place].detach(), states[1, place].detach(), atol=1e-6)


def test_token_prepending_matches_layer_by_layer(decoder: Decoder) -> None:
    """The slow form: run the layers one by one and overwrite the slot's state before the second."""
    embedder = PromptEmbedder(decoder("llama"), method="token_prepend", slot_layers=2)
    module = embedder.host[0]
    for text in TEXTS:
        features = module.preprocess([text])
        slot = int(features["slot_mask"][0].nonzero()[0])
        body = module.body
        states = body.embed_tokens(features["input_ids"])
        count = states.shape[1]
        positions = torch.arange(count)[None]
        mask = torch.full((1, 1, count, count), float("-inf")).triu(1)
        turns = body.rotary_emb(states, positions)
        with torch.no_grad():
            for number, layer in enumerate(body.layers):
                if number in (1, 2):
                    states = torch.cat([states[:, :slot], states[:, -1:], states[:, slot + 1 :]], dim=1)
                found = layer(states, attention_mask=mask, position_ids=positions, position_embeddings=turns)
                states = found[0] if isinstance(found, tuple) else found
            expected = body.norm(states)[0, -1]
        assert_allclose(embedder.host.encode([text])[0], expected.numpy(), atol=1e-5)


def test_weighted_mean_matches_the_loop(decoder: Decoder) -> None:
    model = AutoModelForCausalLM.from_pretrained(decoder("gpt2")).eval()
    tokenizer = AutoTokenizer.from_pretrained(decoder("gpt2"))
    rows = PromptEmbedder(decoder("gpt2"), method="weighted_mean").host.encode(TEXTS)
    for text, row in zip(TEXTS, rows, strict=True):
        ids = tokenizer(text)["input_ids"][:-1]
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, 1:]
        total = sum((place + 1) * state for place, state in enumerate(states)) / sum(range(1, len(states) + 1))
        assert_allclose(row, total.numpy(), atol=1e-5)


def test_demonstrations_and_instructions_change_the_vector(decoder: Decoder) -> None:
    plain = PromptEmbedder(decoder("llama"), method="eol")
    shown = PromptEmbedder(decoder("llama"), method="eol", demos=[("the dog ran", "dog")])
    assert np.abs(plain.encode(TEXTS) - shown.encode(TEXTS)).max() > 1e-3
    told = plain.host.encode(TEXTS, prompt="a cat sat: ")
    assert np.abs(told - plain.host.encode(TEXTS)).max() > 1e-3


def test_paraphrases_are_averaged(decoder: Decoder) -> None:
    plain = PromptEmbedder(decoder("llama"), method="eol")
    mixed = PromptEmbedder(decoder("llama"), method="gen_eol", generator=Shuffler(), num_variants=2)
    written = [Shuffler().generate([f"<sentence>{text}</sentence>" for text in TEXTS], seed=turn) for turn in (0, 1)]
    total = plain.encode(TEXTS) + plain.encode(written[0]) + plain.encode(written[1])
    assert_allclose(mixed.encode_query(TEXTS), total / np.linalg.norm(total, axis=1, keepdims=True), atol=1e-5)
    assert not mixed.encode_query([" "]).any()


def test_blank_texts_give_the_zero_row(decoder: Decoder) -> None:
    assert not PromptEmbedder(decoder("llama"), method="eol").encode_document(["", "  "]).any()


@pytest.mark.parametrize("method", ["echo", "meta", "token_prepend"])
def test_a_saved_embedder_loads_as_any_other(decoder: Decoder, method: str, tmp_path: Path) -> None:
    embedder = PromptEmbedder(decoder("llama"), method=method).fit([*TEXTS, "a cat", "the dog"], fix="centre")
    embedder.host.save(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert_allclose(loaded.encode(TEXTS), embedder.host.encode(TEXTS), atol=1e-6)
    ours = load_model(str(tmp_path), device="cpu")
    assert_allclose(ours.encode_document(TEXTS), embedder.encode_document(TEXTS), atol=1e-6)


def test_fixing_takes_the_mean_away_and_changes_the_fingerprint(decoder: Decoder) -> None:
    embedder = PromptEmbedder(decoder("llama"), method="mean")
    before = embedder.fingerprint
    assert embedder.fingerprint == PromptEmbedder(decoder("llama"), method="mean").fingerprint
    embedder.fit(TEXTS, fix="centre")
    assert_allclose(embedder.host.encode(TEXTS).mean(0), 0, atol=1e-5)
    assert embedder.fingerprint != before
    embedder.fit(TEXTS, fix="standardise")  # anew, not on top
    assert_allclose(embedder.host.encode(TEXTS).std(0), 1, atol=1e-3)
    assert len(embedder.host) == 2
    assert before != PromptEmbedder(decoder("llama"), method="echo").fingerprint


def test_prompts_work_on_a_model_that_looks_both_ways(decoder: Decoder) -> None:
    model = to_bidirectional(AutoModelForCausalLM.from_pretrained(decoder("llama")).eval())
    tokenizer = AutoTokenizer.from_pretrained(decoder("llama"))
    right = PromptEmbedder(model, tokenizer=tokenizer, method="eol").encode(TEXTS)
    left = PromptEmbedder(model, tokenizer=tokenizer, method="eol", padding_side="left").encode(TEXTS)
    assert_allclose(left, right, atol=2e-5)
    assert np.abs(right - PromptEmbedder(decoder("llama"), method="eol").encode(TEXTS)).max() > 1e-3


def test_what_is_not_allowed(decoder: Decoder, tmp_path: Path) -> None:
    folder = decoder("llama")
    with pytest.raises(InputError, match="echo"):
        PromptEmbedder(folder, method="ecko")
    with pytest.raises(InputError, match="generator"):
        PromptEmbedder(folder, method="gen_eol")
    with pytest.raises(InputError, match="generator"):
        PromptEmbedder(folder, method="eol", generator=Shuffler())
    with pytest.raises(InputError, match="num_variants=0"):
        PromptEmbedder(folder, method="gen_eol", generator=Shuffler(), num_variants=0)
    with pytest.raises(InputError, match="tokenizer"):
        PromptEmbedder(AutoModelForCausalLM.from_pretrained(folder))
    with pytest.raises(InputError, match="causal language model"):
        PromptEmbedder(tmp_path)
    with pytest.raises(InputError, match="two"):
        PromptEmbedder(folder).fit(["one"])
    with pytest.raises(InputError, match="promptreps"):
        PromptEmbedder(folder, method="echo").encode_sparse(["a"])
