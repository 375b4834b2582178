"""The two halves of a vector, as one module of sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Module
from torch import Tensor, nn

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.dupmae.heads import VocabularyHead

Mode = Literal["both", "cls", "ot"]

_WEIGHTS = "model.safetensors"
_HUB_OPTIONS = ("token", "cache_folder", "revision", "local_files_only")


class DuplexPooling(Module):
    r"""Pool tokens into a short dense part from [CLS] and a score for every word from the other tokens.

    :math:`\hat h = W_{cls} h_0` and :math:`\mu = \max_{i > 0} head(h_i)` over the real tokens. In mode ``"both"`` the
    embedding is :math:`[\hat h; \mu]`, as long as dense part and vocabulary together: for ``DuplexEncoder``, and for
    losses with ``DuplexScore``. Mode ``"cls"`` gives the dense part alone, an ordinary short embedding.

    Args:
        head: Head of the masked language model.
        dense_dim: Width of the dense part, from 1 to the encoder's (paper: d'). Published 384.
        sparse_k: Words that are kept of a document (paper: k). Published 384. Kept here for those who score; the module
            gives all.
        mode: ``"both"``, ``"cls"`` or ``"ot"`` (the other tokens' part alone).
        seed: Decides :math:`W_{cls}`, whose rows start orthonormal; at full width it starts as the identity.

    Shape:
        token_embeddings (B, T, D), attention_mask (B, T) -> sentence_embedding (B, dense_dim + V), (B, dense_dim) or
        (B, V)

    Raises:
        InputError: an option is out of range.

    Example:
        >>> head = VocabularyHead(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 9))
        >>> tokens = {"token_embeddings": torch.ones(2, 3, 4), "attention_mask": torch.ones(2, 3)}
        >>> DuplexPooling(head, dense_dim=2, sparse_k=3)(tokens)["sentence_embedding"].shape
        torch.Size([2, 11])

    References:
        Liu, Xiao, Shao, Cao (2023), RetroMAE-2, arXiv:2305.02564v1, section 3.4.
    """

    def __init__(
        self,
        head: VocabularyHead,
        *,
        dense_dim: int = 384,
        sparse_k: int = 384,
        mode: Mode = "both",
        seed: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vocabulary, dim = head.output.weight.shape
        if not 1 <= dense_dim <= dim:
            raise InputError(f"dense_dim={dense_dim}: must be from 1 to {dim}, the encoder's width; published 384")
        if not 1 <= sparse_k <= vocabulary:
            raise InputError(f"sparse_k={sparse_k}: must be from 1 to {vocabulary}, the vocabulary; published 384")
        self.head, self.dense_dim, self.sparse_k, self.seed = head, dense_dim, sparse_k, seed
        self.mode = mode
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            self.project = nn.Linear(dim, dense_dim, bias=False)
            if dense_dim == dim:
                nn.init.eye_(self.project.weight)
            else:
                nn.init.orthogonal_(self.project.weight, generator=torch.Generator().manual_seed(seed))

    @property
    def mode(self) -> Mode:
        """Which parts the embedding has; may be set."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in get_args(Mode):
            raise unknown_name("mode", mode, get_args(Mode))
        self._mode: Mode = mode

    @property
    def vocabulary(self) -> int:
        """Number of words that are scored."""
        return len(self.head.output.weight)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Add ``sentence_embedding`` to the features."""
        tokens, mask = features["token_embeddings"], features["attention_mask"]
        parts = []
        if self.mode != "ot":
            parts.append(self.project(tokens[:, 0]))
        if self.mode != "cls":
            parts.append(self._words(tokens, mask.bool()))
        return {**features, "sentence_embedding": torch.cat(parts, dim=-1)}

    def _words(self, tokens: Tensor, real: Tensor) -> Tensor:
        counted = torch.cat([torch.zeros_like(real[:, :1]), real[:, 1:]], dim=1)
        some = counted.any(dim=1, keepdim=True)
        return torch.where(some, self.head.strongest(tokens, counted | ~some), 0.0)

    def get_embedding_dimension(self) -> int:
        """Return the width of the embedding in this mode."""
        return {"both": self.dense_dim + self.vocabulary, "cls": self.dense_dim, "ot": self.vocabulary}[self.mode]

    def on_model_ready(self, model: Any) -> None:
        """Share the output layer with the encoder's input embeddings again where both hold the same, as they were tied.

        Args:
            model: The model that holds this module, as the host hands it over.
        """
        body: Any = getattr(model[0], "model", None)
        inputs = body.get_input_embeddings().weight if body is not None else None
        own = self.head.output.weight
        if inputs is not None and inputs.shape == own.shape and torch.equal(inputs.cpu(), own.cpu()):
            self.head.output.weight = inputs

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, those of the head included."""
        own = {"dense_dim": self.dense_dim, "sparse_k": self.sparse_k, "mode": self.mode, "seed": self.seed}
        return {**own, "head": self.head.settings}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Write settings and weights to a folder.

        Args:
            output_path: The folder.
            args: Not used.
            safe_serialization: Must be True: other forms run code when loaded.
            options: Not used.
        """
        if not safe_serialization:
            raise InputError("safe_serialization=False: only safetensors are written; leave it True")
        from safetensors.torch import save_file

        Path(output_path).mkdir(parents=True, exist_ok=True)
        self.save_config(output_path)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, f"{output_path}/{_WEIGHTS}")

    @classmethod
    def load(  # type: ignore[override]  # the host's own further options are taken as they come
        cls, model_name_or_path: str, subfolder: str = "", **options: Any
    ) -> Self:
        """Open a module that ``save`` has written; the host calls it.

        Args:
            model_name_or_path: Folder of the model, or of the module.
            subfolder: The module's folder in it.
            options: The host's, for models that lie on the hub.

        Returns:
            The module.
        """
        from safetensors.torch import load_file

        asked = {name: options[name] for name in _HUB_OPTIONS if name in options}
        settings = cls.load_config(model_name_or_path, subfolder=subfolder, **asked)
        made = cls(VocabularyHead.empty(settings.pop("head")), **settings)
        weights = cls.load_file_path(model_name_or_path, _WEIGHTS, subfolder=subfolder, **asked)
        made.load_state_dict(load_file(str(weights)))
        return made


class DuplexScore:
    r"""Score queries against documents as stored: all dense numbers, and of a document's words the strongest.

    :math:`\langle q, d \rangle = \hat h_q \cdot \hat h_d + \sum_{i \in top_k(\mu_d)} \mu_q[i] \mu_d[i]`. The query
    keeps all of its :math:`\mu`. A ``similarity_fct`` for the host's losses, whose gradient reaches the kept words.

    Args:
        pooling: Gives the widths of the parts and how many words are kept, as they are when called.
        pairwise: Whether row i of the queries is scored against row i of the documents only.
    """

    def __init__(self, pooling: DuplexPooling, *, pairwise: bool = False) -> None:
        self.pooling, self.pairwise = pooling, pairwise
        self.__name__ = "duplex_score"  # the host writes it into the model's card

    def __call__(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Score (Q, W) against (N, W) -> (Q, N), or (Q,) when pairwise."""
        dense = {"both": self.pooling.dense_dim, "cls": documents.shape[1], "ot": 0}[self.pooling.mode]
        kept = documents
        if dense < documents.shape[1]:
            words = documents[:, dense:]
            values, places = words.topk(min(self.pooling.sparse_k, words.shape[1]), dim=1)
            kept = torch.cat([documents[:, :dense], torch.zeros_like(words).scatter(1, places, values)], dim=1)
        return (queries * kept).sum(dim=-1) if self.pairwise else queries @ kept.T


def pooling_of(model: SentenceTransformer) -> DuplexPooling:
    """Find the ``DuplexPooling`` of a model.

    Args:
        model: The model.

    Raises:
        InputError: it has none.
    """
    for module in model:
        if isinstance(module, DuplexPooling):
            return module
    raise InputError("model has no DuplexPooling: make one with DuplexEncoder(masked_lm_folder).host")
