"""Named offline tasks: of the type they say, with the languages and the licence of their data."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("mteb")

from embedlab._core.errors import InputError
from embedlab.data.datasets import LabelData
from embedlab.evaluate import local_sets
from embedlab.evaluate.local_sets import GROUPS, LOCAL, expand, local_tasks, sample_by_class
from embedlab.evaluate.naming import find_tasks

needs_data = pytest.mark.skipif("EMBEDLAB_DATA" not in os.environ, reason="EMBEDLAB_DATA is not set")


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "cranfield", "stsb-zh", "mahasts", "sts16", "sick", "sick-entailment", "agnews", "mahanews", "medical", "trec",
        "biomedical", "banking77-clusters", "tatoeba-mar", "qmsum",
    ],
)  # fmt: skip
def test_tasks_are_what_their_record_says(name: str) -> None:
    [task] = local_tasks([name])
    known = LOCAL[name]
    assert (task.metadata.name, task.metadata.type) == (name, known.type)
    assert tuple(task.metadata.eval_langs) == known.languages
    assert task.metadata.description == f"{known.about}. Licence of the data: {known.licence}."
    assert task.data_loaded


@needs_data
def test_debian_descriptions_are_found_by_their_line() -> None:
    data = local_sets.load_debian_retrieval(num_documents=50, num_queries=20)
    assert (len(data.corpus), len(data.queries)) == (50, 20)
    assert all(document in data.corpus for grades in data.qrels.values() for document in grades)
    assert len({entry.text for entry in data.corpus.values()}) == 50
    assert len(set(data.queries.values())) == 20
    with pytest.raises(InputError, match="num_queries=0"):
        local_sets.load_debian_retrieval(num_queries=0)


@needs_data
def test_our_own_halves_share_no_text() -> None:
    [task] = local_tasks(["medical"])
    parts = task.dataset["default"]
    assert not set(parts["train"]["text"]) & set(parts["test"]["text"])


@needs_data
def test_groups_are_found_by_the_command_once() -> None:
    names = [task.metadata.name for task in find_tasks(["sts13", "semeval", "tatoeba:deu"])]
    assert names == ["sts13", "sts12", "sts14", "sts15", "sts16", "tatoeba-deu"]


def test_names_and_groups() -> None:
    assert {known.type for known in LOCAL.values()} == {
        "Retrieval", "STS", "PairClassification", "Classification", "Clustering", "BitextMining",
    }  # fmt: skip
    assert set(expand(["all"])) == set(LOCAL)
    assert set(expand(GROUPS)) == set(LOCAL)
    assert {"mahasts", "mahanews", "stsb-mr", "tatoeba-mar"} <= set(GROUPS["marathi"])
    assert expand(["Stsb:DE"]) == ["stsb-de"]
    assert not set(LOCAL) & set(GROUPS)
    with pytest.raises(InputError, match="unknown task 'cranfeld': did you mean 'cranfield'"):
        expand(["cranfeld"])


def test_every_name_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-folders.md").read_text(encoding="utf-8")
    assert not [name for name in [*LOCAL, *GROUPS] if f"`{name}`" not in page]


def test_a_sample_keeps_the_shares() -> None:
    labels = ["rare"] * 4 + ["often"] * 996
    data = LabelData([str(place) for place in range(1000)], labels)
    sample = sample_by_class(data, size=100)
    assert Counter(sample.labels) == {"often": 100, "rare": 2}
    assert sample == sample_by_class(data, size=100)
    assert sample_by_class(data, size=1000) is data
