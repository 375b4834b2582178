"""A passage as 1, 4 or 16 soft tokens helps a language model go on, the more the better, but less than the passage.

Published as a pattern in Nie et al. (2024), arXiv:2412.09165v3: memory tokens trained by repeating and continuing
(ICAE, 512 tokens into 128 by a 7B model), summary vectors (AutoCompressor), projected retriever vectors (xRAG).

Small here: the small decoder made by this package (four layers of 256), frozen as reader and copied as writer;
SciFact abstracts, of which it has seen none: the first 48 tokens are the context, the next 24 the continuation; 4,600
abstracts to train on (90 steps of 16, half of the rows repeating their context), 300 others to measure on. One
training serves 1, 4 and 16 tokens. The seed draws start weights and the order of the data. At ``smoke`` a tiny random
model makes three steps.

The memory of another abstract of the same set stands beside the claims (``perplexity_other_16``): what it explains is
the kind of text, not the context.

Falsified if: memory is no better than no context, more tokens are no better than one, or it beats the passage itself.
"""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

import numpy as np

from embedlab.data.loaders import load_scifact
from embedlab.testing import Claim, data_hash, demand_close

SEEDS = 3
SIZES = (1, 4, 16)
_CONTEXT, _CONTINUATION = 48, 24

CLAIMS = (
    Claim(
        id="one-token-helps",
        words="One soft token lowers the perplexity of the continuation below that without context.",
        metric="nats_none",
        baseline="nats_1",
        direction="higher",
        margin=0.01,
        seeds=SEEDS,
        wins=1.0,
    ),
    Claim(
        id="four-beat-one",
        words="Four soft tokens lower it below that of one.",
        metric="nats_1",
        baseline="nats_4",
        direction="higher",
        margin=0.005,
        seeds=SEEDS,
    ),
    Claim(
        id="sixteen-beat-four",
        words="Sixteen lower it below that of four.",
        metric="nats_4",
        baseline="nats_16",
        direction="higher",
        margin=0.005,
        seeds=SEEDS,
    ),
    Claim(
        id="passage-beats-memory",
        words="The passage's own tokens lower it further.",
        metric="nats_16",
        baseline="nats_full",
        direction="higher",
        margin=0.0,
        seeds=SEEDS,
        published="a compressed context is within a few per cent of the full one at 4 times fewer tokens",
        published_source="arXiv:2307.06945v1, table 2",
    ),
    Claim(
        id="it-is-this-context",
        words="Its own memory helps more than that of another abstract.",
        metric="nats_other_16",
        baseline="nats_16",
        direction="higher",
        margin=0.01,
        seeds=SEEDS,
        wins=1.0,
    ),
)


def oracle() -> None:
    """Compare the perplexity after soft tokens with a loop over tokens."""
    import torch

    from embedlab.text.soft_context import ContextCompressor

    decoder, tokenizer = _language_model("smoke")
    compressor = ContextCompressor(decoder, tokenizer, num_tokens=(2,))
    contexts, following = ["the cell grows", "mice without it"], ["in two days and dies", "live"]
    memory = compressor.compress(contexts)
    nats, count = 0.0, 0
    table = decoder.get_input_embeddings()
    for row, text in zip(torch.as_tensor(memory), following, strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            soft = compressor.reader.project(row[None])
            inputs = torch.cat([soft, table(torch.tensor([ids]))], dim=1)
            logs = decoder(inputs_embeds=inputs).logits.log_softmax(-1)[0, soft.shape[1] :]
        for place, token in enumerate(ids[1:]):
            nats, count = nats - float(logs[place, token]), count + 1
    demand_close(np.array(compressor.perplexity(following, memory=memory).nats), np.array(nats / count), "nats a token")


def run(seed: int, level: str) -> dict[str, float | str]:
    """Train one compressor and measure; see the module's text for the settings."""
    from embedlab.text.soft_context import ContextCompressor

    smoke = level == "smoke"
    decoder, tokenizer = _language_model(level)
    contexts, following = _passages(level)
    held = 16 if smoke else 300
    compressor = ContextCompressor(
        decoder, tokenizer, num_tokens=SIZES, max_context=_CONTEXT, max_continuation=_CONTINUATION, seed=seed
    )
    compressor.fit(contexts[held:], following[held:], steps=3 if smoke else 90, batch_size=16, learning_rate=1e-3)
    early, late = contexts[:held], following[:held]
    memory = compressor.compress(early)
    found = {
        "none": compressor.perplexity(late),
        "full": compressor.perplexity(late, contexts=early),
        "other_16": compressor.perplexity(late, memory=np.roll(memory, 1, axis=0)),
    } | {str(size): compressor.perplexity(late, memory=memory[:, :size]) for size in SIZES}
    numbers: dict[str, float | str] = {"data": data_hash(contexts, following), "loss_last": compressor.losses[-1]}
    for name, each in found.items():
        numbers |= {f"nats_{name}": each.nats, f"perplexity_{name}": each.value}
    return numbers


@cache
def _language_model(level: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if level != "smoke":
        from embedlab.models.small_decoder import small_decoder

        folder = small_decoder()
        return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    from embedlab.testing.tiny_decoder import save_tiny_decoder

    with tempfile.TemporaryDirectory() as place:
        save_tiny_decoder(place, texts=["the cell grows in two days and dies", "mice live without it"], max_length=128)
        return AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)


@cache
def _passages(level: str) -> tuple[list[str], list[str]]:
    """Contexts and continuations: the first tokens of each abstract, and those after them."""
    _, tokenizer = _language_model(level)
    texts = [entry.text for entry in load_scifact().corpus.values()][: 48 if level == "smoke" else 4900]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    long = [row for row in ids if len(row) >= _CONTEXT + _CONTINUATION]
    contexts = tokenizer.batch_decode([row[:_CONTEXT] for row in long])
    following = tokenizer.batch_decode([row[_CONTEXT : _CONTEXT + _CONTINUATION] for row in long])
    return contexts, following
