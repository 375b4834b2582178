"""Both sides of a comparison in one space: texts, declared concepts, and items that have both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from embedlab.text.sesa.layer import LOGITS, ExplicitLayer
from embedlab.text.sesa.objective import unit
from embedlab.text.sesa.set_side import ConceptSetEncoder


class Sides(nn.Module):
    r"""Hold all that is trained, and turn what a batch has into activations.

    A text gives :math:`\phi(W z + b)`, declared concepts :math:`\phi(P^\top s)`; an item with both gives
    :math:`g \odot a_{text} + (1 - g) \odot a_{set}`, both at length one, with a trained gate g for each concept.

    Args:
        body: The host's modules that turn a text into one embedding z.
        layer: The explicit layer.
        sets: The side of declared concepts.

    Attributes:
        host: Body and layer as one model of the host.
    """

    def __init__(self, body: Sequence[nn.Module], layer: ExplicitLayer, sets: ConceptSetEncoder) -> None:
        super().__init__()
        self.host = SentenceTransformer(modules=[*body, layer], device="cpu")
        self.sets = sets
        self.raw_gate = nn.Parameter(torch.zeros(len(layer.concepts)))
        self.alpha, self.beta = nn.Parameter(torch.tensor(8.0)), nn.Parameter(torch.tensor(-4.0))

    @property
    def layer(self) -> ExplicitLayer:
        """The explicit layer."""
        found: Any = self.host[-1]
        return found  # type: ignore[no-any-return]

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Read texts up to the explicit layer.

        Args:
            texts: The texts.

        Returns:
            Embeddings z, (N, h).
        """
        features: Any = {
            key: value.to(self.alpha.device) if isinstance(value, Tensor) else value
            for key, value in self.host.preprocess(list(texts)).items()
        }
        for module in list(self.host)[:-1]:
            features = module(features)
        found: Tensor = features["sentence_embedding"]
        return found

    def of_texts(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Turn embeddings of texts into activations and logits, (N, m) each."""
        features = self.layer({"sentence_embedding": embeddings})
        return features["sentence_embedding"], features[LOGITS]

    def of_sets(self, declared: Tensor) -> Tensor:
        """Turn declared concepts into activations (N, m); who declares nothing gets the zero row."""
        found = self.layer.activate(self.sets(declared))
        return torch.where((declared != 0).any(-1, keepdim=True), found, torch.zeros_like(found))

    def blend(self, of_text: Tensor, of_set: Tensor) -> Tensor:
        """Join the activations of items that have both, (N, m)."""
        gate = self.raw_gate.sigmoid()
        return gate * unit(of_text) + (1 - gate) * unit(of_set)
