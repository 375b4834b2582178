"""Length collapse, told in tables: attention's filter rate layer by layer, and one set of texts at several lengths.

The measurements on a model are in ``embedlab.text.temp_scale``; here is what is read off them. In a natural corpus long
texts also are about other things than short ones, so ``truncation_curve`` cuts the same texts to several lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.ops.significance import Interval, bootstrap_interval
from embedlab.understand.geometry import mean_cosine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from embedlab.models import Encoder

SIZES = (16, 32, 64, 128, 256)


class Rates(Protocol):
    """Filter rates of some texts, as ``embedlab.text.temp_scale.filter_rate`` gives them."""

    @property
    def num_tokens(self) -> NDArray[np.int64]: ...
    @property
    def sigma(self) -> NDArray[np.float64]: ...
    @property
    def high_share(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class LayerRate:
    """What one layer does to texts of some length.

    Attributes:
        layer: Number of the layer, from 1.
        low: Shortest length in the bucket, in tokens.
        high: First length beyond it; infinity for the last bucket.
        num_texts: Texts in the bucket.
        sigma: Filter rate, the mean over heads and texts.
        high_share: Share of the layer's output that tells tokens apart, ||HC[H]|| / ||H||, in [0, 1].
    """

    layer: int
    low: float
    high: float
    num_texts: int
    sigma: Interval
    high_share: Interval


@dataclass(frozen=True, slots=True)
class LayerRates:
    """A tidy table: one row per layer and range of lengths.

    Attributes:
        table: The rows, layer after layer, short texts first.
    """

    table: tuple[LayerRate, ...]

    def records(self) -> list[dict[str, float | int]]:
        """Return the table with one flat dict per row, as data frames take it."""
        return [_flat(asdict(row)) for row in self.table]

    def plot(self, axes: Axes, *, quantity: str = "sigma") -> None:
        """Draw a line over the layers for each range of lengths.

        Args:
            axes: Where to draw.
            quantity: ``"sigma"`` or ``"high_share"``.

        Raises:
            InputError: ``quantity`` is neither.
        """
        words = {"sigma": "filter rate", "high_share": "share that tells tokens apart"}
        if quantity not in words:
            raise InputError(f"quantity={quantity!r} must be one of {', '.join(words)}")
        for low in sorted({row.low for row in self.table}):
            rows = [row for row in self.table if row.low == low]
            means: list[Interval] = [getattr(row, quantity) for row in rows]
            span = f"{low:g}-{rows[0].high:g} tokens" if math.isfinite(rows[0].high) else f"{low:g}+ tokens"
            _draw(axes, [row.layer for row in rows], means, span)
        axes.set(xlabel="layer", ylabel=words[quantity], xticks=sorted({row.layer for row in self.table}))


def rates_by_layer(rates: Rates, *, edges: Sequence[float] = (0, 100, 200, 300, 400, 500), seed: int = 0) -> LayerRates:
    """Average filter rates over heads and over the texts of each range of lengths, layer by layer.

    Args:
        rates: Filter rates of some texts.
        edges: Where ranges begin, ascending, in tokens; the last one is open. Ranges without a text are left out.
        seed: Decides the bootstrap over texts behind the intervals.

    Shape:
        sigma (N, L, heads), high_share (N, L + 1) -> up to L * len(edges) rows

    Returns:
        The table; a single text has an unbounded interval.

    Raises:
        InputError: ``edges`` do not ascend, or begin above the shortest text.
    """
    table = []
    for layer in range(rates.sigma.shape[1]):
        for low, high, inside in _buckets(rates.num_tokens.astype(np.float64), edges):
            sigma, share = (
                bootstrap_interval(values, num_resamples=1000, seed=seed)
                for values in (rates.sigma[inside, layer].mean(axis=1), rates.high_share[inside, layer + 1])
            )
            table.append(LayerRate(layer + 1, low, high, int(inside.sum()), sigma, share))
    return LayerRates(tuple(table))


@dataclass(frozen=True, slots=True)
class LengthMean:
    """A quantity over the texts of some length.

    Attributes:
        low: Shortest length in the bucket.
        high: First length beyond it; infinity for the last bucket.
        num_texts: Texts in the bucket.
        mean: The mean; unbounded interval for a single text.
    """

    low: float
    high: float
    num_texts: int
    mean: Interval


@dataclass(frozen=True, slots=True)
class LengthMeans:
    """A tidy table: one row per range of lengths that has a text.

    Attributes:
        table: The rows, the shortest first.
    """

    table: tuple[LengthMean, ...]

    def records(self) -> list[dict[str, float | int]]:
        """Return the table with one flat dict per row, as data frames take it."""
        return [_flat(asdict(row)) for row in self.table]

    def plot(self, axes: Axes, *, label: str | None = None) -> None:
        """Draw the means with their intervals.

        Args:
            axes: Where to draw; several tables may share them.
            label: Name of the line in the legend.
        """
        places = range(len(self.table))
        _draw(axes, places, [row.mean for row in self.table], label)
        spans = [f"{row.low:g}-{row.high:g}" if math.isfinite(row.high) else f"{row.low:g}+" for row in self.table]
        axes.set_xticks(places, spans)
        axes.set(xlabel="length")


def mean_by_length(
    values: ArrayLike, lengths: ArrayLike, *, edges: Sequence[float] = (0, 100, 200, 300, 400, 500), seed: int = 0
) -> LengthMeans:
    """Average what a model achieves on each text, such as a hit, an error or a reciprocal rank, by the text's length.

    Args:
        values: One number per text.
        lengths: Length of each text, in any unit.
        edges: Where ranges begin, ascending; the last one is open. Ranges without a text are left out.
        seed: Decides the bootstrap over texts behind the intervals.

    Shape:
        values (N,), lengths (N,) -> LengthMeans

    Returns:
        The table.

    Raises:
        InputError: ``values`` and ``lengths`` are not finite numbers, one per text; ``edges`` do not ascend, or begin
            above the shortest text.

    Example:
        >>> found = mean_by_length([1, 1, 0, 0, 1, 0], [5, 9, 30, 40, 50, 60], edges=[0, 10])
        >>> [(row.num_texts, round(row.mean.estimate, 2)) for row in found.table]
        [(2, 1.0), (4, 0.25)]
    """
    numbers, sizes = np.asarray(values, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    if numbers.ndim != 1 or numbers.shape != sizes.shape or not np.isfinite([numbers, sizes]).all() or not numbers.size:
        raise InputError(
            f"values and lengths must be finite numbers, one per text, got shapes {numbers.shape} and {sizes.shape}"
        )
    return LengthMeans(
        tuple(
            LengthMean(low, high, int(inside.sum()), bootstrap_interval(numbers[inside], num_resamples=1000, seed=seed))
            for low, high, inside in _buckets(sizes, edges)
        )
    )


@dataclass(frozen=True, slots=True)
class TruncatedTexts:
    """How alike a set of texts is when all of them are cut to one length.

    Attributes:
        words: Words that were kept.
        num_texts: Texts, the same at every length.
        mean_cosine: Mean cosine of two different ones.
    """

    words: int
    num_texts: int
    mean_cosine: Interval


@dataclass(frozen=True, slots=True)
class TruncationCurve:
    """A tidy table: one row per length.

    Attributes:
        table: The rows, the shortest first.
    """

    table: tuple[TruncatedTexts, ...]

    @property
    def rise(self) -> float:
        """Mean cosine at the longest less that at the shortest; above 0 is length collapse."""
        return self.table[-1].mean_cosine.estimate - self.table[0].mean_cosine.estimate

    def records(self) -> list[dict[str, float | int]]:
        """Return the table with one flat dict per row, as data frames take it."""
        return [_flat(asdict(row)) for row in self.table]

    def plot(self, axes: Axes, *, label: str | None = None) -> None:
        """Draw the mean cosines with their intervals.

        Args:
            axes: Where to draw; several curves may share them.
            label: Name of the line in the legend.
        """
        _draw(axes, [row.words for row in self.table], [row.mean_cosine for row in self.table], label)
        axes.set(xscale="log", xlabel="words kept", ylabel="mean cosine between different texts")
        axes.set_xticks([r.words for r in self.table], [str(r.words) for r in self.table])
        axes.minorticks_off()


def truncation_curve(encoder: Encoder, texts: Sequence[str], *, sizes: Sequence[int] = SIZES) -> TruncationCurve:
    """Cut the same texts to several lengths and measure how alike they are at each: length without change of topic.

    Args:
        encoder: The model.
        texts: The texts; those with fewer words than the largest size are left out, so that each size has the same.
        sizes: Numbers of words to keep, ascending.

    Returns:
        Mean cosine of different texts, with its interval, at each length.

    Raises:
        InputError: ``sizes`` do not ascend from 1 or more, or fewer than 2 texts are long enough.
    """
    if len(sizes) < 2 or sizes[0] < 1 or any(b <= a for a, b in pairwise(sizes)):
        raise InputError(f"sizes={list(sizes)!r} must be at least 2 numbers that ascend from 1 or more")
    words = [parts for parts in (text.split() for text in texts) if len(parts) >= sizes[-1]]
    if len(words) < 2:
        raise InputError(f"texts: {len(words)} have {sizes[-1]} words or more, at least 2 are needed: lower sizes")
    cut = [encoder.encode_document([" ".join(parts[:size]) for parts in words]) for size in sizes]
    known = np.logical_and.reduce([rows.any(axis=1) for rows in cut])  # a zero row has no direction
    if known.sum() < 2:
        raise InputError("texts: the model knows words of fewer than 2 of the long texts")
    rows = (
        TruncatedTexts(size, int(known.sum()), mean_cosine(vectors[known]))
        for size, vectors in zip(sizes, cut, strict=True)
    )
    return TruncationCurve(tuple(rows))


def _buckets(lengths: NDArray[np.float64], edges: Sequence[float]) -> Iterator[tuple[float, float, NDArray[np.bool_]]]:
    """Ranges of length with the texts inside, those without a text left out."""
    starts = np.asarray(edges, dtype=np.float64)
    if starts.ndim != 1 or starts.size == 0 or not (np.diff(starts) > 0).all() or starts[0] > lengths.min():
        raise InputError(f"edges={list(edges)!r} must ascend from at most the shortest text, {lengths.min():g}")
    places = np.searchsorted(starts, lengths, side="right") - 1
    for place, (low, high) in enumerate(zip(starts, [*starts[1:], np.inf], strict=True)):
        inside = places == place
        if inside.any():
            yield float(low), float(high), inside


def _draw(axes: Axes, places: Sequence[float], means: Sequence[Interval], label: str | None) -> None:
    """Draw a line of means; an unbounded interval has no bar."""
    reach = np.array([[m.estimate - m.low for m in means], [m.high - m.estimate for m in means]])
    bars = np.where(np.isfinite(reach), reach, 0.0)
    axes.errorbar(places, [m.estimate for m in means], yerr=bars, marker="o", capsize=3, label=label)


def _flat(record: dict[str, Any]) -> dict[str, float | int]:
    """Spread intervals over columns: sigma, sigma_low, sigma_high."""
    flat: dict[str, float | int] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {name: value["estimate"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        else:
            flat[name] = value
    return flat
