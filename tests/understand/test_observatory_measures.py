"""The measures against definitions written as loops; dependencies and joins against brute force."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.understand.observatory import (
    abbreviate,
    containment,
    cosines,
    find_fds,
    find_joins,
    jaccard,
    mcv,
    multiset_jaccard,
    nearest,
    overlap_pairs,
    purity,
    spearman,
    synonym,
)
from embedlab.understand.observatory.headers import wordnet_synonym

LADDER = np.array([[1.0] * 5, [2.0] * 5, [6.0] * 5])


def test_mcv_of_the_known_case():
    assert mcv(LADDER) == pytest.approx(math.sqrt(7) / 3, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_mcv_is_the_form_with_the_covariance_and_free_of_scale(seed):
    rows = np.random.default_rng(seed).normal(size=(7, 40)) + 0.7
    centre, covariance = rows.mean(axis=0), np.cov(rows, rowvar=False)
    slow = math.sqrt(centre @ covariance @ centre / (centre @ centre) ** 2)
    assert mcv(rows) == pytest.approx(slow, abs=1e-10)
    assert mcv(rows * 1e-6) == pytest.approx(slow, abs=1e-10)
    assert mcv(-rows) == pytest.approx(slow, abs=1e-10)


def test_mcv_at_its_limits():
    assert mcv(np.full((3, 4), 0.1)) == 0.0
    assert mcv([[1.0, 0.0], [-1.0, 0.0]]) == math.inf  # centred: the mean is zero
    assert mcv(np.zeros((2, 3))) == 0.0
    for bad in ([[1.0, 2.0]], [[1.0, np.nan], [1.0, 2.0]], [1.0, 2.0], [["a"], ["b"]]):
        with pytest.raises(InputError, match="vectors"):
            mcv(bad)


def test_equal_vectors_have_cosine_one_exactly():
    rng = np.random.default_rng(0)
    for _ in range(50):
        vector = rng.normal(size=37)
        assert cosines(vector, [vector, -vector]).tolist() == [1.0, pytest.approx(-1.0, abs=1e-12)]
    first, others = rng.normal(size=8), rng.normal(size=(5, 8))
    slow = [first @ o / math.sqrt((first @ first) * (o @ o)) for o in others]
    assert cosines(first, others) == pytest.approx(slow, abs=1e-12)
    assert np.isnan(cosines([0.0, 0.0], [[1.0, 0.0]])).all()
    with pytest.raises(InputError, match="must agree"):
        cosines([1.0], [[1.0, 2.0]])


def test_overlaps_are_counted_as_defined():
    rng = np.random.default_rng(1)
    for _ in range(50):
        one, two = ([str(v) for v in rng.integers(0, 6, size=size)] for size in rng.integers(1, 9, size=2))
        a, b = set(one), set(two)
        assert containment(one, two) == len(a & b) / len(a)
        assert jaccard(one, two) == len(a & b) / len(a | b)
        left, shared = Counter(two), 0
        for value in one:
            if left[value]:
                left[value] -= 1
                shared += 1
        assert multiset_jaccard(one, two) == shared / (len(one) + len(two))
        assert multiset_jaccard(one, one) == 0.5
    assert containment(["", ""], ["a"]) == jaccard([], [""]) == multiset_jaccard([""], [""]) == 0.0


def test_rank_correlation_purity_and_neighbours():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 5, size=30), rng.normal(size=30)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert math.isnan(spearman([1, 1], [1, 2]))
    assert purity([0, 0, 0, 1], ["a", "b", "b", "a"]) == 0.75
    with pytest.raises(InputError, match="same items"):
        purity([0], [])

    rows = rng.normal(size=(20, 4))
    found = nearest(rows, [3, 7], 5)
    for query, near in zip([3, 7], found, strict=True):
        scores = [-2.0 if i == query else cosines(rows[query], rows[i][None])[0] for i in range(20)]
        assert near.tolist() == sorted(range(20), key=lambda i: -scores[i])[:5]
    assert nearest(np.ones((4, 2)), [2], 3).tolist() == [[0, 1, 3]]  # ties in order
    with pytest.raises(InputError, match="top_k=4"):
        nearest(np.ones((4, 2)), [0], 4)


@pytest.mark.parametrize("seed", range(4))
def test_dependencies_are_exactly_those_that_hold(seed):
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 5, size=(5, 14))
    cells[3], cells[4] = cells[0] % 2, 7  # decided by the first; constant
    data = {str(j): column.tolist() for j, column in enumerate(cells)}
    slow = set()
    for x in range(5):
        for y in range(5):
            pairs = [(a, b) for a in range(14) for b in range(a) if cells[x, a] == cells[x, b]]
            if x != y and pairs and len(set(cells[y])) > 1 and all(cells[y, a] == cells[y, b] for a, b in pairs):
                slow.add((x, y))
    found = find_fds(data)
    assert {(fd.determinant, fd.dependent) for fd in found} == slow
    assert (0, 3) in slow
    assert all(fd.support == sum(n > 1 for n in Counter(cells[fd.determinant].tolist()).values()) for fd in found)
    assert find_fds(data, min_rows=15) == []


def test_keys_constants_and_missing_values_in_dependencies():
    data = {"key": list(range(10)), "one": [1] * 10, "gap": [None] * 5 + ["a"] * 5, "half": [0] * 5 + [1] * 5}
    named = {(fd.determinant, fd.dependent) for fd in find_fds(data)}
    assert named == {(2, 3), (3, 2)}
    assert find_fds({}) == []


def test_joins_are_exactly_the_pairs_that_share_values():
    rng = np.random.default_rng(5)
    tables = {n: {c: rng.integers(0, 12, size=rng.integers(1, 9)).tolist() for c in "a"} for n in "pqrs"}
    tables["p"]["b"] = [None] * len(tables["p"]["a"])
    joins = {(join.query, join.candidate): join for join in find_joins(tables)}
    columns = {
        (t, j): list(map(str, v))
        for t, n in enumerate(tables)
        for j, (c, v) in enumerate(tables[n].items())
        if c == "a"
    }
    slow = {(q, c) for q in columns for c in columns if q[0] != c[0] and set(columns[q]) & set(columns[c])}
    assert set(joins) == slow
    for (query, candidate), join in joins.items():
        one, two = columns[query], columns[candidate]
        expected = containment(one, two), jaccard(one, two), multiset_jaccard(one, two)
        assert (join.containment, join.jaccard, join.multiset_jaccard) == expected
    assert all(join.containment > 0.5 for join in find_joins(tables, min_containment=0.5))
    ordered = [join.containment for join in find_joins(tables)]
    assert ordered == sorted(ordered, reverse=True)


def test_controlled_pairs_share_what_they_should():
    tables = [{"word": [f"word {chr(97 + i)}" for i in range(26)], "n": list(range(26))}]
    from embedlab.understand.observatory import read_tables

    pairs = overlap_pairs(read_tables(tables), num_values=5, num_repeats=2, seed=3)
    assert len(pairs) == 6 * 2  # one text column
    shared = [len(set(p.query.columns[0]) & set(p.candidate.columns[0])) for p in pairs]
    assert shared == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert all(len(set(side.columns[0])) == 5 for p in pairs for side in (p.query, p.candidate))
    assert overlap_pairs(read_tables(tables), num_values=14) == []
    with pytest.raises(InputError, match="num_values=1"):
        overlap_pairs([], num_values=1)


def test_headers_are_reworded_in_their_own_style():
    assert [abbreviate(h) for h in ("BillingAddress", "CITY_NAME", "first name", "Id", "", "2nd")] == [
        "BllnAddr",
        "CTY_NM",
        "frst nm",
        "Id",
        "",
        "2nd",
    ]
    words = {"city": "town", "name": "label"}
    assert [synonym(h, words=words) for h in ("BillingCity", "CITY_NAME", "city name", "other")] == [
        "BillingTown",
        "TOWN_LABEL",
        "town label",
        "other",
    ]


def test_wordnet_is_read_from_its_own_files(tmp_path):
    licence = "  1 This software and database is being provided to you\n"
    data = licence + "{:08d} 03 n 01 town 0 000 | one of its own\n"
    first = len(licence)
    second = first + len(data[first:].format(first))
    data = data.format(first) + f"{second:08d} 03 n 03 Town 0 urban_area 0 city 1 000 | a place\n"
    (tmp_path / "data.noun").write_text(data, encoding="latin-1")
    (tmp_path / "index.noun").write_text(f"{licence}town n 2 1 @ 2 1 {first:08d} {second:08d}  \n", encoding="latin-1")
    assert wordnet_synonym("town", folder=tmp_path) == "urban area"
    assert wordnet_synonym("village", folder=tmp_path) is None
