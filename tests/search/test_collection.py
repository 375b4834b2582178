"""The collection's promises in the small: what goes in comes out, incrementally, with offsets, filters and reasons."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedlab._core.errors import CollectionError, InputError
from embedlab.data.documents import Block, Document
from embedlab.search import Collection, Progress, Settings, list_collections, remove_collection

from .tiny_model import HashingEncoder

ANIMALS = {
    "cat": "The cat sat on the mat and purred loudly.",
    "dog": "A dog was barking at the postman all morning.",
    "zebra": "Zebras have black and white stripes.",
}


@pytest.fixture
def animals(encoder: HashingEncoder) -> Collection:
    collection = Collection.create("animals", model=encoder)
    collection.add({"source": name, "text": text, "title": name.title()} for name, text in ANIMALS.items())
    return collection


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


# making and opening


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x".replace("/", "\\"), "a b", "-x", "ä", "a" * 101, "a\0b", ".hidden"]
)
def test_names_that_could_leave_the_home_are_refused(name: str, encoder: HashingEncoder) -> None:
    with pytest.raises(InputError, match="not allowed"):
        Collection.create(name, model=encoder)


def test_a_path_may_lie_anywhere(tmp_path: Path, encoder: HashingEncoder) -> None:
    collection = Collection.create(tmp_path / "deep" / "place", model=encoder)
    collection.add(["one text"])
    assert collection.name == "place"
    assert len(Collection.open(str(tmp_path / "deep" / "place"), model=encoder)) == 1
    assert list_collections() == []


def test_a_uri_is_handed_to_lance(tmp_path: Path, encoder: HashingEncoder) -> None:
    uri = f"file://{tmp_path}/bucket/notes"
    (tmp_path / "bucket" / "notes").mkdir(parents=True)
    collection = Collection.create(uri, model=encoder)
    collection.add(["one text"])
    found = Collection.open(uri, model=encoder)
    assert found.search("text")[0].text == "one text"
    assert found.info().bytes_on_disk is None
    remove_collection(uri)
    with pytest.raises(CollectionError, match="no collection at"):
        Collection.open(uri)


def test_creating_twice_needs_permission_and_the_same_model(animals: Collection, encoder: HashingEncoder) -> None:
    with pytest.raises(CollectionError, match="exists already"):
        Collection.create("animals", model=encoder)
    assert len(Collection.create("animals", model=encoder, exist_ok=True)) == 3
    other = HashingEncoder(salt="other", name="other-model")
    with pytest.raises(CollectionError) as caught:
        Collection.create("animals", model=other, exist_ok=True)
    for part in (encoder.fingerprint, other.fingerprint, "'hashing'", "'other-model'", "embedlab index"):
        assert part in str(caught.value)


def test_another_model_is_refused_on_opening(animals: Collection) -> None:
    with pytest.raises(CollectionError, match="two models can't be compared"):
        Collection.open("animals", model=HashingEncoder(dim=16))


def test_a_missing_collection_suggests_the_nearest(animals: Collection) -> None:
    with pytest.raises(CollectionError, match="did you mean 'animals'"):
        Collection.open("animal")


def test_a_damaged_or_newer_description_is_named(animals: Collection) -> None:
    description = Path(animals.path) / "collection.json"
    whole = description.read_text()
    description.write_text(whole.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(CollectionError, match="upgrade"):
        Collection.open("animals")
    description.write_text(whole[:40])
    with pytest.raises(CollectionError, match="damaged"):
        Collection.open("animals")
    assert list_collections() == []


def test_list_info_and_remove(animals: Collection) -> None:
    (info,) = list_collections()
    assert (info.name, info.documents, info.passages, info.dim) == ("animals", 3, 3, 32)
    assert info.bytes_on_disk
    assert info.formats == {"txt": 3}
    assert "title" in info.columns
    assert "vector" not in info.columns
    remove_collection("animals")
    assert list_collections() == []
    with pytest.raises(CollectionError):
        remove_collection("animals")


@pytest.mark.parametrize("bad", [{"weight": 1.5}, {"max_chars": 3}, {"overlap_chars": -1}, {"vector_type": "int4"}])
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        Settings(**bad)  # type: ignore[arg-type]


def test_the_weight_is_kept(animals: Collection, encoder: HashingEncoder) -> None:
    animals.configure(weight=0.25)
    assert Collection.open("animals", model=encoder).settings.weight == 0.25


# adding and deleting


def test_adding_again_embeds_nothing(animals: Collection, encoder: HashingEncoder) -> None:
    before = encoder.encoded
    report = animals.add([{"source": "cat", "text": ANIMALS["cat"], "title": "Cat"}])
    assert (report.added, report.changed, report.unchanged) == (0, 0, 1)
    assert encoder.encoded == before


def test_a_changed_document_replaces_all_its_passages(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder, settings=Settings(max_chars=60))
    long = " ".join(f"Sentence number {n} speaks of topic {n}." for n in range(12))
    collection.add([{"source": "a", "text": long}, {"source": "b", "text": "Another one."}])
    assert len(collection) > 4
    report = collection.add([{"source": "a", "text": "Short now."}])
    assert (report.added, report.changed) == (0, 1)
    assert sorted(p.text for p in collection.passages()) == ["Another one.", "Short now."]
    assert collection.search("topic", mode="lexical") == []


def test_texts_are_named_after_their_content(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    assert collection.add(["same", "same", "other"]).added == 2
    assert len(collection) == 2


def test_a_source_twice_in_one_call_keeps_the_last(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    collection.add([{"source": "a", "text": "first"}, {"source": "a", "text": "second"}])
    assert [p.text for p in collection.passages()] == ["second"]


def test_a_source_that_changes_back_within_a_batch_is_not_left_changed(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    collection.add([{"source": "a", "text": "first"}])
    collection.add([{"source": "a", "text": "second"}, {"source": "a", "text": "first"}])
    assert [p.text for p in collection.passages()] == ["first"]


@pytest.mark.parametrize("bad", [3, {"txt": "x"}, {"text": 3}, None, {"text": "x", "extra": 1}])
def test_what_is_no_document_is_named(bad: object, encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    with pytest.raises(InputError, match=r"documents\[0\]"):
        collection.add([bad])  # type: ignore[list-item]


def test_delete(animals: Collection) -> None:
    assert animals.delete(["cat", "unicorn"]) == 1
    assert {d.source for d in animals.documents()} == {"dog", "zebra"}
    assert animals.search("cat", mode="lexical") == []


def test_empty_documents_are_counted_but_never_found(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    report = collection.add([{"source": "empty", "text": ""}, {"source": "full", "text": "some words"}])
    assert (report.added, report.passages) == (2, 1)
    assert collection.add([{"source": "empty", "text": ""}]).unchanged == 1
    for mode in ("hybrid", "dense", "lexical"):
        hits = collection.search("some words", mode=mode)  # type: ignore[arg-type]
        assert [hit.source for hit in hits] == ["full"]
        assert np.isfinite(hits[0].score)
    assert len(collection) == 1
    assert collection.info().documents == 2
    assert np.isfinite(collection.vectors()[1]).all()


# search


def test_hits_carry_source_offsets_and_highlights(encoder: HashingEncoder) -> None:
    text = "Intro here.\n\nThe runner was running. He ran far away from home."
    blocks = (Block(0, 11), Block(13, len(text), ("Part one",), 7))
    collection = Collection.create("c", model=encoder)
    collection.add([Document("d.pdf", text, "Sports", "pdf", blocks=blocks, metadata={"lang": "en"})])
    hit = collection.search("runs", mode="lexical")[0]
    assert text[hit.start : hit.end] == hit.text
    assert (hit.source, hit.title, hit.page, hit.headings) == ("d.pdf", "Sports", 7, ("Part one",))
    assert [hit.text[a:b] for a, b in hit.highlights] == ["running"]
    assert hit.best_sentence is not None
    assert hit.text[slice(*hit.best_sentence)] == "The runner was running."
    assert hit.metadata == {"lang": "en"}


def test_title_and_headings_are_searched_but_not_shown(animals: Collection) -> None:
    collection = animals
    collection.add([Document("x", "Nothing of that word here.", "Aardvark", blocks=(Block(0, 26, ("Burrows",)),))])
    for word in ("aardvark", "burrows"):
        hit = collection.search(word, mode="lexical")[0]
        assert hit.text == "Nothing of that word here."


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_modes_find_the_obvious(animals: Collection, mode: str) -> None:
    hits = animals.search("black and white stripes", mode=mode, top_k=2)  # type: ignore[arg-type]
    assert hits[0].source == "zebra"
    assert hits == sorted(hits, key=lambda hit: -hit.score)
    if mode == "hybrid":
        assert 0.0 <= hits[-1].score <= hits[0].score <= 1.0


def test_dense_scores_are_the_cosine(animals: Collection, encoder: HashingEncoder) -> None:
    hit = animals.search("zebra stripes", mode="dense")[0]
    vector = dict(zip(*animals.vectors(), strict=True))[hit.id]
    assert hit.score == pytest.approx(float(vector @ encoder.encode_query(["zebra stripes"])[0]), abs=1e-3)


def test_explain_adds_up(animals: Collection) -> None:
    for hit in animals.search("dog barking stripes", explain=True, weight=0.3):
        parts = hit.parts
        blend = parts["weight"] * parts["cosine_normalised"] + (1 - parts["weight"]) * parts["bm25_normalised"]
        assert hit.score == pytest.approx(blend, abs=1e-5)
        assert parts["weight"] == pytest.approx(0.3)
    best = animals.search("dog barking", explain=True)[0]
    assert set(best.matched) == {"dog", "barking"}
    assert best.parts["lexical_rank"] == best.parts["dense_rank"] == 1


def test_weight_ends_are_the_single_modes(animals: Collection) -> None:
    query = "white cat barking"
    lexical = [hit.id for hit in animals.search(query, mode="lexical")]
    assert [hit.id for hit in animals.search(query, weight=0.0)][: len(lexical)] == lexical
    dense = [hit.id for hit in animals.search(query, mode="dense")]
    assert [hit.id for hit in animals.search(query, weight=1.0)] == dense


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_a_blank_query_finds_nothing(animals: Collection, query: str) -> None:
    assert animals.search(query) == []


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "cat AND",
        "+cat -dog",
        "title:cat",
        "cat*",
        "(((",
        "cat\0dog",
        "a' OR 1=1 --",
        "~2^3",
        "🦓",
        "the of and",
        "%_",
    ],
)
@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_odd_characters_are_only_characters(animals: Collection, query: str, mode: str) -> None:
    for hit in animals.search(query, mode=mode):  # type: ignore[arg-type]
        assert np.isfinite(hit.score)


def test_a_long_query_is_a_document_and_a_huge_one_refused(animals: Collection) -> None:
    text = "stripes " + " ".join(f"word{n}" for n in range(5000))
    assert animals.search(text, mode="lexical")[0].source == "zebra"
    assert len(animals.search(text)) == 3
    with pytest.raises(InputError, match="100001 characters"):
        animals.search("x" * 100_001)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": True}, "top_k"),
        ({"top_k": 2.0}, "top_k"),
        ({"mode": "fuzzy"}, "hybrid, dense, lexical"),
        ({"weight": 2}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"filter": " "}, "filter is empty"),
    ],
)
def test_wrong_arguments_are_named(animals: Collection, wrong: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        animals.search("cat", **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="query"):
        animals.search(3)  # type: ignore[arg-type]


def test_top_k_beyond_what_is_there(animals: Collection) -> None:
    assert len(animals.search("cat dog zebra", top_k=1000)) == 3
    assert len(animals.search("cat dog zebra", top_k=1)) == 1


def test_an_empty_collection_finds_nothing(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    for mode in ("hybrid", "dense", "lexical"):
        assert collection.search("anything", mode=mode) == []  # type: ignore[arg-type]
    assert len(collection) == 0
    assert collection.vectors()[1].shape == (0, 32)
    assert collection.documents() == []


def test_per_document_gives_each_once(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder, settings=Settings(max_chars=50))
    collection.add([{"source": f"d{n}", "text": f"Zebra stripes number {n}. " * 20} for n in range(4)])
    assert len({hit.source for hit in collection.search("zebra stripes", top_k=4)}) < 4
    hits = collection.search("zebra stripes", top_k=4, per_document=True)
    assert len({hit.source for hit in hits}) == len(hits) == 4


def test_similar_leaves_itself_out(animals: Collection) -> None:
    animals.add([{"source": "zebra2", "text": "Zebras have black and white stripes, mostly.", "title": "Zebra"}])
    (start,) = animals.search("zebra stripes", mode="dense", top_k=1)
    hits = animals.similar(start.id, top_k=3)
    assert start.id not in [hit.id for hit in hits]
    assert hits[0].source in {"zebra", "zebra2"}
    with pytest.raises(InputError, match="no such passage"):
        animals.similar("nope")


def test_what_is_not_in_the_text_index_yet_is_found(animals: Collection) -> None:
    animals.add(["A freshly added quokka."])
    assert animals.search("quokka", mode="lexical")[0].text == "A freshly added quokka."


def test_vectors_above_the_cache_limit_are_searched_on_disk(encoder: HashingEncoder) -> None:
    texts = [f"Passage {n} about {'stripes' if n % 7 == 0 else 'mats'} and thing{n}." for n in range(60)]
    small = Collection.create("small", model=encoder, settings=Settings(cache_bytes=0))
    large = Collection.create("large", model=encoder)
    for collection in (small, large):
        collection.add(
            [{"source": f"{n}", "text": text} for n, text in enumerate(texts)] + [{"source": "e", "text": ""}]
        )
    for mode in ("dense", "hybrid"):
        one, two = (c.search("thing33 stripes", mode=mode, top_k=5) for c in (small, large))  # type: ignore[arg-type]
        assert [hit.source for hit in one] == [hit.source for hit in two]
        np.testing.assert_allclose([hit.score for hit in one], [hit.score for hit in two], atol=2e-3)


# filters


@pytest.fixture
def tagged(encoder: HashingEncoder) -> Collection:
    collection = Collection.create("tagged", model=encoder)
    facts = [
        {"lang": "en", "year": 2020, "open": True},
        {"lang": "de", "year": 2021.5, "open": False},
        {"lang": "en", "year": 2022, "last author": "O'Neil"},
        {},
    ]
    collection.add([{"source": f"d{n}", "text": f"common text {n}", "metadata": m} for n, m in enumerate(facts)])
    return collection


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize(
    ("condition", "sources"),
    [
        ('lang = "en"', {"d0", "d2"}),
        ("lang = 'en'", {"d0", "d2"}),
        ('lang = "en" AND year > 2021', {"d2"}),
        ("year BETWEEN 2020 AND 2021.6", {"d0", "d1"}),
        ('last_author = "O\'Neil"', {"d2"}),
        ("last_author LIKE 'O''%'", {"d2"}),
        ("open", {"d0"}),
        ("open = false", {"d1"}),
        ("lang IS NULL", {"d3"}),
        ('source IN ("d1", "d3")', {"d1", "d3"}),
        ('"source" = "d1" OR `source` = \'d2\'', {"d1", "d2"}),
        ("lang = 'xx'", set()),
        ("mtime IS NULL AND format = 'txt'", {"d0", "d1", "d2", "d3"}),
    ],
)
def test_filters(tagged: Collection, mode: str, condition: str, sources: set[str]) -> None:
    for _ in range(2):  # the second time from the cache
        hits = tagged.search("common text", filter=condition, mode=mode)  # type: ignore[arg-type]
        assert {hit.source for hit in hits} == sources


@pytest.mark.parametrize("condition", ["nope = 1", "lang =", "lang = 'en' AND (", "; DROP TABLE x", "lang > ", "'"])
@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_filter_that_is_wrong_lists_the_columns(tagged: Collection, condition: str, mode: str) -> None:
    with pytest.raises(InputError, match=r"can't be used.*lang \(string\)"):
        tagged.search("common", filter=condition, mode=mode)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="can't be used"):
        list(tagged.passages(filter=condition))
    with pytest.raises(InputError, match="can't be used"):
        tagged.documents(filter=condition)


def test_metadata_that_does_not_fit_its_column_is_kept_with_the_document(tagged: Collection) -> None:
    tagged.add([{"source": "odd", "text": "odd", "metadata": {"year": "MMXX", "lang": 7, "text": "t", "source": "s"}}])
    (hit,) = tagged.search("odd", filter="lang = '7'")
    assert hit.metadata == {"year": "MMXX", "lang": 7, "text": "t", "source": "s"}
    assert [hit.source for hit in tagged.search("odd", filter="meta_source = 's'")] == ["odd"]


def test_very_many_metadata_keys_are_kept(encoder: HashingEncoder) -> None:
    collection = Collection.create("wide", model=encoder)
    facts = {f"key{n}": n for n in range(100)}
    collection.add([{"source": "a", "text": "wide one", "metadata": facts}])
    assert collection.search("wide", filter="key3 = 3")[0].metadata == facts


# vectors, passages, export


def test_vectors_come_back_as_encoded(animals: Collection, encoder: HashingEncoder) -> None:
    ids, matrix = animals.vectors()
    contents = {p.id: f"{p.title}\n{p.text}" for p in animals.passages()}
    expected = encoder.encode_document([contents[name] for name in ids])
    # titles that the passage contains already are not put before it, hence the comparison by cosine
    assert (np.einsum("nd,nd->n", matrix, expected) > 0.8).all()
    some, rows = animals.vectors(ids[::-1])
    assert some == ids[::-1]
    np.testing.assert_array_equal(rows, matrix[::-1])
    with pytest.raises(InputError, match="no passage 'x'"):
        animals.vectors(["x"])


def test_float32_is_kept_exactly(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder, settings=Settings(vector_type="float32"))
    collection.add(["some words here"])
    np.testing.assert_array_equal(collection.vectors()[1], encoder.encode_document(["some words here"]))


def test_export_holds_everything(tagged: Collection, tmp_path: Path) -> None:
    assert tagged.export(tmp_path / "out" / "t.parquet") == 4
    table = pq.read_table(tmp_path / "out" / "t.parquet")
    assert table.num_rows == 4
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[32]"
    by_id = dict(zip(*tagged.vectors(), strict=True))
    for row in table.to_pylist():
        np.testing.assert_allclose(row["vector"], by_id[row["id"]])
        assert row["text"].startswith("common text")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["t.parquet"]


# folders


def test_a_second_run_does_only_what_changed(tmp_path: Path, encoder: HashingEncoder) -> None:
    folder = write(tmp_path / "docs", one="First text.", two="Second text.", three="Third text.")
    collection = Collection.create("c", model=encoder)
    first = collection.index(folder)
    assert (first.files, first.added, first.passages) == (3, 3, 3)
    encoded = encoder.encoded
    second = collection.index(folder)
    assert (second.files_skipped, second.added, second.changed, second.removed) == (3, 0, 0, 0)
    assert encoder.encoded == encoded
    (folder / "one.txt").write_text("First text, changed.")
    (folder / "two.txt").unlink()
    write(folder, four="Fourth text.")
    os.utime(folder / "three.txt", ns=(1, 1))  # touched, content as before
    third = collection.index(folder)
    assert (third.added, third.changed, third.unchanged, third.removed) == (1, 1, 1, 1)
    assert encoder.encoded == encoded + 2
    assert {d.source for d in collection.documents()} == {"one.txt", "three.txt", "four.txt"}
    assert collection.index(folder).files_skipped == 3


def test_other_roots_stay(tmp_path: Path, encoder: HashingEncoder) -> None:
    a = write(tmp_path / "a", same="Text of a.", x="Only a.")
    b = write(tmp_path / "b", same="Text of b.")
    collection = Collection.create("c", model=encoder)
    collection.add([{"source": "loose", "text": "Added by hand."}])
    collection.index([a, b])
    assert len(collection) == 4
    (a / "x.txt").unlink()
    (b / "same.txt").unlink()
    assert collection.index(a).removed == 1
    assert sorted(p.text for p in collection.passages()) == ["Added by hand.", "Text of a.", "Text of b."]
    assert collection.info().roots == (str(a), str(b))


def test_a_folder_within_an_indexed_one_is_not_filed_twice(tmp_path: Path, encoder: HashingEncoder) -> None:
    top = write(tmp_path / "top", x="Above.")
    write(top / "sub", y="Below.", z="Below too.")
    collection = Collection.create("c", model=encoder)
    collection.index(top)
    (top / "sub" / "z.txt").unlink()
    write(top / "sub", y="Below, changed.")
    report = collection.index(top / "sub")
    assert (report.changed, report.removed) == (1, 1)
    report = collection.index(top / "sub" / "y.txt")
    assert report.files_skipped == 1
    assert {d.source for d in collection.documents()} == {"x.txt", "sub/y.txt"}
    # the other way round: the wider folder takes over
    other = Collection.create("other", model=encoder)
    other.index(top / "sub")
    other.index(top)
    assert {d.source for d in other.documents()} == {"x.txt", "sub/y.txt"}


def test_a_file_that_becomes_unreadable_keeps_what_is_there(tmp_path: Path, encoder: HashingEncoder) -> None:
    folder = write(tmp_path / "docs", one="First text.", two="Second text.")
    collection = Collection.create("c", model=encoder)
    collection.index(folder)
    (folder / "one.txt").write_bytes(bytes(range(256)) * 20)
    report = collection.index(folder)
    (failure,) = report.unreadable
    assert failure.source == "one.txt"
    assert failure.reason
    assert len(collection) == 2
    assert len(collection.index(folder).unreadable) == 1  # said again until it is mended


def test_records_of_one_file_come_and_go(tmp_path: Path, encoder: HashingEncoder) -> None:
    pytest.importorskip("embedlab.data.readers.jsonlines")
    folder = tmp_path / "docs"
    folder.mkdir()
    rows = [f'{{"text": "record number {n}"}}' for n in range(5)]
    (folder / "r.jsonl").write_text("\n".join(rows))
    collection = Collection.create("c", model=encoder)
    assert collection.index(folder).added == 5
    (folder / "r.jsonl").write_text("\n".join(rows[:3]) + "\n")
    report = collection.index(folder)
    assert (report.unchanged, report.removed) == (3, 2)
    assert collection.index(folder).files_skipped == 1


def test_progress_reaches_the_end(tmp_path: Path, encoder: HashingEncoder) -> None:
    folder = write(tmp_path / "docs", **{f"d{n}": f"Text {n}." for n in range(20)})
    news: list[Progress] = []
    Collection.create("c", model=encoder).index(folder, on_progress=news.append)
    assert news[0].phase == "finding"
    assert news[-1].phase == "done"
    assert (news[-1].files_done, news[-1].files_total, news[-1].documents) == (20, 20, 20)


def test_missing_paths_are_named(encoder: HashingEncoder, tmp_path: Path) -> None:
    collection = Collection.create("c", model=encoder)
    with pytest.raises(InputError, match="does not exist"):
        collection.index(tmp_path / "nope")
    with pytest.raises(InputError, match="paths is empty"):
        collection.index([])


# many at once


def test_readers_see_whole_documents_while_a_writer_writes(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder, settings=Settings(max_chars=60))
    text = "Zebra one here now. Zebra two here now. Zebra three here now. Zebra four here now."
    collection.add([{"source": "d", "text": f"v0 {text}"}])
    whole = len(collection)
    reader = Collection.open("c", model=encoder)
    errors: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            hits = reader.search("zebra", top_k=50, mode="hybrid")
            if len(hits) != whole:
                errors.append(f"{len(hits)} of {whole} passages")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(1, 15):
        collection.add([{"source": "d", "text": f"v{n} {text}"}])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert "v14" in " ".join(hit.text for hit in reader.search("v14", mode="lexical"))


def test_compaction_keeps_everything_and_readers_notice(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    for n in range(8):
        collection.add([{"source": f"d{n}", "text": f"unique{n} words"}])
    collection.search("words")
    collection._tables().compact()
    for n in range(8):
        assert collection.search(f"unique{n}", mode="dense")[0].source == f"d{n}"
        assert collection.search(f"unique{n}", mode="lexical")[0].source == f"d{n}"


def test_what_is_held_in_memory_follows_every_change(encoder: HashingEncoder) -> None:
    """Vectors and texts kept from one version to the next stay those of a collection opened anew."""
    collection = Collection.create("c", model=encoder)
    chance = np.random.default_rng(5)
    for lap in range(12):
        names = chance.choice(40, 12, replace=False)
        collection.add({"source": f"d{n}", "text": f"animal{n} seen on lap{lap} by day{n % 5}"} for n in names)
        if lap % 3 == 2:
            collection.delete([f"d{n}" for n in chance.choice(40, 5, replace=False)])
        if lap == 7:
            collection._tables().compact()
        for n in chance.choice(40, 6):  # enough searches for the texts to be held
            query = f"animal{n} day{n % 5} lap{lap}"
            anew = Collection.open("c", model=encoder)
            for mode in ("hybrid", "dense"):
                got, expected = (c.search(query, mode=mode) for c in (collection, anew))  # type: ignore[arg-type]
                assert {(h.id, h.text) for h in got[:3]} == {(h.id, h.text) for h in expected[:3]}
                np.testing.assert_allclose([h.score for h in got], [h.score for h in expected], atol=1e-5)


def test_many_small_additions_do_not_crumble_the_table(encoder: HashingEncoder) -> None:
    collection = Collection.create("c", model=encoder)
    for n in range(40):
        collection.add([{"source": f"d{n}", "text": f"unique{n} words"}])
    assert collection._tables().stats("fragment_stats", "num_fragments") <= 33
    assert len(collection.search("words", mode="lexical", top_k=50)) == 40
