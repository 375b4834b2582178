"""The flat map against the textbook."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab.serve.embeddings import shortened
from embedlab.serve.projection import even_sample, fit_axes


def cloud(count: int = 500, dim: int = 12, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    spread = np.linspace(3.0, 0.1, dim)
    return (generator.normal(size=(count, dim)) * spread + generator.normal(size=dim)).astype(np.float32)


def test_axes_are_those_of_the_singular_value_decomposition() -> None:
    vectors = cloud()
    axes = fit_axes(vectors)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, sizes, rows = np.linalg.svd(centred, full_matrices=False)
    overlap = np.abs(np.sum(axes.directions * rows[:2], axis=1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-5)
    np.testing.assert_allclose(axes.explained, sizes[:2] ** 2 / np.sum(sizes**2), rtol=1e-5)


def test_places_fill_the_square_and_keep_distances_in_proportion() -> None:
    vectors = cloud()
    places = fit_axes(vectors).place(vectors)
    assert np.abs(places).max() == pytest.approx(1.0, abs=1e-5)
    flat = np.zeros_like(vectors)
    flat[:, 3:5] = cloud(dim=2)
    there = fit_axes(flat).place(flat)
    np.testing.assert_allclose(
        np.linalg.norm(there[1:] - there[:-1], axis=1) / np.linalg.norm(flat[1:] - flat[:-1], axis=1),
        np.linalg.norm(there[1] - there[0]) / np.linalg.norm(flat[1] - flat[0]),
        rtol=1e-3,
    )


def test_equal_vectors_give_the_same_map_in_any_order() -> None:
    vectors = cloud()
    order = np.random.default_rng(1).permutation(len(vectors))
    np.testing.assert_allclose(
        fit_axes(vectors).place(vectors)[order], fit_axes(vectors[order]).place(vectors[order]), atol=1e-5
    )


@pytest.mark.parametrize("vectors", [np.zeros((1, 4)), np.ones((5, 4)), np.eye(2, 4), np.ones((3, 1)), np.eye(3, 1)])
def test_few_or_equal_vectors_are_no_trouble(vectors: NDArray[np.float64]) -> None:
    axes = fit_axes(vectors.astype(np.float32))
    places = axes.place(vectors.astype(np.float32))
    assert places.shape == (len(vectors), 2)
    assert np.isfinite(places).all()
    assert np.isfinite(axes.explained).all()


@pytest.mark.parametrize(("count", "wanted"), [(0, 5), (5, 5), (6, 5), (1000, 7), (10**9, 10)])
def test_a_sample_is_spread_evenly(count: int, wanted: int) -> None:
    chosen = even_sample(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert len(set(chosen.tolist())) == len(chosen)
    if len(chosen) > 1:
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1


def test_shortened_vectors_have_unit_length_and_zeros_stay() -> None:
    vectors = cloud(4)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[2] = 0
    short = shortened(vectors, 5)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), [1, 1, 0, 1], atol=1e-6)
    assert shortened(vectors, None) is vectors
    assert shortened(vectors, vectors.shape[1]) is vectors
