"""Vectors as soft tokens of a language model: reading, writing, and memory in place of a context."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.testing.tiny_decoder import save_tiny_decoder
from embedlab.text.inversion import IterativeCorrector, PrefixInverter, leakage
from embedlab.text.soft_context import ContextCompressor, VectorReader

THINGS = ("cat", "boat", "goat", "book", "lamp", "coat")
CONTEXTS = [f"{who} keeps the {what} here" for who in ("Ann", "Ben") for what in THINGS]
AFTER = [f"so the {what} is safe" for _ in range(2) for what in THINGS]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def language_model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_decoder(folder, texts=CONTEXTS + AFTER, family=request.param, dim=32)
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def compressor(language_model):
    return ContextCompressor(*language_model, num_tokens=(1, 3), max_context=12, max_continuation=8)


class Secret:
    """An encoder whose vectors say the thing, and nothing else."""

    name, dim, fingerprint = "secret", len(THINGS), "secret:0"

    def encode_document(self, texts, **_):
        return np.array([[float(thing in text.split()) for thing in THINGS] for text in texts], dtype=np.float32)

    encode_query = encode_document


def test_soft_tokens_have_the_scale_of_token_embeddings(language_model):
    decoder, _ = language_model
    reader = VectorReader.on(decoder, dim=5, tokens_per_vector=3)
    soft = reader.project(torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)))
    assert soft.shape == (4, 6, 32)
    table = decoder.get_input_embeddings().weight
    torch.testing.assert_close(soft.square().mean().sqrt(), table.square().mean().sqrt(), rtol=0.05, atol=0)


def test_the_loss_is_that_of_the_text_after_its_vectors(language_model):
    decoder, tokenizer = language_model
    reader = VectorReader.on(decoder, dim=5).eval()
    vectors = torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([tokenizer(AFTER[0], add_special_tokens=False)["input_ids"]])
    labels = ids.clone()
    labels[0, 0] = -100
    got = reader(vectors=vectors, input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
    inputs = torch.cat([reader.project(vectors), decoder.get_input_embeddings()(ids)], dim=1)
    logs = decoder(inputs_embeds=inputs).logits.log_softmax(-1)[0]
    slow = -torch.stack([logs[place, token] for place, token in enumerate(ids[0].tolist())][1:]).mean()
    torch.testing.assert_close(got, slow)


def test_padding_and_company_change_no_memory(compressor):
    together = compressor.compress([CONTEXTS[0], "Ann", CONTEXTS[1] + " " + AFTER[0]])
    alone = compressor.compress(["Ann"])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


def test_fewer_memory_tokens_are_the_first_of_many(compressor):
    many, few = compressor.compress(CONTEXTS), compressor.compress(CONTEXTS, num_tokens=1)
    np.testing.assert_allclose(few, many[:, :1], atol=1e-5)


def test_the_reader_is_frozen_and_the_given_model_untouched(language_model, compressor):
    decoder, _ = language_model
    before = {name: weight.clone() for name, weight in decoder.state_dict().items()}
    compressor.fit(CONTEXTS, AFTER, steps=3, batch_size=4)
    for name, weight in compressor.reader.decoder.state_dict().items():
        assert torch.equal(weight, before[name]), name
        assert torch.equal(decoder.state_dict()[name], before[name]), name


def test_memory_tells_what_the_context_was_about(language_model):
    """A continuation that depends on the context alone is predicted better from its memory than from nothing."""
    compressor = ContextCompressor(*language_model, num_tokens=(1, 3), max_context=12, max_continuation=8)
    compressor.fit(CONTEXTS, AFTER, steps=30, batch_size=12, learning_rate=1e-2, reconstruct=0.0)
    memory = compressor.compress(CONTEXTS)
    own = compressor.perplexity(AFTER, memory=memory).value
    turned = compressor.perplexity(AFTER, memory=np.roll(memory, 1, axis=0)).value
    assert own < compressor.perplexity(AFTER).value
    assert own < turned  # the memory of another context helps less


def test_perplexity_equals_a_loop_over_tokens(language_model, compressor):
    decoder, tokenizer = language_model
    texts, contexts = [AFTER[0], "so the coat"], [CONTEXTS[0], CONTEXTS[5]]
    nats, count = 0.0, 0
    for text, context in zip(texts, contexts, strict=True):
        early = [tokenizer.bos_token_id, *tokenizer(context, add_special_tokens=False)["input_ids"]]
        late = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logs = decoder(torch.tensor([early + late])).logits.log_softmax(-1)[0]
        for place, token in enumerate(late, start=len(early) - 1):
            nats, count = nats - float(logs[place, token]), count + 1
    found = compressor.perplexity(texts, contexts=contexts)
    assert found.tokens == count
    assert found.nats == pytest.approx(nats / count, abs=1e-5)


def test_long_contexts_are_read_segment_by_segment(compressor):
    long = " ".join(CONTEXTS)  # five words each: 60 tokens, five segments
    memory = compressor.compress_long(long, num_tokens=2)
    assert memory.shape == (1, 10, 32)
    other = compressor.compress_long("Ben " + long.partition(" ")[2], num_tokens=2)
    assert np.abs(memory[:, -1] - other[:, -1]).max() > 1e-4  # the last segment knows the first
    assert len(compressor.write(memory, max_tokens=3)) == 1


def test_saved_and_loaded_it_gives_the_same(compressor, tmp_path):
    compressor.fit(CONTEXTS, AFTER, steps=1, batch_size=4)
    compressor.save(tmp_path / "made")
    loaded = ContextCompressor.load(tmp_path / "made")
    np.testing.assert_array_equal(loaded.compress(CONTEXTS), compressor.compress(CONTEXTS))
    memory = compressor.compress(CONTEXTS[:2])
    assert loaded.write(memory, max_tokens=4) == compressor.write(memory, max_tokens=4)


def test_a_folder_without_a_compressor_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no compressor"):
        ContextCompressor.load(tmp_path)


def test_memory_and_contexts_exclude_each_other(compressor):
    with pytest.raises(InputError, match="exclude each other"):
        compressor.perplexity(AFTER, memory=np.zeros((12, 1, 32)), contexts=CONTEXTS)


def test_writers_read_a_secret_and_correct_their_guess(tmp_path):
    save_tiny_decoder(tmp_path, texts=AFTER, dim=32)
    decoder, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    encoder = Secret()
    vectors = encoder.encode_document(AFTER)
    first = PrefixInverter(decoder, tokenizer, tokens_per_vector=2, max_tokens=8)
    first.fit(vectors, AFTER, steps=80, batch_size=12, learning_rate=1e-2)
    found = leakage(vectors, AFTER, inverter=first, encode=encoder.encode_document)
    assert found.cosine.mean() > 0.9
    assert first.invert(vectors[:2], num_beams=2) == first.invert(vectors[:2])

    class Bad:
        def invert(self, rows):
            return ["so the cat is safe"] * len(rows)

    corrector = IterativeCorrector(encoder, Bad(), decoder, tokenizer, tokens_per_vector=2, max_tokens=8)
    corrector.fit(vectors, AFTER, steps=80, batch_size=12, learning_rate=1e-2)
    went = corrector.correct(vectors, rounds=2, num_beams=2)
    assert (np.diff(went.cosines, axis=1) >= 0).all()
    assert went.cosines[:, -1].mean() > went.cosines[:, 0].mean() + 0.5
    assert went.texts[0] == "so the cat is safe"  # was right from the start
