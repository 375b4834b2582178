"""What the bench ranks is what a collection with the same settings returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedlab.models.static import StaticModel
from embedlab.search import Collection
from embedlab.tune.bench import Bench, documents_of
from embedlab.tune.judgements import Judgements
from embedlab.tune.knob import knobs
from embedlab.tune.measures import Goal

QUERIES = ["river and glacier", "the violin", "audit of a ledger", "quasar nebula comet", "keel", "nothing known xqzv"]

SYSTEMS = [
    {},
    {"weight": 0.0},
    {"weight": 0.2},
    {"weight": 1.0},
    {"feedback": [3, 0.6]},
    {"feedback": [10, 0.3], "weight": 0.8},
    {"passages": [500, 100]},
    {"passages": [2000, 0], "weight": 0.5, "feedback": [5, 0.6]},
]


@pytest.fixture
def bench(collection: Collection, tmp_path: Path) -> Bench:
    return Bench(
        documents_of(collection), collection.settings, collection.encoder, knobs=knobs(), folder=tmp_path / "bench"
    )


def test_documents_come_back_whole(collection: Collection) -> None:
    from tests.tune.conftest import make_documents

    given = {document.source: document.text for document in make_documents()}
    assert {document.source: document.text.strip() for document in documents_of(collection)} == given


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_ranks_as_a_collection_does(bench: Bench, system: dict[str, object], tmp_path: Path) -> None:
    other = Collection.create(str(tmp_path / "other"), settings=bench.settings_of(system))
    other.add(bench.documents)
    for query, ranked in zip(QUERIES, bench.rank(system, QUERIES), strict=True):
        hits = other.search(query, per_document=True, top_k=10)
        scores = {hit.source: hit.score for hit in hits}
        assert len(ranked) == len(hits)
        for mine, hit in zip(ranked, hits, strict=True):
            # documents of one score may change places
            assert mine == hit.source or scores.get(mine, hit.score) == pytest.approx(hit.score, abs=1e-5)


def test_a_codec_changes_vectors_and_bytes(bench: Bench) -> None:
    plain, coded = {}, {"codec": {"name": "rotation", "bits": 2}}
    assert bench.bytes_per_document(coded) < bench.bytes_per_document(plain) / 4
    before, after = bench.vectors_of(plain), bench.vectors_of(coded)
    near = np.vecdot(before, after) / np.linalg.norm(after, axis=1)
    assert 0.8 < near.mean() < 0.999


def test_vectors_are_kept_between_runs(
    bench: Bench, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedlab.tune.study import model_knob

    name = str(tmp_path / "model")
    model = collection.encoder
    assert isinstance(model, StaticModel)
    StaticModel(model.rows[:, :32].copy(), model.tokenizer_json).save(name)
    every = {**knobs(), "model": model_knob([name])}
    arguments = (bench.documents, bench.settings, bench.encoder)
    first = Bench(*arguments, knobs=every, folder=bench.folder).vectors_of({"model": name})
    assert first.shape[1] == 32
    monkeypatch.setattr(StaticModel, "encode_document", None)  # a second run must not need it
    again = Bench(*arguments, knobs=every, folder=bench.folder).vectors_of({"model": name})
    assert np.array_equal(first, again)


def test_values_are_those_of_the_ranking(bench: Bench) -> None:
    first = bench.rank({}, QUERIES[:2], depth=2)
    judged = Judgements(tuple(QUERIES[:2]), ({first[0][0]: 1.0}, {first[1][1]: 1.0}), made=False)
    assert bench.values({}, judged, Goal.of("ndcg@10")) == pytest.approx([1.0, 1 / np.log2(3)])
