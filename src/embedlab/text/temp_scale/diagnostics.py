"""Length collapse made visible: how alike texts are by length, and how hard each layer filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.text.temp_scale.logits import hosts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

HUNDREDS = (0, 100, 200, 300, 400, 500)


@dataclass(frozen=True, slots=True)
class LengthBucket:
    """A mean over the texts of some length.

    Attributes:
        low: Shortest length in the bucket, in tokens.
        high: First length beyond it; infinity for the last bucket.
        num_texts: Texts in the bucket.
        mean: The mean; NaN if there are too few texts for one.
        mean_low: Lower end of its 95 % interval; NaN if there are too few texts for one.
        mean_high: Upper end of the interval.
    """

    low: float
    high: float
    num_texts: int
    mean: float
    mean_low: float
    mean_high: float


@dataclass(frozen=True, slots=True)
class LengthProfile:
    """What a quantity does with the length of texts.

    Attributes:
        quantity: What was measured, as an axis says it.
        buckets: One mean per range of lengths, the shortest first; together they hold every text.
    """

    quantity: str
    buckets: tuple[LengthBucket, ...]

    def plot(self, axes: Axes, *, label: str | None = None) -> None:
        """Draw the means with their intervals over the buckets.

        Args:
            axes: Where to draw; several profiles may share them.
            label: Name of the line in the legend.
        """
        names = [f"{b.low:g}-{b.high:g}" if np.isfinite(b.high) else f"{b.low:g}+" for b in self.buckets]
        means = np.array([b.mean for b in self.buckets])
        reach = [[b.mean - b.mean_low for b in self.buckets], [b.mean_high - b.mean for b in self.buckets]]
        axes.errorbar(range(len(names)), means, yerr=np.nan_to_num(reach), marker="o", capsize=3, label=label)
        axes.set(xticks=range(len(names)), xticklabels=names, xlabel="length in tokens", ylabel=self.quantity)


def pairwise_cosine_by_length(
    embeddings: ArrayLike, lengths: ArrayLike, *, edges: Sequence[float] = HUNDREDS
) -> LengthProfile:
    """Measure how alike the embeddings of different texts are, by the texts' length; a rise is length collapse.

    The mean cosine over the pairs of a bucket comes from the sum of its unit rows, its interval from leaving out each
    text in turn (the jackknife), both in one pass.

    Args:
        embeddings: One vector per text.
        lengths: The texts' lengths in tokens.
        edges: Where buckets begin, ascending; the last one is open. (paper: 0, 100, ..., 500)

    Shape:
        embeddings (N, D), lengths (N,) -> LengthProfile

    Returns:
        Mean cosine per bucket, in [-1, 1]; NaN with fewer than 2 texts, without interval with fewer than 3.

    Raises:
        InputError: ``embeddings`` are not a finite matrix without zero rows, ``lengths`` do not match them or begin
            below ``edges``, or ``edges`` do not ascend.

    Example:
        >>> rows = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 0.0]]
        >>> [round(bucket.mean, 3) for bucket in pairwise_cosine_by_length(rows, [3, 9, 40, 50], edges=[0, 32]).buckets]
        [0.0, 0.995]

    References:
        Zhou et al. (2024), Length-Induced Embedding Collapse in Transformer-based Models, arXiv:2410.24200v1,
        section 3.
    """
    rows = _unit_rows(embeddings)
    return _by_length("mean cosine between different texts", rows, lengths, edges, _mean_pair_cosine)


def centroid_distance_by_length(
    embeddings: ArrayLike, lengths: ArrayLike, *, edges: Sequence[float] = HUNDREDS
) -> LengthProfile:
    """Measure how far embeddings lie from the centroid of the corpus, by the texts' length.

    Args:
        embeddings: One vector per text.
        lengths: The texts' lengths in tokens.
        edges: Where buckets begin, ascending; the last one is open.

    Shape:
        embeddings (N, D), lengths (N,) -> LengthProfile

    Returns:
        Mean Euclidean distance of unit rows to the mean of all of them, in [0, 2].

    Raises:
        InputError: as for ``pairwise_cosine_by_length``.
    """
    rows = _unit_rows(embeddings)
    distances = np.linalg.norm(rows - rows.mean(axis=0), axis=1)
    return _by_length("distance to the centroid", distances, lengths, edges, _mean)


@dataclass(frozen=True, slots=True)
class FilterRates:
    """How hard the attention of a model filters each of some texts.

    Attributes:
        num_tokens: Length of each text, (N,).
        sigma: Filter rate of each head, (N, L, heads): the largest factor by which attention can scale what tells
            tokens apart; below 1 it wears off, layer by layer. (paper: sigma_a)
        high_share: ||HC[H]|| / ||H|| of each hidden state, (N, L + 1): how much of it tells tokens apart.
    """

    num_tokens: NDArray[np.int64]
    sigma: NDArray[np.float64]
    high_share: NDArray[np.float64]

    def by_length(self, *, edges: Sequence[float] = HUNDREDS) -> LengthProfile:
        """Average the filter rate over layers and heads, by the texts' length.

        Args:
            edges: Where buckets begin, ascending; the last one is open.

        Returns:
            Mean sigma per bucket.
        """
        return _by_length("filter rate", self.sigma.mean(axis=(1, 2)), self.num_tokens, edges, _mean)


def filter_rate(model: SentenceTransformer, texts: Sequence[str]) -> FilterRates:
    """Measure how hard each attention head of a model filters given texts.

    Attention rows sum to 1, so A leaves the mean of its tokens (DC) and can only scale the rest (HC): the norm of
    HC[A X W] is at most sigma ||W|| times that of HC[X], where sigma is the largest singular value of (I - 11^T/n) A.
    Each text goes alone, since padding would count as tokens.

    For independent Gaussian logits sigma falls with n. Trained heads differ: where a share p of the tokens attends to
    one token and the rest elsewhere, sigma is about sqrt(n p (1 - p)), which grows.

    Args:
        model: An encoder whose transformer can return its attention.
        texts: The texts, at least one; the time grows with the cube of their length.

    Shape:
        N texts -> sigma (N, L, heads), high_share (N, L + 1)

    Returns:
        Filter rates and shares per text and layer.

    Raises:
        InputError: ``texts`` are empty, or the model holds no transformer or one that does not return its attention.

    References:
        Zhou et al. (2024), Length-Induced Embedding Collapse in Transformer-based Models, arXiv:2410.24200v1,
        section 3.
    """
    import torch

    if isinstance(texts, str) or not texts:
        raise InputError(f"texts={texts!r:.60} must be a list of at least one text")
    found = hosts(model)
    if not found:
        raise InputError(f"{type(model).__name__} holds no transformer, so no attention to look at")
    lengths, sigmas, shares = [], [], []
    with torch.inference_mode(), _returning_attention(found[0]) as body:
        for text in texts:
            features = model.tokenizer(
                [text], truncation=True, max_length=model.max_seq_length, return_tensors="pt"
            ).to(body.device)
            states = body(**features, output_attentions=True, output_hidden_states=True)
            if not states.attentions:
                raise InputError(f"{type(body).__name__} does not return its attention weights")
            attention = torch.cat(states.attentions).double()  # (L, heads, n, n)
            hidden = torch.cat(states.hidden_states).double()  # (L + 1, n, H)
            lengths.append(hidden.shape[1])
            sigmas.append(high_gain(attention).cpu().numpy())
            shares.append((_high(hidden).norm(dim=(1, 2)) / hidden.norm(dim=(1, 2))).cpu().numpy())
    return FilterRates(np.array(lengths), np.stack(sigmas), np.stack(shares))


def high_gain(attention: Any) -> Any:
    """Return the largest singular value of (I - 11^T/n) A, the filter rate of attention matrices.

    Args:
        attention: Row-stochastic matrices as a torch tensor, without padding, in float64 for full precision.

    Shape:
        attention (..., n, n) -> (...)

    Returns:
        Filter rates, at least 0; 0 when all tokens attend alike. (paper: sigma_a)
    """
    import torch

    centred = _high(attention)  # (..., n, n)
    # the eigenvalues of M M^T are the squares, and cheaper than a singular value decomposition
    squares = torch.linalg.eigvalsh(centred @ centred.mT)[..., -1]
    return squares.clamp_min(0).sqrt()


def _high(rows: Any) -> Any:
    """HC: what remains of rows (..., n, d) without their mean."""
    return rows - rows.mean(dim=-2, keepdim=True)


@contextmanager
def _returning_attention(body: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Let a model compute attention by its plain formula, the only way that shows the weights."""
    before, training = body.config._attn_implementation, body.training
    body.set_attn_implementation("eager")
    body.train(False)
    try:
        yield body
    finally:
        body.set_attn_implementation(before)
        body.train(training)


def _by_length(
    quantity: str,
    values: NDArray[np.float64],
    lengths: ArrayLike,
    edges: Sequence[float],
    estimate: Callable[[NDArray[np.float64]], tuple[float, float]],
) -> LengthProfile:
    """Sort values (N, ...) into buckets by length and estimate a mean and its standard error in each."""
    sizes = np.asarray(lengths, dtype=np.float64)
    if sizes.shape != (len(values),):
        raise InputError(f"lengths must hold one number per row, {len(values)}, got shape {sizes.shape}")
    starts = np.asarray(edges, dtype=np.float64)
    if starts.ndim != 1 or starts.size == 0 or not (np.diff(starts) > 0).all():
        raise InputError(f"edges={list(edges)!r} must be ascending numbers, at least one")
    if not (np.isfinite(sizes).all() and sizes.min() >= starts[0]):
        raise InputError(f"lengths must be finite and at least edges[0]={starts[0]:g}, got {sizes.min():g}")
    places = np.searchsorted(starts, sizes, side="right") - 1
    buckets = []
    for place, (low, high) in enumerate(zip(starts, [*starts[1:], np.inf], strict=True)):
        inside = values[places == place]
        mean, error = estimate(inside)
        reach = NormalDist().inv_cdf(0.975) * error
        buckets.append(LengthBucket(float(low), float(high), len(inside), mean, mean - reach, mean + reach))
    return LengthProfile(quantity, tuple(buckets))


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    if len(values) < 2:
        return (float(values[0]) if len(values) else np.nan), np.nan
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _mean_pair_cosine(rows: NDArray[np.float64]) -> tuple[float, float]:
    """Mean cosine over the pairs of unit rows (n, D), and its jackknife error."""
    n, total = len(rows), rows.sum(axis=0)
    if n < 2:
        return np.nan, np.nan
    mean = float((total @ total - n) / (n * (n - 1)))
    if n < 3:
        return mean, np.nan
    squares = total @ total - 2 * rows @ total + 1  # |sum without row i|^2, (n,)
    without = (squares - (n - 1)) / ((n - 1) * (n - 2))
    return mean, float(np.sqrt((n - 1) * without.var()))


def _unit_rows(embeddings: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0:
        raise InputError(f"embeddings must be a matrix (texts, dim) with at least one row, got shape {rows.shape}")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        at = int((~(np.isfinite(norms) & (norms > 0))).argmax())
        raise InputError(f"embeddings: row {at} is zero or not finite, so it has no direction: leave that text out")
    unit: NDArray[np.float64] = rows / norms
    return unit
