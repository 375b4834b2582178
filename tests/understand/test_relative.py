"""Relative coordinates against their definition, and against what must not change them."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from embedlab._core.errors import InputError
from embedlab.understand.relative import (
    AnchorSet,
    RelativeEmbedder,
    align,
    relative_coordinates,
    stitch,
    stitch_vectors,
)
from embedlab.understand.relative.choosing import farthest_points


def cloud(n=40, dim=8, *, seed=0, shift=0.5):
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


def turn(dim=8, *, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def cosine(a, b):
    return math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))


LOOPS = {
    "cosine": cosine,
    "dot": lambda a, b: math.fsum(a * b) / math.sqrt(len(a)),
    "euclidean": lambda a, b: -math.sqrt(math.fsum((a - b) ** 2)),
}


@pytest.mark.parametrize("similarity", LOOPS)
def test_coordinates_equal_the_definition(similarity):
    rows, anchors = cloud(), cloud(5, seed=1)
    slow = [[LOOPS[similarity](x, a) for a in anchors] for x in rows]
    assert_allclose(relative_coordinates(rows, anchors, similarity=similarity), slow, atol=1e-10)


@pytest.mark.parametrize("normalization", ["none", "l2", "layer"])
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_rotation_reflection_and_scale_change_nothing(normalization, seed, scale):
    rows = cloud(seed=seed)
    moved = scale * rows @ turn(seed=seed)
    first = relative_coordinates(rows, rows[:6], normalization=normalization)
    second = relative_coordinates(moved, moved[:6], normalization=normalization)
    assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "basis_change"])
def test_translation_changes_all_unless_centred(similarity):
    rows = cloud()
    moved = rows + 3.0
    plain = [relative_coordinates(each, each[:6], similarity=similarity) for each in (rows, moved)]
    assert np.abs(plain[0] - plain[1]).max() > 0.05
    centred = [
        RelativeEmbedder(6, similarity=similarity, center=True).fit(each, anchors=AnchorSet.select(rows, 6))
        for each in (rows, moved)
    ]
    assert_allclose(centred[0].transform(rows), centred[1].transform(moved), atol=1e-9)


def test_euclidean_distances_bear_rotation_and_translation():
    rows = cloud()
    moved = rows @ turn() + 4
    found = [relative_coordinates(each, each[:6], similarity="euclidean") for each in (rows, moved)]
    assert_allclose(found[0], found[1], atol=1e-6)  # the distance to oneself is a root of a rounding error


def test_basis_change_is_exact_and_bears_any_linear_map():
    rows, anchors = cloud(), cloud(8, seed=1)
    found = relative_coordinates(rows, anchors, similarity="basis_change")
    assert_allclose(found @ anchors, rows, atol=1e-9)
    assert_allclose(found, np.linalg.solve(anchors.T, rows.T).T, atol=1e-9)
    stretch = np.random.default_rng(2).normal(size=(8, 8))
    assert_allclose(
        relative_coordinates(rows @ stretch, anchors @ stretch, similarity="basis_change"), found, atol=1e-6
    )
    # more anchors than dimensions: the shortest of many exact coordinates, as lstsq finds
    many = cloud(20, seed=3)
    expected = np.linalg.lstsq(many.T, rows.T, rcond=None)[0].T
    assert_allclose(relative_coordinates(rows, many, similarity="basis_change"), expected, atol=1e-9)


def test_quantised_similarities_are_multiples_and_near():
    rows = cloud()
    plain = relative_coordinates(rows, rows[:6])
    found = relative_coordinates(rows, rows[:6], quantize=0.25)
    assert_allclose(found / 0.25, np.round(found / 0.25), atol=1e-12)
    assert np.abs(found - plain).max() <= 0.125 + 1e-12


def test_subspaces_are_compared_one_by_one():
    rows, anchors = cloud(), cloud(5, seed=1)
    found = relative_coordinates(rows, anchors, subspaces=2)
    parts = [relative_coordinates(rows[:, half], anchors[:, half]) for half in (slice(0, 4), slice(4, 8))]
    assert_allclose(found, np.concatenate(parts, axis=1), atol=1e-12)


def test_long_matrices_are_worked_on_in_blocks(monkeypatch):
    rows = cloud(50).astype(np.float32)
    whole = relative_coordinates(rows, rows[:6], mean=rows.mean(axis=0), normalization="layer")
    monkeypatch.setattr("embedlab.understand.relative.rows.blocks.__defaults__", (7,))
    assert_allclose(
        relative_coordinates(rows, rows[:6], mean=rows.mean(axis=0), normalization="layer"), whole, atol=1e-6
    )
    assert whole.dtype == np.float32


def test_a_text_without_known_words_is_like_nothing():
    rows = np.vstack([np.zeros(8), cloud(3)])
    assert not relative_coordinates(rows, cloud(4, seed=1), mean=np.ones(8))[0].any()


BAD = {
    "NaN": (np.array([[1.0, np.nan]]), np.eye(2), "row 0 is not finite"),
    "width": (np.ones((2, 3)), np.eye(2), "expected 2"),
    "flat": (np.ones(3), np.eye(3), "matrix"),
    "empty": (np.ones((0, 2)), np.eye(2), "at least 1"),
    "text": (np.array([["a", "b"]]), np.eye(2), "real numbers"),
    "zero anchor": (np.ones((2, 2)), np.array([[1.0, 0.0], [0.0, 0.0]]), "anchor 1 is zero"),
    "repeated anchor": (np.ones((2, 2)), np.array([[1.0, 0.0], [0.5, 1.0], [1.0, -0.0]]), "anchors 0 and 2 are equal"),
    "infinite anchor": (np.ones((2, 2)), np.array([[1.0, np.inf]]), "anchors: row 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_vectors_are_refused(name):
    rows, anchors, says = BAD[name]
    with pytest.raises(InputError, match=says):
        relative_coordinates(rows, anchors)


# anchors


TEXTS = [f"text number {i}" for i in range(60)]


@pytest.mark.parametrize("strategy", ["uniform", "stratified", "fps", "kmeans", "top"])
def test_every_strategy_gives_different_anchors_whatever_the_order(strategy):
    rows, labels, counts = cloud(60), [i % 3 for i in range(60)], np.arange(60) // 2
    options = {"stratified": {"labels": labels}, "top": {"counts": counts, "num_frequent": 20}}.get(strategy, {})
    anchors = AnchorSet.select(rows, 12, strategy=strategy, **options)
    assert len(set(anchors.indices.tolist())) == 12
    order = np.random.default_rng(1).permutation(60)
    moved = {key: value if isinstance(value, int) else [value[i] for i in order] for key, value in options.items()}
    again = AnchorSet.select(rows[order], 12, strategy=strategy, **moved)
    assert_array_equal(order[again.indices], anchors.indices)
    assert again.hash == anchors.hash
    if strategy != "fps":
        other = AnchorSet.select(rows, 12, strategy=strategy, seed=1, **options)
        assert other.hash != anchors.hash


def test_stratified_anchors_take_classes_in_turns():
    labels = ["a"] * 50 + ["b"] * 7 + ["c"] * 3
    anchors = AnchorSet.select(TEXTS, 12, strategy="stratified", labels=labels)
    assert sorted(anchors.labels[:3]) == ["a", "b", "c"]
    assert [anchors.labels.count(name) for name in "abc"] == [5, 4, 3]


def test_frequent_anchors_come_from_the_most_frequent():
    counts = np.arange(60)
    assert set(AnchorSet.select(TEXTS, 5, strategy="top", counts=counts).indices) == {55, 56, 57, 58, 59}
    drawn = AnchorSet.select(TEXTS, 5, strategy="top", counts=counts, num_frequent=30).indices
    assert drawn.min() >= 30
    assert set(drawn) != {55, 56, 57, 58, 59}


def test_farthest_points_equal_the_loop():
    rows = cloud(30)
    taken = [0]
    while len(taken) < 8:
        rest = [i for i in range(30) if i not in taken]
        taken.append(min(rest, key=lambda i: max(cosine(rows[i], rows[j]) for j in taken)))
    assert farthest_points(rows, 8).tolist() == taken


def test_centroid_anchors_stand_one_in_each_cluster():
    centres = 5 * np.eye(6)
    rows = np.concatenate([centre + 0.1 * cloud(10, 6, seed=i, shift=0) for i, centre in enumerate(centres)])
    anchors = AnchorSet.select(rows, 6, strategy="kmeans")
    assert sorted(index // 10 for index in anchors.indices) == list(range(6))


def test_equal_and_zero_items_are_passed_over():
    rows = np.concatenate([cloud(5), cloud(5), np.zeros((3, 8))])
    assert len(AnchorSet.select(rows, 5)) == 5
    with pytest.raises(InputError, match="k=6"):
        AnchorSet.select(rows, 6)
    for strategy in ("fps", "kmeans"):
        assert rows[AnchorSet.select(rows, 5, strategy=strategy).indices].any(axis=1).all()


def test_texts_that_one_encoder_does_not_tell_apart_count_once():
    rows = np.repeat(cloud(30), 2, axis=0)
    assert len(AnchorSet.select(TEXTS, 60)) == 60
    with pytest.raises(InputError, match=r"k=31 .* 30"):
        AnchorSet.select(TEXTS, 31, vectors=rows)
    assert AnchorSet.select(TEXTS, 30, vectors=rows).take(rows).shape == (30, 8)


def test_texts_need_vectors_for_what_looks_at_them():
    with pytest.raises(InputError, match="vectors are needed"):
        AnchorSet.select(TEXTS, 5, strategy="kmeans")
    assert len(AnchorSet.select(TEXTS, 5, strategy="fps", vectors=cloud(60))) == 5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: AnchorSet.select(TEXTS, 61), "k=61"),
        (lambda: AnchorSet.select(TEXTS, 0), "k=0"),
        (lambda: AnchorSet.select("one text", 1), "list of texts"),
        (lambda: AnchorSet.select(TEXTS, 3, strategy="fsp"), "did you mean 'fps'"),
        (lambda: AnchorSet.select(TEXTS, 3, strategy="stratified", labels=[1]), "labels has 1"),
        (lambda: AnchorSet.select(TEXTS, 3, strategy="top"), "counts are needed"),
        (lambda: AnchorSet.select(TEXTS, 3, strategy="top", counts=range(60), num_frequent=2), "num_frequent=2"),
        (lambda: AnchorSet.of(["a", "b", "a"]), "anchors 0 and 2 are equal"),
        (lambda: AnchorSet.of([]), "no anchor"),
        (lambda: AnchorSet.parallel(["a"], ["x", "y"]), "one length"),
        (lambda: AnchorSet.parallel(["a", "a"], ["x", "x"]), "equal"),
        (lambda: AnchorSet.select(TEXTS, 3).take(cloud(59)), "60 items"),
        (lambda: AnchorSet.select(TEXTS, 3).take(np.ones((60, 4))), "are equal"),
    ],
)
def test_bad_anchors_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_the_fingerprint_is_of_the_list_and_its_order():
    assert AnchorSet.of(["a", "b"]).hash == AnchorSet.of(["a", "b"]).hash
    assert len({AnchorSet.of(each).hash for each in (["a", "b"], ["b", "a"], ["a"], ["a", "c"])}) == 4
    left, right = AnchorSet.parallel(["one", "two"], ["uno", "dos"])
    assert left.hash == right.hash != AnchorSet.of(["one", "two"]).hash
    assert AnchorSet.parallel(["one", "two"], ["dos", "uno"])[0].hash != left.hash
    rows = cloud()
    assert AnchorSet.select(rows, 5).hash == AnchorSet.select(rows.astype(np.float32), 5).hash


def test_parallel_anchors_join_two_domains():
    left, right = AnchorSet.parallel([f"en {i}" for i in range(10)], [f"es {i}" for i in range(10)])
    meaning, items = cloud(10), cloud(30, seed=5)
    english, spanish = turn(seed=1), 2 * turn(seed=2)
    one = RelativeEmbedder().fit_anchors(left, meaning @ english)
    other = RelativeEmbedder().fit_anchors(right, meaning @ spanish)
    assert_allclose(one.transform(items @ english), other.transform(items @ spanish), atol=1e-9)
    assert one.anchors_hash == other.anchors_hash
    with pytest.raises(InputError, match="for 10 anchors"):
        RelativeEmbedder().fit_anchors(left, meaning[:9])


# the embedder


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    rows = cloud()
    embedder = RelativeEmbedder(6, strategy="fps", center=True, quantize=0.1, normalization="l2").fit(rows)
    embedder.save(tmp_path / "relative.npz")
    loaded = RelativeEmbedder.load(tmp_path / "relative.npz")
    assert_array_equal(loaded.transform(rows), embedder.transform(rows))
    assert loaded.anchors_hash == embedder.anchors_hash
    assert loaded.get_params() == embedder.get_params()


def test_a_file_with_other_anchors_is_refused(tmp_path):
    path = tmp_path / "relative.npz"
    RelativeEmbedder(6).fit(cloud()).save(path)
    with np.load(path) as stored:
        parts = dict(stored)
    parts["vectors"] = parts["vectors"][::-1]
    np.savez(path, **parts)
    with pytest.raises(InputError, match="the file was changed"):
        RelativeEmbedder.load(path)
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no relative embedder"):
        RelativeEmbedder.load(tmp_path / "no.npz")
    with pytest.raises(InputError, match="call fit"):
        RelativeEmbedder().save(path)


# stitching


def test_a_turned_space_is_stitched_without_loss_and_absolute_vectors_are_not():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(300, 8)), rng.integers(0, 3, 300)
    rows[np.arange(300), labels] += 4
    spaces = {"one": rows, "two": 3.7 * rows @ turn(seed=4), "wide": np.pad(rows, ((0, 0), (0, 4)))}
    anchors = AnchorSet.select(rows[:200], 20)
    report = stitch_vectors(
        {name: each[:200] for name, each in spaces.items()},
        {name: each[200:] for name, each in spaces.items()},
        (labels[:200], labels[200:]),
        anchors,
    )
    assert report.anchors == anchors.hash
    assert report.relative.native > 0.9
    assert report.relative.stitched == pytest.approx(report.relative.native, abs=1e-9)
    assert report.absolute.native > 0.9
    assert np.isnan(report.absolute.score("wide", "one"))
    assert report.absolute.score("two", "one") < report.relative.score("two", "one")


def test_unlike_anchors_are_not_mixed():
    rows = cloud()
    heads = {"a": lambda z: z, "b": lambda z: z}
    encoders = {name: RelativeEmbedder(6, seed=seed).fit(rows) for seed, name in enumerate("ab")}
    with pytest.raises(InputError, match="the anchors differ"):
        stitch(encoders, heads, (rows, rows), metric=lambda z, y: 0.0)
    with pytest.raises(InputError, match="same names"):
        stitch(encoders, {"a": heads["a"]}, (rows, rows), metric=lambda z, y: 0.0)
    same = {name: RelativeEmbedder(6).fit(rows) for name in "ab"}
    with pytest.raises(InputError, match="finite"):
        stitch(same, heads, (rows, rows), metric=lambda z, y: math.nan)


# the trained baseline


@pytest.mark.parametrize("method", ["procrustes", "least_squares"])
def test_a_similar_space_is_aligned_exactly(method):
    rows = cloud(60)
    target = 2.5 * rows @ turn(seed=1) + 1
    fitted = align(rows[:40], target[:40], method=method)
    assert_allclose(fitted.transform(rows[40:]), target[40:], atol=1e-2)


def test_least_squares_takes_the_penalty_with_the_least_leave_one_out_error():
    rng = np.random.default_rng(0)
    rows, target = rng.normal(size=(12, 10)), rng.normal(size=(12, 3))
    fitted = align(rows, target, method="least_squares")

    def left_out(penalty):
        errors = []
        for i in range(12):
            keep = np.arange(12) != i
            # the leverage of the mean is added to that of the ridge on rows centred once; refitting does the same here
            x, y = rows[keep] - rows.mean(0), target[keep] - target.mean(0)
            x, y = np.c_[x, np.ones(11)], y
            weights = np.linalg.solve(x.T @ x + np.diag([penalty] * 10 + [0.0]), x.T @ y)
            errors.append(np.append(rows[i] - rows.mean(0), 1.0) @ weights - (target[i] - target.mean(0)))
        return float(np.mean(np.square(errors)))

    squares = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
    grid = [10.0**power * squares.mean() for power in range(-6, 3)]
    assert fitted.ridge == pytest.approx(min(grid, key=left_out))


def test_spaces_of_different_width_are_aligned():
    rows = cloud(60)
    wide = np.pad(rows @ turn(), ((0, 0), (0, 5)))
    assert_allclose(align(rows, wide).transform(rows), wide, atol=1e-9)
    with pytest.raises(InputError, match="same item"):
        align(rows, wide[1:])
    with pytest.raises(InputError, match="method"):
        align(rows, wide, method="cca")


def test_frozen_use_needs_no_torch():
    code = (
        "import sys, numpy as np; from embedlab.understand.relative import RelativeEmbedder, compare_spaces;"
        "x = np.random.default_rng(0).normal(size=(30, 4)); RelativeEmbedder(5).fit_transform(x);"
        "compare_spaces(x, x, 5); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
