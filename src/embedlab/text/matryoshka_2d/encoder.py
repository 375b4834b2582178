"""One trained model as many encoders: choose the depth and the width call by call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.models.sentence_transformer import SentenceTransformerModel
from embedlab.text.matryoshka_2d.blocks import check_readout, find_blocks, view, width_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    Progress = Callable[[int], None] | None


class ElasticEncoder:
    """Encode with the first layers of a model, to the first dimensions, chosen call by call.

    Later layers are not computed. All choices share the weights of the one model. It is an ``Encoder`` of
    ``embedlab.models`` at full size; ``at`` gives one of any other size.

    Args:
        model: A sentence-transformers model, or a folder or hub name of one.
        device: Where torch runs a model that is loaded here, e.g. ``"cpu"``; None lets the library choose.

    Attributes:
        name: What the model is called.
        num_layers: Number of layers there are to choose from.
        dim: Number of dimensions there are to choose from.
        fingerprint: Identity of the vectors at full size.

    Shape:
        N texts -> (N, dim) float32

    Raises:
        InputError: there is no such model, or its architecture is unknown.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> encoder = ElasticEncoder(tiny_encoder(["a cat sat", "a dog ran"], num_layers=4))
        >>> encoder.encode(["a cat ran", "a dog sat"], layer=2, dim=8).shape
        (2, 8)

    References:
        Li, Li, Li, Xie and Li (2024), 2D Matryoshka Sentence Embeddings, arXiv:2402.14776v1, section 3 (inference).
    """

    def __init__(self, model: SentenceTransformer | str | Path, *, device: str | None = None) -> None:
        if isinstance(model, str | Path):
            loaded = SentenceTransformerModel(str(model), device=device)
            self.name, self.host = loaded.name, loaded.host
        elif device is not None:
            raise InputError(f"device={device!r}: this model is loaded already; move it with model.to({device!r})")
        else:
            self.name, self.host = type(model).__name__, model
        check_readout(self.host)
        self.num_layers, self.dim = len(find_blocks(self.host)), width_of(self.host)
        self._made: dict[tuple[int, int], SentenceTransformerModel] = {}

    @property
    def fingerprint(self) -> str:
        """Identity of the vectors at full size; ``at(...)`` has one for each other size."""
        return self.at().fingerprint

    def at(self, *, layer: int | None = None, dim: int | None = None) -> SentenceTransformerModel:
        """Return the encoder of one size, for wherever an ``Encoder`` is wanted.

        Args:
            layer: Number of layers to compute, from 1; None for all.
            dim: Number of dimensions to return, from 1; None for all.

        Returns:
            The encoder, on the same weights.

        Raises:
            InputError: there are not as many.
        """
        size = (self.num_layers if layer is None else layer, self.dim if dim is None else dim)
        if size not in self._made:
            part = view(self.host, *size)
            part.truncate_dim = None
            name = self.name if size == (self.num_layers, self.dim) else f"{self.name}@{size[0]}x{size[1]}"
            self._made[size] = SentenceTransformerModel.of(part, name=name)
        return self._made[size]

    def encode(
        self,
        texts: Sequence[str],
        *,
        layer: int | None = None,
        dim: int | None = None,
        batch_size: int = 32,
        on_progress: Progress = None,
    ) -> NDArray[np.float32]:
        """Encode texts that are neither queries nor documents, without a prompt.

        Args:
            texts: The texts.
            layer: Number of layers to compute, from 1; None for all.
            dim: Number of dimensions to return, from 1; None for all.
            batch_size: Texts in one forward pass.
            on_progress: Called with the number of texts just finished.

        Returns:
            Unit rows (N, dim); the zero row for a blank text.
        """
        return self.at(layer=layer, dim=dim).encode(texts, batch_size=batch_size, on_progress=on_progress)

    def encode_document(
        self,
        texts: Sequence[str],
        *,
        layer: int | None = None,
        dim: int | None = None,
        batch_size: int = 32,
        on_progress: Progress = None,
    ) -> NDArray[np.float32]:
        """Encode documents, with the model's prompt for documents if it has one; see ``encode``."""
        return self.at(layer=layer, dim=dim).encode_document(texts, batch_size=batch_size, on_progress=on_progress)

    def encode_query(
        self, texts: Sequence[str], *, layer: int | None = None, dim: int | None = None
    ) -> NDArray[np.float32]:
        """Encode queries, with the model's prompt for queries if it has one; see ``encode``."""
        return self.at(layer=layer, dim=dim).encode_query(texts)
