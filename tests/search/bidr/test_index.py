"""Two grains: the same answers as an in-memory re-ranking, bounded reads, and files that must belong together."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.search.bidr import BiGranularIndex, ContrastivePQCodec, TwoStageError, VectorFile, VectorTable
from embedlab.search.bidr.partitions import (
    PartitionedScanner,
    ProductScanner,
    assign_partitions,
    learn_partitions,
)
from embedlab.search.codecs import CodecError

pytest.importorskip("faiss")
DIM, COUNT = 16, 700


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return unit(np.random.default_rng(0).normal(size=(COUNT, DIM)))


@pytest.fixture(scope="module")
def queries():
    return unit(np.random.default_rng(1).normal(size=(5, DIM)))


@pytest.fixture(scope="module")
def codec(vectors):
    return ContrastivePQCodec(DIM, parts=4, centroids=16, opq_iterations=3, steps=3, batch_size=32).fit(vectors)


@pytest.fixture
def folder(tmp_path, codec, vectors):
    BiGranularIndex.build(tmp_path / "index", codec, vectors)
    return tmp_path / "index"


def by_hand(codec, vectors, queries, top_k, candidates, weight=0.0, allowed=None):
    """The same two steps in memory, sorted in full."""
    allowed = np.ones(len(vectors), bool) if allowed is None else allowed
    rows = []
    for query in queries:
        coarse = codec.decode(codec.encode(vectors)) @ query
        chosen = [row for row in np.argsort(-coarse, kind="stable") if allowed[row]][:candidates]
        rows.append(sorted(chosen, key=lambda row: -(vectors[row] @ query + weight * coarse[row]))[:top_k])
    return np.array(rows)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_answers_are_those_of_a_re_ranking_in_memory(folder, codec, vectors, queries, weight):
    index = BiGranularIndex.open(folder)
    scores, rows = index.search(queries, top_k=10, candidates=60, sparse_weight=weight)
    assert_array_equal(rows, by_hand(codec, vectors, queries, 10, 60, weight))
    coarse = codec.score(queries, codec.encode(vectors))
    expected = np.take_along_axis(queries @ vectors.T + weight * coarse, rows, axis=1)
    assert_allclose(scores, expected, atol=1e-5)


def test_all_candidates_are_full_float_search(folder, vectors, queries):
    _, rows = BiGranularIndex.open(folder).search(queries, top_k=10, candidates=COUNT)
    assert_array_equal(rows, np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10])


def test_two_encoders_have_two_queries(tmp_path, codec, vectors, queries):
    dense = unit(np.random.default_rng(2).normal(size=(COUNT, 24)))
    asked = unit(np.random.default_rng(3).normal(size=(5, 24)))
    index = BiGranularIndex.build(tmp_path / "two", codec, dense, sparse_vectors=vectors)
    scores, rows = index.search(asked, top_k=3, candidates=50, sparse_queries=queries)
    chosen = by_hand(codec, vectors, queries, 50, 50)
    for query in range(5):
        assert set(rows[query]) <= set(chosen[query])
        assert scores[query, 0] == pytest.approx(max(dense[chosen[query]] @ asked[query]), abs=1e-5)


def test_memory_is_the_codes_and_reads_are_the_candidates(folder, queries):
    index = BiGranularIndex.open(folder)
    before = index.cost
    assert before.memory_bytes == COUNT * 2
    index.search(queries, top_k=5, candidates=40)
    index.search(queries[0], top_k=5, candidates=0)
    after = index.cost
    assert after.queries - before.queries == 6
    assert after.candidates - before.candidates == 5 * 40
    assert after.bytes_read - before.bytes_read == 5 * 40 * 4 * DIM
    assert after.memory_bytes == before.memory_bytes


def test_codes_alone_answer_without_reading(folder, codec, vectors, queries):
    index = BiGranularIndex.open(folder)
    scores, rows = index.search(queries, top_k=4, candidates=0)
    expected = np.sort(codec.score(queries, codec.encode(vectors)), axis=1)[:, ::-1][:, :4]
    assert_allclose(scores, expected, atol=1e-5)
    assert rows.shape == (5, 4)


@pytest.mark.parametrize("lists", [0, 8])
def test_only_allowed_rows_come_back(tmp_path, codec, vectors, queries, lists):
    index = BiGranularIndex.build(tmp_path / "parted", codec, vectors, lists=lists, probes=8)
    allowed = np.arange(COUNT) % 3 == 0
    _, rows = index.search(queries, top_k=10, candidates=50, allowed=allowed)
    assert_array_equal(rows, by_hand(codec, vectors, queries, 10, 50, allowed=allowed))
    few = np.arange(COUNT) < 3
    scores, rows = index.search(queries, top_k=5, candidates=5, allowed=few)
    assert (rows[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_blocks_do_not_show(tmp_path, codec, dtype):
    many = unit(np.random.default_rng(5).normal(size=(40_000, DIM)))
    index = BiGranularIndex.build(tmp_path / "many", codec, many, dtype=dtype)
    rows = np.array([0, 16_383, 16_384, 39_999])
    _, found = index.search(many[rows], top_k=1, candidates=200)
    assert_array_equal(found[:, 0], rows)
    stored = np.load(tmp_path / "many" / "vectors.npy")
    assert stored.dtype == dtype
    assert_array_equal(stored, many.astype(dtype))


def test_vectors_may_stay_where_they_are(tmp_path, codec, vectors, queries):
    np.save(tmp_path / "mine.npy", vectors)
    built = BiGranularIndex.build_beside(tmp_path / "beside", codec, tmp_path / "mine.npy")
    opened = BiGranularIndex.open(tmp_path / "beside", vectors=tmp_path / "mine.npy")
    for index in (built, opened):
        assert_array_equal(index.search(queries, candidates=60)[1], by_hand(codec, vectors, queries, 10, 60))
    assert not (tmp_path / "beside" / "vectors.npy").exists()


# LanceDB


@pytest.fixture
def table(tmp_path, vectors):
    import lancedb
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    data = pa.table({"row": pa.array(range(COUNT)), "vector": column, "text": ["words"] * COUNT})
    return lancedb.connect(tmp_path / "lance").create_table("vectors", data)


def test_lancedb_gives_the_same_answers(tmp_path, table, codec, vectors, queries):
    index = BiGranularIndex.build_beside(tmp_path / "beside", codec, table)
    before = index.cost
    assert_array_equal(index.search(queries, candidates=60)[1], by_hand(codec, vectors, queries, 10, 60))
    assert index.cost.candidates - before.candidates == 300
    assert index.cost.bytes_read - before.bytes_read == 300 * 4 * DIM


def test_a_table_whose_rows_moved_is_refused(tmp_path, table, codec, queries):
    index = BiGranularIndex.build_beside(tmp_path / "beside", codec, table)
    table.delete("row = 3")
    with pytest.raises(TwoStageError, match=r"699.*was built of.*700"):
        BiGranularIndex.open(tmp_path / "beside", vectors=table)
    with pytest.raises(TwoStageError, match="rows have moved"):
        index.search(queries, candidates=COUNT)


def test_a_table_without_the_columns_is_refused(tmp_path):
    import lancedb

    table = lancedb.connect(tmp_path).create_table("other", [{"id": 1, "vector": [1.0, 2.0]}])
    with pytest.raises(TwoStageError, match="'row' and 'vector'"):
        VectorTable(table)


def test_rows_come_in_the_order_asked_for(table, tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors)
    rows = np.array([5, 699, 0, 5, 17])
    assert_array_equal(VectorFile(tmp_path / "v.npy").read(rows), vectors[rows])
    assert_array_equal(VectorTable(table).read(rows[[0, 1, 2, 4]]), vectors[rows[[0, 1, 2, 4]]])


# scans


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("threads", [None, 2])
def test_shards_change_nothing(codec, vectors, queries, shards, threads):
    codes = codec.encode(vectors)
    scanner = ProductScanner(codec, codes[:100], shards=shards)
    scanner.add(codes[100:101])
    scanner.add(codes[101:])
    scores, rows = scanner.search(queries, 50, threads=threads)
    exact = codec.score(queries, codes)
    assert_allclose(scores, np.take_along_axis(exact, rows, axis=1), atol=1e-5)
    assert_allclose(scores, -np.sort(-exact, axis=1)[:, :50], atol=1e-5)
    assert len(scanner) == COUNT


def test_threads_scan_large_sets_the_same(codec, vectors, queries):
    codes = np.tile(codec.encode(vectors), (20, 1))
    one, two = (ProductScanner(codec, codes, shards=2).search(queries, 30, threads=n) for n in (1, 2))
    assert_array_equal(one[1], two[1])
    assert_array_equal(one[0], two[0])


def test_all_partitions_are_the_whole(codec, vectors, queries):
    codes = codec.encode(vectors)
    centroids = learn_partitions(codec, codes, lists=12)
    assigned = assign_partitions(codec, codes, centroids)
    whole, parts = ProductScanner(codec, codes), PartitionedScanner(codec, codes, centroids, assigned, probes=12)
    assert_allclose(parts.search(queries, 20)[0], whole.search(queries, 20)[0], atol=1e-5)
    grown = PartitionedScanner(codec, codes[:300], centroids, assigned[:300], probes=12)
    grown.add(codes[300:])
    assert_array_equal(grown.search(queries, 20)[1], parts.search(queries, 20)[1])
    fewer = PartitionedScanner(codec, codes, centroids, assigned, probes=3).search(queries, 20)
    assert_allclose(fewer[0], np.take_along_axis(codec.score(queries, codes), fewer[1], axis=1), atol=1e-5)
    assert parts.memory_bytes == COUNT * (2 + 8) + 12 * 4 * DIM


def test_partitions_are_kept_and_their_number_is_checked(tmp_path, codec, vectors, queries):
    built = BiGranularIndex.build(tmp_path / "parted", codec, vectors, lists=8, probes=8)
    opened = BiGranularIndex.open(tmp_path / "parted", probes=8)
    assert_array_equal(opened.search(queries)[1], built.search(queries)[1])
    assert opened.cost.memory_bytes == COUNT * (2 + 8) + 8 * 4 * DIM
    spoil(tmp_path / "parted" / "partitions.npy")
    with pytest.raises(TwoStageError, match="partitions"):
        BiGranularIndex.open(tmp_path / "parted")
    with pytest.raises(InputError, match="lists=800"):
        BiGranularIndex.build(tmp_path / "too-many", codec, vectors, lists=800)


# files that do not belong together


def test_it_survives_being_moved_and_opened_again(folder, tmp_path, queries):
    first = BiGranularIndex.open(folder).search(queries)
    shutil.move(folder, tmp_path / "elsewhere")
    again = BiGranularIndex.open(tmp_path / "elsewhere").search(queries)
    assert_array_equal(first[1], again[1])
    assert_array_equal(first[0], again[0])


def spoil(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)


FAULTS = {
    "no index": (lambda f: shutil.rmtree(f), TwoStageError, "no two-stage index"),
    "no vectors": (lambda f: (f / "vectors.npy").unlink(), TwoStageError, "full vectors is missing"),
    "no codes": (lambda f: (f / "codes.npy").unlink(), TwoStageError, "codes.npy is missing"),
    "no codec": (lambda f: shutil.rmtree(f / "codec"), CodecError, "codec"),
    "codes damaged": (lambda f: spoil(f / "codes.npy"), TwoStageError, "checksum"),
    "codes cut": (lambda f: os.truncate(f / "codes.npy", 200), TwoStageError, "damaged"),
    "vectors cut": (lambda f: os.truncate(f / "vectors.npy", 500), TwoStageError, "cut short"),
    "record damaged": (lambda f: (f / "index.json").write_text("{"), TwoStageError, "damaged"),
    "later form": (lambda f: (f / "index.json").write_text('{"format": "9"}'), TwoStageError, "later release"),
    "another width": (
        lambda f: np.save(f / "vectors.npy", np.zeros((COUNT, DIM + 1), np.float32)),
        TwoStageError,
        "was built of",
    ),
    "another count": (
        lambda f: np.save(f / "vectors.npy", np.zeros((COUNT - 1, DIM), np.float32)),
        TwoStageError,
        "was built of",
    ),
    "other vectors": (
        lambda f: np.save(f / "vectors.npy", np.ones((COUNT, DIM), np.float32)),
        TwoStageError,
        "not those",
    ),
    "another type": (lambda f: np.save(f / "vectors.npy", np.zeros((COUNT, DIM))), TwoStageError, "float16"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(folder, fault):
    harm, error, says = FAULTS[fault]
    harm(folder)
    with pytest.raises(error, match=says):
        BiGranularIndex.open(folder)


def test_codes_of_another_codec_are_refused(folder, vectors):
    other = ContrastivePQCodec(DIM, parts=4, centroids=16, opq_iterations=2, steps=0, batch_size=32, seed=9)
    other.fit(vectors).save(folder / "codec")
    with pytest.raises(CodecError, match="codes were made by"):
        BiGranularIndex.open(folder)


def test_codes_and_vectors_of_different_length_are_refused(codec, vectors, tmp_path):
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(TwoStageError, match="699 codes but 700"):
        BiGranularIndex(codec, codec.encode(vectors[1:]), tmp_path / "v.npy")


def test_a_build_that_fails_leaves_the_old_index(folder, codec, vectors, queries):
    first = BiGranularIndex.open(folder).search(queries)[1]
    bad = vectors.copy()
    bad[-1] = np.nan
    with pytest.raises(InputError, match="finite"):
        BiGranularIndex.build(folder, codec, bad)
    assert_array_equal(BiGranularIndex.open(folder).search(queries)[1], first)
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_vectors_that_shrink_under_an_open_index_are_noticed(folder, queries):
    index = BiGranularIndex.open(folder)
    os.truncate(folder / "vectors.npy", 4096)
    with pytest.raises(TwoStageError, match="shorter"):
        index.search(queries, candidates=COUNT)


def test_what_the_page_cache_lacks_is_counted(folder, queries):
    index = BiGranularIndex.open(folder)
    index.search(queries, candidates=50)
    warm = index.cost.disk_reads
    index.search(queries, candidates=50)
    if warm < 0:
        pytest.skip("this system cannot tell")
    assert index.cost.disk_reads == warm
    assert json.loads((folder / "index.json").read_text())["count"] == len(index)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 20, "candidates": 10}, "candidates=10"),
        ({"candidates": 10_001}, "max_candidates=10000"),
        ({"queries": np.zeros((1, 3))}, "16 wide"),
        ({"sparse_queries": np.zeros((2, DIM))}, "as many"),
        ({"allowed": np.ones(3, bool)}, "allowed"),
    ],
)
def test_bad_arguments_are_refused(folder, queries, options, says):
    index = BiGranularIndex.open(folder)
    with pytest.raises(InputError, match=says):
        index.search(**{"queries": queries, **options})


@pytest.mark.parametrize("options", [{"probes": 0}, {"max_candidates": 0}])
def test_bad_settings_are_refused(folder, options):
    with pytest.raises(EmbedlabError, match=next(iter(options))):
        BiGranularIndex.open(folder, **options)
