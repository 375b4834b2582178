"""The projection as a module of sentence-transformers, and as a layer of any network."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, get_args

import torch
from numpy.typing import ArrayLike
from sentence_transformers.sentence_transformer.modules import Module
from torch import Tensor, nn

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.relative.anchors import AnchorSet, anchor_rows
from embedlab.understand.relative.coordinates import Similarity
from embedlab.understand.relative.live_anchors import embed_anchors, fingerprint, modules_before, weights_of
from embedlab.understand.relative.rows import keys, list_hash
from embedlab.understand.relative.steps import (
    OutputNormalization,
    Quantization,
    SimilarityAttention,
    SubspacePooling,
    Values,
    group_matrix,
    normalized,
    quantized,
    similarities,
)

_KEY = "sentence_embedding"
_CHOICES = {
    "similarity": Similarity,
    "normalization": OutputNormalization,
    "quantize_mode": Quantization,
    "values": Values,
    "subspace_pooling": SubspacePooling,
}


class RelativeProjection(Module):
    """Replace embeddings by their similarities to anchors; the last module of a sentence-transformers model.

    For embeddings e(x) and anchors a_1 ... a_k::

        r(x) = (sim(e(x), e(a_1)), ..., sim(e(x), e(a_k)))          sim = cosine by default

    Models trained apart then speak the same coordinates. Anchors get no gradient. With ``texts`` the module belongs to
    a model: at every training step and whenever weights have changed the anchors are embedded anew, in evaluation mode,
    by the modules before this one; otherwise the vectors given are the anchors for good.

    Args:
        anchors: Vectors of the anchors by the same encoder, (K, D).
        similarity: ``"cosine"``, ``"dot"`` (over sqrt(D)), ``"euclidean"`` (negative distance) or ``"basis_change"``
            (least-squares coordinates in the basis of the anchors).
        center: Subtract the mean of the anchors, or ``mean``, from embeddings and anchors first.
        mean: What ``center`` subtracts, (D,); it stays as given when anchors are embedded anew.
        normalization: Of the result: ``"none"``, ``"l2"``, ``"layer"`` (each row), ``"batch"`` (running statistics), or
            ``"instance"`` (statistics of the batch at hand, also in evaluation, as in the official text head).
        transductive: Must be True for ``"instance"``, where the rows of a batch depend on each other.
        quantize: Width of the bins of similarities; None leaves them.
        quantize_mode: ``"round"``, ``"cluster"`` (both with the gradient straight through) or ``"smooth"``.
        quantize_latents: Width of the bins of embeddings and anchors themselves; None leaves them.
        groups: Group of each anchor, such as its class; similarities are then averaged over each group.
        values: ``"similarities"``; or, weighted by their softmax, ``"trainable"`` vectors or the ``"anchors"``; or
            ``"attention"``, self-attention over the similarities.
        values_dim: Width of trainable vectors and of the attention; None takes D.
        subspaces: Parts that D is split into, each compared on its own. (paper: heads)
        subspace_pooling: How these are joined: ``"concat"``, ``"sum"``, ``"mean"``, ``"max"`` or ``"linear"``.
        texts: The anchors as texts, (K,), to be embedded anew by the model this module is part of.
        anchors_hash: Fingerprint of the anchor list; None takes that of the texts, or of the vectors.
        encoder_id: Fingerprint of the modules before this one; a model with others is refused.
        seed: Decides the first weights of trainable parts.

    Shape:
        sentence_embedding (B, D) -> sentence_embedding (B, W); W is K unless groups, subspaces or values change it

    Raises:
        InputError: an option is unknown or out of range, options exclude each other, or anchors are zero, repeated or
            not finite.

    Example:
        >>> layer = RelativeProjection([[1.0, 0.0], [0.0, 5.0]])
        >>> layer({"sentence_embedding": torch.tensor([[3.0, 4.0]])})["sentence_embedding"]
        tensor([[0.6000, 0.8000]])

    References:
        Moschella et al. (2023), Relative Representations Enable Zero-Shot Latent Space Communication,
        arXiv:2209.15430v4, section 3 and appendix. Official code lucmos/relreps (read, not copied);
        ``METHOD["deviations"]`` says where it differs.
    """

    config_keys = [  # noqa: RUF012 - the host's own form
        "similarity", "center", "normalization", "transductive", "quantize", "quantize_mode", "quantize_latents",
        "groups", "values", "values_dim", "subspaces", "subspace_pooling", "texts", "anchors_hash", "encoder_id",
        "seed",
    ]  # fmt: skip

    anchors: Tensor
    mean: Tensor
    group_weights: Tensor | None

    def __init__(
        self,
        anchors: ArrayLike,
        *,
        similarity: Similarity = "cosine",
        center: bool = False,
        mean: ArrayLike | None = None,
        normalization: OutputNormalization = "none",
        transductive: bool = False,
        quantize: float | None = None,
        quantize_mode: Quantization = "round",
        quantize_latents: float | None = None,
        groups: Sequence[Any] | None = None,
        values: Values = "similarities",
        values_dim: int | None = None,
        subspaces: int = 1,
        subspace_pooling: SubspacePooling = "concat",
        texts: Sequence[str] | None = None,
        anchors_hash: str | None = None,
        encoder_id: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        rows = anchor_rows("anchors", _plain(anchors))
        num, dim = rows.shape
        self.similarity, self.normalization, self.transductive = similarity, normalization, transductive
        self.quantize, self.quantize_mode, self.quantize_latents = quantize, quantize_mode, quantize_latents
        self.groups = None if groups is None else list(groups)
        self.values, self.values_dim = values, values_dim or dim
        self.subspaces, self.subspace_pooling = subspaces, subspace_pooling
        self.texts = None if texts is None else list(texts)
        self.center, self.encoder_id, self.seed = center or mean is not None, encoder_id, seed
        self._check(num, dim)
        known = None if self.texts is None else AnchorSet.of(self.texts).hash
        self.anchors_hash = anchors_hash or known or list_hash(keys(rows))
        self._mean_given = mean is not None
        self.register_buffer("anchors", torch.tensor(rows))
        self.register_buffer("mean", self.anchors.mean(dim=0) if mean is None else _vector("mean", mean, self.anchors))
        self.register_buffer(
            "group_weights", None if self.groups is None else group_matrix(self.groups), persistent=False
        )
        self._add_parts(num, dim)
        self._host: weakref.ref[Any] | None = None
        self._seen: tuple[Any, ...] | None = None  # weights that the anchors were last embedded with

    def _check(self, num: int, dim: int) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise unknown_name(name, getattr(self, name), get_args(choices))
        for name in ("quantize", "quantize_latents"):
            width = getattr(self, name)
            if width is not None and not 0 < width < float("inf"):
                raise InputError(f"{name}={width!r} must be a width above 0, or None")
        if self.normalization == "instance" and not self.transductive:
            raise InputError(
                "normalization='instance' makes rows depend on their batch: pass transductive=True if that is wanted, "
                "or take 'layer' or 'batch'"
            )
        if not (self.subspaces >= 1 and dim % self.subspaces == 0):
            raise InputError(f"subspaces={self.subspaces} must be at least 1 and divide the width, {dim}")
        for name in ("groups", "texts"):
            if getattr(self, name) is not None and len(getattr(self, name)) != num:
                raise InputError(
                    f"{name} has {len(getattr(self, name))} entries for {num} anchors: give one per anchor"
                )
        many = self.subspaces > 1 and self.subspace_pooling == "concat"
        if self.values == "anchors" and (self.groups is not None or many):
            raise InputError("values='anchors' needs one weight per anchor: leave groups out and pool the subspaces")

    def _add_parts(self, num: int, dim: int) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        one = num if self.groups is None else len(set(self.groups))
        width = one * self.subspaces if self.subspace_pooling == "concat" else one
        if self.subspace_pooling == "linear":
            start = torch.randn(one, one * self.subspaces, generator=generator) * (one * self.subspaces) ** -0.5
            self.join = nn.Parameter(start)
        # without weights of its own: the head that follows has them
        self.batch_norm = nn.BatchNorm1d(width, affine=False) if self.normalization == "batch" else None
        if self.values == "trainable":
            self.value_vectors = nn.Parameter(torch.randn(width, self.values_dim, generator=generator))
        if self.values == "attention":
            self.attention = SimilarityAttention(width, self.values_dim, generator)
        self.dim_out = {"trainable": self.values_dim, "anchors": dim}.get(self.values, width)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Replace ``sentence_embedding`` in the features by its relative vectors."""
        rows = features[_KEY]
        return {**features, _KEY: self.project(rows, self._current_anchors(rows))}

    def project(self, rows: Tensor, anchors: Tensor | None = None) -> Tensor:
        """Turn embeddings into relative vectors.

        Args:
            rows: Embeddings.
            anchors: Embeddings of the anchors as they are now; None takes those kept here. They get no gradient.

        Shape:
            rows (B, D), anchors (K, D) -> (B, W)

        Returns:
            Relative vectors.

        Raises:
            InputError: the widths differ.
        """
        basis = (self.anchors if anchors is None else anchors).detach().to(rows.dtype)  # (K, D)
        if rows.ndim != 2 or rows.shape[1] != basis.shape[1]:
            raise InputError(f"rows of shape {tuple(rows.shape)} do not fit anchors of width {basis.shape[1]}")
        kept = basis
        if self.center:
            mean = self.mean.to(rows.dtype) if anchors is None or self._mean_given else basis.mean(dim=0)
            rows = torch.where(rows.any(dim=1, keepdim=True), rows - mean, rows)  # a text without words stays zero
            basis = basis - mean
        if self.quantize_latents is not None:
            rows, basis = quantized(rows, self.quantize_latents), quantized(basis, self.quantize_latents)
        heads, parts = (each.reshape(len(each), self.subspaces, -1) for each in (rows, basis))  # (B or K, M, D/M)
        found = similarities(heads, parts, self.similarity)  # (B, M, K)
        if self.group_weights is not None:
            found = found @ self.group_weights.to(found.dtype)
        if self.quantize is not None:
            found = quantized(found, self.quantize, self.quantize_mode)
        found = normalized(self._joined(found), self.normalization, self.batch_norm)  # (B, W)
        if self.values == "attention":
            mixed: Tensor = self.attention(found)
            return mixed
        if self.values == "similarities":
            return found
        return found.softmax(dim=-1) @ (kept if self.values == "anchors" else self.value_vectors)

    def _joined(self, found: Tensor) -> Tensor:
        """Join subspaces (B, M, K) -> (B, W)."""
        if self.subspace_pooling == "concat":
            return found.flatten(1)
        if self.subspace_pooling == "linear":
            return found.flatten(1) @ self.join.T
        return found.amax(dim=1) if self.subspace_pooling == "max" else getattr(found, self.subspace_pooling)(dim=1)

    def get_embedding_dimension(self) -> int:
        """Return the width of the relative vectors."""
        return int(self.dim_out)

    # anchors of a model that may change

    def on_model_ready(self, model: Any) -> None:
        """Join a model, as the host calls it when it has made one; its encoder must be the one of the anchors.

        Args:
            model: The sentence-transformers model that holds this module.

        Raises:
            InputError: the modules before this one are not those that embedded the anchors.
        """
        before = modules_before(model, self)
        if self.encoder_id is not None and fingerprint(before) != self.encoder_id:
            raise InputError(
                f"the anchors were embedded by encoder {self.encoder_id}, but the modules before are "
                f"{fingerprint(before)}: make the model relative again with make_relative(model, texts)"
            )
        self._host, self._seen = weakref.ref(model), weights_of(before)

    def train(self, mode: bool = True) -> RelativeProjection:
        """Switch between training and evaluation, after which anchors are embedded anew."""
        if mode != self.training:
            self._seen = None
        super().train(mode)
        return self

    def _current_anchors(self, rows: Tensor) -> Tensor | None:
        host = None if self._host is None else self._host()
        if self.texts is None or host is None:
            if self.texts is not None and self.training and rows.requires_grad:
                raise InputError(
                    "the anchors would go stale, since this copy belongs to no model: call module.on_model_ready(model)"
                )
            return None
        before = modules_before(host, self)
        weights = weights_of(before)
        if self.training:
            return embed_anchors(host, before, self.texts)
        if weights != self._seen:
            self._keep(embed_anchors(host, before, self.texts))
            self._seen = weights
        return None

    def _keep(self, vectors: Tensor) -> None:
        self.anchors = vectors.to(self.anchors)
        if not self._mean_given:
            self.mean = self.anchors.mean(dim=0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_host": None, "_seen": None}  # a copy belongs to no model until it is told

    # saving and loading

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Write settings, anchors and fingerprints to a folder.

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
        host = None if self._host is None else self._host()
        if host is not None and self.texts is not None:
            before = modules_before(host, self)
            if weights_of(before) != self._seen:
                self._keep(embed_anchors(host, before, self.texts))
            self.encoder_id = fingerprint(before)
        self.save_config(output_path)
        self.save_torch_weights(output_path)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, with the fingerprints of the anchors."""
        shape = {"num_anchors": len(self.anchors), "dim": self.anchors.shape[1], "mean_given": self._mean_given}
        return {**super().get_config_dict(), **shape, "vectors_hash": _vectors_hash(self.anchors)}

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> RelativeProjection:  # type: ignore[override]
        """Read what ``save`` has written.

        Args:
            model_name_or_path: Folder or hub name.
            subfolder: Folder inside it.
            options: The host's options for the hub.

        Returns:
            The module.

        Raises:
            InputError: the anchors are not those it was saved with.
        """
        hub = {k: v for k, v in options.items() if k in ("token", "cache_folder", "revision", "local_files_only")}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        stated, num, dim = config.pop("vectors_hash"), config.pop("num_anchors"), config.pop("dim")
        state = cls.load_torch_weights(model_name_or_path, subfolder=subfolder, **hub)
        anchors = state.get("anchors")
        if anchors is None or tuple(anchors.shape) != (num, dim) or _vectors_hash(anchors) != stated:
            raise InputError(
                f"{model_name_or_path}: the anchors are not those it was saved with ({stated}): wrong or damaged file"
            )
        mean = state["mean"] if config.pop("mean_given") else None
        module = cls(anchors, mean=mean, **config)
        module.to(anchors.dtype).load_state_dict(state)
        return module


def _vectors_hash(anchors: Tensor) -> str:
    return list_hash(keys(anchors.detach().cpu().float().numpy()))


def _plain(value: Any) -> Any:
    return value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value


def _vector(name: str, value: Any, like: Tensor) -> Tensor:
    vector = torch.as_tensor(_plain(value)).to(like)
    if vector.shape != like.shape[1:] or not vector.isfinite().all():
        raise InputError(f"{name} must be a finite vector of width {like.shape[1]}, got shape {tuple(vector.shape)}")
    return vector
