"""Compressed collections: what they find, what they hold, and that codes stay in step with everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedlab._core.errors import CollectionError, InputError
from embedlab.search import Collection, compress_collection, undo_compression
from embedlab.search.codecs import codec_names
from embedlab.search.compression import rewriting
from embedlab.search.compression.column import CODE, CodeColumn, codes_of
from embedlab.search.compression.compressing import VERIFY
from embedlab.search.store import VECTOR

from ..tiny_model import HashingEncoder
from .corpus import documents

PLAIN = ("float32", "float16", "int8", "binary", "rotation")
QUERIES = [str(each["text"]).split(". ")[2] for each in documents(12)]


def ranking(collection: Collection, **options: object) -> list[list[str]]:
    return [[hit.id for hit in collection.search(query, **options)] for query in QUERIES]  # type: ignore[arg-type]


def demand_in_step(collection: Collection) -> None:
    """Every vector has the code that the stored codec makes of it, and only those have one."""
    store = collection._tables()
    column = store.coded()
    assert column is not None
    codec = store.codec(column)
    for rows in rewriting.rows_of(store, [VECTOR, CODE]):
        vectors = store.vectors_in(rows)
        codes, there = codes_of(rows[CODE], column.bytes_per_vector)
        np.testing.assert_array_equal(there, vectors.any(axis=1))
        np.testing.assert_array_equal(codes[there], codec.encode(vectors[there]))


@pytest.mark.parametrize("codec", PLAIN)
def test_verified_candidates_give_what_exact_search_gives(
    collection: Collection, encoder: HashingEncoder, codec: str
) -> None:
    options = [{"mode": "dense"}, {}, {"filter": "lang = 'en'"}, {"per_document": True}, {"mode": "lexical"}]
    before = [ranking(collection, **each) for each in options]
    alike = [hit.id for hit in collection.similar(before[0][0][0], 5, filter="lang = 'de'")]
    report = compress_collection("c", codec=codec, verify=len(collection), model=encoder)
    assert [ranking(collection, **each) for each in options] == before
    assert [hit.id for hit in collection.similar(before[0][0][0], 5, filter="lang = 'de'")] == alike
    assert report.after.recall == report.before.recall == 1.0
    assert report.recall_of_codes > (0.3 if codec == "binary" else 0.6)
    assert report.passages == len(collection)
    assert report.after.bytes_per_passage <= report.before.bytes_per_passage
    demand_in_step(collection)


def test_codes_alone_find_most_and_no_vector_is_read(
    collection: Collection, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ranking(collection, mode="dense")
    report = compress_collection("c", codec="int8", verify=0, model=encoder)
    monkeypatch.setattr(type(collection._latest()), "_read", lambda *_: pytest.fail("a vector was read"))
    after = ranking(collection, mode="dense")
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(before, after, strict=True)])
    assert kept > 0.9
    assert report.after.recall == report.recall_of_codes > 0.9
    hit = collection.search(QUERIES[0], explain=True)[0]
    assert abs(hit.parts["cosine"]) <= 1.01


def test_every_codec_there_is_compresses_a_collection(collection: Collection, encoder: HashingEncoder) -> None:
    """Learned ones as well; those whose extra is missing are not listed."""
    for name in set(codec_names()) - set(PLAIN) - {"bebr", "contrastive_pq", "opq", "pq", "rabitq"}:
        report = compress_collection("c", codec=name, model=encoder)
        assert report.codec.startswith(f"{name}:")
    assert ranking(collection, mode="dense")[0]


def test_without_vectors_everything_reads_codes(
    collection: Collection, encoder: HashingEncoder, tmp_path: Path
) -> None:
    ids, vectors = collection.vectors()
    size = collection._tables().stats("total_bytes")
    before = ranking(collection)
    report = compress_collection("c", codec="int8", drop_vectors=True, model=encoder)
    assert not report.vectors_kept
    assert report.verify == 0
    assert VECTOR not in collection._tables().passages.schema.names
    assert report.after.bytes_on_disk < size  # the vectors' bytes are gone from the files, not hidden in them
    now, decoded = collection.vectors()
    assert sorted(now) == sorted(ids)
    where = [now.index(each) for each in ids]
    assert float(np.vecdot(decoded[where], vectors).min()) > 0.98
    assert [each[0] for each in ranking(collection)] == [each[0] for each in before]
    assert collection.similar(ids[0], 3)
    collection.export(tmp_path / "out.parquet")
    exported = pq.read_table(tmp_path / "out.parquet")
    assert not [name for name in exported.column_names if name.startswith("_")]
    rows = np.stack(exported["vector"].to_pylist()).astype(np.float32)
    np.testing.assert_allclose(rows, decoded[[now.index(each) for each in exported["id"].to_pylist()]], atol=1e-6)
    collection.add(documents(5, seed=9, name="late"))
    assert collection.search(str(documents(5, seed=9)[0]["text"]))[0].source == "late0"
    assert not collection.info().vectors_kept


def test_undo_brings_the_vectors_back_or_embeds_again(collection: Collection, encoder: HashingEncoder) -> None:
    before, vectors = ranking(collection), dict(zip(*collection.vectors(), strict=True))
    compress_collection("c", codec="int8", model=encoder)
    assert undo_compression("c", model=encoder).embedded == 0
    assert ranking(collection) == before
    compress_collection("c", codec="int8", drop_vectors=True, model=encoder)
    collection.add(documents(3, seed=5, name="late"))
    assert undo_compression("c", model=encoder).embedded == len(collection)
    again = dict(zip(*collection.vectors(), strict=True))
    for name, vector in vectors.items():
        np.testing.assert_array_equal(again[name], vector)
    assert len(again) == len(vectors) + 6
    assert collection._tables().coded() is None
    with pytest.raises(CollectionError, match="not compressed"):
        undo_compression("c", model=encoder)


def test_writing_keeps_codes_in_step_in_the_same_commit(
    collection: Collection, encoder: HashingEncoder, tmp_path: Path
) -> None:
    compress_collection("c", codec="int8", model=encoder)
    table = collection._tables().passages
    start = table.version
    collection.add(documents(30, seed=2, name="late"))
    for version in range(start + 1, table.version + 1):  # every commit on the way, not only the last
        at = collection._tables()._db.open_table("passages")
        at.checkout(version)
        assert at.count_rows(f"{CODE} IS NULL AND content != ''") == 0
    demand_in_step(collection)
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Zebra quagga okapi tapir.")
    (folder / "empty.txt").write_text("")
    collection.index(folder)
    assert collection.search("zebra quagga okapi tapir.", mode="dense")[0].source == "a.txt"
    (folder / "a.txt").write_text("Gnu gazelle giraffe.")
    collection.index(folder)
    assert collection.search("gnu gazelle giraffe.", mode="dense")[0].source == "a.txt"
    demand_in_step(collection)
    assert collection.delete([f"late{n}" for n in range(30)]) == 30
    assert not any(hit.source.startswith("late") for hit in collection.search(QUERIES[0], top_k=200, mode="dense"))
    collection._tables().compact()
    demand_in_step(collection)
    assert collection.search("gnu gazelle giraffe.", mode="dense")[0].source == "a.txt"


def test_zero_vectors_have_no_code_and_are_near_to_nothing(encoder: HashingEncoder) -> None:
    collection = Collection.create("z", model=encoder)
    collection.add([*documents(60), {"source": "blank", "text": "", "title": ""}])
    compress_collection("z", codec="int8", model=encoder)
    assert collection._tables().passages.count_rows(f"{CODE} IS NULL") == 1
    assert len(collection.search(QUERIES[0], top_k=1000, mode="dense")) == len(collection)


def test_another_codec_replaces_the_first_and_only_its_codec_is_kept(
    collection: Collection, encoder: HashingEncoder
) -> None:
    first = compress_collection("c", codec="int8", model=encoder)
    second = compress_collection("c", codec="float16", verify=7, model=encoder)
    third = compress_collection("c", codec="binary", model=encoder)
    assert second.before.bytes_per_passage == first.after.bytes_per_passage
    info = Collection.open("c").info()
    assert (info.codec, info.verify, info.schema_version) == (third.codec, VERIFY, 2)
    assert len(list((Path(collection.path) / "codecs").iterdir())) == 2  # readers may hold the version before
    names = collection._tables().passages.schema.names
    assert [name for name in names if name.startswith("_")] == [CODE]


def test_metadata_called_code_and_filters_are_left_alone(collection: Collection, encoder: HashingEncoder) -> None:
    compress_collection("c", codec="int8", model=encoder)
    assert {hit.metadata["code"] for hit in collection.search(QUERIES[0], top_k=50, filter="code = 3")} == {3}
    assert "_code" not in collection.info().columns
    with pytest.raises(InputError, match="can't be used"):
        collection.search("a", filter="nothing = 1")


def test_one_process_sees_what_another_has_compressed(collection: Collection, encoder: HashingEncoder) -> None:
    other = Collection.open("c", model=HashingEncoder())
    before = ranking(other)
    compress_collection("c", codec="int8", verify=len(collection), model=encoder)
    assert ranking(other) == before
    assert other._latest().coded is not None
    other.add(documents(3, seed=4, name="late"))
    demand_in_step(other)


def test_progress_goes_from_learning_to_the_end(collection: Collection, encoder: HashingEncoder) -> None:
    told: list[tuple[str, float]] = []
    tell = lambda phase, share: told.append((phase, share))  # noqa: E731
    compress_collection("c", codec="int8", drop_vectors=True, model=encoder, on_progress=tell)
    phases = list(dict.fromkeys(phase for phase, _ in told))
    assert phases == ["learning", "encoding", "verifying", "rewriting"]
    assert all(0.0 <= share <= 1.0 for _, share in told)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"codec": "int9"}, InputError, "did you mean 'int8'"),
        ({"codec": "int8", "verify": -1}, InputError, "verify=-1"),
        ({"codec": "int8", "verify": 5, "drop_vectors": True}, InputError, "nothing to verify by"),
        ({"codec": "int8", "dim": 16}, InputError, "code_dim"),
        ({"codec": "int8", "bits": 3}, InputError, "bits"),
    ],
)
def test_what_is_not_allowed_is_refused_and_changes_nothing(
    collection: Collection, encoder: HashingEncoder, options: dict[str, object], error: type[Exception], words: str
) -> None:
    version = collection.version
    with pytest.raises(error, match=words):
        compress_collection("c", model=encoder, **options)  # type: ignore[arg-type]
    assert collection.version == version


def test_an_empty_collection_and_one_without_vectors_say_what_to_do(
    collection: Collection, encoder: HashingEncoder
) -> None:
    Collection.create("empty", model=encoder)
    with pytest.raises(CollectionError, match="index documents first"):
        compress_collection("empty", codec="int8", model=encoder)
    compress_collection("c", codec="int8", drop_vectors=True, model=encoder)
    with pytest.raises(CollectionError, match="--undo"):
        compress_collection("c", codec="float16", model=encoder)


def test_small_commits_and_rewritten_rows_give_the_same(
    collection: Collection, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ranking(collection)
    monkeypatch.setattr(rewriting, "_COMMIT_BYTES", 500)
    monkeypatch.setattr(rewriting, "_READ_ROWS", 16)
    rows = collection._tables().scan(["id"]).num_rows
    start = collection.version
    compress_collection("c", codec="int8", verify=rows, model=encoder)
    assert collection.version - start > rows // 32  # committed in many pieces
    assert ranking(collection) == before
    demand_in_step(collection)


@pytest.mark.parametrize("commit_bytes", [500, 1 << 20])
def test_rows_and_the_text_index_stay_in_place_while_codes_are_written(
    collection: Collection, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch, commit_bytes: int
) -> None:
    """What a later Lance might do in another way: then searches slow down, but nothing is lost."""
    monkeypatch.setattr(rewriting, "_COMMIT_BYTES", commit_bytes)
    monkeypatch.setattr(rewriting, "_READ_ROWS", 16)
    collection.add(documents(40, seed=3, name="more"))
    store = collection._tables()
    before = [store.passages.search().select(["id"]).with_row_id(True).limit(None).to_arrow(), store.unindexed_rows()]
    compress_collection("c", codec="int8", model=encoder)
    after = [store.passages.search().select(["id"]).with_row_id(True).limit(None).to_arrow(), store.unindexed_rows()]
    assert after == before


def test_the_column_says_what_it_is(collection: Collection, encoder: HashingEncoder) -> None:
    report = compress_collection("c", codec="int8", verify=12, model=encoder)
    said = CodeColumn.of(collection._tables().passages.schema)
    assert said is not None
    assert (said.codec, said.model, said.verify) == (report.codec, encoder.fingerprint, 12)
    assert CodeColumn.of(collection._tables().passages.schema, "nothing") is None
