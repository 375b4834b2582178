"""A masked language model in three parts: encoder, the layers before its vocabulary, and the vocabulary itself."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN

from embedlab._core.errors import InputError
from embedlab._core.quiet import quiet_host

_log = logging.getLogger(__name__)

# family -> layer, norm, and the setting that names the activation, of what stands before the output layer
_BEFORE_OUTPUT = {
    "BERT": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "hidden_act"),
    "RoBERTa or MPNet": ("lm_head.dense", "lm_head.layer_norm", None),
    "DistilBERT": ("vocab_transform", "vocab_layer_norm", "activation"),
    "ModernBERT": ("head.dense", "head.norm", "classifier_activation"),
}


class VocabularyHead(nn.Module):
    """Score words by hidden states as a masked language model does: ``output(norm(activation(dense(h))))``.

    Args:
        dense: First layer, D to D.
        norm: Layer norm after it.
        output: Output layer, V rows of width D; often tied to the input embeddings.
        activation: What comes between, by the name that transformers gives it.
    """

    def __init__(self, dense: nn.Linear, norm: nn.LayerNorm, output: nn.Linear, *, activation: str = "gelu") -> None:
        super().__init__()
        self.dense, self.norm, self.output, self.activation = dense, norm, output, activation

    @classmethod
    def of(cls, model: PreTrainedModel) -> VocabularyHead:
        """Take the head of a model; the layers are shared with it, not copied.

        Args:
            model: A masked language model of the BERT, RoBERTa, MPNet, DistilBERT or ModernBERT families.

        Raises:
            InputError: the model's head is built in another way.
        """
        parts: dict[str, Any] = dict(model.named_modules())
        output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        for dense, norm, setting in _BEFORE_OUTPUT.values():
            if dense in parts and norm in parts and isinstance(output, nn.Linear):
                activation = "gelu" if setting is None else getattr(model.config, setting)
                return cls(parts[dense], parts[norm], output, activation=activation)
        raise InputError(
            f"model {type(model).__name__} has no head that is known: take a masked language model of the families "
            + ", ".join(_BEFORE_OUTPUT)
        )

    @classmethod
    def empty(cls, settings: Mapping[str, Any]) -> VocabularyHead:
        """Make a head whose weights are to be loaded, from the ``settings`` of another."""
        dim, biases = settings["dim"], settings["biases"]
        with torch.random.fork_rng(devices=[]):
            return cls(
                nn.Linear(dim, dim, bias=biases[0]),
                nn.LayerNorm(dim, eps=settings["eps"], bias=biases[1]),
                nn.Linear(dim, settings["vocabulary"], bias=biases[2]),
                activation=settings["activation"],
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What ``empty`` needs."""
        vocabulary, dim = self.output.weight.shape
        biases = [layer.bias is not None for layer in (self.dense, self.norm, self.output)]
        norm = {"eps": self.norm.eps, "activation": self.activation}
        return {"dim": dim, "vocabulary": vocabulary, "biases": biases, **norm}

    def transform(self, states: Tensor) -> Tensor:
        """Do all but the output layer."""
        return cast(Tensor, self.norm(ACT2FN[self.activation](self.dense(states))))

    def forward(self, states: Tensor) -> Tensor:
        """Score all words: (..., D) -> (..., V)."""
        return cast(Tensor, self.output(self.transform(states)))

    def strongest(self, states: Tensor, counted: Tensor, *, chunk: int = 32) -> Tensor:
        """Score every word by the token that speaks for it most: the largest of its scores over the counted tokens.

        The scores of all tokens, T times as many numbers, are never held at once, neither on the way there nor back.

        Args:
            states: Hidden states.
            counted: Which tokens count; at least one a row.
            chunk: Tokens whose scores are held at once; decides memory, not the result.

        Shape:
            states (B, T, D), counted (B, T) bool -> (B, V)

        Returns:
            The maxima, (paper: mu).
        """
        rows = self.transform(states)
        learns = torch.is_grad_enabled() and (rows.requires_grad or self.output.weight.requires_grad)
        found: Tensor = _MaxScores.apply(rows, self.output.weight, counted, chunk, learns)  # type: ignore[no-untyped-call]
        bias: Tensor | None = self.output.bias  # of a head that has none, the host says otherwise
        return found if bias is None else found + bias


class _MaxScores(torch.autograd.Function):
    """``max_t x_t . w_v``, whose gradient is a sparse matrix: one token for each word of each text."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, counted: Tensor, chunk: int, learns: bool) -> Tensor:
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        # A token that does not count is given the scores of one that does: cheaper than to overwrite V scores of it.
        length = states.shape[1]
        speaks = torch.where(
            counted, torch.arange(length, device=counted.device), counted.int().argmax(1, keepdim=True)
        )
        rows = states.to(dtype).gather(1, speaks[..., None].expand_as(states))
        words = weight.to(dtype).T
        best = rows.new_full((len(states), len(weight)), float("-inf"))
        if not learns:  # and where nobody asks, it is not kept which token won
            for start in range(0, length, chunk):
                best = torch.maximum(best, (rows[:, start : start + chunk] @ words).amax(dim=1))
            return best.to(weight.dtype)
        place = torch.zeros_like(best, dtype=torch.long)
        for start in range(0, length, chunk):
            top, where = (rows[:, start : start + chunk] @ words).max(dim=1)  # (B, V)
            place = torch.where(top > best, where + start, place)
            best = torch.maximum(top, best)
        place = speaks.gather(1, place)
        ctx.save_for_backward(states, weight, place)
        return best.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        states, weight, place = ctx.saved_tensors
        gradient = gradients[0].to(weight.dtype)  # (B, V)
        size, length, dim = states.shape
        rows = (torch.arange(size, device=place.device)[:, None] * length + place).flatten()
        columns = torch.arange(weight.shape[0], device=place.device).repeat(size)
        with torch.autocast(states.device.type, enabled=False):
            one = torch.sparse_coo_tensor(
                torch.stack([rows, columns]),
                gradient.flatten(),
                (size * length, weight.shape[0]),
                check_invariants=False,
            )
            to_states = torch.sparse.mm(one, weight)
            to_weight = torch.sparse.mm(one.t(), states.reshape(-1, dim).to(weight.dtype))
        return to_states.view_as(states).to(states.dtype), to_weight, None, None, None


def masked_lm(
    model: str | Path | PreTrainedModel | SentenceTransformer,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a masked language model, giving an encoder without a head a fresh one.

    Args:
        model: A folder or hub name; a masked language model; or a sentence-transformers model, whose encoder is taken,
            with the head of its ``DuplexPooling``, else that of the folder it came from, else a fresh one.
        tokenizer: Goes with a masked language model that is handed over; else it is found beside the weights.
        seed: Decides the weights of a fresh head; its output layer is tied to the input embeddings.

    Returns:
        A model of its own, nothing shared with the argument, in evaluation mode, and its tokenizer.

    Raises:
        InputError: there is no such model, it is no masked language model, or the tokenizer is missing.
    """
    made: Any
    if isinstance(model, SentenceTransformer):
        body: Any = model[0].model
        head = _head_of(model)
        with torch.random.fork_rng(devices=[]), quiet_host("transformers"):
            torch.manual_seed(seed)
            made = AutoModelForMaskedLM.from_config(body.config)  # type: ignore[no-untyped-call]
        weights = {name: value for name, value in body.state_dict().items() if not name.startswith("pooler.")}
        missing = made.base_model.load_state_dict(weights, strict=False).missing_keys
        if missing:
            raise InputError(f"model: its encoder lacks {missing[0]}, which {type(made).__name__} needs")
        if head is not None:
            VocabularyHead.of(made).load_state_dict(head.state_dict())
        else:
            _log.warning("the model has no vocabulary head; a fresh one, tied to its input embeddings, is trained")
        made.to(body.device)
        return made.eval(), tokenizer or model.tokenizer
    if isinstance(model, PreTrainedModel):
        if tokenizer is None:
            raise InputError("tokenizer is missing: a model that is handed over needs it beside")
        made = copy.deepcopy(model)
        return made.eval(), tokenizer
    with torch.random.fork_rng(devices=[]), quiet_host("transformers"):
        torch.manual_seed(seed)
        try:
            made = AutoModelForMaskedLM.from_pretrained(str(model))
            found = tokenizer or AutoTokenizer.from_pretrained(str(model))
        except (OSError, ValueError) as error:
            raise InputError(f"model={str(model)!r} is no masked language model: {str(error)[:300]}") from error
    return made.eval(), found


def _head_of(model: SentenceTransformer) -> VocabularyHead | None:
    """Find the head that a sentence-transformers model brings along, or that lies in the folder it was loaded from."""
    for module in model:
        if isinstance(head := getattr(module, "head", None), VocabularyHead):
            return head
    body: Any = model[0].model
    source = str(getattr(body.config, "_name_or_path", ""))
    if not Path(source).is_dir():
        return None
    with torch.random.fork_rng(devices=[]), quiet_host("transformers"):
        try:
            beside, about = AutoModelForMaskedLM.from_pretrained(source, output_loading_info=True)
        except (OSError, ValueError):
            return None  # the folder of an encoder that transformers knows without a head
    return None if about["missing_keys"] else VocabularyHead.of(beside)
