"""Fine-tuning a sentence-transformers model for each aspect: a whole copy, or a low-rank adapter."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.text.aspect_documents.loss import AspectRankingLoss
from embedlab.text.aspect_documents.pairs import AspectPairs, Pairs, Rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How a model or an adapter is fine-tuned.

    Args:
        epochs: How often each pair is seen. (paper: 3 Siamese, 4 classification)
        batch_size: Pairs in a step. (paper: 25 and 24)
        learning_rate: Of AdamW. (paper: 2e-5; adapters want about ten times as much)
        warmup_steps: Steps over which it rises; it then falls to 0. (paper: 100)
        max_pairs: Most positive pairs used; None for all.
        rank: Rank of adapters.

    Raises:
        InputError: a number is out of range.
    """

    epochs: int = 3
    batch_size: int = 25
    learning_rate: float = 2e-5
    warmup_steps: int = 100
    max_pairs: int | None = None
    rank: int = 16

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "rank"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if not (self.learning_rate > 0 and self.warmup_steps >= 0 and (self.max_pairs is None or self.max_pairs > 1)):
            raise InputError(f"{self}: learning_rate must be above 0, warmup_steps at least 0, max_pairs above 1")


@dataclass
class TunedModels:
    """Fine-tuned models by aspect; with adapters they are all one model.

    Args:
        models: Model of each aspect.
        adapters: Whether they are one model, which must be switched to the aspect.
    """

    models: dict[str, SentenceTransformer] = field(default_factory=dict)
    adapters: bool = False

    def switch(self, aspect: str) -> SentenceTransformer:
        """Return the model of an aspect, its adapter switched on."""
        model = self.models[aspect]
        if self.adapters:
            body: Any = model[0]
            body.model.set_adapter(aspect)
        return model

    def encode(self, aspect: str, texts: Sequence[str]) -> Floats:
        """Encode texts in one aspect.

        Args:
            aspect: Its name.
            texts: The texts.

        Returns:
            Rows (N, D), of any length.
        """
        model = self.switch(aspect)
        return np.asarray(model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True), np.float32)

    def save(self, folder: Path) -> None:
        """Write each model, or each adapter, to a folder of its own.

        Args:
            folder: The folder that holds them.
        """
        for aspect, model in self.models.items():
            if not self.adapters:
                model.save(str(folder / aspect), create_model_card=False)
        if self.adapters:  # peft makes a folder for each by itself
            body: Any = next(iter(self.models.values()))[0]
            body.model.save_pretrained(str(folder), save_embedding_layers=False)  # adapters are linear alone

    @classmethod
    def load(cls, folder: Path, host: SentenceTransformer, aspects: Sequence[str], *, adapters: bool) -> TunedModels:
        """Read what ``save`` has written.

        Args:
            folder: The folder that holds them.
            host: The model that adapters belong on; it is left as it is.
            aspects: Names of the aspects.
            adapters: Whether it holds adapters.

        Returns:
            The models, in evaluation mode.

        Raises:
            InputError: one of them is missing or damaged.
        """
        try:
            if not adapters:
                library: Any = require("sentence_transformers", extra="train")
                return cls({a: library.SentenceTransformer(str(folder / a), device=str(host.device)) for a in aspects})
            peft: Any = require("peft", extra="train")
            model: Any = copy.deepcopy(host)
            body = peft.PeftModel.from_pretrained(model[0].model, str(folder / aspects[0]), adapter_name=aspects[0])
            for aspect in aspects[1:]:
                body.load_adapter(str(folder / aspect), adapter_name=aspect)
            model[0].model = body
            return cls(dict.fromkeys(aspects, model.eval()), True)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: a model of an aspect is missing or damaged ({str(error)[:200]})") from error


def tune(
    host: SentenceTransformer,
    pairs: AspectPairs,
    aspects: Sequence[str],
    *,
    rows: Rows | None,
    adapters: bool,
    classify: bool,
    tuning: FineTuning,
    seed: int,
) -> TunedModels:
    """Fine-tune a copy of a model, or an adapter on a copy, for each aspect.

    Args:
        host: The model; it is left as it is.
        pairs: Documents and labels.
        aspects: The aspects wanted.
        rows: Places of the documents to learn from; None for all.
        adapters: Whether it is one copy with an adapter for each aspect.
        classify: Whether pairs are classified by a cross-encoder, whose body then embeds, instead of ranked.
        tuning: How.
        seed: Decides the order of the pairs and first weights.

    Returns:
        The models.

    Raises:
        InputError: an aspect has no pair, or the model has no transformer to tune.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not adapters:
            tuned = TunedModels({aspect: copy.deepcopy(host) for aspect in aspects})
        else:
            tuned = TunedModels(dict.fromkeys(aspects, _with_adapters(copy.deepcopy(host), aspects, tuning.rank)), True)
        for aspect in aspects:
            model = tuned.switch(aspect)
            chosen, relation = pairs.sample(aspect, rows), pairs.relation(aspect, rows)
            if not classify:
                _rank(model, pairs, chosen, AspectRankingLoss(model, relation), tuning, seed)
            else:
                _classify(model, pairs, chosen, tuning, seed)
            model.eval()
    return tuned


def _with_adapters(model: SentenceTransformer, aspects: Sequence[str], rank: int) -> SentenceTransformer:
    peft: Any = require("peft", extra="train")
    body: Any = model[0]
    if not hasattr(body, "model"):
        raise InputError(f"mode='lora': the model begins with {type(body).__name__}, which has no layers to adapt")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    body.model = peft.get_peft_model(body.model, config, adapter_name=aspects[0])
    for aspect in aspects[1:]:
        body.model.add_adapter(aspect, config)
    return model


def _rank(
    model: SentenceTransformer, pairs: AspectPairs, chosen: Pairs, ranking: nn.Module, tuning: FineTuning, seed: int
) -> None:
    def loss(left: Rows, right: Rows, gold: Tensor) -> Tensor:
        columns = [_features(model, [pairs.docs[n] for n in side]) for side in (left, right)]
        return ranking(columns, torch.from_numpy(np.stack([left, right], axis=1)))  # type: ignore[no-any-return]

    _descend(model, loss, chosen.positives, None, tuning, seed)


def _classify(model: SentenceTransformer, pairs: AspectPairs, chosen: Pairs, tuning: FineTuning, seed: int) -> None:
    """Train the body as a cross-encoder: both texts in one pass, judged by the state of the first token."""
    body: Any = model[0]
    if not hasattr(body, "model"):
        raise InputError(f"way='classification': {type(body).__name__} has no transformer that reads two texts at once")
    if not len(chosen.negatives):
        raise InputError("pairs: classification needs negative pairs; set neg_ratio above 0")
    judge = nn.Linear(body.model.config.hidden_size, 1).to(model.device)

    def loss(left: Rows, right: Rows, gold: Tensor) -> Tensor:
        texts = ([pairs.docs[n] for n in side] for side in (left, right))
        tokens = model.tokenizer(
            *texts, padding=True, truncation=True, max_length=model.max_seq_length, return_tensors="pt"
        )
        states = body.model(**tokens.to(model.device)).last_hidden_state[:, 0]  # (B, D)
        return nn.functional.binary_cross_entropy_with_logits(judge(states)[:, 0], gold.to(model.device))

    _descend(model, loss, chosen.positives, chosen.negatives, tuning, seed, also=judge)


def _descend(
    model: SentenceTransformer,
    loss: Any,
    positives: Rows,
    negatives: Rows | None,
    tuning: FineTuning,
    seed: int,
    *,
    also: nn.Module | None = None,
) -> None:
    rng = np.random.default_rng(seed)
    both = positives if tuning.max_pairs is None else rng.permutation(positives)[: tuning.max_pairs]
    gold = np.ones(len(both), np.float32)
    if negatives is not None:
        others = negatives[: max(1, len(both) * len(negatives) // len(positives))]
        both, gold = np.concatenate([both, others]), np.concatenate([gold, np.zeros(len(others), np.float32)])
    size = min(tuning.batch_size, len(both))
    total = tuning.epochs * (len(both) // size)
    trained = [p for p in model.parameters() if p.requires_grad] + (list(also.parameters()) if also else [])
    optimiser = torch.optim.AdamW(trained, lr=tuning.learning_rate, weight_decay=0.01)
    warmup = min(tuning.warmup_steps, total // 10)
    model.train()
    step = 0
    for _ in range(tuning.epochs):
        order = rng.permutation(len(both))
        for start in range(0, len(both) - size + 1, size):
            chosen = order[start : start + size]
            value = loss(both[chosen, 0], both[chosen, 1], torch.from_numpy(gold[chosen]))
            rise, fall = (step + 1) / (warmup + 1), (total - step) / max(total - warmup, 1)
            optimiser.param_groups[0]["lr"] = tuning.learning_rate * min(rise, fall, 1.0)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            step += 1


def _features(model: SentenceTransformer, texts: list[str]) -> dict[str, Tensor]:
    return {
        name: each.to(model.device) if hasattr(each, "to") else each for name, each in model.preprocess(texts).items()
    }
