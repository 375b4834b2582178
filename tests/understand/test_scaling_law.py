"""Planted laws are found again, the entropy matches a loop, the split of a budget a search."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.understand.scaling_law import ScalingLaw, contrastive_entropy, fit_data, fit_joint, fit_size

SIZES = np.geomspace(5e5, 5e8, 9)


def test_entropy_matches_the_loop() -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(7, 4)), rng.normal(size=(7, 4))
    found = contrastive_entropy(queries, documents, temperature=0.3)
    for row in range(7):
        scores = [
            float(queries[row] @ one / math.sqrt(queries[row] @ queries[row]) / math.sqrt(one @ one)) / 0.3
            for one in documents
        ]
        assert found[row] == pytest.approx(math.log(sum(map(math.exp, scores))) - scores[row])


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_law_of_size_is_found_again(seed: int) -> None:
    noise = 1 + 0.001 * np.random.default_rng(seed).normal(size=len(SIZES))
    law = fit_size(SIZES, ((2e6 / SIZES) ** 0.4 + 0.6) * noise)
    assert law.alpha == pytest.approx(0.4, rel=0.05)
    assert law.scale_size == pytest.approx(2e6, rel=0.05)
    assert law.delta == pytest.approx(0.6, rel=0.05)
    assert law.r2 > 0.99
    assert math.isnan(law.beta)
    assert not law.cautions


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_law_of_data_is_found_again(seed: int) -> None:
    data = np.geomspace(1e3, 1e7, 9)
    noise = 1 + 0.001 * np.random.default_rng(seed).normal(size=len(data))
    law = fit_data(data, ((3e4 / data) ** 0.35 + 0.3) * noise)
    assert law.beta == pytest.approx(0.35, rel=0.05)
    assert law.scale_data == pytest.approx(3e4, rel=0.05)
    assert law.delta == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_joint_law_is_found_again(seed: int) -> None:
    sizes, data = (each.ravel() for each in np.meshgrid(np.geomspace(5e5, 1e9, 8), np.geomspace(1e3, 1e8, 8)))
    planted = ScalingLaw(0.5, 0.4, 4e6, 2e4, 0.5, 1.0, 64)
    noise = 1 + 0.001 * np.random.default_rng(seed).normal(size=len(sizes))
    law = fit_joint(sizes, data, planted.predict(sizes, data) * noise)
    for name in ("alpha", "beta", "scale_size", "scale_data", "delta"):
        assert getattr(law, name) == pytest.approx(getattr(planted, name), rel=0.05), name
    assert law.held_out_error(planted.predict(2e9, 1e9), sizes=2e9, data=1e9) < 0.02
    assert law.r2 > 0.999


def test_the_joint_law_has_the_others_as_limits() -> None:
    law = ScalingLaw(0.5, 0.4, 4e6, 2e4, 0.5, 1.0, 9)
    assert law.predict(1e6, 1e30)[0] == pytest.approx(4**0.5 + 0.5)
    assert law.predict(1e60, 1e3)[0] == pytest.approx(20**0.4 + 0.5)


def test_a_budget_is_split_as_a_search_would() -> None:
    law = ScalingLaw(0.5, 0.4, 4e6, 2e4, 0.5, 1.0, 9)
    size, data = law.best_split(1e15, cost=600)
    assert 600 * size * data == pytest.approx(1e15)
    grid = np.geomspace(size / 100, size * 100, 4001)
    best = grid[np.argmin(law.predict(grid, 1e15 / (600 * grid)))]
    assert size == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [([1e6, 4e6, 2e7], "3 runs"), ([1e6, 1.2e6, 1.4e6, 1.6e6, 2e6], "factor of 2.0"), ([1e6, 1e7] * 3, "2 different")],
)
def test_too_few_points_are_said_to_be_so(sizes: list[float], says: str) -> None:
    with pytest.warns(UserWarning, match=says):
        law = fit_size(sizes, (2e6 / np.array(sizes)) ** 0.4 + 0.6)
    assert any(says in caution for caution in law.cautions)


def test_enough_points_are_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_size(SIZES, (2e6 / SIZES) ** 0.4 + 0.6)


def test_what_a_law_cannot_say() -> None:
    law = fit_size(SIZES, (2e6 / SIZES) ** 0.4 + 0.6)
    with pytest.raises(InputError, match="fit_joint"):
        law.best_split(1e9)
    with pytest.raises(InputError, match="1 of sizes and data"):
        law.predict(1e6, 1e6)
    with pytest.raises(InputError, match="budget=0"):
        ScalingLaw(0.5, 0.4, 4e6, 2e4, 0.5, 1.0, 9).best_split(0)
    with pytest.raises(InputError, match="sizes"):
        law.predict([0.0])
