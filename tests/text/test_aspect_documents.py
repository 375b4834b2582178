"""Pairs, measures, heads and the three ways of training, held against hand-made cases and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.text.aspect_documents import (
    AspectEncoder,
    AspectHead,
    AspectHeads,
    AspectHeadsError,
    AspectPairs,
    ExplicitRetrofit,
    HeadSettings,
    Pairs,
    aspect_bias,
    aspect_scores,
    compare_aspects,
    nearest,
    train_head,
)

RNG = np.random.default_rng(0)


def labelled(count: int = 60, *, seed: int = 0, **options) -> AspectPairs:
    rng = np.random.default_rng(seed)
    colours = [{f"c{n}" for n in rng.choice(8, rng.integers(0, 3), replace=False)} for _ in range(count)]
    groups = [f"g{n // 2}" for n in range(count)]
    texts = [f"text {n}" for n in range(count)]
    return AspectPairs.from_labels(texts, {"colour": colours}, groups=groups, seed=seed, **options)


def labels_of(pairs: AspectPairs) -> list[set[int]]:
    relation = pairs.relation("colour")
    return [{k for k, rows in relation.carriers.items() if row in rows} for row in range(len(pairs))]


class TestPairs:
    @pytest.mark.parametrize("negatives", ["labelled", "unlabelled"])
    @pytest.mark.parametrize("partners", [None, 3])
    def test_positives_share_a_label_negatives_do_not_and_groups_stay_apart(self, negatives, partners):
        pairs = labelled(negatives=negatives, max_partners=partners)
        own = labels_of(pairs)
        drawn = pairs.sample("colour")
        assert len(drawn.negatives) == len(drawn.positives) // 2
        for first, second in drawn.positives:
            assert own[first] & own[second]
            assert pairs.groups[first] != pairs.groups[second]
            assert first < second
        for first, second in drawn.negatives:
            assert not own[first] & own[second]
            assert pairs.groups[first] != pairs.groups[second]
            assert all(own[n] for n in (first, second)) == (negatives == "labelled")
        for kind in (drawn.positives, drawn.negatives):
            assert len({tuple(pair) for pair in kind.tolist()}) == len(kind)

    def test_without_a_limit_every_pair_is_there(self):
        pairs = labelled()
        own = labels_of(pairs)
        wanted = {
            (a, b)
            for a in range(60)
            for b in range(a + 1, 60)
            if own[a] & own[b] and pairs.groups[a] != pairs.groups[b]
        }
        assert {tuple(pair) for pair in pairs.sample("colour").positives.tolist()} == wanted
        everyone = np.arange(60)
        alike = pairs.relation("colour").alike(everyone, everyone)
        assert {(a, b) for a, b in zip(*np.nonzero(alike), strict=True) if a < b} == wanted

    def test_a_limit_on_partners_bounds_the_pairs_of_a_document_and_a_label(self):
        texts = [f"text {n}" for n in range(50)]
        pairs = AspectPairs.from_labels(texts, {"kind": [{"same"}] * 50}, max_partners=2, neg_ratio=0)
        drawn = pairs.sample("kind").positives
        assert 50 <= len(drawn) <= 100  # two partners each, some of them chosen from both sides
        assert set(np.unique(drawn)) == set(range(50))

    def test_folds_share_no_document_and_no_group(self):
        pairs = labelled(folds=4)
        for fold in range(4):
            train, test = pairs.rows(fold), pairs.rows(fold, test=True)
            assert sorted([*train, *test]) == list(range(60))
            assert not set(pairs.groups[train]) & set(pairs.groups[test])
            trained = set(np.unique(pairs.sample("colour", train).positives))
            tested = set(np.unique(pairs.sample("colour", test).positives))
            assert trained <= set(train.tolist())
            assert not trained & tested
        assert sorted(np.concatenate([pairs.rows(fold, test=True) for fold in range(4)])) == list(range(60))

    def test_one_seed_gives_the_same_pairs_another_gives_others(self):
        first, again = (labelled(max_partners=2).sample("colour") for _ in range(2))
        np.testing.assert_array_equal(first.positives, again.positives)
        np.testing.assert_array_equal(first.negatives, again.negatives)
        texts, labels = [f"t{n}" for n in range(40)], {"kind": [{str(n % 3)} for n in range(40)]}
        same, other = (AspectPairs.from_labels(texts, labels, seed=seed) for seed in (0, 1))
        assert not np.array_equal(same.folds, other.folds)
        assert not np.array_equal(same.sample("kind").negatives, other.sample("kind").negatives)

    def test_a_label_above_the_cut_makes_no_pair_in_its_split_only(self):
        labels = [{"often"}] * 8 + [{"often", "seldom"}] * 2
        pairs = AspectPairs.from_labels([str(n) for n in range(10)], {"x": labels}, max_label_freq=6, folds=2)
        assert pairs.sample("x").positives.tolist() == [[8, 9]]
        half = np.arange(5)
        assert len(pairs.sample("x", half).positives) == 10  # five of them carry it here: below the cut

    def test_examples_are_pairs_and_nothing_follows_from_them(self):
        pairs = AspectPairs.from_examples(list("abcd"), {"x": [(0, 1), (1, 2)]}, folds=2)
        assert pairs.sample("x").positives.tolist() == [[0, 1], [1, 2]]

    def test_what_is_wrong_is_said(self):
        with pytest.raises(InputError, match="document 'b' has no text"):
            AspectPairs.from_labels(["text", " "], {"x": [{"1"}, {"1"}]}, ids=["a", "b"])
        with pytest.raises(InputError, match=r"unknown aspect 'colours': did you mean 'colour'\? known: colour"):
            labelled().sample("colours")
        with pytest.raises(InputError, match="aspect 'x' has no positive pair among 2 documents"):
            AspectPairs.from_labels(["a", "b"], {"x": [{"1"}, {"2"}]}).sample("x")
        with pytest.raises(InputError, match="is a text; give a collection"):
            AspectPairs.from_labels(["a", "b"], {"x": ["1", "2"]})
        with pytest.raises(InputError, match="labels of 'x': 1 for 2 documents"):
            AspectPairs.from_labels(["a", "b"], {"x": [{"1"}]})
        for options, said in (
            ({"folds": 1}, "folds=1"),
            ({"max_label_freq": 2}, "max_label_freq=2"),
            ({"neg_ratio": -1}, "neg_ratio=-1"),
            ({"max_partners": 0}, "max_partners=0"),
            ({"negatives": "labeled"}, "did you mean 'labelled'"),
        ):
            with pytest.raises(InputError, match=said):
                labelled(**options)


class TestMeasures:
    def test_six_documents_by_hand(self):
        # document 0 is alike to 1, 2, 3, 4; 5 to nobody. Lists of three; those of the others are all wrong or right.
        alike = np.zeros((6, 6), bool)
        alike[0, 1:5] = alike[1:5, 0] = True
        ranking = [[1, 5, 2], [0, 2, 3], [1, 0, 3], [1, 2, 0], [1, 2, 3], [0, 1, 2]]
        found = aspect_scores(ranking, alike)
        discount = [1 / math.log2(n + 1) for n in range(1, 5)]
        assert found.queries == 5  # the sixth is a candidate only
        assert found.precision == pytest.approx((2 / 3 + 1 / 3 + 1 / 3 + 1 / 3 + 0) / 5)
        assert found.recall == pytest.approx((2 / 4 + 1 + 1 + 1 + 0) / 5)
        assert found.mrr == pytest.approx((1 + 1 + 1 / 2 + 1 / 3 + 0) / 5)
        assert found.map == pytest.approx(((1 + 2 / 3) / 4 + 1 + 1 / 2 + 1 / 3 + 0) / 5)
        gain = (discount[0] + discount[2]) / sum(discount)  # all four relevant ones in front, though three fit
        assert found.ndcg == pytest.approx((gain + 1 + discount[1] + discount[2] + 0) / 5)

    def test_lists_leave_out_what_is_no_candidate(self):
        rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
        apart = np.zeros((4, 4), bool)
        apart[0, 1] = apart[1, 0] = True
        assert nearest(rows, top_k=2)[0].tolist() == [1, 2]
        assert nearest(rows, top_k=3, apart=apart)[0].tolist() == [2, 3, -1]

    def test_bias_leans_to_the_space_that_is_most_alike(self):
        plain = RNG.normal(size=(80, 6))
        found = aspect_bias(plain, {"far": RNG.normal(size=(80, 6)), "near": plain + 0.2 * RNG.normal(size=(80, 6))})
        assert found.leans_to == "near"
        assert found.overlap["near"] > 0.4 > found.overlap["far"]
        assert found.missing["far"] == pytest.approx(1 - found.overlap["far"])

    def test_nothing_to_score_is_an_error(self):
        with pytest.raises(InputError, match="no document has a relevant other one"):
            aspect_scores([[1], [0]], np.zeros((2, 2), bool))


def clustered(seed: int = 0) -> tuple[np.ndarray, AspectPairs]:
    """Vectors in which the kind is written small beside a loud theme: plain neighbours share the theme."""
    rng = np.random.default_rng(seed)
    theme, kind = rng.integers(0, 6, 240), rng.integers(0, 4, 240)
    rows = np.concatenate([2.0 * np.eye(6)[theme], 0.8 * np.eye(4)[kind]], axis=1) + 0.15 * rng.normal(size=(240, 10))
    labels = {"theme": [{str(n)} for n in theme], "kind": [{str(n)} for n in kind]}
    texts = [f"text {n}" for n in range(240)]
    pairs = AspectPairs.from_labels(texts, labels, max_label_freq=None, max_partners=5, seed=seed)
    return rows.astype(np.float32), pairs


SMALL = HeadSettings(hidden=32, epochs=4, batch_size=32, learning_rate=1e-2)


def quick() -> ExplicitRetrofit:
    return ExplicitRetrofit(hidden=32, layers=2, steps=150, check_every=25, batch_size=32, learning_rate=5e-3)


class TestTraining:
    def test_every_way_beats_plain_vectors_on_documents_held_out(self):
        rows, pairs = clustered()
        found = compare_aspects(
            pairs, rows, ways=("siamese", "classification", "retrofitting"), settings=SMALL, retrofit=quick, folds=1
        )
        for way in ("siamese", "classification"):
            assert found.gain("kind", system=way)[0] > 0.2
        assert found.gain("kind", system="retrofitting", metric="map")[0] > 0
        assert found.helps("kind")
        matrix = {a: {b: folds[0] for b, folds in row.items()} for a, row in found.matrix.items()}
        assert matrix["kind"]["kind"] > matrix["theme"]["kind"]
        assert matrix["theme"]["theme"] > matrix["kind"]["theme"]
        assert found.bias["theme"][0] > found.bias["kind"][0]  # the theme is loud
        table = found.to_table()
        assert "siamese" in table
        assert "P@10 of the space for" in table
        assert found.to_dict()["helps"] == {"theme": found.helps("theme"), "kind": True}

    def test_training_is_seeded_and_leaves_everything_alone(self):
        rows, pairs = clustered()
        before = rows.copy()
        drawn, relation = pairs.sample("kind"), pairs.relation("kind")
        heads = [train_head(rows, drawn, relation, settings=SMALL, seed=seed) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(heads[0].weights[1], heads[1].weights[1])
        assert not np.array_equal(heads[0].weights[1], heads[2].weights[1])
        np.testing.assert_array_equal(rows, before)

    def test_bad_settings_are_refused(self):
        rows, pairs = clustered()
        with pytest.raises(InputError, match="batch_size=1"):
            HeadSettings(batch_size=1)
        with pytest.raises(InputError, match="way='siam'"):
            train_head(rows, pairs.sample("kind"), pairs.relation("kind"), way="siam")
        alone = Pairs(pairs.sample("kind").positives, np.empty((0, 2), np.int64))
        with pytest.raises(InputError, match="needs negative pairs"):
            train_head(rows, alone, pairs.relation("kind"), way="classification")
        with pytest.raises(InputError, match="unknown way"):
            compare_aspects(pairs, rows, ways=("simese",))
        with pytest.raises(InputError, match="vectors: 10 rows for 240"):
            compare_aspects(pairs, rows[:10])


class TestRetrofit:
    def test_where_there_are_no_constraints_vectors_stay(self):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(400, 12)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        few = Pairs(np.arange(80).reshape(40, 2), np.empty((0, 2), np.int64))
        fitted = ExplicitRetrofit(
            hidden=64, layers=2, steps=800, check_every=100, batch_size=20, learning_rate=5e-3, regularisation=1.0
        ).fit(rows, few)
        moved = 1 - np.vecdot(fitted.transform(rows), rows)
        assert moved[200:].mean() < 0.15  # never seen in training but as neighbours
        before = np.vecdot(rows[few.positives[:, 0]], rows[few.positives[:, 1]]).mean()
        after = np.vecdot(*(fitted.transform(rows[few.positives[:, side]]) for side in (0, 1))).mean()
        assert after > before + 0.1
        assert fitted.mean_cosine_ < 0.3  # it has not collapsed

    def test_it_generalises_to_unseen_documents(self):
        rows, pairs = clustered()
        train, test = pairs.rows(0), pairs.rows(0, test=True)
        mapped = quick().fit(rows, pairs.sample("kind", train)).transform(rows[test])
        relevant = pairs.relation("kind", test).alike(test, test)
        assert aspect_scores(nearest(mapped), relevant).map > aspect_scores(nearest(rows[test]), relevant).map

    def test_the_loss_of_one_micro_batch_by_hand(self):
        import torch

        from embedlab.text.aspect_documents.retrofit import retrofit_loss

        right, up, left = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
        # the pair: mapped to a right angle (distance 1), wanted 0; a neighbour: mapped opposite (2), wanted 0.5
        mapped = torch.tensor([[[right, up], [right, left]]])
        original = torch.tensor([[[right, right], [right, left]]])
        # ((0.5 - 0) - (2 - 1))^2 = 0.25; of four sides one has moved, by 1: 0.3 * 1
        loss = retrofit_loss(mapped, original, torch.tensor([[0.0, 0.5]]), 0.3)
        assert loss.item() == pytest.approx(0.55, abs=1e-6)

    def test_micro_batches_hold_the_pair_and_neighbours_of_either_side(self):
        rows = RNG.normal(size=(30, 4)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        positives = np.array([[0, 1], [2, 3]])
        made = ExplicitRetrofit(neighbours=5, drawn=2)._micro_batches(rows, positives, np.random.default_rng(0))
        micro, gold = made
        assert micro.shape == (2, 5, 2)
        for place, pair in enumerate(positives):
            assert micro[place, 0].tolist() == pair.tolist()
            assert gold[place, 0] == 0
            for k in range(1, 5):
                own, other = micro[place, k]
                assert own == pair[(k - 1) // 2]
                order = np.argsort(-(rows @ rows[own]))
                assert other in order[1:6]
                known = {own, other} in ({0, 1}, {2, 3})
                assert gold[place, k] == pytest.approx(0 if known else 1 - rows[own] @ rows[other], abs=1e-6)

    def test_bad_settings_are_refused(self):
        for options, said in (
            ({"layers": 0}, "layers=0"),
            ({"drawn": 60}, "drawn=60"),
            ({"held_out": 1.0}, "held_out=1.0"),
        ):
            with pytest.raises(InputError, match=said):
                ExplicitRetrofit(**options)
        with pytest.raises(InputError, match="call fit first"):
            ExplicitRetrofit().transform(np.ones((2, 3)))
        with pytest.raises(InputError, match="no positive pair"):
            ExplicitRetrofit().fit(np.eye(3), Pairs(np.empty((0, 2), np.int64), np.empty((0, 2), np.int64)))


def heads() -> AspectHeads:
    rng = np.random.default_rng(0)
    one = AspectHead(
        (rng.normal(size=(7, 4)), rng.normal(size=(4, 7))), (rng.normal(size=7), rng.normal(size=4)), residual=True
    )
    two = AspectHead((rng.normal(size=(5, 4)), rng.normal(size=(3, 5))), (np.zeros(5), np.zeros(3)), "tanh", True)
    return AspectHeads({"method": one, "task": two}, "toy:1", {"method": {"way": "siamese", "documents": 12}})


class TestHeads:
    def test_a_head_is_its_formula(self):
        rows = RNG.normal(size=(6, 4))
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        made = heads().heads
        one, two = made["method"], made["task"]
        slow = np.stack(
            [v + one.weights[1] @ np.maximum(one.weights[0] @ v + one.biases[0], 0) + one.biases[1] for v in unit]
        )
        np.testing.assert_allclose(one(rows), slow / np.linalg.norm(slow, axis=1, keepdims=True), atol=1e-6)
        slow = np.stack([np.tanh(two.weights[1] @ np.tanh(two.weights[0] @ v)) for v in unit])
        np.testing.assert_allclose(two(rows), slow / np.linalg.norm(slow, axis=1, keepdims=True), atol=1e-6)
        assert not one(np.zeros((1, 4))).any()
        assert (one.dim, one.dim_out, two.dim_out) == (4, 4, 3)

    def test_saved_and_read_it_is_the_same(self):
        made, rows = heads(), RNG.normal(size=(5, 4))
        read = AspectHeads.from_bytes(made.to_bytes(), fingerprint="toy:1")
        assert list(read.heads) == ["method", "task"]
        assert read.about == made.about
        for name in made.heads:
            np.testing.assert_array_equal(read.heads[name](rows), made.heads[name](rows))

    def test_any_flipped_byte_is_seen(self):
        data = heads().to_bytes()
        for place in range(0, len(data), 37):
            broken = bytearray(data)
            broken[place] ^= 0x10
            with pytest.raises(AspectHeadsError, match=r"damaged|format"):
                AspectHeads.from_bytes(bytes(broken))
        for cut in (0, 5, 100, len(data) - 1):
            with pytest.raises(AspectHeadsError, match="damaged"):
                AspectHeads.from_bytes(data[:cut])

    def test_another_model_is_refused(self):
        with pytest.raises(AspectHeadsError, match="belongs to model toy:1, but the model is other:2"):
            AspectHeads.from_bytes(heads().to_bytes(), fingerprint="other:2")

    def test_bad_heads_are_refused(self):
        with pytest.raises(InputError, match="do not follow each other"):
            AspectHead((np.ones((3, 4)), np.ones((2, 5))), (np.ones(3), np.ones(2)))
        with pytest.raises(InputError, match="not finite"):
            AspectHead((np.full((2, 2), np.nan),), (np.zeros(2),))
        with pytest.raises(InputError, match="residual"):
            AspectHead((np.ones((3, 4)),), (np.ones(3),), residual=True)
        for name in ("generic", "", "1st", "a=b", "x" * 65):
            with pytest.raises(InputError, match="aspect"):
                AspectHeads({name: heads().heads["task"]}, "toy:1")
        with pytest.raises(InputError, match=r"\(N, 4\)"):
            heads().heads["task"](np.ones((2, 3)))


COLOURS = ["a red car", "a red bus", "an old car", "an old bus"] * 3


def colour_pairs() -> AspectPairs:
    texts = [f"{text} number {n}" for n, text in enumerate(COLOURS)]
    labels = {"colour": [{text.split()[1]} for text in COLOURS], "kind": [{text.split()[2]} for text in COLOURS]}
    return AspectPairs.from_labels(texts, labels, folds=2)


class TestEncoder:
    def test_one_array_for_each_aspect(self, tmp_path):
        pairs = colour_pairs()
        encoder = AspectEncoder(load_model(), pairs.aspects).fit(pairs)
        found = encoder.encode(["a red bicycle", ""])
        assert list(found) == ["colour", "kind"]
        assert all(rows.shape == (2, 256) and rows.dtype == np.float32 for rows in found.values())
        np.testing.assert_allclose(np.linalg.norm(found["kind"], axis=1), [1, 0], atol=1e-6)
        np.testing.assert_allclose(encoder.encode(["a red bicycle"], aspect="kind"), found["kind"][:1], atol=1e-6)
        assert encoder.heads is not None
        assert encoder.heads.fingerprint == encoder.backbone.fingerprint
        encoder.save(tmp_path / "aspects")
        read = AspectEncoder.load(tmp_path / "aspects")
        np.testing.assert_array_equal(read.encode(["a red bicycle", ""])["kind"], found["kind"])
        (tmp_path / "aspects" / "aspects.safetensors").unlink()
        with pytest.raises(AspectHeadsError, match="is damaged"):
            AspectEncoder.load(tmp_path / "aspects")
        (tmp_path / "aspects" / "aspects.json").write_text('{"backbone": "default", "aspects"', encoding="utf-8")
        with pytest.raises(AspectHeadsError, match=r"aspects.json is damaged"):
            AspectEncoder.load(tmp_path / "aspects")
        with pytest.raises(InputError, match="no aspect encoder there"):
            AspectEncoder.load(tmp_path / "none")

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's call of transformers
    @pytest.mark.parametrize(
        ("mode", "way"), [("separate", "siamese"), ("separate", "classification"), ("lora", "siamese")]
    )
    def test_fine_tuning_changes_copies_alone(self, mode, way, tmp_path):
        from embedlab.models.sentence_transformer import SentenceTransformerModel
        from embedlab.testing.tiny import tiny_encoder
        from embedlab.text.aspect_documents.finetuning import FineTuning

        pairs = colour_pairs()
        backbone = SentenceTransformerModel.of(tiny_encoder(pairs.docs), name="tiny")
        before, fingerprint = backbone.encode_document(pairs.docs), backbone.fingerprint
        tuning = FineTuning(epochs=8, batch_size=6, learning_rate=5e-3, rank=4)
        encoder = AspectEncoder(backbone, pairs.aspects, mode=mode, way=way, tuning=tuning).fit(pairs)
        found = encoder.encode(pairs.docs)
        again = encoder.encode(pairs.docs, aspect="colour")  # after the other adapter was on
        np.testing.assert_allclose(again, found["colour"], atol=1e-6)
        assert not np.allclose(found["colour"], found["kind"], atol=1e-3)
        encoder.save(tmp_path / "aspects")
        read = AspectEncoder.load(tmp_path / "aspects", backbone=backbone).encode(pairs.docs)
        for aspect in pairs.aspects:
            np.testing.assert_allclose(read[aspect], found[aspect], atol=1e-5)
        if way == "siamese":
            everyone = np.arange(len(pairs))
            for aspect in pairs.aspects:
                alike = pairs.relation(aspect).alike(everyone, everyone)
                ours, plain = (aspect_scores(nearest(rows, top_k=4), alike) for rows in (found[aspect], before))
                assert ours.precision > plain.precision
        fresh = SentenceTransformerModel.of(backbone.host, name="tiny")
        assert fresh.fingerprint == fingerprint

    def test_what_is_wrong_is_said(self):
        model, pairs = load_model(), colour_pairs()
        with pytest.raises(InputError, match="unknown aspect 'colours': did you mean 'colour'"):
            AspectEncoder(model, ["colour"]).encode(["x"], aspect="colours")
        with pytest.raises(InputError, match="call fit first"):
            AspectEncoder(model, ["colour"]).encode(["x"])
        with pytest.raises(InputError, match="unknown aspect 'size'"):
            AspectEncoder(model, ["size"]).fit(pairs)
        with pytest.raises(InputError, match="needs a sentence-transformers model"):
            AspectEncoder(model, ["colour"], mode="lora")
        with pytest.raises(InputError, match="does not go with mode='lora'"):
            AspectEncoder(model, ["colour"], mode="lora", way="retrofitting")
        with pytest.raises(InputError, match="unknown mode"):
            AspectEncoder(model, ["colour"], mode="head")
