"""A small causal language model, trained here on texts at hand, for methods that need a decoder.

``python -m embedlab.models.small_decoder`` makes it once, in about five minutes of two quiet cores, and keeps it below
``embedlab_home()/made``. It knows English only so far; what is measured with it are differences between methods.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from embedlab._core.errors import unknown_name
from embedlab._core.extras import require
from embedlab._core.files import atomic_folder, embedlab_home
from embedlab.data.loaders import (
    load_debian_packages,
    load_labels,
    load_sick,
    load_stdlib_functions,
    load_stsb,
    load_texts,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD = "<s>", "</s>", "<pad>"
_VERSION = 1  # of what the fields below do not say
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecoderRecipe:
    """All that decides the model.

    Attributes:
        num_layers: Layers.
        dim: Width, a multiple of 64 or less than that.
        vocabulary: Tokens of the byte-level vocabulary.
        context: Tokens of a training row, and the longest text.
        rows: Rows of a batch.
        steps: Optimiser steps.
        learning_rate: Peak, reached after a twentieth of the steps; then half a cosine down to a tenth.
        weight_decay: Of the matrices.
        characters: Source of text -> most characters to take from it.
        seed: Of the weights and the order of the texts.
    """

    num_layers: int
    dim: int
    vocabulary: int
    context: int
    rows: int
    steps: int
    learning_rate: float
    weight_decay: float
    characters: dict[str, int]
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the folder: size, and a hash of everything here."""
        told = json.dumps([_VERSION, asdict(self)], sort_keys=True)
        return f"small-decoder-{self.num_layers}x{self.dim}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


SIZES = {
    "cpu": DecoderRecipe(
        num_layers=4,
        dim=256,
        vocabulary=8192,
        context=256,
        rows=8,
        steps=800,
        learning_rate=2e-3,
        weight_decay=0.05,
        characters={
            "sentences": 1_200_000,
            "brown": 1_400_000,
            "abc": 1_000_000,
            "treebank": 500_000,
            "webtext": 300_000,
            "titles": 500_000,
            "packages": 1_200_000,
            "functions": 1_200_000,
        },
    ),
    "smoke": DecoderRecipe(
        num_layers=2,
        dim=64,
        vocabulary=1024,
        context=128,
        rows=4,
        steps=40,
        learning_rate=1e-2,
        weight_decay=0.05,
        characters={"sentences": 150_000, "packages": 100_000},
    ),
}


def small_decoder(*, size: str = "cpu", seed: int = 0) -> Path:
    """Return the folder of a small causal language model with its tokenizer, training it first if nobody has.

    Llama's architecture with tied embeddings and a byte-level vocabulary, for ``AutoModelForCausalLM`` and
    ``AutoTokenizer``. Texts begin with ``<s>``, which the tokenizer adds, and ended with ``</s>`` in training; there is
    a ``<pad>`` and no mask token. Test sentences of STS-B and SICK, the collections for retrieval, and one module in
    five of the standard library were left out.

    Args:
        size: ``"cpu"``: 4 layers of 256, 5.3 million parameters, about five minutes on two quiet cores; or
            ``"smoke"``: 2 layers of 64, seconds, and good for nothing but running code.
        seed: Of the weights and the order of the texts.

    Returns:
        The folder; ``README.md`` in it says what it was trained on and how well it predicts held-out text.

    Raises:
        InputError: there is no such size.
        MissingDataError: ``EMBEDLAB_DATA`` does not hold the texts.
        MissingExtraError: the packages of the extra ``train`` are missing.
    """
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    recipe = replace(SIZES[size], seed=seed)
    folder = embedlab_home() / "made" / recipe.name
    if not (folder / "config.json").is_file():
        filelock = require("filelock", extra="train")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):  # whoever comes second waits and finds it made
            if not (folder / "config.json").is_file():
                _make(recipe, folder)
    return folder


def training_texts(characters: dict[str, int], *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Gather the texts to learn from.

    Args:
        characters: Source of text -> most characters to take from it.
        seed: Of the choice and of the order.

    Returns:
        Texts to train on, in random order, and every fiftieth text, which is held out whatever the seed.

    Raises:
        InputError: there is no such source.
        MissingDataError: ``EMBEDLAB_DATA`` does not hold a source.
    """
    rng = random.Random(seed)
    taken: list[str] = []
    for source, most in characters.items():
        if source not in _SOURCES:
            raise unknown_name("source", source, _SOURCES)
        texts = sorted({text for text in _SOURCES[source]() if len(text) > 15})
        rng.shuffle(texts)
        for text in texts:
            most -= len(text)
            if most < 0:
                break
            taken.append(text)
    rng.shuffle(taken)
    held_out = {text for text in taken if crc32(text.encode()) % 50 == 0}
    return [text for text in taken if text not in held_out], sorted(held_out)


def train_tokenizer(texts: Sequence[str], *, vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level vocabulary, so that no text has an unknown token.

    Args:
        texts: Texts to learn it from.
        vocabulary: Number of tokens.
        context: Longest text in tokens.

    Returns:
        A tokenizer that puts ``<s>`` before every text.
    """
    tokenizers = require("tokenizers", extra="train")
    transformers = require("transformers", extra="train")
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B:1", special_tokens=[(BEGIN, core.token_to_id(BEGIN))]
    )
    made: PreTrainedTokenizerFast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=context,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    return made


def _make(recipe: DecoderRecipe, folder: Path) -> None:
    torch = require("torch", extra="train")
    start = time.monotonic()
    texts, held_out = training_texts(recipe.characters, seed=recipe.seed)
    tokenizer = train_tokenizer(sorted(texts), vocabulary=recipe.vocabulary, context=recipe.context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _model(recipe, tokenizer)
        seen = _train(model, _packed(tokenizer, texts, recipe.context), recipe)
    nats, tokens = _cross_entropy(model, _packed(tokenizer, held_out, recipe.context))
    num_bytes = sum(len(text.encode()) for text in held_out)
    facts = {
        "parameters": sum(one.numel() for one in model.parameters()),
        "training_tokens": seen,
        "held_out_bytes": num_bytes,
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "perplexity": math.exp(nats / tokens),
        "seconds": round(time.monotonic() - start),
    }
    _log.info("small decoder: %s", facts)
    with atomic_folder(folder) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        (fresh / "recipe.json").write_text(json.dumps({**asdict(recipe), "measured": facts}, indent=1) + "\n")
        (fresh / "README.md").write_text(_card(recipe, facts))


def _model(recipe: DecoderRecipe, tokenizer: PreTrainedTokenizerFast) -> Any:
    transformers = require("transformers", extra="train")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.dim,
        intermediate_size=recipe.dim * 11 // 4,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=max(1, recipe.dim // 64),
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.LlamaForCausalLM(config)


def _packed(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int) -> Tensor:
    """Join all texts, each between its begin and its end, and cut the stream into rows (N, T) without padding."""
    torch = require("torch", extra="train")
    stream: list[int] = []
    for encoded in tokenizer.backend_tokenizer.encode_batch(list(texts)):
        stream.extend(encoded.ids)
        stream.append(tokenizer.eos_token_id)
    whole = len(stream) // context * context
    rows: Tensor = torch.tensor(stream[:whole], dtype=torch.long).view(-1, context)
    return rows


def _train(model: Any, rows: Any, recipe: DecoderRecipe) -> int:
    torch = require("torch", extra="train")
    model.train()
    matrices = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    warm_up = max(1, recipe.steps // 20)

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm_up) / (recipe.steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = _batches(len(rows), recipe.rows, generator)
    for step in range(recipe.steps):
        loss: Any = _losses(model, rows[next(batches)]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            _log.info("small decoder: step %d of %d, loss %.3f", step, recipe.steps, loss.item())
    model.eval()
    return recipe.steps * recipe.rows * recipe.context


def _batches(num_rows: int, size: int, generator: Any) -> Iterator[Tensor]:
    torch = require("torch", extra="train")
    while True:
        order = torch.randperm(num_rows, generator=generator)
        whole = max(num_rows // size * size, min(num_rows, size))  # a last batch that is short is left out
        yield from (order[start : start + size] for start in range(0, whole, size))


def _losses(model: Any, rows: Tensor) -> Tensor:
    """Cross-entropy of every token but the first of each row, in nats; in bfloat16 where it saves most."""
    torch = require("torch", extra="train")
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=model.config.hidden_size >= 256):
        states = model.model(input_ids=rows).last_hidden_state[:, :-1]  # (B, T - 1, D)
        logits = model.lm_head(states).flatten(0, 1)  # (B (T - 1), V)
    with torch.autocast(rows.device.type, enabled=False):
        # the head's half precision is kept: in single, the logits alone would take a third of the time
        losses: Tensor = torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten(), reduction="none")
    return losses


def _cross_entropy(model: Any, rows: Tensor) -> tuple[float, int]:
    torch = require("torch", extra="train")
    with torch.inference_mode():
        losses = torch.cat([_losses(model, part).double() for part in torch.split(rows, 8)])
    return losses.sum().item(), losses.numel()


def _card(recipe: DecoderRecipe, facts: dict[str, float]) -> str:
    sources = "\n".join(f"| {name} | {most:,} |" for name, most in recipe.characters.items())
    return f"""# Small decoder, {recipe.num_layers} layers of {recipe.dim}

A causal language model made by `python -m embedlab.models.small_decoder` for measurements on machines without a large
one. Not for use: it was trained on {facts["training_tokens"]:,} tokens for {facts["seconds"]} seconds, and several of
its texts are for research only. Do not pass it on.

Held-out text ({facts["held_out_bytes"]:,} bytes): {facts["bits_per_byte"]:.3f} bits per byte, perplexity
{facts["perplexity"]:.1f} per token ({recipe.vocabulary} byte-level tokens). Parameters: {facts["parameters"]:,}.

| Source | Characters at most |
| --- | --- |
{sources}

Left out: sentences of the test and development parts of STS-B and SICK (the yearly STS sets share some with STS-B's
training part, which is in), every collection for retrieval, and the modules of the
standard library that `load_stdlib_functions` marks as held out. All settings are in `recipe.json`.
"""


def _sentences() -> Iterator[str]:
    tested = [*map(load_stsb, ("dev", "test")), *map(load_sick, ("trial", "test"))]
    keys = {_key(text) for pairs in tested for text in (*pairs.first, *pairs.second)}
    for pairs in (load_stsb("train"), load_sick("train")):
        yield from (text for text in (*pairs.first, *pairs.second) if _key(text) not in keys)


def _key(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _running(name: str) -> Iterator[str]:
    """Read running text by paragraphs, joining short ones."""
    for text in load_texts(name).values():
        piece = ""
        for paragraph in re.split(r"\n\s*\n" if "\n\n" in text or "\n\n\n" in text else "\n", text):
            piece = f"{piece} {_untokenised(paragraph)}".strip()
            if len(piece) > 400:
                yield piece[:1500]
                piece = ""


def _untokenised(text: str) -> str:
    text = re.sub(r" ?(``|'') ?", lambda found: ' "' if found[1] == "``" else '" ', text)
    return " ".join(re.sub(r" ([.,;:?!)']|n't)", r"\1", text).split())


def _titles() -> Iterator[str]:
    yield from load_labels("stackoverflow-titles").texts


def _packages() -> Iterator[str]:
    for package in load_debian_packages():
        yield f"{package.name}: {package.short}. {' '.join(package.long.split())}"[:800]


def _functions() -> Iterator[str]:
    for function in load_stdlib_functions():
        if not function.held_out:
            yield f"# {function.summary}\n{function.code}"


_SOURCES = {
    "sentences": _sentences,
    "brown": lambda: _running("brown"),
    "abc": lambda: _running("abc"),
    "treebank": lambda: _running("treebank"),
    "webtext": lambda: _running("webtext"),
    "titles": _titles,
    "packages": _packages,
    "functions": _functions,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make the model if it is not there, and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m embedlab.models.small_decoder", description=__doc__)
    parser.add_argument("--size", default="cpu", choices=list(SIZES))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _log.info("small decoder: %s", small_decoder(size=chosen.size, seed=chosen.seed))


if __name__ == "__main__":
    main()
