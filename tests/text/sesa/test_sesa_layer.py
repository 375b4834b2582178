"""The explicit layer and the side of declared concepts: against loops, in the host, with its losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.sesa import ExplicitLayer, Objective, co_occurrence
from embedlab.text.sesa.objective import concept_loss, relevance_loss
from embedlab.text.sesa.set_side import ConceptSetEncoder

TEXTS = ["a cat sat", "a dog ran far", "the cat and the dog", "rain fell"]
NAMES = ["pets", "weather", "moving"]


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "softmax"])
def test_encodes_to_named_columns_of_at_least_zero(activation: str) -> None:
    from sentence_transformers import SentenceTransformer

    body = tiny_encoder(TEXTS)
    model = SentenceTransformer(modules=[*body, ExplicitLayer(32, NAMES, activation, seed=3)], device="cpu")  # type: ignore[arg-type]
    rows = model.encode(TEXTS)
    layer = model[-1]
    z = body.encode(TEXTS)
    logits = z @ layer.linear.weight.detach().numpy().T + layer.linear.bias.detach().numpy()
    slow = {
        "relu": np.maximum(logits, 0),
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "softmax": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
    }[activation]
    assert rows.shape == (4, 3)
    assert (rows >= 0).all()
    assert np.abs(rows - slow).max() < 1e-5
    assert model.get_embedding_dimension() == 3
    for row, said in zip(rows, layer.decode(torch.from_numpy(rows)), strict=True):
        weights = [weight for _, weight in said]
        assert weights == sorted(weights, reverse=True)
        assert {name: row[NAMES.index(name)] for name, _ in said} == pytest.approx(dict(said))
    assert len(layer.decode(torch.from_numpy(rows[0]), top_k=1)) <= 1


def test_weights_of_axes_scale_them_by_their_root() -> None:
    layer = ExplicitLayer(4, NAMES, seed=1)
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    plain = layer({"sentence_embedding": features})["sentence_embedding"]
    assert layer.axis_weights.tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    layer.set_axis_weights([4.0, 1.0, 0.25])
    weighted = layer({"sentence_embedding": features})["sentence_embedding"]
    assert torch.allclose(weighted, plain * torch.tensor([2.0, 1.0, 0.5]), atol=1e-5) is True
    assert not layer.raw_weights.requires_grad
    assert ExplicitLayer(4, NAMES, learn_weights=True).raw_weights.requires_grad


def test_texts_without_a_known_token_are_zero() -> None:
    layer = ExplicitLayer(2, NAMES, "sigmoid")
    rows = torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf], [1.0, 0.0]])
    found = layer({"sentence_embedding": rows})["sentence_embedding"]
    assert not found[:2].any()
    assert (found[2] > 0).all()


def test_losses_of_the_host_train_it() -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(modules=[*tiny_encoder(TEXTS), ExplicitLayer(32, list("abcdefgh"))], device="cpu")
    loss = MultipleNegativesRankingLoss(model)
    columns = [model.preprocess(TEXTS), model.preprocess(TEXTS[1:] + TEXTS[:1])]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    values = []
    for _ in range(8):
        value = loss([dict(column) for column in columns], None)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]


def test_co_occurrence_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    held = rng.random((50, 6)) < 0.3
    held[:, 5] = False  # never declared
    found = co_occurrence(held, gamma=0.4)
    for j in range(6):
        row = np.zeros(6)
        for k in range(6):
            both = (held[:, j] & held[:, k]).mean()
            if j != k and both > 0:
                row[k] = max(0.0, np.log(both / (held[:, j].mean() * held[:, k].mean())))
        expected = 0.4 * row / row.sum() if row.sum() else row
        expected[j] = 1.0
        assert found[j] == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(co_occurrence(held, gamma=0.0), np.eye(6))
    with pytest.raises(InputError, match="gamma=-1"):
        co_occurrence(held, gamma=-1)


def test_declared_concepts_speak_for_their_company() -> None:
    sets = ConceptSetEncoder(3)
    sets.start_at([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert sets(torch.tensor([[1.0, 0.0, 0.0]])).tolist() == [[1.0, 0.5, 0.0]]
    assert float(sets.drift().detach()) == 0.0
    with torch.no_grad():
        sets.matrix[0, 2] += 2.0
    assert float(sets.drift().detach()) == pytest.approx(4.0)
    frozen = ConceptSetEncoder(3, "identity")
    frozen.start_at(np.ones((3, 3)))
    assert frozen(torch.eye(3)).tolist() == torch.eye(3).tolist()
    assert not [one for one in frozen.parameters() if one.requires_grad]
    with pytest.raises(InputError, match="unknown sets 'turned'"):
        ConceptSetEncoder(3, "turned")  # type: ignore[arg-type]


def _batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    texts = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    items = torch.rand(12, 5, generator=generator, dtype=torch.float64)
    rows = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    labels = torch.tensor([1.0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0], dtype=torch.float64)
    return texts, items, rows, labels


@pytest.mark.parametrize("relevance", ["bce", "margin", "infonce"])
@pytest.mark.parametrize("normalize", [True, False])
def test_relevance_against_loops(relevance: str, normalize: bool) -> None:
    texts, items, rows, labels = _batch()
    scale = torch.tensor(3.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    objective = Objective(relevance=relevance, margin=0.3, temperature=0.5)  # type: ignore[arg-type]
    found = float(relevance_loss(objective, texts, items, rows, labels, scale, normalize=normalize))

    def score(text: int, item: int) -> float:
        u, v = texts[text].numpy(), items[item].numpy()
        return float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)) if normalize else u @ v)

    pairs = [(int(row), place, float(label)) for place, (row, label) in enumerate(zip(rows, labels, strict=True))]
    slow = []
    for text, item, label in pairs:
        s = score(text, item)
        if relevance == "bce":
            p = 1 / (1 + np.exp(-(3 * s - 1)))
            slow.append(-np.log(p if label else 1 - p))
        elif relevance == "margin" and label:
            slow += [max(0.0, 0.3 - s + score(text, other)) for t, other, wrong in pairs if t == text and not wrong]
        elif relevance == "infonce" and label:
            others = [other for t, other, right in pairs if other != item and not (t == text and right)]
            every = np.array([s, *(score(text, other) for other in others)]) / 0.5
            slow.append(np.log(np.exp(every).sum()) - every[0])
    assert found == pytest.approx(np.mean(slow), abs=1e-9)


def test_concepts_against_a_loop() -> None:
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64)
    declared, weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), torch.tensor([3.0, 10.0])
    slow = []
    for row, truth in zip(logits.tolist(), declared.tolist(), strict=True):
        for value, right, heavy in zip(row, truth, weight.tolist(), strict=True):
            p = 1 / (1 + np.exp(-value))
            slow.append(-heavy * np.log(p) if right else -np.log(1 - p))
    assert float(concept_loss(logits, declared, weight)) == pytest.approx(np.mean(slow), abs=1e-9)


@pytest.mark.parametrize("bad", [{"relevance": "hinge"}, {"concept": -1.0}, {"temperature": 0.0}, {"margin": 0.0}])
def test_objectives_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        Objective(**bad)  # type: ignore[arg-type]
