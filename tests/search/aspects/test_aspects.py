"""Search by aspect: agrees with brute force, stays in step with the collection, and refuses what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab import Collection
from embedlab._core.errors import CollectionError, InputError
from embedlab.search import Settings, doctor
from embedlab.search.aspects import AspectIndex
from embedlab.search.aspects.files import FILE
from embedlab.search.aspects.learning import learn_aspects
from embedlab.text.aspect_documents import AspectHead, AspectHeads, HeadSettings

RNG = np.random.default_rng(0)
QUICK = HeadSettings(hidden=32, epochs=8, batch_size=64, learning_rate=1e-2)


def some_heads(dim: int = 32) -> dict[str, AspectHead]:
    rng = np.random.default_rng(1)
    return {
        name: AspectHead(
            (rng.normal(size=(24, dim)), rng.normal(size=(dim, 24))), (np.zeros(24), np.zeros(dim)), residual=residual
        )
        for name, residual in (("colour", True), ("kind", False))
    }


def brute(collection: Collection, query: np.ndarray, weights: dict[str, float]) -> dict[str, float]:
    """Passage -> mixed cosine, one at a time."""
    heads = collection.aspects.heads()
    ids, vectors = collection.vectors()
    found = {}
    for key, vector in zip(ids, vectors, strict=True):
        total = 0.0
        for name, weight in weights.items():
            a, b = (x if name == "generic" else heads.heads[name](x[None])[0] for x in (query, vector))
            total += weight * float(a @ b)
        found[key] = total / sum(map(abs, weights.values()))
    return found


MIXES = [{"colour": 1}, {"colour": 1, "kind": 0.3}, {"kind": 2, "colour": -1, "generic": 0.5}, {"generic": 1}]


class TestIndex:
    @pytest.mark.parametrize("weights", MIXES)
    def test_it_agrees_with_brute_force_also_after_adding(self, weights):
        index = AspectIndex(AspectHeads(some_heads(6), "toy:1"))
        rows, queries = RNG.normal(size=(50, 6)).astype(np.float32), RNG.normal(size=(3, 6)).astype(np.float32)
        index.add(rows[:20])
        index.search(queries, weights=weights)
        index.add(rows[20:])
        scores, found = index.search(queries, weights=weights, top_k=7)
        for q, query in enumerate(queries):
            slow = []
            for row in rows:
                parts = (
                    w
                    * (
                        query @ row
                        if n == "generic"
                        else index.heads.heads[n](query[None])[0] @ index.heads.heads[n](row[None])[0]
                    )
                    for n, w in weights.items()
                )
                slow.append(sum(parts) / sum(map(abs, weights.values())))
            order = np.argsort(-np.array(slow), kind="stable")[:7]
            np.testing.assert_array_equal(found[q], order)
            np.testing.assert_allclose(scores[q], np.array(slow)[order], atol=1e-5)

    def test_one_aspect_is_a_mix_of_one_and_bad_calls_are_refused(self):
        index = AspectIndex(AspectHeads(some_heads(6), "toy:1"))
        index.add(RNG.normal(size=(5, 6)))
        query = RNG.normal(size=(1, 6))
        for one, other in zip(
            index.search(query, aspect="kind"), index.search(query, weights={"kind": 3}), strict=True
        ):
            np.testing.assert_allclose(one, other)
        assert len(index) == 5
        with pytest.raises(InputError, match="either aspect or weights"):
            index.search(query)
        with pytest.raises(
            InputError, match=r"unknown aspect 'king': did you mean 'kind'\? known: colour, generic, kind"
        ):
            index.search(query, aspect="king")
        with pytest.raises(InputError, match="top_k=0"):
            index.search(query, aspect="kind", top_k=0)
        with pytest.raises(InputError, match=r"\(N, 6\)"):
            index.add(np.ones((2, 5)))


class TestCollection:
    @pytest.mark.parametrize("cache_bytes", [Settings().cache_bytes, 0])
    @pytest.mark.parametrize("weights", MIXES)
    def test_dense_search_agrees_with_brute_force(self, encoder, weights, cache_bytes):
        from .conftest import documents

        collection = Collection.create("own", model=encoder, settings=Settings(cache_bytes=cache_bytes))
        collection.add(documents())
        collection.aspects.keep(some_heads(), {})
        query = "a red boat"
        slow = brute(collection, encoder.encode_query([query])[0], weights)
        hits = collection.search(query, mode="dense", aspects=weights, top_k=10, explain=True)
        wanted = sorted(slow.values(), reverse=True)[:10]
        np.testing.assert_allclose(
            [hit.score for hit in hits], wanted, atol=2e-3
        )  # vectors are stored in half precision
        for hit in hits:
            assert hit.score == pytest.approx(slow[hit.id], abs=2e-3)
            parts = {
                name.removeprefix("aspect "): value for name, value in hit.parts.items() if name.startswith("aspect ")
            }
            assert parts.keys() == weights.keys()
            mixed = sum(weights[name] * value for name, value in parts.items()) / sum(map(abs, weights.values()))
            assert mixed == pytest.approx(hit.score, abs=1e-4)

    def test_filters_hybrid_and_lexical_search(self, vehicles):
        vehicles.aspects.keep(some_heads(), {})
        hits = vehicles.search("a red boat", mode="dense", aspects={"kind": 1}, filter="colour = 'blue'", top_k=50)
        assert len(hits) == 12
        assert {hit.metadata["colour"] for hit in hits} == {"blue"}
        hybrid = vehicles.search("red boat", aspects={"kind": 1}, explain=True)
        assert {"bm25", "cosine", "weight", "aspect kind"} <= hybrid[0].parts.keys()
        words = [hit.id for hit in vehicles.search("red boat", mode="lexical", aspects={"kind": 1})]
        assert words == [hit.id for hit in vehicles.search("red boat", mode="lexical")]

    def test_similar_in_an_aspect(self, vehicles, encoder):
        vehicles.aspects.keep(some_heads(), {})
        key = vehicles.search("boat", top_k=1)[0].id
        own = vehicles.vectors([key])[1][0]
        slow = brute(vehicles, own, {"colour": 1, "kind": 1})
        del slow[key]
        hits = vehicles.similar(key, 5, aspects={"colour": 1, "kind": 1})
        np.testing.assert_allclose([hit.score for hit in hits], sorted(slow.values(), reverse=True)[:5], atol=2e-3)

    def test_what_comes_goes_and_changes_is_in_step(self, vehicles, encoder):
        vehicles.aspects.keep(some_heads(), {})

        def check():
            slow = brute(vehicles, encoder.encode_query(["a red boat"])[0], {"colour": 1, "kind": 0.5})
            for weights in ({"colour": 1, "kind": 0.5}, {"kind": 1}):
                slow = brute(vehicles, encoder.encode_query(["a red boat"])[0], weights)
                hits = vehicles.search("a red boat", mode="dense", aspects=weights, top_k=100)
                assert {hit.id: pytest.approx(hit.score, abs=2e-3) for hit in hits} == slow

        vehicles.search("a red boat", mode="dense", aspects={"colour": 1})  # only one aspect is worked out so far
        vehicles.delete(["d3", "d4"])
        check()
        vehicles.add(["a red boat that came later", "another green car"])
        check()
        vehicles.add([{"source": "d5", "text": "no longer a car"}])
        check()
        vehicles._tables().compact()
        check()

    def test_another_process_s_heads_are_seen(self, vehicles, encoder):
        other = Collection.open("vehicles", model=encoder)
        assert other.aspects.names == ()
        vehicles.aspects.keep(some_heads(), {"kind": {"way": "siamese"}})
        assert other.aspects.names == ("colour", "kind")
        assert other.aspects.about["kind"] == {"way": "siamese"}
        before = [hit.score for hit in other.search("boat", mode="dense", aspects={"kind": 1})]
        vehicles.aspects.keep({"kind": some_heads()["colour"]}, {})
        assert [hit.score for hit in other.search("boat", mode="dense", aspects={"kind": 1})] != before
        assert vehicles.aspects.remove(["colour"]) == 1
        assert other.aspects.names == ("kind",)
        assert vehicles.aspects.remove() == 1
        assert other.aspects.names == ()

    def test_the_other_searches_do_not_change(self, vehicles):
        before = vehicles.search("a red boat", top_k=20)
        vehicles.aspects.keep(some_heads(), {})
        assert vehicles.search("a red boat", top_k=20) == before
        assert vehicles.search("a red boat", top_k=20, aspects={}) == before

    def test_what_is_wrong_is_said_and_other_searches_work(self, vehicles, encoder):
        with pytest.raises(CollectionError, match="has no aspects: make some with `embedlab aspects vehicles --labels"):
            vehicles.search("boat", aspects={"kind": 1})
        vehicles.aspects.keep(some_heads(), {})
        with pytest.raises(InputError, match="did you mean 'kind'"):
            vehicles.search("boat", aspects={"king": 1})
        with pytest.raises(InputError, match="unknown aspect 'size'"):
            vehicles.aspects.remove(["size"])
        vehicles.aspects.remove()
        with pytest.raises(InputError, match="heads are for 8-d vectors, the collection's have 32"):
            vehicles.aspects.keep({"kind": some_heads(8)["kind"]}, {})

    @pytest.mark.parametrize("damage", ["flip", "cut", "other model"])
    def test_a_file_that_is_damaged_or_of_another_model_is_refused(self, vehicles, encoder, damage):
        vehicles.aspects.keep(some_heads(), {})
        path = vehicles._place.folder / FILE
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[-5] ^= 1
        elif damage == "cut":
            data = data[: len(data) // 2]
        else:
            data = AspectHeads(some_heads(), "hashing:0000000000000000").to_bytes()
        path.write_bytes(bytes(data))
        with pytest.raises(CollectionError, match="belongs to model" if damage == "other model" else "is damaged"):
            vehicles.search("boat", aspects={"kind": 1})
        assert vehicles.search("boat")
        [finding] = [found for found in doctor("vehicles", model=encoder) if found.check == "aspects"]
        assert finding.level == "error"
        vehicles.aspects.keep({"kind": some_heads()["kind"]}, {})  # learning again is what the message says to do
        assert vehicles.aspects.names == ("kind",)
        [finding] = [found for found in doctor("vehicles", model=encoder) if found.check == "aspects"]
        assert (finding.level, finding.message) == ("ok", "kind")
        path.write_bytes(bytes(data))
        assert vehicles.aspects.remove() == 1
        assert vehicles.aspects.names == ()
        assert not [found for found in doctor("vehicles", model=encoder) if found.check == "aspects"]


class TestLearning:
    def test_columns_labels_entities_and_examples(self, vehicles):
        learnt = learn_aspects(vehicles, columns=["colour"], settings=QUICK, folds=2)
        assert learnt.aspects == ("colour",)
        assert learnt.documents == {"colour": 48}
        assert learnt.comparison is not None
        assert learnt.comparison.helps("colour")
        names = {"kind": {kind: (kind,) for kind in ("car", "bus", "boat", "train")}}
        learn_aspects(vehicles, entities=names, settings=QUICK, folds=None)
        learn_aspects(
            vehicles,
            examples={"place": [(f"d{n}", f"d{n + 7}") for n in range(40)]},
            labels={"owner": {f"d{n}": {str(n % 3)} for n in range(48)}},
            settings=QUICK,
            folds=None,
        )
        assert vehicles.aspects.names == ("colour", "kind", "owner", "place")
        about = vehicles.aspects.about["colour"]
        assert about["precision"] > about["generic_precision"]
        assert about["helps"] is True
        first = vehicles.search("red boat", mode="dense", top_k=1)[0]
        for aspect in ("colour", "kind"):
            near = vehicles.similar(first.id, 8, aspects={aspect: 1})
            assert np.mean([hit.metadata[aspect] == first.metadata[aspect] for hit in near]) > 0.8

    @pytest.mark.parametrize("way", ["classification", "retrofitting"])
    def test_the_other_ways(self, vehicles, way, monkeypatch):
        from embedlab.text.aspect_documents import ExplicitRetrofit

        monkeypatch.setattr(ExplicitRetrofit.__init__, "__kwdefaults__", {
            **ExplicitRetrofit.__init__.__kwdefaults__, "hidden": 32, "layers": 2, "steps": 60, "batch_size": 20,
        })  # fmt: skip
        learnt = learn_aspects(vehicles, columns=["kind"], way=way, settings=QUICK, folds=None)
        assert vehicles.aspects.about["kind"]["way"] == way
        assert learnt.comparison is None
        assert vehicles.search("boat", aspects={"kind": 1})

    def test_what_is_wrong_is_said(self, vehicles):
        for given, said in (
            ({}, "nothing to learn from"),
            ({"columns": ["color"]}, "unknown column 'color': did you mean 'colour'"),
            ({"labels": {"x": {"nowhere.md": {"1"}}}}, "there is no document 'nowhere.md' with text"),
            ({"examples": {"x": [("d1", "nowhere.md")]}}, "'nowhere.md'"),
            ({"labels": {"x": {"d1": {"1"}, "d2": {"2"}}}, "folds": None}, "aspect 'x' has no positive pair"),
            ({"columns": ["kind"], "way": "magic"}, "unknown way"),
        ):
            with pytest.raises(InputError, match=said):
                learn_aspects(vehicles, **given)
        assert vehicles.aspects.names == ()


class TestOtherForms:
    """Codes in place of vectors, and a query model that passes a bridge: heads work on what is stored."""

    def test_without_vectors_aspects_are_those_of_the_decoded_ones(self, vehicles, encoder):
        from embedlab.search.compression.compressing import compress_collection

        vehicles.aspects.keep(some_heads(), {})
        weights = {"colour": 1, "kind": 0.5}
        before = vehicles.search("a red boat", mode="dense", aspects=weights, top_k=48)
        compress_collection("vehicles", codec="int8", drop_vectors=True, model=encoder)
        slow = brute(vehicles, encoder.encode_query(["a red boat"])[0], weights)
        for collection in (vehicles, Collection.open("vehicles", model=encoder)):
            hits = collection.search("a red boat", mode="dense", aspects=weights, top_k=48)
            assert {hit.id: pytest.approx(hit.score, abs=0.02) for hit in hits} == slow
        assert hits[0].score == pytest.approx(before[0].score, abs=0.02)
        vehicles.add(["a red boat that came later"])
        assert len(vehicles.search("a red boat", mode="dense", aspects=weights, top_k=100)) == 49

    def test_after_an_upgrade_of_the_query_model_they_stay(self, vehicles, encoder):
        from embedlab.search.compression.upgrading import upgrade_collection

        from .conftest import HashingEncoder

        vehicles.aspects.keep(some_heads(), {})
        newer = HashingEncoder(dim=48, name="newer", salt="n")
        upgrade_collection("vehicles", model=newer, force=True, old_model=encoder)
        again = Collection.open("vehicles", model=newer)
        assert again.fingerprint == newer.fingerprint
        assert again.aspects.names == ("colour", "kind")
        assert len(again.search("a red boat", mode="dense", aspects={"kind": 1}, top_k=5)) == 5
