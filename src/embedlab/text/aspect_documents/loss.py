"""The Siamese loss as a loss of sentence-transformers, for fine-tuning a model or an adapter to one aspect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.text.aspect_documents.pairs import Relation
from embedlab.text.aspect_documents.training import ranking_loss


class AspectRankingLoss(nn.Module):
    """Rank the partner of each document above those of the others in the batch, unless these are alike too.

    ``-log( e^(cos(a_i, p_i)/t) / sum_j e^(cos(a_i, p_j)/t) )``, where the sum leaves out every j != i whose document
    shares a label with document i or is of its group: in a batch of a frequent label they would be false negatives.

    Args:
        model: The model under training.
        relation: Who is alike (``AspectPairs.relation``).
        temperature: t, above 0; the host's scale of 20 is 0.05.

    Shape:
        anchors (B, T), positives (B, T) tokens, labels (B, 2) places of both documents -> loss () float

    Raises:
        InputError: the temperature is not above 0, or labels are no places of documents.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> from embedlab.text.aspect_documents import AspectPairs
        >>> texts = ["red car", "red bus", "old car", "old bus"]
        >>> pairs = AspectPairs.from_labels(texts, {"colour": [{"red"}, {"red"}, {"old"}, {"old"}]}, folds=2)
        >>> model = tiny_encoder(texts)
        >>> loss = AspectRankingLoss(model, pairs.relation("colour"))
        >>> columns = [model.preprocess(["red car", "old car"]), model.preprocess(["red bus", "old bus"])]
        >>> loss(columns, torch.tensor([[0, 1], [2, 3]])).ndim
        0

    References:
        Ostendorff et al. (2022), Specialized Document Embeddings for Aspect-based Similarity of Research Papers,
        arXiv:2203.14541v1, section 3 (Siamese); official code malteos/aspect-document-embeddings (read, not copied).
        The mask is ours.
    """

    def __init__(self, model: nn.Module, relation: Relation, *, temperature: float = 0.05) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature={temperature}: must be above 0")
        self.model, self.relation, self.temperature = model, relation, temperature

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        """Return the mean loss of a batch; ``labels`` are the places of anchors and positives among the documents."""
        anchors, positives = (
            nn.functional.normalize(self.model(dict(column))["sentence_embedding"], dim=1)
            for column in sentence_features
        )
        if labels is None or labels.shape != (len(anchors), 2):
            shape = None if labels is None else tuple(labels.shape)
            raise InputError(f"labels of shape {shape}: (B, 2) is needed, the places of anchor and positive document")
        left, right = labels.cpu().numpy().T
        out = self.relation.alike(left, right) | self.relation.together(left, right)
        return ranking_loss(anchors, positives, out=torch.from_numpy(out), temperature=self.temperature)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        return {"temperature": self.temperature}
