"""Queries of a new model in an index of an old one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.search.bebr import QueryMap
from embedlab.search.bebr.development import reciprocal_ranks
from embedlab.search.bebr.recurrence import unit

Vectors = NDArray[np.float32]


def models(num: int, seed: int = 0) -> tuple[Vectors, Vectors, Vectors, Vectors]:
    """Vectors of queries and documents by a new and by an old model; queries are off in a direction of their own."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(42)
    to_new, to_old = fixed.normal(size=(12, 20)), fixed.normal(size=(12, 16))
    shift = 2 * fixed.normal(size=20)
    meaning = rng.normal(size=(num, 12))
    blurred = meaning + 0.3 * rng.normal(size=meaning.shape)
    new_queries = blurred @ to_new + shift * rng.normal(size=(num, 1))
    each = (new_queries, meaning @ to_new, blurred @ to_old, meaning @ to_old)
    return tuple(unit(rows).astype(np.float32) for rows in each)  # type: ignore[return-value]


def rank(scores: Vectors) -> float:
    return float(reciprocal_ranks(scores, np.arange(len(scores))).mean())


def test_a_turned_space_is_turned_back() -> None:
    rng = np.random.default_rng(0)
    old = unit(rng.normal(size=(400, 10))).astype(np.float32)
    new = old @ np.linalg.qr(rng.normal(size=(10, 10)))[0]
    bridge = QueryMap(10, 10).fit(new, old)
    np.testing.assert_allclose(bridge.transform(new), old, atol=1e-3)
    assert bridge.report is not None
    assert bridge.report.kept > 0.99
    assert np.array_equal(bridge.transform(np.zeros((1, 10))), np.zeros((1, 10)))


def test_pairs_teach_what_texts_cannot() -> None:
    pytest.importorskip("torch")
    new_queries, new, old_queries, old = models(900)
    fresh_queries, _, _, fresh = models(300, seed=1)
    plain = QueryMap(20, 16).fit(new, old)
    told: list[float] = []
    trained = QueryMap(20, 16).fit(new, old, pairs=(new_queries, old), old_queries=old_queries, on_progress=told.append)
    ranks = [rank(each.transform(fresh_queries) @ fresh.T) for each in (plain, trained)]
    assert ranks[1] > ranks[0] + 0.05
    assert trained.report is not None
    assert trained.report.trained
    assert 0 < trained.report.task <= 1
    assert 0 < trained.report.task_old <= 1
    assert told[-1] == 1.0


def test_training_that_does_not_help_is_dropped() -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    old = unit(rng.normal(size=(400, 10))).astype(np.float32)
    closed = QueryMap(10, 10, steps=0).fit(old, old)
    trained = QueryMap(10, 10, steps=5).fit(old, old, pairs=(old, old))
    assert trained.report is not None
    assert not trained.report.trained
    assert trained.weights is not None
    assert closed.weights is not None
    np.testing.assert_allclose(trained.weights, closed.weights)


def test_few_texts_are_mapped_and_not_judged() -> None:
    old = np.random.default_rng(0).normal(size=(12, 4))
    bridge = QueryMap(4, 4).fit(old, old, pairs=(old, old))
    assert bridge.report is None
    assert bridge.transform(old).shape == (12, 4)


def test_what_does_not_fit_is_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(InputError, match="not fitted"):
        QueryMap(4, 4).transform(rows)
    with pytest.raises(InputError, match="one for each text"):
        QueryMap(4, 4).fit(rows, rows[1:])
    with pytest.raises(InputError, match="old of shape"):
        QueryMap(4, 5).fit(rows, rows)
    with pytest.raises(InputError, match="steps=-1"):
        QueryMap(4, 4, steps=-1)
