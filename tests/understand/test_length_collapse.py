"""Tables of length collapse against sums done by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.understand.length_collapse import mean_by_length, rates_by_layer, truncation_curve

TEXTS = [
    "the cat sat on the mat and looked at the grey rain that fell on the roof of the house",
    "stocks fell in the afternoon as the bank said that it would raise the rate again next week",
    "a good bread needs flour and water and salt and a long night in a cool and dark place",
    "too short",
]


def rates(num_tokens, layers=3, heads=4, seed=0):
    rng = np.random.default_rng(seed)
    n = len(num_tokens)
    return SimpleNamespace(
        num_tokens=np.array(num_tokens),
        sigma=rng.uniform(size=(n, layers, heads)),
        high_share=rng.uniform(size=(n, layers + 1)),
    )


def test_each_layer_and_length_has_its_row():
    measured = rates([10, 20, 150, 160, 170, 900])
    found = rates_by_layer(measured, edges=[0, 100, 500])
    assert [(row.layer, row.low, row.high, row.num_texts) for row in found.table] == [
        (layer, low, high, count)
        for layer in (1, 2, 3)
        for low, high, count in ((0, 100, 2), (100, 500, 3), (500, math.inf, 1))
    ]
    middle = found.table[4]
    assert_allclose(middle.sigma.estimate, measured.sigma[2:5, 1].mean())
    assert_allclose(middle.high_share.estimate, measured.high_share[2:5, 2].mean())
    assert middle.sigma.low < middle.sigma.estimate < middle.sigma.high
    assert found.table[-1].sigma.low == -math.inf  # one text tells no spread
    record = found.records()[4]
    assert set(record) == {"layer", "low", "high", "num_texts", "sigma", "sigma_low", "sigma_high", "high_share",
                           "high_share_low", "high_share_high"}  # fmt: skip
    assert record["sigma"] == middle.sigma.estimate


def test_tables_draw_themselves():
    axes = Figure().subplots()
    found = rates_by_layer(rates([10, 20, 150, 160]), edges=[0, 100])
    found.plot(axes)
    assert [text.get_text() for text in axes.legend().get_texts()] == ["0-100 tokens", "100+ tokens"]
    with pytest.raises(InputError, match="high_share"):
        found.plot(axes, quantity="both")
    curve = truncation_curve(load_model(), TEXTS, sizes=[2, 4, 16])
    axes = Figure().subplots()
    curve.plot(axes, label="default")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "4", "16"]


def test_hits_are_averaged_by_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 600, size=400)
    hits = (rng.uniform(size=400) < 1 / (1 + lengths / 200)).astype(float)
    found = mean_by_length(hits, lengths, edges=[0, 200, 1000, 2000])
    assert [(row.low, row.high) for row in found.table] == [(0, 200), (200, 1000)]
    assert_allclose(
        [row.mean.estimate for row in found.table], [hits[lengths < 200].mean(), hits[lengths >= 200].mean()]
    )
    assert found.table[0].mean.low > found.table[1].mean.high
    assert found.records()[1]["num_texts"] == (lengths >= 200).sum()
    axes = Figure().subplots()
    found.plot(axes)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0-200", "200-1000"]
    with pytest.raises(InputError, match="one per text"):
        mean_by_length([1, 0], [3])


@pytest.mark.parametrize("edges", [[], [5, 5], [11, 20]])
def test_bad_edges_are_refused(edges):
    with pytest.raises(InputError, match="edges"):
        rates_by_layer(rates([10, 20]), edges=edges)


def test_the_same_texts_are_cut_to_each_length():
    encoder = load_model()
    curve = truncation_curve(encoder, TEXTS, sizes=[2, 8])
    assert [(row.words, row.num_texts) for row in curve.table] == [(2, 3), (8, 3)]
    rows = encoder.encode_document([" ".join(text.split()[:8]) for text in TEXTS[:3]])
    pairs = [float(rows[i] @ rows[j]) for i in range(3) for j in range(i)]
    assert_allclose(curve.table[1].mean_cosine.estimate, np.mean(pairs), atol=1e-6)
    assert_allclose(curve.rise, curve.table[1].mean_cosine.estimate - curve.table[0].mean_cosine.estimate)
    assert curve.records()[0]["words"] == 2


def test_an_average_of_words_does_crowd_together():
    """A static model averages token vectors, so texts of random words grow alike with their length."""
    rng = np.random.default_rng(0)
    words = ["river", "stone", "bread", "house", "night", "green", "paper", "metal", "cloud", "horse", "table", "light"]
    texts = [" ".join(rng.choice(words, size=64)) for _ in range(40)]
    curve = truncation_curve(load_model(), texts, sizes=[2, 8, 32])
    cosines = [row.mean_cosine for row in curve.table]
    assert cosines[0].high < cosines[1].low < cosines[2].estimate


@pytest.mark.parametrize(
    ("sizes", "says"), [([4], "sizes"), ([4, 4], "sizes"), ([0, 4], "sizes"), ([2, 99], "0 have 99")]
)
def test_bad_sizes_are_refused(sizes, says):
    with pytest.raises(InputError, match=says):
        truncation_curve(load_model(), TEXTS, sizes=sizes)
