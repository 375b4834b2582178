"""Task vectors and merges against explicit vector arithmetic, slow loops and closed forms."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import Tensor

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.self_positioning import (
    TaskVector,
    coefficients,
    fisher_information,
    gram_matrix,
    input_moments,
    merge_task_vectors,
)
from embedlab.text.self_positioning.weights import Live, Stored

TEXTS = ["a cat sat", "the dog ran home", "rain fell on the sea", "stocks rose", "a blue boat", "my card is late"]


def moved(base: SentenceTransformer, number: int, size: float = 0.05) -> SentenceTransformer:
    twin = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return twin


@pytest.fixture(scope="module")
def base() -> SentenceTransformer:
    return tiny_encoder(TEXTS)


@pytest.fixture(scope="module")
def models(base: SentenceTransformer) -> list[SentenceTransformer]:
    return [moved(base, number, size) for number, size in ((1, 0.05), (2, 0.02), (3, 0.1))]


@pytest.fixture(scope="module")
def vectors(base: SentenceTransformer, models: list[SentenceTransformer]) -> list[TaskVector]:
    return [TaskVector.from_models(base, model, name=f"task {n}") for n, model in enumerate(models, start=1)]


def flat(model: SentenceTransformer) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def explicit(base: SentenceTransformer, models: list[SentenceTransformer]) -> list[Tensor]:
    return [flat(model) - flat(base) for model in models]


def slow_slerp(vectors: list[Tensor], weights: list[float]) -> Tensor:
    """The paper's fold, on the vectors themselves."""
    merged = vectors[0]
    for k in range(1, len(vectors)):
        b = weights[k] / (np.mean(weights[:k]) + weights[k])
        alpha = torch.arccos(merged @ vectors[k] / merged.norm() / vectors[k].norm())
        merged = (torch.sin((1 - b) * alpha) * merged + torch.sin(b * alpha) * vectors[k]) / torch.sin(alpha)
    return merged


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, 2.0, 1.1], [5.0, 0.01, 1.0]])
def test_slerp_is_explicit_vector_arithmetic(
    base: SentenceTransformer, models: list[Any], vectors: list[TaskVector], weights: list[float]
) -> None:
    merged = merge_task_vectors(base, vectors, method="slerp", weights=weights, scale=0.8)
    wanted = flat(base) + 0.8 * slow_slerp(explicit(base, models), weights)
    torch.testing.assert_close(flat(merged), wanted, atol=1e-6, rtol=0)


def test_slerp_per_tensor_folds_each_tensor_by_itself(
    base: SentenceTransformer, models: list[Any], vectors: list[TaskVector]
) -> None:
    merged = merge_task_vectors(base, vectors, method="slerp", weights=[1, 2, 3], granularity="per_tensor")
    for name, tensor in merged.named_parameters():
        start = dict(base.named_parameters())[name].detach().double()
        parts = [(dict(m.named_parameters())[name].detach().double() - start).flatten() for m in models]
        wanted = start.flatten() + slow_slerp(parts, [1, 2, 3])
        torch.testing.assert_close(tensor.detach().double().flatten(), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["average", "slerp", "barycentric"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_all_weight_on_one_gives_its_model_to_the_last_bit(
    base: SentenceTransformer, models: list[Any], vectors: list[TaskVector], method: str, place: int
) -> None:
    weights = [0.0, 0.0, 0.0]
    weights[place] = 2.0
    if method == "slerp" and place == 2:  # the first two would have to share nothing: merge two instead
        merged = merge_task_vectors(base, [vectors[0], vectors[2]], method=method, weights=[0.0, 1.0])
    else:
        merged = merge_task_vectors(base, vectors, method=method, weights=weights)
    atol = 1e-7 if method == "barycentric" else 0.0  # a unit vector stretched again is rounded
    torch.testing.assert_close(flat(merged), flat(models[place]), atol=atol, rtol=0)


@pytest.mark.parametrize("method", ["average", "slerp", "barycentric", "ties"])
def test_one_vector_comes_back_as_its_model(
    base: SentenceTransformer, models: list[Any], vectors: list[TaskVector], method: str
) -> None:
    merged = merge_task_vectors(base, vectors[:1], method=method, density=1.0)
    torch.testing.assert_close(flat(merged), flat(models[0]), atol=1e-7, rtol=0)


def test_average_is_the_weighted_mean(base: SentenceTransformer, models: list[Any], vectors: list[TaskVector]) -> None:
    merged = merge_task_vectors(base, vectors, method="average", weights=[1, 2, 1], scale=2.0)
    one, two, three = explicit(base, models)
    torch.testing.assert_close(flat(merged), flat(base) + 2 * (one + 2 * two + three) / 4, atol=1e-6, rtol=0)


def test_the_order_matters_to_slerp_and_to_nothing_else(base: SentenceTransformer, vectors: list[TaskVector]) -> None:
    turned = vectors[::-1]
    for method in ("slerp", "barycentric", "average", "ties"):
        one, other = (flat(merge_task_vectors(base, given, method=method)) for given in (vectors, turned))
        assert torch.allclose(one, other, atol=1e-6) == (method != "slerp"), method


def test_equal_weights_give_the_last_vector_half_the_angle() -> None:
    shares = coefficients(torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.5, 0.5**0.5], dtype=torch.float64))


def test_the_barycentre_of_right_angles_is_their_middle() -> None:
    gram = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    shares = coefficients(gram, torch.ones(2, dtype=torch.float64), method="barycentric")
    length = (shares @ gram @ shares).sqrt()
    torch.testing.assert_close(length, torch.tensor(1.5, dtype=torch.float64))  # the mean of the lengths 1 and 2
    assert shares[0] == pytest.approx(2 * float(shares[1]))  # both unit vectors alike


@pytest.mark.parametrize("method", ["average", "slerp", "barycentric"])
def test_coefficients_have_the_gradient_of_finite_differences(method: str) -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 30)))
    weights = torch.tensor([1.0, 0.5, 2.0, 1.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: coefficients(rows @ rows.T, a, method=method), (weights,))


def test_nearly_parallel_vectors_are_interpolated_linearly() -> None:
    one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    other = torch.tensor([1.0, 1e-5], dtype=torch.float64)
    rows = torch.stack([one, other])
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    shares = coefficients(rows @ rows.T, weights)
    torch.testing.assert_close(shares.detach(), torch.tensor([0.25, 0.75], dtype=torch.float64))
    shares[0].backward()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


def test_opposite_vectors_have_no_way_between_them() -> None:
    rows = torch.tensor([[1.0, 0.0], [-2.0, 1e-5]], dtype=torch.float64)
    for method in ("slerp", "barycentric"):
        with pytest.raises(InputError, match="average"):
            coefficients(rows @ rows.T, torch.ones(2, dtype=torch.float64), method=method)


def test_slerp_needs_a_ratio_at_every_step() -> None:
    with pytest.raises(InputError, match="first 2"):
        coefficients(torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def test_ties_is_the_slow_loop(base: SentenceTransformer, models: list[Any], vectors: list[TaskVector]) -> None:
    merged = flat(merge_task_vectors(base, vectors, method="ties", density=0.3, scale=1.5)) - flat(base)
    parts = [part.numpy() for part in explicit(base, models)]
    bars = [np.sort(np.abs(part))[-int(np.ceil(0.3 * len(part)))] for part in parts]
    kept = [np.where(np.abs(part) >= bar * (1 - 1e-6), part, 0.0) for part, bar in zip(parts, bars, strict=True)]
    for place in range(0, len(parts[0]), 97):
        values = [float(part[place]) for part in kept]
        sign = 1.0 if sum(values) >= 0 else -1.0
        agreeing = [value for value in values if value * sign > 0]
        wanted = 1.5 * sum(agreeing) / len(agreeing) if agreeing else 0.0
        assert float(merged[place]) == pytest.approx(wanted, abs=1e-6)


def test_fisher_is_the_slow_loop(base: SentenceTransformer, models: list[Any], vectors: list[TaskVector]) -> None:
    generator = torch.Generator().manual_seed(0)
    statistics = [
        {name: torch.rand(shape, generator=generator) for name, shape in vectors[0].shapes.items()} for _ in vectors
    ]
    first = next(iter(vectors[0].shapes))
    for found in statistics:
        found[first][0] = 0.0  # no model cares: the plain average
    merged = merge_task_vectors(base, vectors, method="fisher", weights=[1, 2, 1], statistics=statistics)
    for name, tensor in merged.named_parameters():
        start = dict(base.named_parameters())[name].detach().double()
        parts = [dict(m.named_parameters())[name].detach().double() - start for m in models]
        shares = [w * found[name].double() for w, found in zip((1, 2, 1), statistics, strict=True)]
        below = sum(shares)
        wanted = sum(s * p for s, p in zip(shares, parts, strict=True)) / below
        plain = (parts[0] + 2 * parts[1] + parts[2]) / 4
        wanted = torch.where(below > 0, wanted, plain)
        torch.testing.assert_close(tensor.detach().double(), start + wanted, atol=1e-6, rtol=0)


def test_regmean_solves_the_least_squares_problem(
    base: SentenceTransformer, models: list[Any], vectors: list[TaskVector]
) -> None:
    """Stacked inputs and outputs of all models, solved as one regression, give the same layer."""
    name = "0.model.encoder.layer.0.intermediate.dense.weight"
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(200, vectors[0].shapes[name][1])) for _ in models]
    statistics = [{name: torch.from_numpy(x.T @ x / len(x))} for x in inputs]
    merged = merge_task_vectors(base, vectors, method="regmean", statistics=statistics, shrinkage=1.0)
    outputs = [
        x @ dict(m.named_parameters())[name].detach().double().numpy().T for x, m in zip(inputs, models, strict=True)
    ]
    wanted = np.linalg.lstsq(np.concatenate(inputs), np.concatenate(outputs), rcond=None)[0].T
    got = dict(merged.named_parameters())[name].detach().double().numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    other = "0.model.embeddings.word_embeddings.weight"
    plain = dict(merge_task_vectors(base, vectors, method="average").named_parameters())[other]
    torch.testing.assert_close(dict(merged.named_parameters())[other], plain)


def test_input_moments_leave_padding_out(base: SentenceTransformer) -> None:
    data = Dataset.from_dict({"text": TEXTS})
    name = "0.model.encoder.layer.0.attention.self.query.weight"
    together = input_moments(base, data, batch_size=6)[name]
    tokens = []
    body = dict(base.named_modules())["0.model.encoder.layer.0.attention.self.query"]
    hook = body.register_forward_pre_hook(lambda _, given: tokens.append(given[0].detach().double()[0]))
    for text in TEXTS:
        base.encode([text])
    hook.remove()
    rows = torch.cat(tokens)
    torch.testing.assert_close(together, rows.T @ rows / len(rows), atol=1e-5, rtol=1e-5)


def test_fisher_information_is_the_mean_of_squared_gradients(base: SentenceTransformer) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    data = Dataset.from_dict({"anchor": TEXTS, "positive": [text[::-1] for text in TEXTS]})
    found = fisher_information(base, data, batch_size=6)
    twin = copy.deepcopy(base)
    MultipleNegativesRankingLoss(twin)([twin.preprocess(TEXTS), twin.preprocess(data["positive"][:])], None).backward()
    for name, parameter in twin.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad.square(), atol=1e-6, rtol=1e-3)
    assert all(parameter.grad is None for parameter in base.parameters())


def test_norms_and_angles_are_those_of_the_flat_vectors(
    base: SentenceTransformer, models: list[Any], vectors: list[TaskVector]
) -> None:
    one, two, _ = explicit(base, models)
    assert vectors[0].norm() == pytest.approx(float(one.norm()), rel=1e-6)
    assert vectors[0].angle(vectors[1]) == pytest.approx(float(torch.arccos(one @ two / one.norm() / two.norm())), 1e-6)
    parts = gram_matrix(vectors, per_tensor=True)
    torch.testing.assert_close(parts.sum(dim=0), gram_matrix(vectors))
    assert len(parts) == len(vectors[0].shapes)


def test_vectors_of_saved_models_are_read_from_their_files(
    base: SentenceTransformer, models: list[Any], vectors: list[TaskVector], tmp_path: Path
) -> None:
    folders = []
    for number, model in enumerate([base, *models]):
        folders.append(tmp_path / f"model{number}")
        model.save(str(folders[-1]))
    streamed = [TaskVector.from_models(folders[0], folder) for folder in folders[1:]]
    assert [vector.name for vector in streamed] == ["model1", "model2", "model3"]
    assert all(isinstance(vector._model, Stored) and isinstance(vector._base, Stored) for vector in streamed)
    assert isinstance(vectors[0]._model, Live)
    one, other = (flat(merge_task_vectors(base, given, method="slerp")) for given in (vectors, streamed))
    assert torch.equal(one, other)


def test_the_models_are_left_alone(base: SentenceTransformer, models: list[Any], vectors: list[TaskVector]) -> None:
    before = [flat(model) for model in (base, *models)]
    merge_task_vectors(base, vectors, method="ties")
    assert all(torch.equal(flat(model), kept) for model, kept in zip((base, *models), before, strict=True))


def test_training_on_a_model_in_use_is_noticed(base: SentenceTransformer) -> None:
    model = moved(base, 9)
    vector = TaskVector.from_models(base, model)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    with pytest.raises(InputError, match="deepcopy"):
        vector.norm()


def test_tied_weights_count_once_and_stay_tied(base: SentenceTransformer) -> None:
    tied = copy.deepcopy(base)
    tied[0].model.pooler_twin = tied[0].model.encoder.layer[0].output.dense
    twin = copy.deepcopy(tied)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.01)
    vector = TaskVector.from_models(tied, twin)
    assert not any("pooler_twin" in name for name in vector.shapes)
    merged = merge_task_vectors(tied, [vector])
    assert merged[0].model.pooler_twin.weight is merged[0].model.encoder.layer[0].output.dense.weight


def test_half_precision_models_are_merged_in_full_and_cast_at_the_end(
    base: SentenceTransformer, models: list[Any]
) -> None:
    half = [copy.deepcopy(model).bfloat16() for model in (base, *models)]
    merged = merge_task_vectors(half[0], [TaskVector.from_models(half[0], model) for model in half[1:]])
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    wanted = flat(half[0]) + slow_slerp(explicit(half[0], half[1:]), [1.0, 1.0, 1.0])
    assert torch.equal(flat(merged), wanted.bfloat16().double())  # rounded once


def test_whole_numbers_are_copied(base: SentenceTransformer, vectors: list[TaskVector]) -> None:
    merged = merge_task_vectors(base, vectors)
    places = dict(merged.named_buffers())["0.model.embeddings.position_ids"]
    assert torch.equal(places, dict(base.named_buffers())["0.model.embeddings.position_ids"])


def wider(base: SentenceTransformer) -> SentenceTransformer:
    return tiny_encoder(TEXTS, dim=48)


def normalised(base: SentenceTransformer) -> SentenceTransformer:
    return SentenceTransformer(modules=[*copy.deepcopy(base), Normalize()], device="cpu")


def pooled_by_first(base: SentenceTransformer) -> SentenceTransformer:
    return SentenceTransformer(modules=[copy.deepcopy(base)[0], Pooling(32, pooling_mode="cls")], device="cpu")


def of_other_words(base: SentenceTransformer) -> SentenceTransformer:
    return tiny_encoder([text.replace("cat", "cow") for text in TEXTS])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (wider, "hidden_size"),
        (normalised, "Normalize"),
        (pooled_by_first, "pooling_mode"),
        (of_other_words, "tokenizer"),
    ],
)
def test_models_that_do_not_fit_are_refused(base: SentenceTransformer, change: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        TaskVector.from_models(base, change(base), name="stranger")


def test_a_vector_that_is_zero_or_no_number_is_refused(base: SentenceTransformer, vectors: list[TaskVector]) -> None:
    with pytest.raises(InputError, match="equals the base"):
        merge_task_vectors(base, [vectors[0], TaskVector.from_models(base, copy.deepcopy(base))])
    broken = moved(base, 4)
    with torch.no_grad():
        next(broken.parameters()).mul_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        merge_task_vectors(base, [vectors[0], TaskVector.from_models(base, broken)])
