"""A frozen causal language model as an encoder, by a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.models.encoder import checked_texts, unit_rows
from embedlab.models.sentence_transformer import SentenceTransformerModel
from embedlab.text.prompting.sparse import as_csr, head_matrix, sparse_weights
from embedlab.text.prompting.templates import load_templates
from embedlab.text.prompting.whitening import Fix, whitening_module

if TYPE_CHECKING:
    from embedlab.text.synthesis.generators import TextGenerator

_REWRITE = "Rewrite the sentence in other words, keeping what it says.\n<sentence>{text}</sentence>\nRewritten:"


class PromptEmbedder(SentenceTransformerModel):
    """Encode with a causal language model that nobody has trained for it, by a prompt around every text.

    ``host`` is an ordinary ``SentenceTransformer`` of one ``PromptModule``, which can be saved, trained and evaluated
    like any other.

    Args:
        model: Folder or hub name of a causal language model, or the model itself.
        method: ``"eol"``, ``"cot"``, ``"knowledge"``, ``"echo"``, ``"echo_last"``, ``"meta"``, ``"token_prepend"``,
            ``"promptreps"``, ``"gen_eol"``; the plain ``"last"``, ``"mean"``, ``"weighted_mean"``; or the name of a
            template.
        tokenizer: The tokenizer of a model that is given itself.
        layer: Which states: -1 the last layer's; -2 the one's before, and so on. Earlier ones are often better.
        demos: (text, word) pairs shown before the prompt.
        contrast: Name of a template whose vector is subtracted, such as ``"auxiliary"``; None for none.
        contrast_weight: How much of it is subtracted.
        templates: TOML file with templates and methods of your own, in the form of the package's ``templates.toml``.
        generator: Who writes paraphrases, for ``"gen_eol"``.
        num_variants: Paraphrases of a text, for ``"gen_eol"``, at least 1.
        max_length: Most tokens of a prompt; None for what the model takes.
        padding_side: ``"right"`` or ``"left"``; the vectors are the same.
        slot_layers: See ``PromptModule``, for ``"token_prepend"``.
        device: Where torch runs; None leaves a model that is given where it is.

    Raises:
        InputError: a name is unknown, a value out of range, or a model comes without its tokenizer.
        MissingExtraError: the packages of the extra ``train`` are missing.
    """

    def __init__(
        self,
        model: Any,
        *,
        method: str = "eol",
        tokenizer: Any = None,
        layer: int = -1,
        demos: Sequence[tuple[str, str]] | None = None,
        contrast: str | None = None,
        contrast_weight: float = 0.5,
        templates: str | Path | None = None,
        generator: TextGenerator | None = None,
        num_variants: int = 2,
        max_length: int | None = None,
        padding_side: str = "right",
        slot_layers: int | None = None,
        device: str | None = None,
    ) -> None:
        library = require("sentence_transformers", extra="train")
        from embedlab.text.prompting.module import PromptModule

        if (method == "gen_eol") != (generator is not None):
            raise InputError(f"generator={generator!r}: method='gen_eol' needs one, and no other method does")
        if num_variants < 1:
            raise InputError(f"num_variants={num_variants}: must be at least 1")
        model, tokenizer, name = _opened(model, tokenizer)
        known = load_templates(templates)
        prompts = known.of(method)
        weights = [1 / len(prompts)] * len(prompts)
        if contrast is not None:
            prompts, weights = [*prompts, known.named(contrast)], [*weights, -contrast_weight]
        module = PromptModule(
            model,
            tokenizer,
            templates=prompts,
            weights=weights,
            demos=demos,
            layer=layer,
            slot_layers=slot_layers,
            max_seq_length=max_length,
            padding_side=padding_side,
        )
        self.name, self.method = name, method
        self.host = library.SentenceTransformer(modules=[module], device=device or str(_device(model))).eval()
        self.dim = module.get_embedding_dimension()
        self._generator, self._num_variants = generator, num_variants

    def fit(self, texts: Sequence[str], *, fix: Fix = "whiten") -> Self:
        """Learn from texts what all vectors share, and take it away from now on; see ``whitening``.

        Args:
            texts: Many texts of the kind to be encoded, several times as many as the vectors are wide.
            fix: ``"centre"``, ``"standardise"`` or ``"whiten"``.

        Returns:
            The embedder itself; the map is a further module of ``host``.

        Raises:
            InputError: there are fewer than two texts, or ``fix`` is unknown.
        """
        if len(self.host) > 1:
            self.host.pop(-1)
        raw = self.host.encode(checked_texts(texts), show_progress_bar=False, convert_to_numpy=True)
        self.host.append(whitening_module(raw, fix=fix).to(self.host.device))
        self.__dict__.pop("fingerprint", None)
        return self

    def encode_sparse(
        self, texts: Sequence[str], *, top_k: int = 128, stop_words: Sequence[str] = (), batch_size: int = 32
    ) -> Any:
        """Encode as term weights, by what the model expects after the prompt; see ``sparse_weights``.

        Args:
            texts: The texts.
            top_k: Most terms of a text.
            stop_words: Words that get no weight, in small letters; PromptReps leaves the common ones of English out.
            batch_size: Texts in one pass.

        Shape:
            texts N -> (N, V) scipy CSR matrix, float32

        Returns:
            Weights at least 0, of tokens of the text alone. The score of a query is its dot product with a document.

        Raises:
            InputError: the method has more than one prompt, or none that ends in a token to go on from.
        """
        torch = require("torch", extra="train")
        module = self.host[0]
        if len(module.templates) != 1 or module.templates[0].pool != "end" or module.layer != -1:
            raise InputError(
                f"method={self.method!r}: sparse weights need one prompt, its last token and the last layer; "
                "use method='promptreps'"
            )
        head, rows = head_matrix(module.model), []
        checked, stopped = checked_texts(texts), _tokens_of(stop_words, module.tokenizer)
        for start in range(0, len(checked), batch_size):
            block = checked[start : start + batch_size]
            with torch.inference_mode():
                features = {key: value.to(self.host.device) for key, value in module.preprocess(block).items()}
                logits = module(features)["sentence_embedding"] @ head.T  # (B, V)
            marks = _occurring(block, features, module.tokenizer, logits)
            marks[:, stopped] = 0
            rows.append(sparse_weights(logits, marks, top_k=top_k))
        return as_csr(rows, len(head))

    def _encode(
        self, texts: Sequence[str], prompt: str | None, batch_size: int, on_progress: Callable[[int], None] | None
    ) -> NDArray[np.float32]:
        rows = super()._encode(texts, prompt, batch_size, on_progress)
        if self._generator is None:
            return rows
        checked = checked_texts(texts)
        asked = [place for place, text in enumerate(checked) if text.strip()]
        for turn in range(self._num_variants):
            prompts = [_REWRITE.format(text=checked[place]) for place in asked]
            variants = self._generator.generate(prompts, max_tokens=64, seed=turn)
            rows[asked] += super()._encode(variants, prompt, batch_size, None)  # an empty answer adds the zero row
        return unit_rows(rows)


def _opened(model: Any, tokenizer: Any) -> tuple[Any, Any, str]:
    if isinstance(model, str | Path):
        transformers = require("transformers", extra="train")
        try:
            opened = transformers.AutoModelForCausalLM.from_pretrained(str(model)).eval()
            return opened, tokenizer or transformers.AutoTokenizer.from_pretrained(str(model)), str(model)
        except (OSError, ValueError) as error:
            raise InputError(
                f"model={str(model)!r}: no causal language model can be loaded from it ({error})"
            ) from error
    if tokenizer is None:
        raise InputError("tokenizer=None: a model that is loaded already needs its tokenizer")
    return model, tokenizer, str(getattr(model.config, "name_or_path", "") or "prompted")


def _device(model: Any) -> Any:
    return next(model.parameters()).device


def _occurring(texts: Sequence[str], features: Any, tokenizer: Any, like: Any) -> Any:
    """Mark the tokens of each text, (B, V), as far as the prompt had room; the first word also as after a space."""
    marks = like.new_zeros(like.shape)
    for row, text in enumerate(texts):
        marks[row, features["input_ids"][row][features["text_mask"][row].bool()]] = 1
        marks[row, tokenizer(" " + (text.split() or [""])[0], add_special_tokens=False)["input_ids"]] = 1
    return marks


def _tokens_of(words: Sequence[str], tokenizer: Any) -> list[int]:
    """Find the words that are one token, in small letters and capitalised, first or after a space."""
    forms = [space + form for word in words for form in (word.lower(), word.capitalize()) for space in ("", " ")]
    found = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
    return sorted({ids[0] for ids in found if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
