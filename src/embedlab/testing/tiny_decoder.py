"""A decoder-only embedder so small that it is made from nothing in milliseconds: for tests and examples."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.testing.tiny import word_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Family = Literal["llama", "gpt2", "qwen2", "mistral"]


def tiny_decoder(
    texts: Sequence[str],
    *,
    family: Family = "llama",
    seed: int = 0,
    dim: int = 32,
    num_layers: int = 2,
    num_heads: int = 2,
    max_length: int = 64,
    pooling: str = "lasttoken",
    padding_side: Literal["left", "right"] = "right",
    pad_is_eos: bool = False,
) -> SentenceTransformer:
    """Make a small causal decoder with random weights and one token per word, as an encoder of sentences.

    A text becomes ``[CLS] words [SEP]``, which are the marks of its beginning and end. There is no dropout.

    Args:
        texts: Texts whose words become the vocabulary; other words are unknown to it.
        family: Whose architecture: GPT-2 has absolute positions, the others rotary ones; Mistral a sliding window
            field, which is off here.
        seed: Decides the weights.
        dim: Width of the embeddings, a multiple of ``num_heads``.
        num_layers: Number of layers.
        num_heads: Number of attention heads.
        max_length: Longest text in tokens.
        pooling: Mode of the host's ``Pooling``, such as ``"lasttoken"`` or ``"mean"``.
        padding_side: Where shorter texts of a batch are filled up.
        pad_is_eos: Whether the end mark also fills up, as in many released decoders.

    Returns:
        The embedder, on the CPU in float32, in evaluation mode; its attention is causal.

    Raises:
        InputError: ``texts`` hold no word, ``family`` is unknown, or ``dim`` is not a multiple of ``num_heads``.
        MissingExtraError: the packages of the extra ``train`` are missing.

    Example:
        >>> tiny_decoder(["a cat sat", "a dog ran"], family="gpt2").encode(["a cat ran"]).shape
        (1, 32)
    """
    host = require("sentence_transformers", extra="train")
    modules = require("sentence_transformers.sentence_transformer.modules", extra="train")
    with tempfile.TemporaryDirectory() as folder:  # the host takes models by folder only
        save_tiny_decoder(
            folder,
            texts=texts,
            family=family,
            seed=seed,
            dim=dim,
            num_layers=num_layers,
            num_heads=num_heads,
            max_length=max_length,
            padding_side=padding_side,
            pad_is_eos=pad_is_eos,
        )
        body = modules.Transformer(folder, max_seq_length=max_length)
    made: SentenceTransformer = host.SentenceTransformer(
        modules=[body, modules.Pooling(dim, pooling_mode=pooling)], device="cpu"
    )
    return made.eval()


def save_tiny_decoder(
    folder: str | Path,
    *,
    texts: Sequence[str],
    family: Family = "llama",
    seed: int = 0,
    dim: int = 32,
    num_layers: int = 2,
    num_heads: int = 2,
    max_length: int = 64,
    padding_side: Literal["left", "right"] = "right",
    pad_is_eos: bool = False,
) -> None:
    """Write the language model of ``tiny_decoder`` and its tokenizer, as ``AutoModelForCausalLM`` opens them.

    Args:
        folder: Where to write; it is made if missing.
        texts: See ``tiny_decoder``, as for all that follow.
        family: Whose architecture.
        seed: Decides the weights.
        dim: Width of the states.
        num_layers: Number of layers.
        num_heads: Number of attention heads.
        max_length: Longest text in tokens.
        padding_side: Where shorter texts of a batch are filled up.
        pad_is_eos: Whether the end mark also fills up.

    Raises:
        InputError: as for ``tiny_decoder``.
    """
    torch = require("torch", extra="train")
    transformers = require("transformers", extra="train")
    safetensors = require("safetensors.torch", extra="train")
    if family not in get_args(Family):
        raise InputError(f"family={family!r}: expected one of {', '.join(get_args(Family))}")
    if dim % num_heads:
        raise InputError(f"dim={dim} must be a multiple of num_heads={num_heads}")

    tokenizer = word_tokenizer(texts, max_length=max_length)
    if family == "qwen2":
        tokenizer = _byte_pair_tokenizer(texts, tokenizer)
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side = padding_side  # saved only if it is among the first
    if pad_is_eos:
        tokenizer.pad_token = tokenizer.eos_token
    config = _config(transformers, family, dim, num_layers, num_heads, max_length)
    for mark in ("bos", "eos", "pad"):
        setattr(config, f"{mark}_token_id", getattr(tokenizer, f"{mark}_token_id"))
    config.vocab_size = len(tokenizer)
    with torch.random.fork_rng(devices=[]):  # the host draws its first weights from the global state; give it back
        model = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                words = "embed" in name or "wte" in name
                weight.normal_(0.0, 1.0 if words else dim**-0.5, generator=generator)
    state = {
        name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"
    }  # tied to the words
    Path(folder).mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    safetensors.save_file(state, f"{folder}/model.safetensors", metadata={"format": "pt"})


def _byte_pair_tokenizer(texts: Sequence[str], like: Any) -> Any:
    """Make a tokenizer that the host can open as Qwen's, which is the only one it takes for that family."""
    tokenizers = require("tokenizers", extra="train")
    transformers = require("transformers", extra="train")
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = [like.pad_token, like.unk_token, like.cls_token, like.sep_token, like.mask_token]
    core.train_from_iterator(
        texts, tokenizers.trainers.BpeTrainer(vocab_size=4000, special_tokens=marks, show_progress=False)
    )
    model = json.loads(core.to_str())["model"]
    made = transformers.Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        model_max_length=like.model_max_length,
        **{f"{mark}_token": getattr(like, f"{mark}_token") for mark in ("pad", "unk", "cls", "sep", "mask")},
    )
    ends = [(mark, model["vocab"][mark]) for mark in (like.cls_token, like.sep_token)]
    made.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{like.cls_token} $A {like.sep_token}", special_tokens=ends
    )
    return made


def _config(transformers: Any, family: Family, dim: int, num_layers: int, num_heads: int, max_length: int) -> Any:
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": 8}  # set once the words are known
    if family == "gpt2":
        return transformers.GPT2Config(
            n_embd=dim,
            n_layer=num_layers,
            n_head=num_heads,
            n_inner=2 * dim,
            n_positions=max_length,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **ids,
        )
    fields: dict[str, Any] = {
        "hidden_size": dim,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": max(1, num_heads // 2),
        "intermediate_size": 2 * dim,
        "max_position_embeddings": max_length,
        "tie_word_embeddings": True,
        **ids,
    }
    if family == "mistral":
        fields["sliding_window"] = None
    made = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "mistral": "MistralConfig"}[family]
    return getattr(transformers, made)(**fields)
