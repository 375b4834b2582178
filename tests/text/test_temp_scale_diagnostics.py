"""The diagnostics against loops and singular values, and against what theory says of them."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.temp_scale import (
    attention_temperature,
    centroid_distance_by_length,
    filter_rate,
    high_gain,
    pairwise_cosine_by_length,
)

TEXT = "the cat and the dog sat on a mat near an old house while rain fell from a grey sky over quiet fields"
WORDS = np.array(TEXT.split())


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder([TEXT], num_layers=3, max_length=128)


def text_of(num_words: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, num_words))


def high(matrix: torch.Tensor) -> torch.Tensor:
    n = matrix.shape[-2]
    return (torch.eye(n, dtype=matrix.dtype) - torch.ones(n, n, dtype=matrix.dtype) / n) @ matrix


def test_mean_cosine_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    rows, lengths = rng.normal(size=(40, 5)) + 0.7, rng.integers(1, 260, 40)
    profile = pairwise_cosine_by_length(rows, lengths, edges=[0, 100, 200])
    for bucket in profile.buckets:
        inside = [
            row / math.sqrt(row @ row) for row, n in zip(rows, lengths, strict=True) if bucket.low <= n < bucket.high
        ]
        cosines = [a @ b for a, b in combinations(inside, 2)]
        assert bucket.num_texts == len(inside)
        assert bucket.mean == pytest.approx(np.mean(cosines))
        assert bucket.mean_low < bucket.mean < bucket.mean_high
    assert sum(bucket.num_texts for bucket in profile.buckets) == 40


def test_the_interval_holds_the_true_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    draws = [pairwise_cosine_by_length(rng.normal(size=(60, 4)) + 0.5, np.ones(60), edges=[0]) for _ in range(300)]
    truth = np.mean([draw.buckets[0].mean for draw in draws])
    covered = np.mean([draw.buckets[0].mean_low <= truth <= draw.buckets[0].mean_high for draw in draws])
    assert 0.9 <= covered <= 0.99


def test_small_buckets_say_so():
    profile = pairwise_cosine_by_length(np.eye(3), [5, 150, 160], edges=[0, 100, 200])
    one, two, none = profile.buckets
    assert (one.num_texts, two.num_texts, none.num_texts) == (1, 2, 0)
    assert math.isnan(one.mean)
    assert two.mean == 0.0
    assert math.isnan(two.mean_low)
    assert math.isnan(none.mean)


def test_distance_to_the_centroid():
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.5]])
    profile = centroid_distance_by_length(rows, [10, 10, 200, 200], edges=[0, 100])
    assert [bucket.mean for bucket in profile.buckets] == pytest.approx([math.sqrt(0.5)] * 2)


def test_gain_is_the_largest_singular_value():
    attention = torch.randn(4, 3, 17, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    expected = torch.linalg.svdvals(high(attention))[..., 0]
    torch.testing.assert_close(high_gain(attention), expected, atol=1e-10, rtol=1e-8)
    even = torch.full((5, 5), 0.2, dtype=torch.float64)
    assert float(high_gain(even)) == pytest.approx(0.0, abs=1e-8)
    assert float(high_gain(torch.eye(5, dtype=torch.float64))) == pytest.approx(1.0)


def test_gain_falls_with_length_for_gaussian_logits_and_rises_with_sharpness():
    generator = torch.Generator().manual_seed(0)

    def simulated(n: int, spread: float) -> float:
        logits = torch.randn(8, n, n, dtype=torch.float64, generator=generator) * spread
        return float(high_gain(logits.softmax(-1)).mean())

    by_length = [simulated(n, 0.5) for n in (16, 64, 256)]
    assert by_length == sorted(by_length, reverse=True)
    by_spread = [simulated(64, spread) for spread in (0.3, 0.6, 1.2)]
    assert by_spread == sorted(by_spread)


@torch.no_grad()
def test_attention_never_scales_what_tells_tokens_apart_by_more(encoder):
    """||HC[A X W]|| <= sigma ||W|| ||HC[X]|| on the attention and value weights of a model."""
    text = text_of(30)
    sigma = filter_rate(encoder, [text]).sigma[0]  # (L, heads)
    features = encoder.tokenizer([text], return_tensors="pt")
    body = encoder[0].model
    body.set_attn_implementation("eager")
    states = body(**features, output_attentions=True, output_hidden_states=True)
    body.set_attn_implementation("sdpa")
    tight = 0.0
    for layer, (attention, hidden) in enumerate(zip(states.attentions, states.hidden_states[:-1], strict=True)):
        weight = body.encoder.layer[layer].attention.self.value.weight.double()  # (H, H)
        x = hidden[0].double()
        for head in range(2):
            w = weight[16 * head : 16 * (head + 1)].T
            moved = high(attention[0, head].double() @ x @ w).norm()
            bound = sigma[layer, head] * torch.linalg.matrix_norm(w, ord=2) * high(x).norm()
            assert moved <= bound * (1 + 1e-6)
            tight = max(tight, float(moved / bound))
    assert tight > 0.05, "the bound is so loose that the check says nothing"


def test_rates_and_shares_of_a_model(encoder):
    texts = [text_of(8), text_of(60)]
    before = encoder[0].model.config._attn_implementation
    rates = filter_rate(encoder, texts)
    assert encoder[0].model.config._attn_implementation == before
    assert rates.num_tokens.tolist() == [10, 62]
    assert rates.sigma.shape == (2, 3, 2)
    assert rates.high_share.shape == (2, 4)
    assert ((rates.high_share > 0) & (rates.high_share <= 1)).all()
    np.testing.assert_allclose(filter_rate(encoder, texts[1:]).sigma[0], rates.sigma[1])
    with attention_temperature(encoder, 0.5):
        assert filter_rate(encoder, texts).sigma.mean() > rates.sigma.mean()
    profile = rates.by_length(edges=[0, 50])
    assert [bucket.mean for bucket in profile.buckets] == pytest.approx(rates.sigma.mean(axis=(1, 2)))


def test_profiles_draw_themselves():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    profile = pairwise_cosine_by_length(np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) * 10)
    profile.plot(axes, label="plain")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "0-100",
        "100-200",
        "200-300",
        "300-400",
        "400-500",
        "500+",
    ]
    assert axes.get_ylabel() == "mean cosine between different texts"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pairwise_cosine_by_length([[1.0]], [1, 2]), "lengths must hold one number per row"),
        (lambda: pairwise_cosine_by_length([[1.0]], [-1]), "at least edges[0]=0"),
        (lambda: pairwise_cosine_by_length([[1.0]], [math.nan]), "lengths must be finite"),
        (lambda: pairwise_cosine_by_length([[1.0]], [1], edges=[]), "edges=[]"),
        (lambda: pairwise_cosine_by_length([[1.0], [0.0]], [1, 1]), "row 1 is zero"),
        (lambda: filter_rate(torch.nn.Linear(2, 2), ["a"]), "holds no transformer"),
        (lambda: filter_rate(None, "a text"), "texts='a text'"),
    ],
)
def test_bad_input_is_refused_by_name(call, says):
    with pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value)
