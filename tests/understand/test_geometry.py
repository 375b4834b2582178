"""Geometry against brute force, manifolds of known dimension and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

from embedlab._core.errors import InputError
from embedlab.understand.geometry import (
    hubness,
    intrinsic_dimension,
    isotropy,
    mean_cosine,
    modality_gap,
    nearest,
    norm_relations,
)


def cloud(n: int, dim: int = 8, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


def rotation(dim: int, seed: int = 9) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))


class TestIsotropy:
    def test_mean_cosine_is_that_of_all_pairs(self):
        rows = cloud(40, shift=0.5)
        pairs = [cosine(rows[i], rows[j]) for i in range(40) for j in range(i)]
        assert_allclose(mean_cosine(rows).estimate, math.fsum(pairs) / len(pairs), atol=1e-12)
        assert isotropy(rows).mean_cosine == mean_cosine(rows)

    def test_its_interval_is_the_jackknife_done_by_hand(self):
        rows = cloud(25, shift=0.5)
        without = [mean_cosine(np.delete(rows, i, axis=0)).estimate for i in range(25)]
        error = math.sqrt(24 / 25 * math.fsum((value - np.mean(without)) ** 2 for value in without))
        found = mean_cosine(rows)
        assert_allclose((found.high - found.low) / 2, scipy.stats.norm.ppf(0.975) * error, rtol=1e-9)

    @pytest.mark.parametrize(("used", "dim"), [(3, 3), (2, 8), (4, 8), (1, 5)])
    def test_equal_variances_in_some_directions(self, used, dim):
        """k directions that vary alike: IsoScore (k - 1) / (D - 1), rank and participation k, all in k components."""
        rows = np.vstack([np.eye(dim)[:used], -np.eye(dim)[:used]]) @ rotation(dim)
        found = isotropy(rows)
        assert_allclose(found.isoscore.estimate, (used - 1) / (dim - 1), atol=1e-9)
        assert_allclose(found.effective_rank.estimate, used, rtol=1e-6)
        assert_allclose(found.participation_ratio.estimate, used, rtol=1e-9)
        assert found.components_90 == math.ceil(0.9 * used)
        assert_allclose(found.top_share.estimate, 1 / used, rtol=1e-9)
        assert_allclose(found.spectrum.sum(), 1)

    def test_spectrum_is_that_of_the_covariance_of_unit_rows(self):
        rows = cloud(300, 6, shift=0.3) * np.arange(1, 7)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        values = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
        found = isotropy(rows)
        assert_allclose(found.spectrum, values**2 / (values**2).sum(), atol=1e-12)
        shares = values / values.sum()
        assert_allclose(found.effective_rank.estimate, math.exp(scipy.stats.entropy(shares)), rtol=1e-9)

    def test_turning_and_stretching_rows_changes_nothing(self):
        rows = cloud(200, 6, shift=0.3)
        other = rows @ rotation(6) * np.random.default_rng(1).uniform(0.1, 9, size=(200, 1))
        first, second = isotropy(rows), isotropy(other)
        for name in ("mean_cosine", "isoscore", "effective_rank", "top_share"):
            assert_allclose(getattr(second, name).estimate, getattr(first, name).estimate, rtol=1e-9)

    def test_intervals_hold_the_truth_about_as_often_as_they_say(self):
        scale = np.array([3.0, 2.0, 1.0, 1.0, 0.5])
        truth = isotropy(cloud(200_000, 5, seed=99) * scale)
        inside = np.zeros(4)
        names = ("top_share", "isoscore", "effective_rank", "participation_ratio")
        for seed in range(100):
            found = isotropy(cloud(300, 5, seed=seed) * scale)
            inside += [
                getattr(found, name).low <= getattr(truth, name).estimate <= getattr(found, name).high for name in names
            ]
        assert (inside >= 86).all(), inside

    def test_reads_a_memory_map_and_half_floats(self, tmp_path):
        rows = cloud(5000, 4, shift=0.5).astype(np.float16)
        np.save(tmp_path / "rows.npy", rows)
        mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
        assert_allclose(isotropy(mapped).isoscore.estimate, isotropy(rows.astype(float)).isoscore.estimate)

    def test_two_rows_have_numbers_but_no_interval(self):
        found = isotropy([[1.0, 0.0], [0.0, 1.0]])
        assert found.mean_cosine.estimate == 0
        assert found.mean_cosine.low == -math.inf

    @pytest.mark.parametrize("where", [0.05, 0.25, 0.7])
    def test_reading_names_the_cone(self, where):
        rows = cloud(2000, 16) + math.sqrt(where / (1 - where))
        words = isotropy(rows).reading
        assert ("every way" in words, "narrow cone" in words) == (where < 0.1, where > 0.4)


class TestNeighbours:
    @pytest.mark.parametrize("metric", ["cosine", "euclidean"])
    def test_neighbours_are_those_of_all_pairs(self, metric):
        rows = cloud(700, 5, shift=0.4)
        found = nearest(rows, 7, metric=metric)
        points = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        assert_allclose(found.distances, np.sort(apart, axis=1)[:, :7], atol=1e-12)
        assert (found.nearest == np.argsort(apart, axis=1)[:, :7]).all()

    def test_far_from_the_origin_digits_are_kept(self):
        rows = cloud(200, 3) * 1e-3 + 1e4
        found = nearest(rows, 3, metric="euclidean")
        apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        assert_allclose(found.distances, np.sort(apart, axis=1)[:, :3], rtol=1e-6)

    def test_copies_are_looked_at_once(self):
        rows = cloud(60, 6)
        doubled = np.vstack([rows, rows[:20] * 3, rows[:5]]).astype(np.float32)
        found = nearest(doubled, 5)
        assert found.copies == 25
        assert found.rows.tolist() == list(range(60))
        assert (found.nearest == nearest(rows, 5).nearest).all()

    def test_a_large_set_is_sampled_and_says_so(self):
        rows = cloud(500, 4)
        first, again, other = (nearest(rows, 3, max_rows=100, seed=seed) for seed in (0, 0, 1))
        assert first.sampled
        assert first.basis == "a random sample of 100 of 500 rows"
        assert (first.rows == again.rows).all()
        assert (first.rows != other.rows).any()

    @pytest.mark.parametrize(
        ("call", "says"),
        [
            (lambda: nearest(cloud(5), 5), "5 different rows"),
            (lambda: nearest(np.ones((50, 3)), 2), "1 different rows among 50"),
            (lambda: nearest(cloud(5), 0), "k=0"),
            (lambda: nearest(cloud(5), 2, max_rows=2), "max_rows=2"),
            (lambda: nearest(cloud(5), 2, metric="cosin"), "cosine"),
            (lambda: nearest(np.zeros((5, 2)), 2), "row 0 is zero"),
            (lambda: nearest([[np.nan, 1.0]] * 5, 2, metric="euclidean"), "row 0 is not finite"),
        ],
    )
    def test_bad_input_is_refused_by_name(self, call, says):
        with pytest.raises(InputError, match=says):
            call()


def sphere(n: int, d: int, dim: int, seed: int = 0) -> np.ndarray:
    return cloud(n, d + 1, seed=seed) @ rotation(dim)[: d + 1]


def torus(n: int) -> np.ndarray:
    """Two angles in four coordinates of constant length: a flat surface on a sphere."""
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(n, 2))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) @ rotation(10)[:4]


def roll(n: int) -> np.ndarray:
    along, across = np.random.default_rng(0).uniform(size=(2, n))
    angle = 1.5 * np.pi * (1 + 2 * along)
    return np.stack([angle * np.cos(angle), 21 * across, angle * np.sin(angle)], axis=1)


class TestDimension:
    @pytest.mark.parametrize(("d", "dim", "slack"), [(1, 6, 0.1), (2, 20, 0.15), (5, 20, 0.4), (9, 30, 1.2)])
    def test_spheres(self, d, dim, slack):
        found = intrinsic_dimension(sphere(2500, d, dim))
        assert abs(found.likelihood.estimate - d) < slack
        assert abs(found.two_nn.estimate - d) < 1.5 * slack
        assert found.dim == dim

    def test_a_torus_and_a_roll_are_surfaces(self):
        assert intrinsic_dimension(torus(2500)).likelihood.estimate == pytest.approx(2, abs=0.15)
        rolled = intrinsic_dimension(roll(2500), metric="euclidean")
        assert rolled.likelihood.estimate == pytest.approx(2, abs=0.15)
        assert rolled.two_nn.estimate == pytest.approx(2, abs=0.2)

    def test_numbers_are_the_formulas(self):
        rows = cloud(80, 4)
        found = intrinsic_dimension(rows, k=6, metric="euclidean")
        two, many = [], []
        for i, row in enumerate(rows):
            near = sorted(float(np.linalg.norm(row - other)) for j, other in enumerate(rows) if j != i)[:6]
            two.append(math.log(near[1] / near[0]))
            many += [math.log(near[5] / near[j]) for j in range(5)]
        assert_allclose(found.two_nn.estimate, len(two) / math.fsum(two), rtol=1e-9)
        assert_allclose(found.likelihood.estimate, len(many) / math.fsum(many), rtol=1e-9)

    def test_the_interval_of_two_nn_holds_the_truth(self):
        inside = 0
        for seed in range(40):
            found = intrinsic_dimension(cloud(400, 2, seed=seed) @ np.eye(2, 5), metric="euclidean", k=2).two_nn
            inside += found.low <= 2 <= found.high
        assert inside >= 34

    def test_copies_do_not_count(self):
        rows = sphere(800, 3, 10)
        doubled, single = intrinsic_dimension(np.vstack([rows, rows])), intrinsic_dimension(rows)
        assert_allclose(doubled.likelihood.estimate, single.likelihood.estimate, rtol=1e-9)

    def test_equal_distances_have_no_dimension_that_could_be_told(self):
        found = intrinsic_dimension(np.eye(6), k=3, metric="euclidean")
        assert found.likelihood.estimate > 1e6

    def test_bad_k_is_refused(self):
        with pytest.raises(InputError, match="k=1"):
            intrinsic_dimension(cloud(50), k=1)
        with pytest.raises(InputError, match="neighbours at hand are 3"):
            intrinsic_dimension(nearest(cloud(50), 3), k=9)


class TestHubness:
    def test_counts_are_those_of_all_pairs(self):
        rows = cloud(150, 6, shift=0.2)
        found = hubness(rows, k=4)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        scores = unit @ unit.T
        np.fill_diagonal(scores, -np.inf)
        counts = np.zeros(150, dtype=int)
        for i in range(150):
            counts[sorted(range(150), key=lambda j: -scores[i, j])[:4]] += 1
        assert found.occurrences.tolist() == counts.tolist()
        assert_allclose(found.skewness.estimate, scipy.stats.skew(counts), rtol=1e-9)
        assert_allclose(found.orphan_share.estimate, np.mean(counts == 0))
        hubs = counts > 4 + 2 * counts.std()
        assert_allclose([found.hub_share, found.hub_places], [hubs.mean(), counts[hubs].sum() / 600])
        assert counts[found.hubs(1)[0]] == counts.max()
        assert set(found.orphans(150)) == set(np.flatnonzero(counts == 0))

    def test_dimension_makes_hubs(self):
        low, high = (hubness(cloud(1500, dim), metric="euclidean").skewness for dim in (3, 100))
        assert low.high < 1 < 2 < high.low

    def test_chance_is_the_skewness_of_random_lists(self):
        rng = np.random.default_rng(0)
        drawn = [rng.binomial(499, 10 / 499, size=200_000)]
        assert hubness(cloud(500, 3)).chance == pytest.approx(float(scipy.stats.skew(drawn[0])), abs=0.02)

    def test_a_ring_has_neither_hubs_nor_orphans(self):
        angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        found = hubness(ring, k=2)
        assert set(found.occurrences) == {2}
        assert (found.skewness.estimate, found.orphan_share.estimate, found.hub_share, found.robin_hood) == (0, 0, 0, 0)
        assert "Hardly any hubs" in found.reading

    def test_a_constant_encoder_is_refused_not_ranked(self):
        with pytest.raises(InputError, match="different rows"):
            hubness(np.ones((100, 4)))


class TestNorms:
    def test_correlations_are_spearmans(self):
        rng = np.random.default_rng(0)
        rows = cloud(120, 5, shift=0.5)
        lengths = rng.integers(1, 30, size=120)
        found = norm_relations(rows, lengths=lengths)
        norms = np.linalg.norm(rows, axis=1)
        assert_allclose(found.norm_with_length.estimate, scipy.stats.spearmanr(norms, lengths).statistic, atol=1e-12)
        unit = rows / norms[:, None]
        expected = scipy.stats.spearmanr(unit @ unit.sum(axis=0), lengths).statistic
        assert_allclose(found.centrality_with_length.estimate, expected, atol=1e-9)
        assert_allclose(found.quantiles, np.quantile(norms, [0, 0.25, 0.5, 0.75, 1]))

    def test_the_interval_holds_a_true_correlation(self):
        rho = 0.5
        truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's of a normal pair with Pearson's rho
        inside = 0
        for seed in range(200):
            rng = np.random.default_rng(seed)
            x = rng.normal(size=80)
            y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=80)
            rows = np.exp(x)[:, None] * np.eye(3)[rng.integers(0, 3, size=80)]
            found = norm_relations(rows, lengths=np.exp(y)).norm_with_length
            inside += found.low <= truth <= found.high
        assert 180 <= inside <= 200

    def test_unit_rows_say_that_norms_tell_nothing(self):
        rows = cloud(50, 4)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found = norm_relations(rows.astype(np.float16), lengths=np.arange(50))
        assert found.unit
        assert found.norm_with_length is None
        assert found.centrality_with_length is not None
        assert "can tell nothing" in found.reading

    def test_constant_lengths_have_no_correlation(self):
        assert norm_relations(cloud(20), lengths=np.ones(20)).norm_with_length is None

    def test_lengths_must_match(self):
        with pytest.raises(InputError, match="lengths must be 20"):
            norm_relations(cloud(20), lengths=[1, 2])


def cosine_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.array([[1 - cosine(a, b) for b in right] for a in left])


class TestGap:
    def test_distance_and_relative_gap_are_their_definitions(self):
        left, right = cloud(30, 5, shift=0.5), cloud(20, 5, seed=1, shift=-0.2)
        found = modality_gap(left, right)
        units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right)]
        assert_allclose(found.distance.estimate, np.linalg.norm(units[0].mean(axis=0) - units[1].mean(axis=0)))
        across = cosine_distances(left, right).mean()
        within = [d[~np.eye(len(d), dtype=bool)].mean() for d in (cosine_distances(r, r) for r in (left, right))]
        assert_allclose(found.relative.estimate, across / (across + sum(within) / 2), rtol=1e-9)

    def test_pairs_are_their_own_across(self):
        left = cloud(25, 5, shift=0.5)
        right = left + 0.3 * cloud(25, 5, seed=1)
        found = modality_gap(left, right, paired=True)
        across = np.mean([1 - cosine(a, b) for a, b in zip(left, right, strict=True)])
        within = [d[~np.eye(len(d), dtype=bool)].mean() for d in (cosine_distances(r, r) for r in (left, right))]
        assert_allclose(found.relative.estimate, across / (across + sum(within) / 2), rtol=1e-9)
        without = [
            modality_gap(np.delete(left, i, 0), np.delete(right, i, 0), paired=True).relative.estimate
            for i in range(25)
        ]
        error = math.sqrt(24 * np.var(without))
        assert_allclose(found.relative.high - found.relative.estimate, scipy.stats.norm.ppf(0.975) * error, rtol=1e-6)

    def test_halves_of_one_set_show_no_gap(self):
        rows = cloud(1000, 16, shift=0.3)
        found = modality_gap(rows[:600], rows[600:])
        assert found.relative.estimate == pytest.approx(0.5, abs=0.01)
        assert found.separability.low < 0.5 < found.separability.high + 0.03
        assert found.distance.estimate == pytest.approx(found.chance, rel=0.5)
        assert "No gap" in found.reading

    def test_sets_apart_are_told_apart_by_a_plane(self):
        found = modality_gap(cloud(300, 16, shift=0.8), cloud(100, 16, seed=1, shift=-0.8))
        assert found.separability.estimate > 0.98
        assert found.distance.low > 3 * found.chance
        assert "apart" in found.reading

    def test_a_wide_set_does_not_decide_for_the_other(self):
        found = modality_gap(cloud(1000, 4), cloud(20, 4, seed=1))
        assert found.separability.estimate < 0.7

    def test_turning_both_changes_nothing(self):
        left, right, turn = cloud(60, 6, shift=0.4), cloud(50, 6, seed=1), rotation(6)
        first, second = modality_gap(left, right), modality_gap(left @ turn, right @ turn)
        assert_allclose(second.relative.estimate, first.relative.estimate)
        assert_allclose(second.separability.estimate, first.separability.estimate)

    @pytest.mark.parametrize(
        ("call", "says"),
        [
            (lambda: modality_gap(cloud(4), cloud(9)), "at least 5 rows"),
            (lambda: modality_gap(cloud(9), cloud(9, 3)), "one space"),
            (lambda: modality_gap(cloud(9), cloud(8), paired=True), "as many rows"),
            (lambda: modality_gap(np.zeros((9, 3)), cloud(9, 3)), "first: row 0 is zero"),
        ],
    )
    def test_bad_input_is_refused_by_name(self, call, says):
        with pytest.raises(InputError, match=says):
            call()


@pytest.mark.parametrize("call", [isotropy, mean_cosine, norm_relations, hubness, intrinsic_dimension])
@pytest.mark.parametrize(
    "rows",
    [np.empty((0, 3)), np.ones(3), [["a", "b"]], np.full((30, 3), np.nan), np.zeros((30, 3)), np.ones((30, 3)) * 1j],
    ids=["empty", "flat", "words", "nan", "zero", "complex"],
)
def test_vectors_that_are_none_are_refused(call, rows):
    with pytest.raises(InputError):
        call(rows)
