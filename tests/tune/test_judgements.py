"""Judgements: made queries leave their documents, halves share nothing, people's files are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedlab._core.errors import InputError
from embedlab.data.documents import Document
from embedlab.data.loaders.beir import read_qrels, read_queries
from embedlab.tune.judgements import Judgements, judged_by_people, made_from

REST = "They are described at length below, with many a word of detail and enough to be found by. " * 2


def documents(count: int = 12) -> list[Document]:
    return [
        Document(f"d{n}.txt", f"Subject number {n} concerns animal {n} of the zoo. {REST}{n}", f"All about animal {n}")
        for n in range(count)
    ]


def test_a_made_query_is_gone_from_its_document() -> None:
    judgements, left = made_from(documents())
    assert len(judgements) == 12
    assert judgements.made
    by_source = {document.source: document for document in left}
    for query, relevant in zip(judgements.queries, judgements.relevant, strict=True):
        (source,) = relevant
        assert query.casefold() not in by_source[source].text.casefold()
        assert by_source[source].title == ""
        assert "described at length" in by_source[source].text


def test_titles_and_sentences_both_ask() -> None:
    judgements, _ = made_from(documents(40))
    titles = sum(query.startswith("All about") for query in judgements.queries)
    assert 0 < titles < 40


def test_copies_of_a_text_answer_alike() -> None:
    copies = [*documents(), Document("copy.txt", documents()[3].text, "Another title of it")]
    judgements, left = made_from(copies)
    shared = [relevant for relevant in judgements.relevant if len(relevant) > 1]
    assert [sorted(each) for each in shared] == [["copy.txt", "d3.txt"]]
    texts = {document.source: document.text for document in left}
    assert texts["copy.txt"] == texts["d3.txt"]


def test_a_query_for_two_texts_is_dropped() -> None:
    twins = [Document(f"{n}.txt", f"{REST} Different {n}.", "The very same title") for n in range(2)]
    judgements, _ = made_from([*documents(), *twins])
    assert "The very same title" not in judgements.queries


def test_too_little_to_ask() -> None:
    with pytest.raises(InputError, match="--queries and --qrels"):
        made_from([Document("a.txt", "Short."), Document("b.txt", "Brief.")])


def test_the_seed_decides() -> None:
    first, again, other = (made_from(documents(40), most=10, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert first.queries != other.queries


@given(
    st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=3), min_size=2, max_size=40),
    st.integers(0, 5),
)
def test_halves_share_no_document(relevant: list[set[int]], seed: int) -> None:
    judgements = Judgements(
        tuple(f"query {n}" for n in range(len(relevant))),
        tuple({str(each): 1.0 for each in group} for group in relevant),
        made=False,
    )
    try:
        halves = judgements.split(seed=seed)
    except InputError:
        return  # all hang together
    documents_of = [{doc for group in half.relevant for doc in group} for half in halves]
    assert documents_of[0].isdisjoint(documents_of[1])
    assert sorted((*halves[0].queries, *halves[1].queries)) == sorted(judgements.queries)


def test_people_may_name_documents_briefly() -> None:
    found = judged_by_people(
        {"q": "what", "r": "why"}, {"q": {"a": 2, "b.md": 0}, "r": {"x/b.md": 1}}, ["x/a.md", "x/b.md"]
    )
    assert found.relevant == ({"x/a.md": 2.0}, {"x/b.md": 1.0})


@pytest.mark.parametrize(
    ("queries", "qrels", "says"),
    [
        ({"q": "what"}, {"z": {"a.md": 1}}, "not among the queries"),
        ({"q": "what", "r": "why"}, {"q": {"nowhere": 1}, "r": {"gone": 1}}, "not in the collection"),
        ({"q": "what"}, {"q": {"a.md": 1}}, "at least two"),
    ],
)
def test_judgements_that_do_not_fit(queries: dict[str, str], qrels: dict[str, dict[str, float]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        judged_by_people(queries, qrels, ["a.md"])


def test_files_of_people(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("1\twhat is it\n2\twhy\n")
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "what is it"}\n{"_id": "2", "text": "why"}\n')
    assert read_queries(tmp_path / "q.tsv") == read_queries(tmp_path / "q.jsonl") == {"1": "what is it", "2": "why"}
    (tmp_path / "r.tsv").write_text("query-id\tcorpus-id\tscore\n1\tmy notes.md\t1\n")
    assert read_qrels(tmp_path / "r.tsv") == {"1": {"my notes.md": 1}}
    (tmp_path / "r.trec").write_text("1 0 a.md 2\n1 0 b.md 0\n")
    assert read_qrels(tmp_path / "r.trec") == {"1": {"a.md": 2, "b.md": 0}}
    for content, says in (("1 what\n", "line 1: expected id, tab"), ("1\ta\n1\tb\n", "line 2: the query '1'")):
        (tmp_path / "q.tsv").write_text(content)
        with pytest.raises(InputError, match=says):
            read_queries(tmp_path / "q.tsv")
