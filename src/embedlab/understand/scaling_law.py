"""How an embedder's loss falls with its size and its data: fit small runs, predict large ones, split a budget.

Retrieval metrics jump; the contrastive entropy, the surprise at the right document among a fixed set, falls smoothly,
and as power laws of the number of parameters N and of training pairs D.

    law = fit_joint(sizes, pairs, entropies)
    law.predict(20e6, 1e6), law.r2, law.best_split(1e15)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample

Floats = NDArray[np.float64]

METHOD = {
    "card": 38,
    "title": "LLMs are Also Effective Embedding Models: An In-depth Overview",
    "authors": "Chongyang Tao, Tao Shen, Shen Gao, Junshuo Zhang, Zhen Li, Kai Hua, Wenpeng Hu, Zhengwei Tao, Shuai Ma",
    "year": 2024,
    "source": "arXiv:2412.12591v2",
    "kinds": {"probe": "contrastive_entropy"},
    "extras": [],
    "official_code": None,
    "deviations": [
        "Cosines divided by a temperature are the scores, so that models of any scale can be compared.",
        "Curves are fitted to the logarithm of the entropy, so that a run counts by its relative error.",
    ],
    "known_failures": [
        "A, B and delta trade off against each other when sizes or data span less than a factor of ten.",
        "A run that overfits, or is not trained to its end, lies off the law and bends it.",
    ],
}


def contrastive_entropy(queries: ArrayLike, documents: ArrayLike, *, temperature: float = 0.05) -> Floats:
    """Measure how surprising each query's own document is among all documents.

    -log softmax over the documents of cos(q, d) / temperature, at the query's own. Compare models on one and the same
    set of documents only: the value grows with their number (log N for a model that knows nothing).

    Args:
        queries: Vectors of queries; row i belongs to document i.
        documents: Vectors of documents, all of which are candidates.
        temperature: Divides cosines, above 0.

    Shape:
        queries (N, D) float, documents (N, D) float -> (N,) float

    Returns:
        Nats, at least 0; smaller is better.

    Raises:
        InputError: shapes differ, a value is not finite, or ``temperature`` is not above 0.

    Example:
        >>> contrastive_entropy([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], temperature=1.0).round(3).tolist()
        [0.313, 0.313]

    References:
        Fang et al. (2024), Scaling Laws for Dense Retrieval, arXiv:2403.18684v2, section 3.
    """
    first, second = _rows("queries", queries), _rows("documents", documents)
    if first.shape != second.shape:
        raise InputError(f"documents of shape {second.shape}: expected one row per query, {first.shape}")
    if not temperature > 0:
        raise InputError(f"temperature={temperature}: must be above 0")
    logits = _unit(first) @ _unit(second).T / temperature  # (N, N)
    highest = logits.max(1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(1))
    surprise: Floats = total - np.diagonal(logits)
    return surprise


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """A fitted law: L(N, D) = [(A/N)^(alpha/beta) + B/D]^beta + delta, or one of its two halves.

    Attributes:
        alpha: How fast the entropy falls with size; NaN in a law of data alone.
        beta: How fast it falls with data; NaN in a law of size alone.
        scale_size: A, in parameters.
        scale_data: B, in pairs.
        delta: What neither removes, in nats.
        r2: Share of the variance of the entropies that the law explains.
        num_points: Runs that it was fitted to.
        cautions: Why not to trust it, if there are reasons.
    """

    alpha: float
    beta: float
    scale_size: float
    scale_data: float
    delta: float
    r2: float
    num_points: int
    cautions: tuple[str, ...] = ()

    def predict(self, sizes: ArrayLike | None = None, data: ArrayLike | None = None) -> Floats:
        """Predict entropies.

        Args:
            sizes: Numbers of parameters; left out for a law of data alone.
            data: Numbers of training pairs; left out for a law of size alone.

        Shape:
            sizes (M,), data (M,) -> (M,) float

        Returns:
            Nats.

        Raises:
            InputError: a number that the law needs is missing or not above 0.
        """
        logs = [_log(name, given) for name, given in (("sizes", sizes), ("data", data)) if given is not None]
        wanted = (not np.isnan(self.alpha)) + (not np.isnan(self.beta))
        if len(logs) != wanted:
            raise InputError(f"this law needs {wanted} of sizes and data, got {len(logs)}")
        return _law(*self._parameters(), *logs)

    def held_out_error(
        self, entropies: ArrayLike, *, sizes: ArrayLike | None = None, data: ArrayLike | None = None
    ) -> float:
        """Return the mean relative error on runs that the law was not fitted to, as a fraction of their entropy."""
        measured = np.atleast_1d(np.asarray(entropies, dtype=np.float64))
        return float(np.mean(np.abs(self.predict(sizes, data) - measured) / measured))

    def best_split(self, budget: float, *, cost: float = 6.0) -> tuple[float, float]:
        """Divide a budget between size and data, for the lowest entropy.

        Minimises L under cost * N * D = budget. The derivative is zero where
        N = [(alpha/beta) A^(alpha/beta) budget / (B cost)]^(1 / (alpha/beta + 1)).

        Args:
            budget: Operations to spend in training, above 0.
            cost: Operations per parameter and pair: 6 per token times the tokens of a pair.

        Returns:
            Parameters and pairs.

        Raises:
            InputError: the law is one of size or of data alone, or a number is not above 0.
        """
        if np.isnan(self.alpha) or np.isnan(self.beta):
            raise InputError("best_split needs a law of both size and data: use fit_joint")
        if not budget > 0 or not cost > 0:
            raise InputError(f"budget={budget}, cost={cost}: both must be above 0")
        ratio = self.alpha / self.beta
        size = (ratio * self.scale_size**ratio * budget / (self.scale_data * cost)) ** (1 / (ratio + 1))
        return float(size), float(budget / (cost * size))

    def _parameters(self) -> tuple[float, ...]:
        scales = [(self.scale_size, self.alpha), (self.scale_data, self.beta)]
        return (*(value for pair in scales if not np.isnan(pair[1]) for value in pair), self.delta)


def fit_size(sizes: ArrayLike, entropies: ArrayLike) -> ScalingLaw:
    """Fit L(N) = (A/N)^alpha + delta to runs of several sizes on the same data.

    Args:
        sizes: Numbers of parameters, without word embeddings.
        entropies: Mean contrastive entropy of each run.

    Shape:
        sizes (M,), entropies (M,) -> ScalingLaw

    Returns:
        The law; beta and B are NaN.

    Raises:
        InputError: shapes differ, a value is not above 0, or there are fewer runs than parameters of the law.
    """
    scale, alpha, delta, facts = _fit([_log("sizes", sizes)], entropies)
    return ScalingLaw(alpha, np.nan, scale, np.nan, delta, **facts)


def fit_data(data: ArrayLike, entropies: ArrayLike) -> ScalingLaw:
    """Fit L(D) = (B/D)^beta + delta to runs of one size on several amounts of data.

    Args:
        data: Numbers of training pairs.
        entropies: Mean contrastive entropy of each run.

    Shape:
        data (M,), entropies (M,) -> ScalingLaw

    Returns:
        The law; alpha and A are NaN.

    Raises:
        InputError: as for ``fit_size``.
    """
    scale, beta, delta, facts = _fit([_log("data", data)], entropies)
    return ScalingLaw(np.nan, beta, np.nan, scale, delta, **facts)


def fit_joint(sizes: ArrayLike, data: ArrayLike, entropies: ArrayLike) -> ScalingLaw:
    """Fit L(N, D) = [(A/N)^(alpha/beta) + B/D]^beta + delta to runs of several sizes on several amounts of data.

    Args:
        sizes: Number of parameters of each run, without word embeddings.
        data: Number of training pairs of each run.
        entropies: Mean contrastive entropy of each run.

    Shape:
        sizes (M,), data (M,), entropies (M,) -> ScalingLaw

    Returns:
        The law.

    Raises:
        InputError: shapes differ, a value is not above 0, or there are fewer runs than parameters of the law.

    References:
        Fang et al. (2024), Scaling Laws for Dense Retrieval, arXiv:2403.18684v2, equation 4.
    """
    size, alpha, scale, beta, delta, facts = _fit([_log("sizes", sizes), _log("data", data)], entropies)
    return ScalingLaw(alpha, beta, size, scale, delta, **facts)


def _law(*values: Any) -> Floats:
    """Compute L from scale and exponent of one or two quantities, delta, and the logarithms of the quantities."""
    if len(values) == 4:
        scale, exponent, delta, amounts = values
        return np.asarray(np.exp(exponent * (np.log(scale) - amounts)) + delta, dtype=np.float64)
    size, alpha, scale, beta, delta, sizes, data = values
    inner = np.exp(alpha / beta * (np.log(size) - sizes)) + np.exp(np.log(scale) - data)
    return np.asarray(inner**beta + delta, dtype=np.float64)


def _fit(logs: list[Floats], entropies: ArrayLike) -> tuple[Any, ...]:
    from scipy.optimize import least_squares

    target = np.exp(_log("entropies", entropies))
    wanted = 2 * len(logs) + 1
    if any(len(each) != len(target) for each in logs):
        raise InputError(
            f"{[len(each) for each in logs]} amounts and {len(target)} entropies: expected as many of each"
        )
    if len(target) < wanted:
        raise InputError(f"{len(target)} runs: the law has {wanted} parameters and needs at least as many runs")

    def unpacked(free: Floats) -> tuple[float, ...]:
        # scale and exponent of each quantity are positive, delta lies below every entropy: no bounds are needed then
        return (*np.exp(free[:-1]), target.min() / (1 + np.exp(-free[-1])))

    def residual(free: Floats) -> Floats:
        return np.log(_law(*unpacked(free), *logs)) - np.log(target)

    best: Any = None
    for start in _starts(logs, target):
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                found = least_squares(residual, start, x_scale="jac", max_nfev=400)
            except ValueError:
                continue  # this start ran into overflow
        if best is None or found.cost < best.cost:
            best = found
    if best is None:
        raise InputError("entropies: no law of this form can be fitted to them")
    values = [float(value) for value in unpacked(best.x)]
    error, spread = _law(*values, *logs) - target, target - target.mean()
    r2 = float(1 - (error @ error) / (spread @ spread)) if (spread @ spread) > 0 else float("nan")
    cautions = _cautions(logs, target, wanted)
    for caution in cautions:
        warnings.warn(f"scaling law: {caution}", stacklevel=3)
    return (*values, {"r2": r2, "num_points": len(target), "cautions": cautions})


def _starts(logs: list[Floats], target: Floats) -> list[Floats]:
    """Begin from several exponents, each with the scales that put the curve at half of the largest entropy."""
    starts = []
    for exponent in (0.1, 0.3, 0.8):
        for floor in (-3.0, 0.0, 2.0):
            free: list[float] = []
            for amounts in logs:
                middle = float(np.median(amounts)) + np.log(target.max() / 2) / exponent
                free += [float(np.clip(middle, -20, 60)), np.log(exponent)]
            starts.append(np.array([*free, floor]))
    return starts


def _cautions(logs: list[Floats], target: Floats, wanted: int) -> tuple[str, ...]:
    found = []
    if len(target) < wanted + 2:
        found.append(f"{len(target)} runs for {wanted} parameters; at least {wanted + 2} are needed to see a misfit")
    for amounts in logs:
        if len(np.unique(amounts)) < 3:
            found.append(
                f"{len(np.unique(amounts))} different amounts; at least 3 are needed for an exponent and a floor"
            )
        elif np.ptp(amounts) < np.log(4):
            found.append(f"amounts span a factor of {np.exp(np.ptp(amounts)):.1f} only; the exponent is uncertain")
    return tuple(found)


def _log(name: str, values: ArrayLike) -> Floats:
    given = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if given.ndim != 1 or not len(given) or not (np.isfinite(given) & (given > 0)).all():
        raise InputError(f"{name}={given.tolist()!r:.80}: expected a list of finite numbers above 0")
    return np.asarray(np.log(given), dtype=np.float64)


def _rows(name: str, vectors: ArrayLike) -> Floats:
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise InputError(f"{name} of shape {rows.shape}: expected rows (N, D) of finite numbers, N and D above 0")
    return rows


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.where(lengths == 0, 1, lengths)
    return unit


def example(seed: int = 0) -> dict[str, ProbeExample]:
    """Make the smallest ready instance: noisy copies as documents.

    Args:
        seed: Decides the vectors.

    Returns:
        ``{"probe": ...}`` for the contract of that kind.
    """
    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample

    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(12, 6))
    documents = queries + 0.5 * rng.normal(size=(12, 6))
    probe: Callable[..., Floats] = contrastive_entropy
    alike = np.ones((4, 3))
    return {
        "probe": ProbeExample(
            compute=probe,
            inputs=(queries, documents),
            numbers=lambda result: result,
            bounds=(0.0, np.inf),
            known=(
                KnownValue((alike, alike), np.full(4, np.log(4)), "nothing tells four documents apart: log 4"),
                KnownValue((np.eye(2), np.eye(2)), np.full(2, np.log1p(np.exp(-20))), "a right angle is 20 away"),
            ),
            refuses=(
                Refusal(lambda: contrastive_entropy(queries, documents[1:]), "documents"),
                Refusal(lambda: contrastive_entropy(queries, documents, temperature=0.0), "temperature=0.0"),
                Refusal(lambda: fit_size([1e6, 2e6], [2.0, 1.9]), "2 runs"),
                Refusal(lambda: fit_size([1e6, -1, 2, 3], [2.0, 1.9, 1.8, 1.7]), "sizes"),
                Refusal(lambda: fit_data([1e3, 1e4, 1e5], [2.0, 1.9]), "entropies"),
            ),
            rows="each",
            tie_rule="documents that are the same share the probability",
        )
    }
