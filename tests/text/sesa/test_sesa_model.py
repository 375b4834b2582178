"""SESA as a whole: what it learns, what explains its scores, what is refused, and that it comes back from disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.testing.contract import random_state_kept
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.sesa import SESA, ConceptSpace, ExplicitLayer, Item, Objective, auc, axis_fidelity, match_axes
from embedlab.text.sesa.encoders import recurrent_model

STEPS: dict[str, Any] = {"epochs": 20, "learning_rate": 0.02, "batch_size": 32}


@pytest.fixture(scope="module")
def host(world: Any) -> Any:
    return recurrent_model(world.texts, token_dim=24, hidden_dim=12, min_count=1, pooling="mean")


@pytest.fixture(scope="module")
def fitted(world: Any, host: Any) -> SESA:
    return SESA(world.space, encoder=host).fit(world.pairs, world.labels, concepts=world.concepts, **STEPS)


def fidelity(model: SESA, world: Any) -> float:
    held = world.space.multi_hot(world.held)
    return axis_fidelity(model.encode(world.texts), held, held.mean(axis=0)).macro_auc


def test_learns_relevance_and_what_its_axes_mean(fitted: SESA, unseen: Any) -> None:
    assert fitted.history[-1].loss < fitted.history[0].loss
    assert auc(fitted.score_pairs(unseen.pairs), unseen.labels) > 0.8  # some sets drawn as negatives fit as well
    assert fidelity(fitted, unseen) > 0.85
    best = fitted.decode(fitted.encode(unseen.texts), top_k=3)
    right = [name in held for said, held in zip(best, unseen.held, strict=True) for name, _ in said]
    assert np.mean(right) > 0.7


def test_without_the_explicit_terms_axes_mean_nothing(fitted: SESA, world: Any, unseen: Any, host: Any) -> None:
    twin = SESA.latent_twin(world.space, encoder=host).fit(world.pairs, world.labels, concepts=world.concepts, **STEPS)
    assert twin.objective.concept == 0
    assert twin.sets == "dense"
    assert auc(twin.score_pairs(unseen.pairs), unseen.labels) > 0.6  # it does learn
    assert abs(fidelity(twin, unseen) - 0.5) < 0.2  # by eight axes, each right or wrong by chance
    axes = match_axes(twin.encode(world.texts), world.space.multi_hot(world.held))
    held = unseen.space.multi_hot(unseen.held)
    matched = axis_fidelity(twin.encode(unseen.texts)[:, axes], held, held.mean(axis=0)).macro_auc
    assert fidelity(fitted, unseen) > matched + 0.1


@pytest.mark.parametrize("normalize", [True, False])
def test_contributions_sum_to_the_score(fitted: SESA, unseen: Any, normalize: bool) -> None:
    (x, y), declared = unseen.texts[:2], Item(concepts=unseen.held[0])
    both = Item(unseen.texts[2], {"baking": 0.5, "sailing": 2.0})
    fitted.normalize = normalize
    try:
        for pair in ((x, y), (x, declared), (declared, Item(concepts=["mining"])), (x, both), (both, declared)):
            said = fitted.explain(*pair, top_k=None)
            assert sum(weight for _, weight in said) == pytest.approx(fitted.score(*pair), abs=1e-5)
            assert [weight for _, weight in said] == sorted((weight for _, weight in said), reverse=True)
            u, v = fitted.vectors([pair[0]])[0], fitted.vectors([pair[1]])[0]
            slow = u @ v / (np.linalg.norm(u) * np.linalg.norm(v)) if normalize else u @ v
            assert fitted.score(*pair) == pytest.approx(float(slow), abs=1e-5)
            assert fitted.explain(*pair, top_k=2) == said[:2]
    finally:
        fitted.normalize = True
    assert fitted.score("", x) == 0.0


def test_sides_against_the_definition(fitted: SESA, unseen: Any) -> None:
    texts, sets = unseen.texts[:3], [["baking"], [], ["mining", "tuning"]]
    of_texts, of_sets, both = fitted.encode(texts), fitted.encode(concepts=sets), fitted.encode(texts, sets)
    state = {name: value.numpy() for name, value in fitted._fitted().state_dict().items() if "host" not in name}
    slow = np.maximum(unseen.space.multi_hot(sets) @ state["sets.matrix"], 0)
    assert np.abs(of_sets - slow).max() < 1e-5
    gate = 1 / (1 + np.exp(-state["raw_gate"]))
    mixed = [
        gate * text / np.linalg.norm(text) + (1 - gate) * held / np.linalg.norm(held) if held.any() else text
        for text, held in zip(of_texts, of_sets, strict=True)
    ]
    assert np.abs(both - np.array(mixed)).max() < 1e-5
    assert of_texts.shape == (3, len(unseen.space))
    assert (of_texts >= 0).all()
    assert not fitted.encode(["", "unheard words only"]).any()


def test_saved_and_loaded_it_is_the_same(fitted: SESA, unseen: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    again = SESA.load(tmp_path / "model")
    assert np.array_equal(again.encode(unseen.texts), fitted.encode(unseen.texts))
    assert np.array_equal(again.score_pairs(unseen.pairs), fitted.score_pairs(unseen.pairs))
    assert again.space == fitted.space
    encoder = load_model(str(tmp_path / "model"), device="cpu")
    assert encoder.dimensions == tuple(fitted.space.names)  # type: ignore[attr-defined]
    rows = encoder.encode_document(unseen.texts)
    plain = fitted.encode(unseen.texts)
    assert np.abs(rows - plain / np.linalg.norm(plain, axis=1, keepdims=True)).max() < 1e-5
    state = tmp_path / "model/sesa.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "names": [*"abcdefgh"]}))
    with pytest.raises(InputError, match="different concepts"):
        SESA.load(tmp_path / "model")
    (tmp_path / "model/sesa.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="holds no SESA model"):
        SESA.load(tmp_path / "model")


def test_one_seed_one_model_and_the_input_stays(world: Any, host: Any) -> None:
    before = {name: value.clone() for name, value in host.state_dict().items()}
    short = {**STEPS, "epochs": 1}
    with random_state_kept("fit"):
        models = [
            SESA(world.space, encoder=host, seed=seed).fit(world.pairs, world.labels, concepts=world.concepts, **short)
            for seed in (0, 0, 1)
        ]
    rows = [model.encode(world.texts) for model in models]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert all(torch.equal(value, before[name]) for name, value in host.state_dict().items())


def test_order_of_concepts_does_not_matter_where_nothing_is_drawn(world: Any, unseen: Any) -> None:
    order = np.random.default_rng(0).permutation(len(world.space))
    turned = ConceptSpace([world.space.names[place] for place in order])
    found = []
    for space in (world.space, turned):
        model = SESA(space, encoder="default", freeze=True, init="names")
        model.fit(world.pairs, world.labels, concepts=world.concepts, epochs=2, learning_rate=0.01)
        found.append(model)
    assert np.abs(found[0].encode(unseen.texts)[:, order] - found[1].encode(unseen.texts)).max() < 1e-3
    assert np.abs(found[0].score_pairs(unseen.pairs) - found[1].score_pairs(unseen.pairs)).max() < 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "sigmoid"},
        {"activation": "softmax"},
        {"sets": "identity"},
        {"axis_weights": "idf"},
        {"axis_weights": "learned"},
        {"init": "names"},
        {"normalize": False},
        {"objective": Objective(relevance="margin")},
        {"objective": Objective(relevance="infonce")},
        {"mode": "text_only"},
    ],
    ids=lambda options: "-".join(map(str, options)) + str(next(iter(options.values())))[:40],
)
def test_every_choice_learns(options: dict[str, Any], world: Any) -> None:
    tiny = tiny_encoder(world.texts, num_layers=1)
    pairs = world.pairs
    if options.get("mode") == "text_only":
        pairs = [(text, Item(" ".join(item.concepts), item.concepts)) for text, item in pairs]
    model = SESA(world.space, encoder=tiny, freeze=True, **options)
    model.fit(
        pairs, world.labels, concepts=world.concepts, epochs=4, learning_rate=0.01, validation=(pairs, world.labels)
    )
    assert model.history[-1].loss < model.history[0].loss
    assert all(0 <= epoch.auc <= 1 for epoch in model.history)
    rows = model.encode(world.texts[:5])
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()


def test_stops_at_the_best_epoch(world: Any, unseen: Any, host: Any) -> None:
    model = SESA(world.space, encoder=host)
    flipped = 1 - unseen.labels  # the better it learns, the worse this gets
    model.fit(
        world.pairs, world.labels, concepts=world.concepts, validation=(unseen.pairs, flipped), patience=2, **STEPS
    )
    scores = [epoch.auc for epoch in model.history]
    assert len(scores) < STEPS["epochs"]
    assert auc(model.score_pairs(unseen.pairs), flipped) == pytest.approx(max(scores), abs=1e-4)


def test_refusals(world: Any, fitted: SESA, host: Any) -> None:
    space, pairs, labels = world.space, world.pairs, world.labels
    for bad, says in (
        (lambda: SESA(space, mode="set"), "unknown mode 'set'"),
        (lambda: SESA(space, activation="tanh"), "unknown activation"),
        (lambda: SESA(space, gamma=-1.0), "gamma=-1"),
        (lambda: SESA(space, freeze=True), "freeze=True"),
        (lambda: SESA(space).encode(["a"]), "call fit"),
        (lambda: SESA(space).fit(pairs, labels[1:]), "labels of shape"),
        (lambda: SESA(space).fit(pairs, np.ones(len(pairs))), "some 1 and some 0"),
        (lambda: SESA(space).fit(pairs, labels, epochs=0), "epochs=0"),
        (
            lambda: SESA(space, encoder=host).fit(pairs, labels, concepts={pairs[0][0]: ["bakin"]}),
            "did you mean 'baking'",
        ),
        (lambda: SESA(space, mode="set_only").fit([("a", Item("b"))] * 2, [0, 1]), "declares no concept"),
        (lambda: SESA(space, mode="set_only").fit([("a", Item("b", []))] * 2, [0, 1]), "declares no concept"),
        (lambda: SESA(space, mode="text_only").fit([("a", Item(None, ["baking"]))] * 2, [0, 1]), "has no text"),
        (lambda: fitted.encode(), "give one of them"),
        (lambda: fitted.encode(["a"], []), "concepts has 0 entries"),
        (lambda: fitted.encode(concepts=[["nothing like it"]]), "unknown concept 'nothing like it'"),
        (lambda: recurrent_model(["one word"], min_count=3), "no word occurs 3 times"),
        (lambda: ExplicitLayer(3, "abc"), "concepts"),
    ):
        with pytest.raises(InputError, match=says):
            bad()
