"""Heads of one encoder on the vectors of another, without training: the matrix of all pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.understand.relative.anchors import AnchorSet, demand_same_anchors
from embedlab.understand.relative.coordinates import RelativeEmbedder, Similarity
from embedlab.understand.relative.rows import Floats, matrix


@dataclass(frozen=True, slots=True)
class StitchMatrix:
    """Scores of every head on the vectors of every encoder.

    Attributes:
        names: The encoders, whose heads carry the same names.
        scores: Score of head j on the vectors of encoder i, (M, M); NaN where the head takes another width.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]

    @property
    def native(self) -> float:
        """Mean score of the heads on their own encoder."""
        return float(np.diag(self.scores).mean())

    @property
    def stitched(self) -> float:
        """Mean score of the heads on other encoders; NaN if no pair fits."""
        others = self.scores[~np.eye(len(self.names), dtype=bool)]
        fitting = others[~np.isnan(others)]
        return float(fitting.mean()) if fitting.size else float("nan")

    def score(self, encoder: str, head: str) -> float:
        """Return the score of one pair.

        Args:
            encoder: Name of the encoder.
            head: Name of the encoder whose head is used.

        Returns:
            The score; NaN where the head takes another width.
        """
        return float(self.scores[self.names.index(encoder), self.names.index(head)])


@dataclass(frozen=True, slots=True)
class StitchReport:
    """What stitching costs with relative coordinates, and with the vectors as they are.

    Attributes:
        relative: Scores with relative coordinates.
        absolute: Scores with the vectors themselves; pairs of different width are NaN.
        anchors: Fingerprint of the anchors.
    """

    relative: StitchMatrix
    absolute: StitchMatrix
    anchors: str


def stitch(
    encoders: Mapping[str, Any],
    heads: Mapping[str, Any],
    data: tuple[Any, Any],
    *,
    metric: Callable[..., float] | None = None,
) -> StitchMatrix:
    """Score every head on the output of every encoder.

    Args:
        encoders: Name -> function of the inputs, or object with ``transform``. Those that carry a fingerprint of their
            anchors as ``anchors_hash`` must carry the same.
        heads: Name -> what was trained on that encoder's output: an object with ``score(features, targets)``, as in
            scikit-learn, or, with ``metric``, a function of the features. Same names as ``encoders``.
        data: Inputs and targets.
        metric: Function of what a head gives and the targets.

    Returns:
        The matrix of scores; NaN where an encoder's output has another width than the head was made for.

    Raises:
        InputError: the names differ, there are fewer than two, the anchors differ, or a score is not finite.

    Example:
        >>> double, triple = (lambda x: 2 * x), (lambda x: 3 * x)
        >>> halve, third = (lambda z: z / 2), (lambda z: z / 3)
        >>> error = lambda got, wanted: float(np.mean((got - wanted) ** 2))
        >>> x = np.array([1.0, 2.0])
        >>> found = stitch({"a": double, "b": triple}, {"a": halve, "b": third}, (x, x), metric=error)
        >>> found.native, round(found.stitched, 3)
        (0.0, 0.451)
    """
    names = tuple(encoders)
    if set(names) != set(heads) or len(names) < 2:
        raise InputError(f"encoders {sorted(names)} and heads {sorted(heads)} must have the same names, at least two")
    demand_same_anchors("encoders", *encoders.values())
    inputs, targets = data
    outputs = {name: e.transform(inputs) if hasattr(e, "transform") else e(inputs) for name, e in encoders.items()}
    scores = np.full((len(names), len(names)), np.nan)
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            if np.shape(outputs[name])[1:] != np.shape(outputs[other])[1:]:
                continue  # no map is trained to make it fit
            head, features = heads[other], outputs[name]
            scores[i, j] = head.score(features, targets) if metric is None else metric(head(features), targets)
            if not np.isfinite(scores[i, j]):
                raise InputError(f"head {other!r} on encoder {name!r} scores {scores[i, j]}: it must be finite")
    return StitchMatrix(names, scores)


def stitch_vectors(
    train: Mapping[str, ArrayLike],
    test: Mapping[str, ArrayLike],
    labels: tuple[Sequence[Any], Sequence[Any]],
    anchors: AnchorSet,
    *,
    similarity: Similarity = "cosine",
    center: bool = False,
    make_head: Callable[[], Any] | None = None,
) -> StitchReport:
    """Train one head per encoder on frozen vectors and score each on the vectors of all others.

    Args:
        train: Name -> training vectors by that encoder, row by row of the same items.
        test: Name -> test vectors.
        labels: Labels of the training and of the test items.
        anchors: Anchors chosen among the training items.
        similarity: As in ``relative_coordinates``.
        center: Subtract each space's training mean first.
        make_head: Makes a head with ``fit`` and ``score``; logistic regression on standardised features by default.

    Returns:
        Both matrices, with relative coordinates and with the vectors as they are.

    Raises:
        InputError: the names differ, or vectors and labels do not match.
        MissingExtraError: scikit-learn is missing (extra ``evaluate``) and ``make_head`` is not given.
    """
    if set(train) != set(test) or len(train) < 2:
        raise InputError(f"train {sorted(train)} and test {sorted(test)} must have the same names, at least two")
    make = make_head or _logistic
    spaces = {name: matrix(f"train[{name!r}]", rows) for name, rows in train.items()}
    for name, rows in spaces.items():
        if len(rows) != len(labels[0]) or len(matrix(f"test[{name!r}]", test[name])) != len(labels[1]):
            raise InputError(
                f"labels have {len(labels[0])} and {len(labels[1])} entries, unlike the vectors of {name!r}"
            )
    relative = {
        name: RelativeEmbedder(len(anchors), similarity=similarity, center=center).fit(rows, anchors=anchors)
        for name, rows in spaces.items()
    }
    matrices = []
    for view in (lambda name, rows: relative[name].transform(rows), lambda name, rows: np.asarray(rows)):
        heads = {name: make().fit(view(name, rows), labels[0]) for name, rows in spaces.items()}
        encoders = {name: _looked_up(view(name, test[name])) for name in spaces}
        matrices.append(stitch(encoders, heads, (None, labels[1])))
    return StitchReport(matrices[0], matrices[1], anchors.hash)


def _looked_up(features: Floats) -> Callable[[Any], Floats]:
    return lambda inputs: features


def _logistic() -> Any:
    linear = require("sklearn.linear_model", extra="evaluate")
    pipeline = require("sklearn.pipeline", extra="evaluate")
    scaling = require("sklearn.preprocessing", extra="evaluate")
    return pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(max_iter=300))
