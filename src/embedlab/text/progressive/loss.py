"""InfoNCE whose negatives and rows are weighed by a modulator, embedded at once or in mini-batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin, has_static_embedding_input
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank, get_world_size
from torch import Tensor, nn
from torch.nn.functional import normalize

from embedlab._core.errors import InputError
from embedlab.text.progressive.modulators import Modulator, modulator_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class ProgressiveContrastiveLoss(CachedLossMixin, nn.Module):
    """Contrast each query with every document of a very large batch, easy negatives first and hard ones later.

    Query ``q_i`` has the positive ``d_i``, its own hard negatives, and the documents of all other queries; with cosines
    ``c_ij`` and ``scale = 1 / tau``,

        L_i = logsumexp(z_ij over {own positive} and negatives) - scale * c_ii,    L = mean_i w_i L_i

    where a modulator decides ``z`` and ``w``; without one, ``z = scale * c`` and ``w = 1`` (InfoNCE). The default is
    the adaptive curriculum: a negative nearer than the positive gets ``z = scale * c * (t + c)``, and ``t``, a running
    mean of the positives' cosines, grows as training goes. **This formula is a reconstruction:** the published report
    describes the progressive weighting in words, and the equation here is that of CurricularFace, which fits them.

    Documents whose text is that of the query or of its positive, and the positives of other rows with the same query,
    are never negatives. Pass ``KeepProgress(loss)`` to the trainer to log the modulator and to resume it.

    Args:
        model: The sentence-transformers model to train.
        scale: One over the temperature, above 0. (paper: 1 / tau.) Published in the region of 50 to 100.
        modulator: ``"adaptive"``, ``"sample_weight"``, ``"hardness"``, a ``Modulator``, or None for plain InfoNCE.
        margin: A negative counts as hard if its cosine exceeds the positive's less this, from 0.
        mini_batch_size: Texts embedded, and rows of cosines held, at once: gradient caching, for batches larger than
            memory. Decides memory, not the value. None does without.
        gather_across_devices: Whether the documents of all processes serve as candidates.
        mask_identical: Whether identical texts are left out of the negatives.
        show_progress_bar: Whether to show the progress over mini-batches.

    Shape:
        two or more columns of B texts, embedded as (B, D) -> loss () float

    Returns:
        On call, the weighted mean over the batch of minus the log probability of each query's positive; 0 or more.

    Raises:
        InputError: an argument is out of range; a modulator of an unknown name; fewer than two columns.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> queries, documents = ["a cat sat", "stocks fell"], ["the cat slept", "shares dropped"]
        >>> model = tiny_encoder(queries + documents)
        >>> loss = ProgressiveContrastiveLoss(model)
        >>> loss([model.preprocess(column) for column in (queries, documents)]).item() > 0
        True

    References:
        Wu et al. (2023), Towards Robust Text Retrieval with Progressive Learning, arXiv:2311.11691v1, section 3 (no
        code). Huang et al. (2020), CurricularFace, arXiv:2004.00288v1, equations 10 to 12. Gao et al. (2021),
        arXiv:2101.06983v2 (gradient caching).
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        scale: float = 50.0,
        modulator: Modulator | str | None = "adaptive",
        margin: float = 0.0,
        mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
        mask_identical: bool = True,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise InputError(f"scale={scale}: must be above 0; it is one over the temperature")
        if not 0 <= margin <= 2:
            raise InputError(f"margin={margin}: must be from 0 to 2, the distance of the furthest cosines")
        if mini_batch_size is not None and mini_batch_size < 1:
            raise InputError(f"mini_batch_size={mini_batch_size}: must be at least 1, or None to embed all at once")
        if mini_batch_size is not None and has_static_embedding_input(model):
            raise InputError(
                f"mini_batch_size={mini_batch_size}: a static model's texts cannot be split into mini-batches; "
                "leave it None, such a model needs no memory for activations"
            )
        self.model = model
        self.scale = scale
        self.modulator = modulator_of(modulator)
        self.margin = margin
        self.mini_batch_size = mini_batch_size  # type: ignore[assignment]  # None where nothing is cached
        self.uses_gradient_cache = mini_batch_size is not None
        self.gather_across_devices = gather_across_devices
        self.mask_identical = mask_identical
        self.show_progress_bar = show_progress_bar
        self._positives: list[Tensor] = []  # mean cosines of this batch's positives
        self._measured: dict[str, tuple[Tensor, Tensor]] = {}  # name -> sum, and of how many

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        if len(columns) < 2:
            raise InputError(f"{len(columns)} column of texts: expected queries, positives and any hard negatives")
        keys = torch.stack([_text_keys(column) for column in columns], dim=1) if self.mask_identical else None
        self._positives = []
        if self.uses_gradient_cache:
            value: Tensor = self.forward_cached(columns, keys)
        else:
            value = self.calculate_loss([[column] for column in embed_columns(self.model, columns)], keys)
        if self._learning:
            self.modulator.advance(torch.stack(self._positives).mean())
        return value

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss of embedded columns, a chunk of rows at a time; the host calls this when it caches.

        Args:
            reps: Embeddings by column and mini-batch.
            labels: Keys of the texts, equal where the texts are (B, columns); None to compare none.
            with_backward: Whether to go back to the embeddings chunk by chunk.

        Shape:
            reps columns of (B, D) float -> () float

        Returns:
            The loss; detached if ``with_backward``.
        """
        anchors, *documents = (_unit(torch.cat(column)) for column in reps)  # (B, D) each
        keys, offset = labels, 0
        if self.gather_across_devices:
            documents = [all_gather_with_grad(column) for column in documents]  # (W B, D)
            keys = None if keys is None else all_gather(keys)  # (W B, columns)
            offset = get_rank() * len(anchors)
        ends = anchors, torch.cat(documents)
        # going back chunk by chunk, all chunks end in these two, and what lies before is gone through once
        queries, candidates = (end.detach().requires_grad_() for end in ends) if with_backward else ends  # (N, D)
        chunk = self.mini_batch_size or len(queries)
        parts = [range(start, min(start + chunk, len(queries))) for start in range(0, len(queries), chunk)]

        def rows(part: range, weights: Tensor | None = None) -> Tensor:
            own = torch.arange(part.start, part.stop, device=queries.device) + offset
            with torch.autocast(queries.device.type, enabled=False):
                cosines = queries[part.start : part.stop] @ candidates.T  # (b, N)
            negative = _negatives(own, len(candidates), len(documents[0]), keys)
            return self._rows(cosines, own, negative, weights)

        weights = None
        if self.modulator.weighs_rows:
            with torch.no_grad():
                losses = torch.cat([rows(part) for part in parts])  # (B,)
                weights = self.modulator.weights(all_gather(losses) if get_world_size() > 1 else losses)
                weights = weights[get_rank() * len(losses) :][: len(losses)]
        total = torch.zeros((), dtype=queries.dtype, device=queries.device)
        for part in parts:
            given = torch.ones(len(part), device=queries.device) if weights is None else weights[part.start : part.stop]
            value = (given * rows(part, given)).sum() / len(queries)
            if with_backward:
                value.backward()  # type: ignore[no-untyped-call]
                value = value.detach()
            total = total + value
        if with_backward:
            torch.autograd.backward(ends, (queries.grad, candidates.grad))
        if self._learning:
            positive = (queries * candidates[offset : offset + len(queries)]).sum(1).detach().mean()
            self._positives.append(all_gather(positive[None]).mean() if get_world_size() > 1 else positive)
        return total

    def measures(self) -> dict[str, float]:
        """Give the modulator's state and the means since the last call, and begin anew.

        Returns:
            The state (``t``, or ``step`` and ``strength``), and once trained: ``hard_share`` of the negatives,
            ``hard_gradient_share`` that the hard ones have in the gradient on negatives' cosines, and the weights
            against InfoNCE, ``hard_weight`` and ``easy_weight`` (geometric means).
        """
        means = {name: (total / count).item() for name, (total, count) in self._measured.items() if count}
        self._measured = {}
        return {**self.modulator.state(), **means}

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "modulator": type(self.modulator).__name__,
            "modulator_settings": self.modulator.config(),
            "margin": self.margin,
            "mini_batch_size": self.mini_batch_size,
            "gather_across_devices": self.gather_across_devices,
            "mask_identical": self.mask_identical,
        }

    @property
    def _learning(self) -> bool:
        return torch.is_grad_enabled() and self.model.training

    def _rows(self, cosines: Tensor, own: Tensor, negative: Tensor, weights: Tensor | None) -> Tensor:
        """Give the losses of a chunk of rows, and measure it if their weights are known."""
        positive = cosines.gather(1, own[:, None])  # (b, 1)
        hard = negative & (cosines > positive.detach() - self.margin) & (cosines > 0)
        logits = self.modulator.logits(cosines, negative, hard, self.scale)
        if weights is not None and self._learning:
            self._measure(cosines, negative, hard, logits.detach() - cosines.detach() * self.scale, weights)
        kept = negative.scatter(1, own[:, None], True)
        return logits.masked_fill(~kept, -torch.inf).logsumexp(1) - positive[:, 0] * self.scale  # (b,)

    def _measure(self, cosines: Tensor, negative: Tensor, hard: Tensor, raised: Tensor, weights: Tensor) -> None:
        def note(name: str, value: Tensor) -> None:
            known = value.isfinite()  # not where a chunk has no hard negative, or none but hard ones
            total, count = self._measured.get(name, (torch.zeros_like(value), torch.zeros_like(known)))
            self._measured[name] = total + torch.where(known, value, 0), count + known.long()

        def share(gradient: Tensor) -> None:
            size = gradient.abs()
            note("hard_gradient_share", (size * hard).sum() / (size * negative).sum())

        raised = raised + weights.log()[:, None]
        easy = negative & ~hard
        note("hard_share", hard.sum() / negative.sum())
        note("hard_weight", (torch.where(hard, raised, 0).sum() / hard.sum()).exp())
        note("easy_weight", (torch.where(easy, raised, 0).sum() / easy.sum()).exp())
        if cosines.requires_grad:
            cosines.register_hook(share)  # type: ignore[no-untyped-call]


def _unit(rows: Tensor) -> Tensor:
    """Unit rows, never in half precision: the scale multiplies a rounding error by fifty or more."""
    return normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)


def _negatives(own: Tensor, num_candidates: int, num_positives: int, keys: Tensor | None) -> Tensor:
    """Say which candidates are negatives of which row: all but the own positive and what repeats its texts.

    Shape:
        own (b,) int, keys (P, columns) int -> (b, N) bool
    """
    negative = torch.ones(len(own), num_candidates, dtype=torch.bool, device=own.device)
    if keys is not None:
        texts = keys[:, 1:].T.flatten()  # (N,) column by column, as the candidates are
        for mine in (keys[own, 0], keys[own, 1]):  # the query's text and its positive's
            negative &= texts[None, :] != mine[:, None]
        negative[:, :num_positives] &= keys[None, :, 0] != keys[own, 0][:, None]  # positives of the same query
    return negative.scatter(1, own[:, None], False)


def _text_keys(features: dict[str, Tensor]) -> Tensor:
    """Give each text a number of 64 bits, made of its tokens and their order; equal texts get equal ones.

    Shape:
        tokens of B texts -> (B,) int64
    """
    if "input_ids" not in features:
        raise InputError(f"mask_identical: this column has no input_ids, only {', '.join(features)}; set it to False")
    ids = features["input_ids"]
    if "offsets" in features or "cu_seq_lens_q" in features:  # one row of tokens: a static model, or flattened texts
        starts = features["offsets"] if "offsets" in features else features["cu_seq_lens_q"][:-1]
        ids, starts = ids.flatten(), starts.long()
        ends = torch.cat([starts[1:], starts.new_tensor([len(ids)])])
        row = torch.repeat_interleave(torch.arange(len(starts), device=ids.device), ends - starts)
        place = torch.arange(len(ids), device=ids.device) - starts[row]
    else:
        mask = features["attention_mask"].bool()
        row, place = mask.nonzero()[:, 0], (mask.cumsum(1) - 1)[mask]
        ids, starts = ids[mask], mask[:, 0]
    # a polynomial in an odd number modulo 2^64; integers wrap around
    mixed = (ids.long() + 1) * -7046029254386353131
    mixed = (mixed ^ (mixed >> 29)) * (2 * place.long() + 1) * 6364136223846793005
    mixed = mixed ^ (mixed >> 31)
    return torch.zeros(len(starts), dtype=torch.long, device=ids.device).index_add_(0, row, mixed)
