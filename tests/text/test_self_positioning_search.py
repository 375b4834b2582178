"""The search against gradients through the whole model; probes, reports, resampling, pipelines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    MultipleNegativesRankingLoss,
)
from torch.func import functional_call

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.self_positioning import (
    SelfPositioning,
    balanced_probe,
    cocktail_weights,
    resample,
    task_conflict_report,
    task_vector_report,
    train_separately,
    train_sequentially,
)
from embedlab.text.self_positioning.probe import batches
from embedlab.text.self_positioning.vectors import TaskVector

ANCHORS = [f"{text} {word}" for text in ("a cat sat", "rain fell", "the dog ran", "stocks rose") for word in "pqrst"]
POSITIVES = [" ".join(reversed(text.split())) for text in ANCHORS]


def moved(base: SentenceTransformer, number: int, size: float = 0.05) -> SentenceTransformer:
    twin = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    return twin


@pytest.fixture(scope="module")
def base() -> SentenceTransformer:
    return tiny_encoder(ANCHORS)


@pytest.fixture(scope="module")
def models(base: SentenceTransformer) -> dict[str, SentenceTransformer]:
    good = copy.deepcopy(base)
    loss = MultipleNegativesRankingLoss(good)
    optimiser = torch.optim.Adam(good.parameters(), lr=3e-3)
    for _ in range(10):
        optimiser.zero_grad()
        loss([good.preprocess(ANCHORS), good.preprocess(POSITIVES)], None).backward()
        optimiser.step()
    return {"good": good.eval(), "bad": moved(base, 2, 0.1), "third": moved(base, 3, 0.05)}


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    return Dataset.from_dict({"anchor": ANCHORS, "positive": POSITIVES})


@pytest.fixture(scope="module")
def scored() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset.from_dict({"sentence1": ANCHORS, "sentence2": POSITIVES[::-1], "score": rng.random(len(ANCHORS))})


class Embed(torch.nn.Module):
    """A loss of a model as one module, so that ``functional_call`` can put other weights in."""

    def __init__(self, model: SentenceTransformer, make: Any) -> None:
        super().__init__()
        self.model = model
        self.loss = [make(model)]  # in a list, so that the model's parameters are listed once

    def forward(self, features: Any) -> Any:
        return self.loss[0](features, None)


@pytest.mark.parametrize("method", ["slerp", "average", "barycentric"])
@pytest.mark.parametrize("granularity", ["global", "per_tensor"])
def test_two_step_gradients_are_those_through_the_model(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], method: str, granularity: str
) -> None:
    from embedlab.text.self_positioning.fold import coefficients

    base, *others = (copy.deepcopy(model).double() for model in (base, *models.values()))
    search = SelfPositioning(base, others, method=method, granularity=granularity, mu=0.03)
    a = torch.tensor([1.2, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    by = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    whole = Embed(copy.deepcopy(base).eval(), MultipleNegativesRankingLoss)
    columns = [whole.model.preprocess(texts) for texts in (ANCHORS[:8], POSITIVES[:8])]
    shares = coefficients(search._gram, a, method=method).expand(len(search.vectors[0].shapes), -1)
    weights = {
        f"model.{name}": dict(base.named_parameters())[name].detach()
        + by * sum(shares[row, i] * vector.tensor(name) for i, vector in enumerate(search.vectors))
        for row, name in enumerate(search.vectors[0].shapes)
    }
    value = functional_call(whole, weights, ([dict(c) for c in columns],)) + 0.03 * by
    wanted = torch.autograd.grad(value, (a, by))

    working = search._working_model()
    search.place(working, a.detach(), by.detach())
    MultipleNegativesRankingLoss(working)([dict(c) for c in columns], None).backward()
    got = search.gradient(working, a, by)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-10)


def test_a_loss_with_gradient_caching_gives_the_same_gradients(
    base: SentenceTransformer, models: dict[str, SentenceTransformer]
) -> None:
    search = SelfPositioning(base, models)
    weights, scale = search._start[:-1], search._start[-1]
    found = []
    for make in (MultipleNegativesRankingLoss, lambda m: CachedMultipleNegativesRankingLoss(m, mini_batch_size=4)):
        working = search._working_model()
        search.place(working, weights, scale)
        make(working)([working.preprocess(texts) for texts in (ANCHORS[:8], POSITIVES[:8])], None).backward()
        found.append(torch.cat([part.flatten() for part in search.gradient(working, weights, scale)]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"parametrisation": "softplus"}, {"granularity": "per_tensor"}])
def test_the_search_lowers_the_loss_and_finds_the_good_model(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], pairs: Dataset, options: dict[str, str]
) -> None:
    given = {name: models[name] for name in ("good", "bad")}
    before = {name: [p.clone() for p in model.parameters()] for name, model in {"base": base, **given}.items()}
    result = SelfPositioning(base, given, mu=0.0, **options).fit(pairs, lr=0.1, epochs=8, batch_size=20)
    assert result.loss_after < result.loss_before
    assert result.weights[0] > result.weights[1]
    assert (result.weights > 0).all()
    assert result.scale >= 0
    for name, model in {"base": base, **given}.items():
        assert all(torch.equal(one, other) for one, other in zip(before[name], model.parameters(), strict=True))
    assert not result.model.training
    shape = (2,) if "granularity" not in options else (len(list(base.parameters())), 2)
    assert result.coefficients.shape == shape


def test_the_result_loads_in_the_host_and_encodes_the_same(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], pairs: Dataset, tmp_path: Path
) -> None:
    model = SelfPositioning(base, models).fit(pairs, epochs=1).model
    model.save(str(tmp_path / "merged"))
    again = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    np.testing.assert_array_equal(again.encode(ANCHORS), model.encode(ANCHORS))


def test_several_data_sets_each_with_its_loss(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], pairs: Dataset, scored: Dataset
) -> None:
    losses = {"pairs": MultipleNegativesRankingLoss, "scored": CoSENTLoss}
    search = SelfPositioning(base, models, losses, scale=0.3)
    result = search.fit({"pairs": pairs, "scored": scored}, lr=0.1, epochs=3, batch_size=10)
    assert len(result.history) == 6  # a step takes a batch of each
    with pytest.raises(InputError, match="scored"):
        SelfPositioning(base, models, {"pairs": CoSENTLoss}).fit({"pairs": pairs, "scored": scored})
    with pytest.raises(InputError, match="its class"):
        SelfPositioning(base, models, MultipleNegativesRankingLoss(base)).fit(pairs)  # type: ignore[arg-type]


def test_mu_keeps_the_vector_short(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], pairs: Dataset
) -> None:
    scales = [SelfPositioning(base, models, mu=mu).fit(pairs, epochs=4).scale for mu in (0.0, 1.0)]
    assert scales[1] < scales[0]


def test_half_precision_is_searched_in_full_and_given_back_in_half(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], pairs: Dataset
) -> None:
    half = copy.deepcopy(base).bfloat16()
    given = {name: copy.deepcopy(model).bfloat16() for name, model in models.items()}
    result = SelfPositioning(half, given).fit(pairs)
    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}


def test_a_folder_of_another_search_is_refused(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], pairs: Dataset, tmp_path: Path
) -> None:
    SelfPositioning(base, models).fit(pairs, max_steps=1, folder=tmp_path)
    with pytest.raises(InputError, match="mu"):
        SelfPositioning(base, models, mu=0.2).fit(pairs, folder=tmp_path)


def test_frozen_parameters_cost_nothing(base: SentenceTransformer, pairs: Dataset) -> None:
    model = copy.deepcopy(base)
    with torch.no_grad():
        model[0].model.encoder.layer[0].output.dense.weight.add_(0.1)
    other = copy.deepcopy(base)
    with torch.no_grad():
        other[0].model.encoder.layer[0].output.dense.weight.mul_(1.1)
    search = SelfPositioning(base, [model, other])
    assert search._moved == {"0.model.encoder.layer.0.output.dense.weight"}
    assert [p.requires_grad for p in search._working_model().parameters()].count(True) == 1
    assert search.fit(pairs).loss_after > 0


def test_the_probe_is_balanced_and_apart_from_the_test(pairs: Dataset, scored: Dataset) -> None:
    large = Dataset.from_dict({"anchor": [f"x{i}" for i in range(500)], "positive": [f"y{i}" for i in range(500)]})
    probe = balanced_probe({"pairs": pairs, "large": large}, per_task=8, seed=3, exclude=[ANCHORS[0], POSITIVES[1]])
    assert {name: len(rows) for name, rows in probe.items()} == {"pairs": 8, "large": 8}
    assert not {ANCHORS[0], ANCHORS[1]} & set(probe["pairs"]["anchor"])
    assert len(set(probe["large"]["anchor"])) == 8
    again = balanced_probe({"pairs": pairs, "large": large}, per_task=8, seed=3, exclude=[ANCHORS[0], POSITIVES[1]])
    assert probe["large"]["anchor"][:] == again["large"]["anchor"][:]
    with pytest.raises(InputError, match="per_task=30"):
        balanced_probe({"pairs": pairs}, per_task=30)


def test_no_text_occurs_twice_in_a_batch() -> None:
    rows = Dataset.from_dict({"anchor": ["a", "b", "a", "c", "d", "b"], "positive": ["1", "2", "3", "4", "5", "c"]})
    for batch in batches(rows, batch_size=3, seed=0):
        texts = [text for place in batch for text in rows[place].values()]
        assert len(texts) == len(set(texts))


@pytest.mark.parametrize(
    "bad", [{}, Dataset.from_dict({"anchor": [], "positive": []}), Dataset.from_dict({"score": [1.0, 0.0]})]
)
def test_an_empty_probe_is_refused(base: SentenceTransformer, models: dict[str, SentenceTransformer], bad: Any) -> None:
    with pytest.raises(InputError, match="probe"):
        SelfPositioning(base, models).fit(bad)


def test_fewer_than_two_models_are_refused(base: SentenceTransformer, models: dict[str, SentenceTransformer]) -> None:
    with pytest.raises(InputError, match="at least two"):
        SelfPositioning(base, {"good": models["good"]})


def test_cocktail_weighs_by_loss(
    base: SentenceTransformer, models: dict[str, SentenceTransformer], pairs: Dataset
) -> None:
    weights = cocktail_weights({name: models[name] for name in ("good", "bad")}, pairs)
    assert sum(weights.values()) == pytest.approx(1.0)
    sharper = cocktail_weights({name: models[name] for name in ("good", "bad")}, pairs, temperature=0.1)
    better = max(weights, key=lambda name: weights[name])
    assert sharper[better] > weights[better] > 0.5


def test_conflict_of_a_task_with_itself_and_with_its_opposite(base: SentenceTransformer, scored: Dataset) -> None:
    """A task with reversed scores has the opposite gradient of the same loss."""

    class Plain(torch.nn.Module):
        def __init__(self, model: SentenceTransformer) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: Any, labels: Any) -> Any:
            one, other = (self.model(f)["sentence_embedding"] for f in features)
            return ((labels - 0.5) * (one * other).sum(dim=1)).mean()

    flipped = scored.map(lambda row: {"score": 1.0 - row["score"]})
    found = task_conflict_report(base, {"task": scored, "same": scored, "opposite": flipped}, Plain, batch_size=20)
    np.testing.assert_allclose(found.cosines, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-4)
    assert "opposite" in found.to_table()


def test_transfer_is_score_less_single_task_score(base: SentenceTransformer, pairs: Dataset) -> None:
    scores = {"one": {"one": 0.8, "two": 0.3}, "two": {"one": 0.4, "two": 0.9}, "joint": {"one": 0.7, "two": 0.95}}
    found = task_conflict_report(base, {"one": pairs, "two": pairs}, scores=scores)
    assert found.transfer["joint"] == pytest.approx({"one": -0.1, "two": 0.05})
    assert found.transfer["one"] == pytest.approx({"one": 0.0, "two": -0.6})
    with pytest.raises(InputError, match="scores"):
        task_conflict_report(base, {"one": pairs, "two": pairs}, scores={"one": {"one": 1.0, "two": 0.0}})


def test_lengths_on_a_line_and_angles_of_a_mixture(base: SentenceTransformer) -> None:
    def along(first: float, second: float) -> TaskVector:
        model = copy.deepcopy(base)
        with torch.no_grad():
            model[0].model.encoder.layer[0].output.dense.bias[0] += first
            model[0].model.encoder.layer[0].output.dense.bias[1] += second
        return TaskVector.from_models(base, model)

    vectors = {"one": along(1, 0), "two": along(0, 3), "both": along(1, 3)}
    found = task_vector_report(vectors, {"one": 100, "two": 300, "both": 316}, mixtures={"both": ("one", "two")})
    np.testing.assert_allclose(found.norms, [1, 3, 10**0.5], rtol=1e-5)
    assert found.slope == pytest.approx(0.01, rel=1e-3)
    assert found.r_squared == pytest.approx(1.0, abs=1e-4)
    mixture = found.mixtures[0]
    assert mixture.ratio == pytest.approx(1 / 3)
    assert np.tan(mixture.angles) == pytest.approx([3.0, 1 / 3], rel=1e-4)  # nearer to the larger set
    assert "| both |" in found.to_table()
    assert found.to_dict()["mixtures"][0]["name"] == "both"
    with pytest.raises(InputError, match="sizes"):
        task_vector_report(vectors, {"one": 100})


@pytest.mark.parametrize(("variant", "wanted"), [("total", (82, 28)), ("max", (300, 100))])
def test_resampling_reaches_the_ratio(variant: str, wanted: tuple[int, int]) -> None:
    data = {"small": Dataset.from_dict({"a": range(10)}), "large": Dataset.from_dict({"a": range(100)})}
    found = resample(data, {"small": 3, "large": 1}, variant=variant)
    assert tuple(map(len, found.values())) == wanted
    counts = np.bincount(found["small"]["a"][:])
    assert counts.max() - counts.min() <= 1  # grown evenly
    assert len(set(found["large"]["a"])) == wanted[1]  # shrunk without repeats
    with pytest.raises(InputError, match="variant"):
        resample(data, {"small": 1, "large": 1}, variant="most")


def test_pipelines_start_where_they_should(base: SentenceTransformer, pairs: Dataset) -> None:
    def train(model: SentenceTransformer, name: str, rows: Dataset) -> SentenceTransformer:
        with torch.no_grad():
            model[0].model.encoder.layer[0].output.dense.bias[0] += {"one": 1.0, "two": 10.0}[name]
        return model

    def bias(model: SentenceTransformer) -> float:
        return float(model[0].model.encoder.layer[0].output.dense.bias.detach()[0])

    start = bias(base)
    data = {"one": pairs, "two": pairs}
    apart, after = train_separately(base, data, train), train_sequentially(base, data, train)
    assert {name: bias(model) - start for name, model in apart.items()} == pytest.approx({"one": 1, "two": 10})
    assert {name: bias(model) - start for name, model in after.items()} == pytest.approx({"one": 1, "one+two": 11})
    assert bias(base) == start
    with pytest.raises(InputError, match="at least two"):
        train_separately(base, {"one": pairs}, train)
