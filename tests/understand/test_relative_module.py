"""The projection in torch: what it computes, what gets a gradient, and anchors that follow their model."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import nn

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.understand.relative import (
    AnchorSet,
    RelativeEncoder,
    RelativeProjection,
    make_relative,
    relative_coordinates,
    stitch,
)

TEXTS = ["a cat sat on the mat", "a dog ran", "it rained all day", "stocks fell again", "the sun shone", "dogs bark"]


def cloud(n=20, dim=8, *, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32) + np.float32(0.5)


def project(layer, rows):
    with torch.no_grad():
        return layer({"sentence_embedding": torch.from_numpy(rows)})["sentence_embedding"].numpy()


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "basis_change"])
@pytest.mark.parametrize("normalization", ["none", "l2", "layer"])
@pytest.mark.parametrize("subspaces", [1, 2])
def test_the_module_agrees_with_the_arrays(similarity, normalization, subspaces):
    rows, anchors = cloud(), cloud(5, seed=1)
    options = {"similarity": similarity, "normalization": normalization, "subspaces": subspaces, "quantize": 0.1}
    layer = RelativeProjection(anchors, mean=rows.mean(axis=0), **options)
    expected = relative_coordinates(rows, anchors, mean=rows.mean(axis=0), **options)
    close = np.isclose(project(layer, rows), expected, atol=1e-4)
    assert close.mean() > 0.98  # a similarity on the edge of a bin may fall to either side
    plain = {**options, "quantize": None}
    layer = RelativeProjection(anchors, mean=rows.mean(axis=0), **plain)
    expected = relative_coordinates(rows, anchors, mean=rows.mean(axis=0), **plain)
    assert_allclose(project(layer, rows), expected, atol=2e-4)


def test_rotation_and_scale_change_nothing_translation_does():
    rows = cloud()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0].astype(np.float32)
    first = project(RelativeProjection(rows[:5]), rows)
    assert_allclose(project(RelativeProjection(3.7 * rows[:5] @ turn), 3.7 * rows @ turn), first, atol=1e-5)
    assert np.abs(project(RelativeProjection(rows[:5] + 3), rows + 3) - first).max() > 0.05
    centred = project(RelativeProjection(rows[:5], center=True), rows)
    assert_allclose(project(RelativeProjection(rows[:5] + 3, center=True), rows + 3), centred, atol=1e-5)


def test_classes_are_averaged_in_order_of_appearance():
    rows, anchors = cloud(), cloud(6, seed=1)
    plain = project(RelativeProjection(anchors), rows)
    layer = RelativeProjection(anchors, groups=["b", "a", "b", "a", "a", "c"])
    expected = np.stack([plain[:, [0, 2]].mean(1), plain[:, [1, 3, 4]].mean(1), plain[:, 5]], axis=1)
    assert_allclose(project(layer, rows), expected, atol=1e-6)
    assert layer.get_embedding_dimension() == 3


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
def test_subspaces_are_joined(pooling):
    rows, anchors = cloud(), cloud(5, seed=1)
    apart = project(RelativeProjection(anchors, subspaces=2), rows).reshape(20, 2, 5)
    joined = project(RelativeProjection(anchors, subspaces=2, subspace_pooling=pooling), rows)
    assert_allclose(joined, getattr(apart, pooling)(axis=1), atol=1e-6)


def test_quantisation_lets_the_gradient_straight_through():
    anchors = cloud(5, seed=1)
    gradients = []
    for width in (None, 0.5):
        rows = torch.from_numpy(cloud()).requires_grad_()
        RelativeProjection(anchors, quantize=width).project(rows).sum().backward()
        gradients.append(rows.grad)
    assert_allclose(gradients[0], gradients[1], atol=1e-6)
    latents = project(RelativeProjection(anchors, similarity="dot", quantize_latents=1.0), cloud())
    assert_allclose(latents, np.round(cloud()) @ np.round(anchors).T / np.sqrt(8), atol=1e-5)


def test_clusters_are_those_of_single_linkage():
    from embedlab.understand.relative.steps import quantized

    values = torch.tensor([[0.0, 0.9, 0.1, 0.5, 0.95, 0.19]])
    expected = [[0.29 / 3, 0.925, 0.29 / 3, 0.5, 0.925, 0.29 / 3]]
    assert_allclose(quantized(values, 0.1001, "cluster"), expected, atol=1e-6)


def test_smooth_steps_are_flat_at_multiples():
    from embedlab.understand.relative.steps import quantized

    values = torch.tensor([0.0, 0.25, 0.5, 0.125]).requires_grad_()
    found = quantized(values, 0.25, "smooth")
    assert_allclose(found[:3].detach(), [0.0, 0.25, 0.5], atol=1e-6)
    found.sum().backward()
    assert_allclose(values.grad, [0.0, 0.0, 0.0, 2.0], atol=1e-5)


def test_batch_statistics_run_and_instance_statistics_are_asked_for():
    rows, anchors = torch.from_numpy(cloud()), cloud(5, seed=1)
    layer = RelativeProjection(anchors, normalization="batch")
    with torch.no_grad():
        for _ in range(200):
            found = layer.project(rows)
        assert_allclose(found.mean(0), 0, atol=1e-5)
        layer.eval()
        assert_allclose(layer.project(rows[:1]), found[:1], atol=0.05)
        whole = RelativeProjection(anchors, normalization="instance", transductive=True)
        assert_allclose(whole.project(rows).std(0, correction=0), 1, atol=1e-3)
        with pytest.raises(InputError, match="at least 2 rows"):
            whole.project(rows[:1])


@pytest.mark.parametrize(("values", "width"), [("trainable", 3), ("anchors", 8), ("attention", 5)])
def test_values_replace_similarities(values, width):
    rows, anchors = cloud(), cloud(5, seed=1)
    layer = RelativeProjection(anchors, values=values, values_dim=3)
    found = layer.project(torch.from_numpy(rows))
    assert found.shape == (20, width) == (20, layer.get_embedding_dimension())
    if values != "attention":
        weights = np.exp(relative_coordinates(rows, anchors))
        weights /= weights.sum(axis=1, keepdims=True)
        vectors = anchors if values == "anchors" else layer.value_vectors.detach().numpy()
        assert_allclose(found.detach(), weights @ vectors, atol=1e-5)
    if values != "anchors":
        found.sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"similarity": "cos"}, "similarity"),
        ({"quantize_mode": "floor"}, "quantize_mode"),
        ({"normalization": "instance"}, "transductive=True"),
        ({"quantize_latents": -1.0}, "quantize_latents"),
        ({"subspaces": 3}, "subspaces=3"),
        ({"groups": ["a"]}, "groups has 1"),
        ({"texts": ["a"]}, "texts has 1"),
        ({"values": "anchors", "groups": list("abcde")}, "one weight per anchor"),
        ({"mean": [1.0, 2.0]}, "mean"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        RelativeProjection(cloud(5), **options)


def test_other_widths_are_refused():
    with pytest.raises(InputError, match="width 8"):
        project(RelativeProjection(cloud(5)), cloud(dim=6))


# saving


OPTIONS = [
    {},
    {"center": True, "normalization": "batch", "groups": list("aabbc")},
    {"mean": np.ones(8), "values": "trainable", "values_dim": 3, "quantize": 0.1},
    {"subspaces": 2, "subspace_pooling": "linear", "values": "attention", "values_dim": 4},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_saved_and_loaded_it_is_the_same(tmp_path, options):
    layer = RelativeProjection(cloud(5), seed=3, **options)
    project(layer, cloud())  # running statistics
    layer.eval().save(str(tmp_path))
    loaded = RelativeProjection.load(str(tmp_path)).eval()
    assert_array_equal(project(loaded, cloud()), project(layer, cloud()))
    assert loaded.anchors_hash == layer.anchors_hash


def test_wrong_anchors_are_refused(tmp_path):
    RelativeProjection(cloud(5)).save(str(tmp_path))
    stored = load_file(tmp_path / "model.safetensors")
    save_file({**stored, "anchors": stored["anchors"].flip(0).contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not those it was saved with"):
        RelativeProjection.load(str(tmp_path))


# whole models


def test_a_whole_model_becomes_relative_and_stays_so(tmp_path):
    model = tiny_encoder(TEXTS)
    before = model.encode(TEXTS)
    relative = make_relative(model, TEXTS[:4], center=True)
    expected = relative_coordinates(before, before[:4], mean=before[:4].mean(axis=0))
    assert_allclose(relative.encode(TEXTS), expected, atol=1e-5)
    assert_array_equal(model.encode(TEXTS), before)
    assert relative.get_embedding_dimension() == 4
    relative.save(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert_array_equal(loaded.encode(TEXTS), relative.encode(TEXTS))
    assert loaded[-1].anchors_hash == AnchorSet.of(TEXTS[:4]).hash
    assert loaded[-1].texts == TEXTS[:4]


def test_a_model_with_another_encoder_is_refused(tmp_path):
    make_relative(tiny_encoder(TEXTS), TEXTS[:4]).save(str(tmp_path))
    other = tiny_encoder(TEXTS, seed=1)
    save_file(
        {name: value.contiguous() for name, value in other[0].model.state_dict().items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(InputError, match="embedded by encoder"):
        SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)


def test_models_need_texts_as_anchors():
    model = tiny_encoder(TEXTS)
    with pytest.raises(InputError, match="hold no texts"):
        make_relative(model, AnchorSet.select(cloud(), 5))
    model.truncate_dim = 4
    with pytest.raises(InputError, match="truncate_dim"):
        make_relative(model, TEXTS)


def test_anchors_follow_the_weights_of_their_model(tmp_path):
    relative = make_relative(tiny_encoder(TEXTS), TEXTS[:4])
    first = relative.encode(TEXTS)
    relative.train()
    optimiser = torch.optim.SGD(relative.parameters(), lr=0.5)
    features = relative.preprocess(TEXTS)
    loss = relative(dict(features))["sentence_embedding"][:, 0].sum()
    loss.backward()
    optimiser.step()
    relative.eval()
    fresh = make_relative(SentenceTransformer(modules=list(relative)[:-1], device="cpu"), TEXTS[:4])
    assert np.abs(relative.encode(TEXTS) - first).max() > 1e-4
    assert_allclose(relative.encode(TEXTS), fresh.encode(TEXTS), atol=1e-6)
    relative.save(str(tmp_path))
    assert json.loads((tmp_path / "modules.json").read_text())[-1]["type"].endswith("RelativeProjection")
    assert_array_equal(
        SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True).encode(TEXTS), relative.encode(TEXTS)
    )


def test_a_copy_does_not_train_with_stale_anchors():
    twin = copy.deepcopy(make_relative(tiny_encoder(TEXTS), TEXTS[:4]))
    assert twin.encode(TEXTS).shape == (6, 4)
    twin.train()
    with pytest.raises(InputError, match="on_model_ready"):
        twin(twin.preprocess(TEXTS))
    twin[-1].on_model_ready(twin)
    assert twin(twin.preprocess(TEXTS))["sentence_embedding"].requires_grad


# end to end


def network(seed=0, dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(dropout), nn.GELU(), nn.Linear(12, 8))


def test_no_gradient_passes_through_the_anchors():
    inputs, anchors = torch.from_numpy(cloud(16, 6)), torch.from_numpy(cloud(5, 6, seed=1))
    model = RelativeEncoder(network(), anchors)
    weights = torch.from_numpy(cloud(16, 5, seed=2))
    (model(inputs) * weights).sum().backward()
    got = [parameter.grad.clone() for parameter in model.encoder.parameters()]

    twin = network()
    rows = twin(inputs)
    with torch.no_grad():
        constant = twin.eval()(anchors)  # as numbers, with no way back
    expected = nn.functional.normalize(rows, dim=1) @ nn.functional.normalize(constant, dim=1).T
    (expected * weights).sum().backward()
    for mine, theirs in zip(got, (parameter.grad for parameter in twin.parameters()), strict=True):
        assert_allclose(mine, theirs, atol=1e-5)
    assert not model.anchor_embeddings().requires_grad


def test_anchors_are_embedded_in_evaluation_mode_with_the_weights_of_the_step():
    inputs, anchors = torch.from_numpy(cloud(16, 6)), torch.from_numpy(cloud(5, 6, seed=1))
    model = RelativeEncoder(network(dropout=0.5), anchors).train()
    assert_array_equal(model.anchor_embeddings(), model.anchor_embeddings())  # no dropout
    assert model.encoder.training
    before = model.encoder[1].running_mean.clone()
    model.anchor_embeddings()
    assert_array_equal(model.encoder[1].running_mean, before)
    first = model.anchor_embeddings()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    model(inputs).sum().backward()
    optimiser.step()
    assert (model.anchor_embeddings() - first).abs().max() > 0.01
    model.eval()
    with torch.no_grad():
        assert_allclose(model.anchor_embeddings(), model.encoder(anchors), atol=1e-6)
        kept = model.anchor_embeddings()
        assert model.anchor_embeddings() is kept  # once, until weights change
        model.encoder[0].weight.mul_(2)
        assert model.anchor_embeddings() is not kept


@pytest.mark.parametrize("resample", ["stratified", "gaussian"])
def test_training_steps_may_draw_other_anchors(resample):
    pool, labels = torch.from_numpy(cloud(12, 6)), [0, 1] * 6
    model = RelativeEncoder(network(), pool, labels=labels, per_class=2, resample=resample).train()
    first, second = model.anchor_embeddings(), model.anchor_embeddings()
    assert first.shape == (4, 8)
    assert (first - second).abs().max() > 1e-3
    embedded = model._embed(pool)
    if resample == "stratified":
        distances = torch.cdist(first, embedded)
        assert_allclose(distances.min(dim=1).values, 0, atol=1e-3)
        assert [labels[i] for i in distances.argmin(dim=1)] == [0, 0, 1, 1]
    else:
        draws = torch.stack([model.anchor_embeddings() for _ in range(400)])
        assert_allclose(draws[:, :2].mean((0, 1)), embedded[::2].mean(0), atol=0.15)
    model.eval()
    assert_allclose(model.anchor_embeddings(), model._embed(pool[[0, 2, 1, 3]]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resample": "random"}, "unknown resample"),
        ({"resample": "gaussian"}, "per_class is needed"),
        ({"per_class": 2}, "labels must give"),
        ({"per_class": 4, "labels": [0, 0, 1, 1, 1, 1]}, "per_class=4"),
    ],
)
def test_bad_resampling_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        RelativeEncoder(network().eval(), torch.from_numpy(cloud(6, 6)), **options)


def test_models_trained_apart_are_stitched():
    """Two networks learn the same classes from other starts; heads are swapped."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, 300))
    inputs = torch.from_numpy(rng.normal(size=(300, 6)).astype(np.float32)) + 3 * nn.functional.one_hot(labels, 6)
    accuracy = {}
    for relative in (True, False):
        encoders, heads = {}, {}
        for seed in range(3):
            encoder = network(seed)
            model = RelativeEncoder(encoder, inputs[:20]) if relative else encoder
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = nn.Sequential(nn.LayerNorm(20 if relative else 8), nn.Linear(20 if relative else 8, 3))
            optimiser = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=0.02)
            for _ in range(60):
                optimiser.zero_grad()
                nn.functional.cross_entropy(head(model(inputs)), labels).backward()
                optimiser.step()
            encoders[str(seed)], heads[str(seed)] = model.eval(), head.eval()
        with torch.no_grad():
            accuracy[relative] = stitch(
                encoders, heads, (inputs, labels), metric=lambda out, y: float((out.argmax(1) == y).float().mean())
            )
    assert accuracy[True].native > 0.9
    assert accuracy[True].stitched > accuracy[True].native - 0.1
    assert accuracy[False].stitched < 0.7
