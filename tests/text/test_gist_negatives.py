"""What the guide drops, counted by hand; and the miner's promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.text.gist import GuideStore, mine_class_triplets, report_masks


def circle(degrees: dict[str, float]) -> GuideStore:
    def place(texts):
        angles = np.deg2rad([degrees[text] for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    return GuideStore.build(place, degrees, fingerprint="circle")


# three pairs on a circle, with hard negatives: the bar of each anchor is the angle to its positive
STORE = circle({"q0": 0, "p0": 20, "q1": 10, "p1": 90, "q2": 180, "p2": 190, "n0": 15, "n1": 200, "n2": 175})
COLUMNS = (["q0", "q1", "q2"], ["p0", "p1", "p2"])
NEGATIVES = ["n0", "n1", "n2"]
TEXTS = [f"{name}{i}" for name in "abc" for i in range(8)]
LABELS = [text[0] for text in TEXTS]


class TestReport:
    def test_counts_by_hand(self):
        # q0 (bar 20): drops q1. q1 (bar 80): drops p0, q0; of its positive p1 at 90: p0, 70 away. q2 (bar 10): nothing
        report = report_masks(STORE, *COLUMNS)
        assert report.dropped == pytest.approx({"QP": 1 / 6, "QQ": 2 / 6, "PP": 1 / 6})
        assert report.emptied == 0
        assert np.isnan(report.precision)
        assert np.isnan(report.recall)

    def test_hard_negatives_are_a_block_of_their_own(self):
        # n0 at 15 is nearer than p0 to q0 and nearer than p1 to q1; n2 at 175 is nearer than p2 to q2
        assert report_masks(STORE, *COLUMNS, NEGATIVES).dropped["QN"] == pytest.approx(3 / 9)

    def test_precision_and_recall_against_classes(self):
        # pairs 0 and 1 belong together: all 4 that were dropped are of one class, of 6 that are
        report = report_masks(STORE, *COLUMNS, labels=["x", "x", "y"])
        assert (report.precision, report.recall) == (1.0, pytest.approx(4 / 6))
        report = report_masks(STORE, *COLUMNS, labels=["x", "y", "z"])
        assert report.precision == 0.0
        assert np.isnan(report.recall)
        report = report_masks(STORE, *COLUMNS, NEGATIVES, labels=["x", "x", "y"], negative_labels=[["x", "z", "z"]])
        assert (report.precision, report.recall) == (pytest.approx(6 / 7), pytest.approx(6 / 8))

        # n0 is of class x and dropped for both anchors of x; n2 is of another class than q2 and dropped
        assert report.by_block == {
            "QP": (1.0, 0.5),
            "QN": (pytest.approx(2 / 3), 1.0),
            "QQ": (1.0, 1.0),
            "PP": (1.0, 0.5),
        }
        assert "QN" not in report_masks(STORE, *COLUMNS, NEGATIVES, labels=["x", "x", "y"]).by_block

    def test_several_columns_of_negatives_are_one_block(self):
        one = report_masks(STORE, *COLUMNS, NEGATIVES, labels=["x", "x", "y"], negative_labels=[["x", "z", "z"]])
        two = report_masks(
            STORE, *COLUMNS, NEGATIVES, COLUMNS[0], labels=["x", "x", "y"], negative_labels=[["x", "z", "z"]] * 2
        )
        # the second column are the anchors: each drops itself, q0 drops q1 and q1 drops q0
        assert one.dropped["QN"] == pytest.approx(3 / 9)
        assert two.dropped["QN"] == pytest.approx((3 + 5) / 18)
        assert two.by_block["QP"] == one.by_block["QP"]
        with pytest.raises(InputError, match="negative_labels"):
            report_masks(STORE, *COLUMNS, NEGATIVES, labels=["x", "x", "y"], negative_labels=[])

    def test_margin_drops_more(self):
        report = report_masks(STORE, *COLUMNS, margin=2.0)
        assert report.dropped == {"QP": 1.0, "QQ": 1.0, "PP": 1.0}
        assert report.emptied == 1.0
        # a tenth of the cosine is left of each bar, which then lies at 85, 89 and 84 degrees
        relative = report_masks(STORE, *COLUMNS, margin=0.9, margin_strategy="relative")
        assert relative.dropped == pytest.approx({"QP": 1 / 6, "QQ": 2 / 6, "PP": 2 / 6})

    def test_columns_of_different_length_are_refused(self):
        with pytest.raises(InputError, match=r"\[3, 2\]"):
            report_masks(STORE, ["q0", "q1", "q2"], ["p0", "p1"])
        with pytest.raises(InputError, match=r"\[3, 3, 2\]"):
            report_masks(STORE, *COLUMNS, labels=["x", "y"])


class TestMiner:
    @staticmethod
    def store(texts):
        rng = np.random.default_rng(0)
        return GuideStore.build(lambda batch: rng.standard_normal((len(batch), 4)), texts, fingerprint="random:0")

    def test_rows_respect_classes_and_never_repeat_a_text(self):
        mined = mine_class_triplets(TEXTS, LABELS, self.store(TEXTS))
        assert mined["anchor"][:] == TEXTS
        for row in mined:
            assert row["anchor"][0] == row["positive"][0] == row["label"]
            assert row["negative"][0] != row["label"]
            assert len({row["anchor"], row["positive"], row["negative"]}) == 3

    def test_seed_decides(self):
        store = self.store(TEXTS)
        one, same, other = (mine_class_triplets(TEXTS, LABELS, store, seed=seed) for seed in (0, 0, 1))
        assert one.to_dict() == same.to_dict()
        assert one.to_dict() != other.to_dict()

    def test_singletons_and_repeats(self):
        texts, labels = [*TEXTS, "alone", "a0", "b1"], [*LABELS, "d", "a", "a"]
        mined = mine_class_triplets(texts, labels, self.store(texts))
        assert mined["anchor"][:] == TEXTS  # each once; "alone" has no fellow
        assert dict(zip(mined["anchor"], mined["label"], strict=True))["b1"] == "b"  # its first label

    def test_only_the_nearest_become_positives(self):
        store = self.store(TEXTS)
        mined = mine_class_triplets(TEXTS, LABELS, store, top_k=1)
        for row in mined:
            fellows = [t for t in TEXTS if t[0] == row["label"] and t != row["anchor"]]
            cosines = store.vectors(fellows) @ store.vectors([row["anchor"]])[0]
            assert row["positive"] == fellows[int(cosines.argmax())]

    def test_positives_follow_the_softmax(self):
        degrees = {"q": 0, "near": 10, "mid": 20, "far": 40, "other": 180}
        store, texts, labels = circle(degrees), list(degrees), ["x", "x", "x", "x", "y"]
        drawn = Counter(
            mine_class_triplets(texts, labels, store, seed=seed, top_k=2)["positive"][0] for seed in range(600)
        )
        weights = np.exp(np.cos(np.deg2rad([10, 20])) / 0.05)
        assert drawn["far"] == 0  # not among the two nearest
        assert drawn["near"] / 600 == pytest.approx(weights[0] / weights.sum(), abs=0.06)

    def test_least_similar_negatives_follow_the_softmax(self):
        degrees = {"q": 0, "fellow": 10, "near": 80, "mid": 84, "far": 90}
        store, texts, labels = circle(degrees), list(degrees), ["x", "x", "y", "y", "z"]
        drawn = Counter(
            mine_class_triplets(texts, labels, store, seed=seed, negative="least_similar")["negative"][0]
            for seed in range(600)
        )
        weights = np.exp(-np.cos(np.deg2rad([80, 84, 90])) / 0.05)
        for name, weight in zip(("near", "mid", "far"), weights / weights.sum(), strict=True):
            assert drawn[name] / 600 == pytest.approx(weight, abs=0.06)

    @pytest.mark.parametrize("negative", ["uniform", "least_similar"])
    def test_negatives_may_be_kept_near(self, negative):
        store = self.store(TEXTS)
        seen = set()
        for seed in range(20):
            for row in mine_class_triplets(TEXTS, LABELS, store, negative=negative, negative_top_k=2, seed=seed):
                others = [t for t in TEXTS if t[0] != row["label"]]
                cosines = store.vectors(others) @ store.vectors([row["anchor"]])[0]
                nearest = [others[i] for i in np.argsort(-cosines)[:2]]
                assert row["negative"] in nearest
                seen.add(nearest.index(row["negative"]))
        assert seen == {0, 1}

    @pytest.mark.parametrize(
        ("texts", "labels", "options", "says"),
        [
            (["a", "b"], ["x"], {}, "labels"),
            (["a", "b"], ["x", "x"], {}, "at least 2"),
            (["a", "b", "a"], ["x", "x", "y"], {}, "at least 2"),  # what occurs again counts with its first label
            (["a", "b"], ["x", "y"], {"top_k": 0}, "top_k"),
            (["a", "b"], ["x", "y"], {"temperature": 0.0}, "temperature"),
            (["a", "b"], ["x", "y"], {"negative": "hardest"}, "negative="),
            (["a", "b"], ["x", "y"], {"negative_top_k": 0}, "negative_top_k"),
            (["a", "unknown"], ["x", "y"], {}, "unknown"),
        ],
    )
    def test_bad_values_are_named(self, texts, labels, options, says):
        store = GuideStore.build(lambda batch: np.ones((len(batch), 2)), ["a", "b"], fingerprint="ones")
        with pytest.raises(InputError, match=says):
            mine_class_triplets(texts, labels, store, **options)
