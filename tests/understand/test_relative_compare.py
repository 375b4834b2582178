"""Comparison of spaces against loops; searching across encoders against the matrix it never makes."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from embedlab._core.errors import InputError
from embedlab.understand.relative import AnchorSet, compare_spaces, linear_cka, migrate_index, relative_coordinates


def cloud(n=60, dim=8, *, seed=0, shift=0.5):
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


def turn(dim=8, *, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("center", [False, True])
def test_identical_and_isometric_spaces_are_alike_in_all(dtype, center):
    rows = cloud().astype(dtype)
    for other in (rows, (3.7 * rows @ turn(seed=1)).astype(dtype)):
        found = compare_spaces(rows, other, 12, k=5, center=center)
        figures = [found.jaccard, found.mrr, found.cosine, found.overlap, found.cka, found.svcca]
        assert_allclose(figures, 1.0, atol=1e-5)
        assert found.mse < 1e-10
    assert (found.num_items, found.num_queries, found.num_anchors, found.k) == (60, 60, 12, 5)


def test_translation_counts_unless_centred():
    rows = cloud(shift=0)
    moved = rows + 2
    assert compare_spaces(rows, moved, 12, k=5).jaccard < 0.8
    assert compare_spaces(rows, moved, 12, k=5, center=True).jaccard == pytest.approx(1.0)


def test_the_figures_equal_the_loops():
    x, y = cloud(40), cloud(40, 5, seed=1) + 0.5 * cloud(40)[:, :5]
    anchors = AnchorSet.select(x, 6)
    found = compare_spaces(x, y, anchors, k=4)
    r_x = relative_coordinates(x, x[anchors.indices])
    r_y = relative_coordinates(y, y[anchors.indices])
    across, home = unit(r_x) @ unit(r_y).T, unit(r_x) @ unit(r_x).T
    jaccard, ranks, overlap = [], [], []
    for i in range(40):
        a, b = set(np.argsort(-home[i])[:4]), set(np.argsort(-across[i])[:4])
        jaccard.append(len(a & b) / len(a | b))
        ranks.append(1 / (1 + np.flatnonzero(np.argsort(-across[i]) == i)[0]))
        own, other = -(unit(x) @ unit(x)[i]), -(unit(y) @ unit(y)[i])
        own[i] = other[i] = np.inf
        a, b = set(np.argsort(own)[:4]), set(np.argsort(other)[:4])
        overlap.append(len(a & b) / len(a | b))
    assert found.jaccard == pytest.approx(np.mean(jaccard))
    assert found.mrr == pytest.approx(np.mean(ranks))
    assert found.overlap == pytest.approx(np.mean(overlap))
    assert found.cosine == pytest.approx(np.mean(np.sum(unit(r_x) * unit(r_y), axis=1)))
    assert found.mse == pytest.approx(np.mean((r_x - r_y) ** 2))


def test_the_kth_largest_of_long_rows_is_the_one_of_sorting():
    from embedlab.understand.relative.comparison import _kth_largest

    rng = np.random.default_rng(0)
    for num, k in ((130, 1), (1283, 10), (2000, 5)):
        scores = rng.normal(size=(7, num)).round(1)  # many ties
        scores[3, 4] = -np.inf
        assert_allclose(_kth_largest(scores, k), np.sort(scores, axis=1)[:, -k])


def test_cka_and_svcca_equal_their_definitions():
    x, y = cloud(50), cloud(50, 5, seed=1) + 0.7 * cloud(50)[:, :5]
    found = compare_spaces(x, y, 6)
    centring = np.eye(50) - 1 / 50
    k, m = centring @ (x @ x.T) @ centring, centring @ (y @ y.T) @ centring
    cka = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert found.cka == pytest.approx(cka) == linear_cka(x, y)
    kept = []
    for rows in (x, y):
        left, values, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        num = np.searchsorted(np.cumsum(values**2) / np.sum(values**2), 0.99) + 1
        kept.append(left[:, :num])
    correlations = np.linalg.svd(kept[0].T @ kept[1], compute_uv=False)
    assert found.svcca == pytest.approx(correlations.mean())


def test_a_constant_encoder_is_at_chance():
    rows = cloud(50)
    same = np.ones((50, 4))
    anchors = (rows[:6], cloud(6, 4, seed=2))
    with pytest.raises(InputError, match="all rows of y are equal"):
        compare_spaces(rows, same, anchors)
    same[7] = [1, 2, 3, 4]
    found = compare_spaces(rows, same, anchors, k=5)
    assert found.mrr < 0.1  # 49 equal rows share the middle rank, 25; nothing is won by their order
    assert found.overlap == pytest.approx(5 / 49, abs=0.03)


def test_many_rows_are_compared_without_a_square_matrix():
    rows = cloud(20_000, 16).astype(np.float32)
    other = rows @ turn(16).astype(np.float32)
    tracemalloc.start()
    found = compare_spaces(rows, other, 32, max_queries=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.num_queries == 200
    assert found.mrr == pytest.approx(1.0)
    assert peak < 20_000 * 20_000 / 4  # bytes: a sixteenth of one matrix of similarities


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: compare_spaces(cloud(), cloud(59), 5), "x has 60 rows and y 59"),
        (lambda: compare_spaces(cloud(), cloud(), 61), "k=61"),
        (lambda: compare_spaces(cloud(), cloud(), 5, k=60), "k=60"),
        (lambda: compare_spaces(cloud(), cloud(), "many"), "anchors='many'"),
        (lambda: compare_spaces(cloud(), cloud(), (cloud(3), cloud(4))), "equal length"),
        (lambda: compare_spaces(cloud(), np.full((60, 3), np.nan), 5), "y: row 0"),
        (lambda: compare_spaces(cloud(), cloud(), 5, max_queries=0), "max_queries"),
        (lambda: compare_spaces(cloud(), np.ones((60, 3)), 5), "equal"),
    ],
)
def test_bad_spaces_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


# searching across encoders


class Table:
    """An encoder that looks vectors up by text."""

    name, fingerprint = "table", "table:1"

    def __init__(self, texts, rows):
        self.dim = rows.shape[1]
        self._rows = dict(zip(texts, rows.astype(np.float32), strict=True))
        self.encoded = 0

    def encode_document(self, texts, *, batch_size=32, on_progress=None):
        self.encoded += len(texts)
        return np.stack([self._rows[text] for text in texts])

    def encode_query(self, texts):
        return np.stack([self._rows[text] for text in texts])


TEXTS = [f"text {i}" for i in range(400)]


@pytest.fixture
def spaces():
    old = unit(cloud(400, 12, shift=0.3)).astype(np.float32)
    return old, Table(TEXTS, 2 * old @ turn(12, seed=1))


@pytest.mark.parametrize("method", ["relative", "procrustes", "least_squares", "best"])
def test_a_turned_index_is_searched_as_if_embedded_anew(spaces, method):
    old, new = spaces
    index = migrate_index(old, TEXTS, new, num_anchors=60, num_checked=100, method=method)
    rows, scores = index.search(["text 5", "text 17"], top_k=10)
    again = unit(new.encode_document(TEXTS)) @ unit(new.encode_query(["text 5", "text 17"])).T
    assert [row[0] for row in rows] == [5, 17]
    shared = [len(set(rows[q]) & set(np.argsort(-again[:, q])[:10])) for q in range(2)]
    assert min(shared) >= 6  # centring, and projecting, weigh neighbours a little otherwise than the cosine does
    assert (np.diff(scores, axis=1) <= 0).all()
    assert index.recall.by_method[index.method] > 0.6
    assert index.recall.old_encoder == pytest.approx(1.0)  # the same space: its own neighbours are right
    assert index.recall.chance == pytest.approx(10 / 99)


def test_only_anchors_and_the_check_are_embedded(spaces):
    old, new = spaces
    migrate_index(old, TEXTS, new, num_anchors=60, num_checked=100)
    assert new.encoded == 160


def test_carrying_the_query_back_equals_comparing_relative_vectors(spaces):
    old, new = spaces
    index = migrate_index(old, TEXTS, new, num_anchors=60, num_checked=100, method="relative")
    anchors = index.anchors
    ours = relative_coordinates(old, old[anchors.indices], mean=old.mean(axis=0))
    anchors_new = new.encode_document(anchors.texts)
    query = new.encode_query(["text 9"])
    theirs = relative_coordinates(query, anchors_new, mean=anchors_new.mean(axis=0))
    expected = (unit(ours) @ unit(theirs).T)[:, 0]
    rows, scores = index.search(query, top_k=400)
    assert_allclose(scores[0], expected[rows[0]], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_anchors": 395}, "take fewer anchors"),
        ({"method": "magic"}, "unknown method"),
        ({"k": 0}, "k=0"),
        ({"num_checked": 5}, "num_checked=5"),
    ],
)
def test_a_bridge_that_cannot_be_is_refused(spaces, options, says):
    old, new = spaces
    with pytest.raises(InputError, match=says):
        migrate_index(old, TEXTS, new, **options)


def test_bad_queries_are_refused(spaces):
    old, new = spaces
    index = migrate_index(old, TEXTS, new, num_anchors=60, num_checked=50)
    for queries, says in (("one text", "put it into a list"), (np.ones((1, 5)), "expected 12")):
        with pytest.raises(InputError, match=says):
            index.search(queries)
    with pytest.raises(InputError, match="top_k"):
        index.search(["text 1"], top_k=0)
    with pytest.raises(InputError, match="texts has 399"):
        migrate_index(old, TEXTS[1:], new)


# the command line


@pytest.fixture
def collection(tmp_path, monkeypatch):
    from embedlab.search import Collection

    things = ["card", "transfer", "account", "loan", "exchange rate", "cash machine", "app", "refund"]
    verbs = ["arrive", "fail", "close", "cost", "change", "work", "appear", "expire"]
    texts = [f"When does my {thing} {verb} in case {i}?" for i, thing in enumerate(things) for verb in verbs]
    path = tmp_path / "bank"
    made = Collection.create(path)
    made.add([{"text": text, "source": f"doc{i}", "title": text[:20]} for i, text in enumerate(texts)])
    vectors = np.random.default_rng(0).normal(size=(4096, 16)).astype(np.float32)

    class Words:
        name, dim, fingerprint = "words", 16, "words:1"

        def encode_document(self, texts, *, batch_size=32, on_progress=None):
            return np.stack([sum(vectors[sum(word.encode()) % 4096] for word in text.split()) for text in texts])

        encode_query = encode_document

    monkeypatch.setattr("embedlab.models.load_model", lambda name: Words())
    return path


def invoke(*args):
    from typer.testing import CliRunner

    from embedlab.cli.relative import app

    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_a_collection_is_searched_with_another_model(collection):
    common = ("search", collection, "When does my loan expire in case 3?", "--model", "words", "--anchors", 30)
    found = json.loads(invoke(*common, "--check", 20, "--json", "-k", 3).stdout)
    assert len(found["hits"]) == 3
    assert "loan" in " ".join(hit["text"] for hit in found["hits"])
    assert found["anchors"] == 30
    assert set(found["recall"]) == {"relative", "procrustes", "least_squares"}
    assert found["chance"] == pytest.approx(10 / 19)
    shown = invoke(*common, "--check", 20, "--method", "relative")
    assert "1. " in shown.stdout
    assert "estimated on 20 passages" in shown.stderr
    assert "the collection's own model finds" in shown.stderr


def test_two_models_are_compared_on_a_collection(collection):
    found = json.loads(invoke("compare", collection, "--model", "words", "--anchors", 20, "--json").stdout)
    assert found["num_items"] == 64
    assert 0 < found["overlap"] < 1
    assert "linear CKA" in invoke("compare", collection, "--model", "words", "--anchors", 20).stdout
