"""Another model for the queries of a collection, over the index that is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedlab._core.errors import CollectionError, InputError
from embedlab.search import Collection, compress_collection, doctor, upgrade_collection
from embedlab.search.compression import upgrading

from ..tiny_model import HashingEncoder
from .corpus import TurnedEncoder, documents

QUERIES = [str(each["text"]).split(". ")[2] for each in documents(12)]


def ranking(collection: Collection) -> list[list[str]]:
    return [[hit.id for hit in collection.search(query, mode="dense")] for query in QUERIES]


@pytest.fixture(autouse=True)
def closed_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn as a core install does, without torch, except where training is what is tested."""
    if "trained" not in request.node.name:
        monkeypatch.setattr(upgrading, "find_spec", lambda _: None)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are not to be had by name."""

    def gone(name: str = "default") -> None:
        raise InputError(f"no model {name!r} here")

    monkeypatch.setattr("embedlab.models.load_model", gone)


def test_a_model_that_a_map_can_undo_loses_nothing(collection: Collection, encoder: HashingEncoder) -> None:
    before, version = ranking(collection), collection.version
    new = TurnedEncoder()
    report = upgrade_collection("c", model=new, old_model=encoder, sample=100)
    assert report.kept
    assert report.loss is not None
    assert report.loss <= 0.0
    assert report.overlap is not None
    assert report.overlap > 0.95
    assert new.encoded == report.trained_on <= 100  # a sample, not the collection
    upgraded = Collection.open("c", model=TurnedEncoder())
    assert (upgraded.model, upgraded.version) == ("turned", version)  # the index was not touched
    same = [len(set(a) & set(b)) for a, b in zip(ranking(upgraded), before, strict=True)]
    assert min(same) >= 8
    upgraded.add(documents(5, seed=8, name="late"))
    text = str(documents(5, seed=8)[3]["text"])
    assert upgraded.search(text[:120], mode="dense")[0].source == "late3"
    assert upgraded.info().bridge.startswith("bridge:")
    with pytest.raises(CollectionError, match="embedlab upgrade c"):
        Collection.open("c", model=encoder)
    levels = {f.check: f.level for f in doctor("c", model=new) if f.collection}
    assert levels["bridge"] == levels["model"] == levels["vectors"] == "ok"


def test_a_model_that_says_something_else_is_refused_unless_forced(
    collection: Collection, encoder: HashingEncoder
) -> None:
    other = HashingEncoder(48, name="other", salt="other")
    report = upgrade_collection("c", model=other, old_model=encoder, sample=100)
    assert not report.kept
    assert report.loss is not None
    assert report.loss > 0.02
    assert collection.search(QUERIES[0], mode="dense")
    assert Collection.open("c", model=encoder).model == "hashing"
    assert upgrade_collection("c", model=other, old_model=encoder, sample=100, max_loss=1.0).kept
    assert Collection.open("c", model=other).search(QUERIES[0])


def test_a_map_is_trained_on_queries_as_well(collection: Collection, encoder: HashingEncoder) -> None:
    pytest.importorskip("torch")
    report = upgrade_collection("c", model=TurnedEncoder(blur=0.3), old_model=encoder, sample=100, force=True)
    assert report.recall_after > 0.8


def test_the_way_back_needs_no_map(collection: Collection, encoder: HashingEncoder) -> None:
    before = ranking(collection)
    upgrade_collection("c", model=TurnedEncoder(), old_model=encoder, sample=100)
    report = upgrade_collection("c", model=encoder, old_model=TurnedEncoder(), sample=100)
    assert (report.trained_on, report.kept) == (0, True)
    again = Collection.open("c", model=encoder)
    assert ranking(again) == before
    assert again.info().bridge == ""


def test_codes_stay_when_the_model_changes(collection: Collection, encoder: HashingEncoder) -> None:
    compress_collection("c", codec="int8", drop_vectors=True, model=encoder)
    before = ranking(collection)
    report = upgrade_collection("c", model=TurnedEncoder(), old_model=encoder, sample=100)
    assert report.kept
    upgraded = Collection.open("c", model=TurnedEncoder())
    assert [a[0] for a in ranking(upgraded)] == [b[0] for b in before]
    upgraded.add(documents(3, seed=8, name="late"))
    assert upgraded.search(str(documents(3, seed=8)[1]["text"])[:120], mode="dense")[0].source == "late1"
    assert [f.level for f in doctor("c", model=TurnedEncoder()) if f.check == "codes"] == ["ok"]
    # a second upgrade starts from the first
    assert upgrade_collection("c", model=TurnedEncoder(blur=0.01), old_model=TurnedEncoder(), sample=100).kept


def test_without_the_old_model_only_force_goes_on(collection: Collection, no_models: None) -> None:
    with pytest.raises(CollectionError, match=r"can't be used.*--force"):
        upgrade_collection("c", model=TurnedEncoder(), sample=100)
    report = upgrade_collection("c", model=TurnedEncoder(), sample=100, force=True)
    assert (report.recall_before, report.loss, report.overlap, report.kept) == (None, None, None, True)
    assert report.recall_after > 0.5


def test_a_map_that_is_gone_is_told_and_made_anew(
    collection: Collection, encoder: HashingEncoder, no_models: None
) -> None:
    upgrade_collection("c", model=TurnedEncoder(), old_model=encoder, sample=100)
    (file,) = (Path(collection.path) / "bridges").rglob("*.safetensors")
    kept = file.read_bytes()
    for spoil in (lambda: file.write_bytes(kept[:-3] + b"abc"), file.unlink):
        spoil()
        with pytest.raises(CollectionError, match=r"lexical.*--force"):
            Collection.open("c", model=TurnedEncoder())
        assert Collection.open("c").search(QUERIES[0], mode="lexical")
        found = {f.check: f for f in doctor("c", model=TurnedEncoder())}
        assert found["bridge"].level == "error"
    assert upgrade_collection("c", model=TurnedEncoder(), sample=100, force=True).kept
    assert Collection.open("c", model=TurnedEncoder()).search(QUERIES[0], mode="dense")


def test_what_cannot_be_is_refused(collection: Collection, encoder: HashingEncoder) -> None:
    with pytest.raises(InputError, match="already"):
        upgrade_collection("c", model=encoder, old_model=encoder)
    with pytest.raises(InputError, match="max_loss"):
        upgrade_collection("c", model=TurnedEncoder(), old_model=encoder, max_loss=2)
    with pytest.raises(InputError, match="sample"):
        upgrade_collection("c", model=TurnedEncoder(), old_model=encoder, sample=3)
    small = Collection.create("small", model=encoder)
    small.add(documents(3))
    with pytest.raises(CollectionError, match="index more documents"):
        upgrade_collection("small", model=TurnedEncoder(), old_model=encoder)


def test_a_plain_collection_is_written_as_before(collection: Collection) -> None:
    said = json.loads((Path(collection.path) / "collection.json").read_text())
    assert said["schema_version"] == 1
    assert not {"bridge", "space"} & said.keys()
