"""The three stages of fine-tuning: contrast within a batch, contrast with near misses, learn from a cross-encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab._core.quiet import quiet_host
from embedlab.text.dupmae.encoder import DuplexEncoder
from embedlab.text.dupmae.heads import masked_lm
from embedlab.text.dupmae.pooling import DuplexScore, pooling_of
from embedlab.text.dupmae.vectors import DuplexIndex

if TYPE_CHECKING:
    from datasets import Dataset


class Teacher(Protocol):
    """Scores pairs of query and passage, larger is nearer; a ``CrossEncoder`` of the host does."""

    def predict(self, pairs: Any, /, **options: Any) -> Any: ...


def duplex_loss(
    model: SentenceTransformer, *, temperature: float = 1.0, gather_across_devices: bool = False
) -> MultipleNegativesRankingLoss:
    """Make the contrastive loss of stages 1 and 2: pairs or tuples, all other passages of the batch as negatives.

    Args:
        model: A model with a ``DuplexPooling``; its mode and ``sparse_k`` decide what is scored.
        temperature: Divisor of the scores, above 0. Published 1: plain dot products.
        gather_across_devices: Whether the passages of all processes serve.

    Returns:
        The host's ``MultipleNegativesRankingLoss`` with ``DuplexScore``.

    Raises:
        InputError: ``temperature`` is not above 0, or the model has no ``DuplexPooling``.
    """
    if not temperature > 0:
        raise InputError(f"temperature={temperature}: must be above 0; published 1")
    score = DuplexScore(pooling_of(model))
    return MultipleNegativesRankingLoss(
        model, scale=1 / temperature, similarity_fct=score, gather_across_devices=gather_across_devices
    )


class DuplexDistillationLoss(nn.Module):
    r"""Learn the teacher's preference among a query's candidates, the loss of stage 3.

    :math:`KL(softmax(t) \| softmax(s)) + w L_{contrastive}` over the positive and the hard negatives of each query,
    with the teacher's scores t as labels and the model's own scores s.

    Args:
        model: A model with a ``DuplexPooling``.
        contrastive_weight: Weight w of the contrastive loss, at least 0. Published 1e-4.
        temperature: Divisor of the model's scores, above 0. Published 1.

    Raises:
        InputError: an option is out of range, or the model has no ``DuplexPooling``.
    """

    def __init__(
        self, model: SentenceTransformer, *, contrastive_weight: float = 1e-4, temperature: float = 1.0
    ) -> None:
        super().__init__()
        if not contrastive_weight >= 0:
            raise InputError(f"contrastive_weight={contrastive_weight}: must be at least 0; published 1e-4")
        self.contrast = duplex_loss(model, temperature=temperature)
        self.model, self.contrastive_weight = model, contrastive_weight
        # Not the host's scaling by the square of the temperature: the model's scores are divided, the teacher's not.
        pairwise = DuplexScore(pooling_of(model), pairwise=True)
        self.distil = DistillKLDivLoss(model, similarity_fct=lambda q, d: pairwise(q, d) / temperature)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Compute the loss of columns query, positive, negatives, with the teacher's scores of the last as labels."""
        embeddings = [self.model(features)["sentence_embedding"] for features in sentence_features]
        loss: Tensor = self.distil.compute_loss_from_embeddings(embeddings, labels)
        if self.contrastive_weight:
            loss = loss + self.contrastive_weight * self.contrast.compute_loss_from_embeddings(embeddings, labels)
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model's card."""
        return {"contrastive_weight": self.contrastive_weight}


def mine_negatives(
    encoder: DuplexEncoder,
    queries: Sequence[str],
    positives: Sequence[str],
    *,
    corpus: Sequence[str] | None = None,
    num_negatives: int = 15,
    top_k: int = 200,
    seed: int = 0,
) -> Dataset:
    """Draw hard negatives from what the encoder itself finds, for stages 2 and 3.

    Args:
        encoder: The model of the stage before.
        queries: One for each pair.
        positives: Its passage. All positives of a query that occurs again are spared.
        corpus: Where to look; None takes the positives.
        num_negatives: Negatives for each pair. Published 15.
        top_k: Among how many of the best they are drawn. Published 200.
        seed: Decides the draws.

    Returns:
        A data set with columns ``anchor``, ``positive``, ``negative_1`` and so on.

    Raises:
        InputError: different numbers of queries and positives, or fewer than ``num_negatives`` passages that are no
            positives of a query.
    """
    from datasets import Dataset

    if len(queries) != len(positives):
        raise InputError(f"positives: {len(positives)} for {len(queries)} queries, expected one for each")
    if num_negatives < 1 or top_k < num_negatives:
        raise InputError(f"num_negatives={num_negatives}, top_k={top_k}: expected 1 or more, and at least as many")
    passages = list(dict.fromkeys(positives if corpus is None else corpus))
    asked = list(dict.fromkeys(queries))
    right: dict[str, set[str]] = {query: set() for query in asked}
    for query, positive in zip(queries, positives, strict=True):
        right[query].add(positive)
    most = max(map(len, right.values()))
    index = DuplexIndex(encoder.encode_document(passages))
    places, _ = index.search(encoder.encode_query(asked), top_k=top_k + most)
    near = {
        query: [passages[place] for place in row if passages[place] not in right[query]][:top_k]
        for query, row in zip(asked, places.tolist(), strict=True)
    }
    if short := next((query for query in asked if len(near[query]) < num_negatives), None):
        raise InputError(
            f"num_negatives={num_negatives}: for the query {short!r:.60} only {len(near[short])} passages are no "
            "positives: lower it, or give a larger corpus"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(len(near[query]), num_negatives, replace=False) for query in queries]
    columns = {
        f"negative_{number + 1}": [near[query][int(row[number])] for query, row in zip(queries, drawn, strict=True)]
        for number in range(num_negatives)
    }
    return Dataset.from_dict({"anchor": list(queries), "positive": list(positives), **columns})


def add_teacher_scores(rows: Dataset, teacher: Teacher, *, batch_size: int = 32) -> Dataset:
    """Let a teacher score the candidates of each query.

    Args:
        rows: Columns ``anchor``, ``positive`` and negatives, in this order.
        teacher: A cross-encoder.
        batch_size: Pairs scored at once.

    Returns:
        The rows with a column ``label``: the scores of positive and negatives.
    """
    candidates = [name for name in rows.column_names if name != "anchor"]
    scores = [
        np.asarray(
            teacher.predict(
                list(zip(rows["anchor"], rows[name], strict=True)), batch_size=batch_size, show_progress_bar=False
            ),
            dtype=np.float64,
        ).reshape(-1)
        for name in candidates
    ]
    return rows.add_column("label", np.stack(scores, axis=1).tolist())


def train_teacher(
    model: SentenceTransformer,
    rows: Dataset,
    folder: Path,
    *,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 2e-5,
    seed: int = 0,
) -> Any:
    """Train a cross-encoder on mined tuples, starting from the encoder of a model.

    Args:
        model: Whose encoder it starts from.
        rows: Columns ``anchor``, ``positive`` and negatives.
        folder: For checkpoints.
        steps: Optimiser steps.
        batch_size: Queries in a step, on each device.
        learning_rate: At its peak. Published 2e-5 for encoders of this size.
        seed: Decides the fresh output layer and the order.

    Returns:
        The host's ``CrossEncoder``, in evaluation mode.
    """
    import tempfile

    import torch
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    body, tokenizer = masked_lm(model)
    encoder: Any = body.base_model
    with quiet_host("transformers", "sentence_transformers"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as start:
            encoder.save_pretrained(start)
            tokenizer.save_pretrained(start)
            teacher = CrossEncoder(start, num_labels=1, max_length=body.config.max_position_embeddings)
        arguments = CrossEncoderTrainingArguments(
            str(folder),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            warmup_steps=0.1,
            seed=seed,
            data_seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        loss = losses.MultipleNegativesRankingLoss(teacher, num_negatives=None)
        CrossEncoderTrainer(teacher, arguments, train_dataset=rows, loss=loss).train()
    return teacher.eval()
