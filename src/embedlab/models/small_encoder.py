"""A small BERT made here, from texts at hand: the start point of pre-training experiments, made once and kept.

    folder = small_encoder()                                # a transformers folder: AutoModelForMaskedLM, AutoTokenizer

It has a wordpiece vocabulary of its own, 6,144 pieces learned from the same texts. With a model 128 wide, the 30,522
pieces of BERT would make the output layer cost twenty times as much as all layers together, and most of them would
hardly ever be seen; a fifth of them spells the same texts in one sixth more tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import unknown_name
from embedlab._core.extras import require
from embedlab._core.files import atomic_folder, embedlab_home
from embedlab._core.quiet import quiet_host
from embedlab.data.loaders import load_debian_packages, load_stdlib_functions, load_texts

_log = logging.getLogger(__name__)
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_RUNNING_TEXTS = ("brown", "abc", "webtext", "treebank", "wikitext2")
_RECIPE = 2  # raise when the same sizes would give another model


@dataclass(frozen=True, slots=True)
class Size:
    """How large the model is, and how long it learns.

    Attributes:
        num_layers: Number of layers.
        dim: Width.
        num_heads: Number of attention heads.
        vocabulary: Number of wordpieces, special ones included.
        length: Longest text in tokens, and length of the training windows.
        batch_size: Windows in a step.
        steps: Optimiser steps.
        characters: How much text is read, evenly from the sources.
        learning_rate: At its peak, after a tenth of the steps; it falls linearly to 0.
        mask_rate: Part of the tokens to be predicted, in (0, 1).
    """

    num_layers: int
    dim: int
    num_heads: int
    vocabulary: int
    length: int
    batch_size: int
    steps: int
    characters: int
    learning_rate: float = 1.5e-3
    mask_rate: float = 0.3


#: Sizes by name: ``cpu`` takes about two minutes on two cores, ``tiny`` a few seconds.
SIZES: dict[str, Size] = {
    "tiny": Size(1, 32, 2, vocabulary=1024, length=32, batch_size=8, steps=10, characters=200_000),
    "cpu": Size(2, 128, 2, vocabulary=6144, length=128, batch_size=8, steps=1000, characters=20_000_000),
}


def small_encoder(*, size: str = "cpu", seed: int = 0) -> Path:
    """Make a BERT by masked language modelling, or return the folder of the one made before.

    It reads news, prose, web text, Wikipedia, package descriptions, and functions of Python's standard library with
    what they do, without those held out for tests; no text of a retrieval collection is among them.

    Args:
        size: One of ``SIZES``.
        seed: Decides weights, order and masks.

    Returns:
        A folder below ``embedlab_home()`` that ``AutoModelForMaskedLM`` and ``AutoTokenizer`` load, with a
        ``README.md`` that says what was read and how well the model predicts.

    Raises:
        InputError: there is no such size.
        MissingDataError: the texts are not in ``EMBEDLAB_DATA``.
        MissingExtraError: the extra ``train`` is not installed.
    """
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    from filelock import FileLock

    recipe = json.dumps([_RECIPE, asdict(SIZES[size]), seed], sort_keys=True)
    folder = embedlab_home() / "made" / f"small-encoder-{size}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():  # another process may have made it while this one waited
                with atomic_folder(folder) as fresh:
                    _make(fresh, SIZES[size], seed)
    return folder


def _make(folder: Path, size: Size, seed: int) -> None:
    torch = require("torch", extra="train")
    transformers = require("transformers", extra="train")
    texts = _texts(size.characters, seed)
    tokenizer = wordpieces(texts, vocabulary=size.vocabulary, length=size.length)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.dim,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=4 * size.dim,
        max_position_embeddings=size.length,
        hidden_dropout_prob=0.0,  # every window is seen about once: there is nothing to overfit
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.BertForMaskedLM(config)
    windows = _windows(texts, tokenizer, size.length)
    with torch.enable_grad():
        losses = _train(model, windows, tokenizer, size, seed)
    with quiet_host("transformers"):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    last = float(np.mean(losses[-max(1, len(losses) // 20) :]))
    (folder / "README.md").write_text(_card(size, seed, texts, windows, last), encoding="utf-8")


def _texts(characters: int, seed: int) -> list[str]:
    """Read as many characters of each source as fit, in random order."""
    rng = random.Random(seed)
    sources: list[Callable[[], Iterator[str]]] = [
        *((lambda name=name: _paragraphs(load_texts(name).values())) for name in _RUNNING_TEXTS),
        lambda: (f"{package.short}. {package.long}" for package in load_debian_packages()),
        lambda: (f"{each.summary} {each.code}" for each in load_stdlib_functions() if not each.held_out),
    ]
    chosen: list[str] = []
    for source in sources:
        found = list(source())
        rng.shuffle(found)
        lengths = itertools.accumulate(len(text) for text in found)
        chosen += [text for text, end in zip(found, lengths, strict=True) if end <= characters / len(sources)]
    rng.shuffle(chosen)
    return chosen


def _paragraphs(texts: Sequence[str] | Any) -> Iterator[str]:
    """Cut running texts into pieces of about two thousand characters, at the ends of lines."""
    for text in texts:
        piece = ""
        for line in text.splitlines():
            piece = f"{piece} {line.strip()}"
            if len(piece) > 2000:
                yield piece.strip()
                piece = ""
        if piece.strip():
            yield piece.strip()


def wordpieces(texts: Sequence[str], *, vocabulary: int, length: int) -> Any:
    """Learn a lower-casing wordpiece tokenizer with BERT's marks.

    Args:
        texts: What to learn from.
        vocabulary: Number of pieces, the five marks included.
        length: Longest text in tokens, for the tokenizer's own record.

    Returns:
        A ``PreTrainedTokenizerFast``.
    """
    host = require("tokenizers", extra="train")
    transformers = require("transformers", extra="train")
    core = host.Tokenizer(host.models.WordPiece(unk_token="[UNK]"))
    core.normalizer = host.normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = host.pre_tokenizers.BertPreTokenizer()
    core.decoder = host.decoders.WordPiece()
    core.train_from_iterator(
        texts,
        host.trainers.WordPieceTrainer(
            vocab_size=vocabulary, special_tokens=list(_MARKS), limit_alphabet=200, show_progress=False
        ),
    )
    ends = [(mark, core.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    core.post_processor = host.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _windows(texts: list[str], tokenizer: Any, length: int) -> NDArray[np.int64]:
    """Put the texts one after another, a separator between, and cut them into full windows (N, T)."""
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    stream = [token for text in encoded for token in (*text.ids, tokenizer.sep_token_id)]
    inner = length - 2
    rows = np.array(stream[: len(stream) // inner * inner], dtype=np.int64).reshape(-1, inner)
    first = np.full((len(rows), 1), tokenizer.cls_token_id)
    last = np.full((len(rows), 1), tokenizer.sep_token_id)
    return np.concatenate([first, rows, last], axis=1)


def _train(model: Any, windows: NDArray[np.int64], tokenizer: Any, size: Size, seed: int) -> list[float]:
    """Predict masked tokens; the output layer runs on these alone."""
    torch = require("torch", extra="train")
    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(len(windows)) for _ in range(1 + size.steps * size.batch_size // len(windows))]
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, weight_decay=0.01)
    rise = max(1, size.steps // 10)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / rise, (size.steps - step) / max(1, size.steps - rise))
    )
    model.train()
    losses = []
    for step in range(size.steps):
        batch = windows[order[step * size.batch_size : (step + 1) * size.batch_size]]
        wanted = (rng.random(batch.shape) < size.mask_rate) & (batch >= len(_MARKS))
        shown, fate = batch.copy(), rng.random(batch.shape)
        shown[wanted & (fate < 0.8)] = tokenizer.mask_token_id
        swapped = wanted & (fate >= 0.9)
        shown[swapped] = rng.integers(len(_MARKS), len(tokenizer), swapped.sum())
        states = model.base_model(input_ids=torch.from_numpy(shown)).last_hidden_state  # (B, T, D)
        logits = model.cls(states[torch.from_numpy(wanted)])
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch[wanted]))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        losses.append(loss.item())
        if step % 100 == 99:
            _log.info("step %d of %d: loss %.3f", step + 1, size.steps, np.mean(losses[-100:]))
    model.eval()
    return losses


def _card(size: Size, seed: int, texts: list[str], windows: NDArray[np.int64], loss: float) -> str:
    return f"""# Small encoder

A BERT of {size.num_layers} layers, {size.dim} wide, for experiments; made by `embedlab.models.small_encoder`.

- Texts: {len(texts):,} pieces, {sum(map(len, texts)):,} characters: {", ".join(_RUNNING_TEXTS)}, Debian package
  descriptions, documented functions of Python's standard library (without the modules held out for tests).
- Vocabulary: {size.vocabulary:,} wordpieces learned from these texts.
- Training: masked language modelling at {size.mask_rate:.0%}, {size.steps:,} steps of {size.batch_size} windows of
  {size.length} tokens out of {len(windows):,}; AdamW, peak learning rate {size.learning_rate:g}, seed {seed}.
- Cross-entropy of masked tokens over the last twentieth of the steps: {loss:.3f} nats.
"""


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    _log.info("%s", small_encoder())
