"""The binariser as a module of sentence-transformers: a model that emits codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.modules import Module
from torch import nn

from embedlab._core.errors import InputError
from embedlab.search.bebr.network import Network
from embedlab.search.bebr.recurrence import Recurrence

if TYPE_CHECKING:
    from embedlab.search.bebr.binarizer import RecurrentBinarizer

_KEY = "sentence_embedding"
CODES = "sentence_codes"


class BinarizeHead(Module):
    """Replaces embeddings by their codes, as the last module of a sentence-transformers model.

    ``sentence_embedding`` becomes the sum of signs at unit length, so that the cosine that the host computes is the
    symmetric distance of the codes; ``sentence_codes`` holds the integers to store. The gradient passes the signs, so
    that model and head can be trained together.

    Args:
        binarizer: A fitted binariser.

    Shape:
        sentence_embedding (B, D) -> sentence_embedding (B, m), sentence_codes (B, m) uint8

    Raises:
        InputError: the binariser is not fitted, or embeddings have another width.

    Example:
        >>> import numpy as np
        >>> from embedlab.search.bebr import RecurrentBinarizer, Training
        >>> rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
        >>> head = BinarizeHead(RecurrentBinarizer(4, hidden=0).fit(rows, training=Training(steps=0)))
        >>> head({"sentence_embedding": torch.tensor([[0.1, -0.1, 0.1, 0.7]])})["sentence_codes"].shape
        torch.Size([1, 4])

    References:
        Gan et al. (2023), Binary Embedding-based Retrieval at Tencent, arXiv:2302.08714v1, section 3.2.
    """

    config_keys = ["in_dim", "code_dim", "rounds", "hidden"]  # noqa: RUF012 - the host's own form

    def __init__(self, binarizer: RecurrentBinarizer) -> None:
        if binarizer.recurrence is None:
            raise InputError("binarizer is not fitted: call fit(vectors) first")
        super().__init__()  # type: ignore[no-untyped-call]
        self._hold(binarizer.recurrence)

    def _hold(self, recurrence: Recurrence) -> None:
        self.in_dim, self.code_dim, self.rounds = recurrence.decoder.shape[1], recurrence.code_dim, recurrence.bits - 1
        self.hidden = len(recurrence.first.inner_bias)
        self.network = Network(recurrence).eval()

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Replace ``sentence_embedding`` in the features by codes at unit length, and add ``sentence_codes``."""
        rows = features[_KEY]
        if rows.shape[1] != self.in_dim:
            raise InputError(
                f"sentence_embedding has width {rows.shape[1]}, the binariser was fitted for {self.in_dim}"
            )
        _, sums = self.network.sums(nn.functional.normalize(rows, dim=1))
        codes = (sums.detach() * 2**self.rounds + 2 ** (self.rounds + 1) - 1) / 2
        return {**features, _KEY: nn.functional.normalize(sums, dim=1), CODES: codes.round().to(torch.uint8)}

    def get_embedding_dimension(self) -> int:
        """Return the dimensions of the code."""
        return int(self.code_dim)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Write settings and weights to a folder.

        Args:
            output_path: The folder.
            args: Not used.
            safe_serialization: Must be True: other forms run code when loaded.
            options: Not used.

        Raises:
            InputError: ``safe_serialization`` is False.
        """
        if not safe_serialization:
            raise InputError("safe_serialization=False is not supported: safetensors holds all there is")
        self.save_config(output_path)
        self.save_torch_weights(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> BinarizeHead:  # type: ignore[override]
        """Read what ``save`` has written.

        Args:
            model_name_or_path: Folder or hub name.
            subfolder: Folder inside it.
            options: The host's options for the hub.

        Returns:
            The module.
        """
        hub = {k: v for k, v in options.items() if k in ("token", "cache_folder", "revision", "local_files_only")}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        state = cls.load_torch_weights(model_name_or_path, subfolder=subfolder, **hub)
        module = cls.__new__(cls)
        Module.__init__(module)  # type: ignore[no-untyped-call]
        module._hold(Recurrence.blank(**config))
        module.to(state["network.decoder"].dtype).load_state_dict(state)
        return module
