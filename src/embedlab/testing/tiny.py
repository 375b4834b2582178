"""A sentence encoder so small that it is made from nothing in milliseconds: for tests and examples, not for use."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedlab._core.errors import InputError
from embedlab._core.extras import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerFast

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tiny_encoder(
    texts: Sequence[str],
    *,
    seed: int = 0,
    dim: int = 32,
    num_layers: int = 2,
    num_heads: int = 2,
    max_length: int = 64,
    **options: object,
) -> SentenceTransformer:
    """Make a small BERT with mean pooling, random weights and one token per word of the given texts.

    It has no dropout, so that two passes agree also in training mode, and weights wide enough for texts to differ.

    Args:
        texts: Texts whose words become the vocabulary; other words are unknown to it.
        seed: Decides the weights.
        dim: Width of the embeddings, a multiple of ``num_heads``.
        num_layers: Number of layers.
        num_heads: Number of attention heads.
        max_length: Longest text in tokens.
        options: Further fields of the BERT configuration, such as ``attn_implementation``.

    Returns:
        The encoder, on the CPU in float32, in evaluation mode.

    Raises:
        InputError: ``texts`` hold no word, or ``dim`` is not a multiple of ``num_heads``.
        MissingExtraError: the packages of the extra ``train`` are missing.

    Example:
        >>> tiny_encoder(["a cat sat", "a dog ran"]).encode(["a cat ran"]).shape
        (1, 32)
    """
    torch = require("torch", extra="train")
    host = require("sentence_transformers", extra="train")
    modules = require("sentence_transformers.sentence_transformer.modules", extra="train")
    transformers = require("transformers", extra="train")
    safetensors = require("safetensors.torch", extra="train")
    if dim % num_heads:
        raise InputError(f"dim={dim} must be a multiple of num_heads={num_heads}")

    tokenizer = word_tokenizer(texts, max_length=max_length)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=2 * dim,
        max_position_embeddings=max_length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **options,
    )
    with torch.random.fork_rng(devices=[]):  # the host draws its first weights from the global state; give it back
        model = transformers.BertModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0.0, 1.0 if "embeddings" in name else dim**-0.5, generator=generator)
    with tempfile.TemporaryDirectory() as folder:  # the host takes models by folder only
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        safetensors.save_file(model.state_dict(), f"{folder}/model.safetensors", metadata={"format": "pt"})
        body = modules.Transformer(folder, max_seq_length=max_length)
    encoder: SentenceTransformer = host.SentenceTransformer(
        modules=[body, modules.Pooling(dim, pooling_mode="mean")], device="cpu"
    )
    return encoder.eval()


def word_tokenizer(texts: Sequence[str], *, max_length: int = 64) -> PreTrainedTokenizerFast:
    """Make a lower-casing tokenizer with one token per word or punctuation mark of the given texts.

    Args:
        texts: Texts whose words become the vocabulary.
        max_length: Longest text in tokens, the two marks at its ends included.

    Returns:
        A tokenizer with BERT's special tokens.

    Raises:
        InputError: ``texts`` hold no word.

    Example:
        >>> word_tokenizer(["A cat sat."]).tokenize("a dog sat")
        ['a', '[UNK]', 'sat']
    """
    tokenizers = require("tokenizers", extra="train")
    transformers = require("transformers", extra="train")
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())} - set(_SPECIAL))
    if not words:
        raise InputError(f"texts must hold at least one word, got {list(texts)[:3]!r}")
    ids = {word: number for number, word in enumerate((*_SPECIAL, *words))}

    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    core.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    core.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    made: PreTrainedTokenizerFast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    return made
