"""Depth between corpora: the bootstrap of Q against resampling done by hand, labels, drift, and prompts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from embedlab._core.errors import InputError
from embedlab.ops.significance import holm
from embedlab.understand.depth_shift import DriftMonitor, bootstrap_q, shift_by_label
from embedlab.understand.few_shot import FewShotPrompt, few_shot_prompt, label_texts
from embedlab.understand.tte_depth import TextDepth, compare_depths


def cloud(n: int, *, seed: int = 0, shift: float = 1.0, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


class TestBootstrap:
    def test_it_is_resampling_and_measuring_again(self):
        own, other = cloud(60), cloud(40, seed=1, shift=0.6)
        found = bootstrap_q(own, other, num_resamples=600)
        assert found.estimate == TextDepth().fit(own).q(other)
        unit = own / np.linalg.norm(own, axis=1, keepdims=True)
        rng, drawn = np.random.default_rng(5), []
        for _ in range(600):
            chosen, others = rng.integers(0, 60, size=60), rng.integers(0, 40, size=40)
            inner = []
            for i in chosen:  # a text drawn twice is no neighbour of itself
                rest = unit[chosen[chosen != i]]
                inner.append((rest @ unit[i]).mean())
            outer = other[others] @ unit[chosen].mean(axis=0) / np.linalg.norm(other[others], axis=1)
            drawn.append(np.mean(np.array(inner)[:, None] < outer[None]))
        assert_allclose([found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=0.03)

    def test_equal_corpora_are_within_it_as_often_as_it_says(self):
        inside = 0
        for seed in range(60):
            rows = cloud(120, seed=seed)
            found = bootstrap_q(rows[:60], rows[60:], num_resamples=200, seed=seed)
            inside += found.low <= 0.5 <= found.high
        assert inside >= 51

    def test_texts_that_belong_together_widen_it(self):
        centres = cloud(20)
        rows = np.repeat(centres, 10, axis=0) + 0.05 * cloud(200, seed=1, shift=0)
        groups = np.repeat(np.arange(20), 10)
        alone = bootstrap_q(rows, cloud(100, seed=2))
        together = bootstrap_q(rows, cloud(100, seed=2), reference_groups=groups)
        assert together.high - together.low > 1.5 * (alone.high - alone.low)

    def test_bad_options_are_refused(self):
        with pytest.raises(InputError, match="num_resamples=9"):
            bootstrap_q(cloud(9), cloud(9), num_resamples=9)
        with pytest.raises(InputError, match="confidence=1"):
            bootstrap_q(cloud(9), cloud(9), confidence=1.0)


class TestLabels:
    def test_each_label_is_tested_within_itself_and_adjusted(self):
        own, other = cloud(240), cloud(240, seed=1)
        labels = np.repeat(["a", "b", "c"], 80).tolist()
        other[160:] -= 2.5 * np.eye(6)[0]
        found = shift_by_label(own, other, labels, labels)
        assert found.groups[0].label == "c"
        assert found.groups[0].adjusted < 0.001
        by_label = {group.label: group for group in found.groups}
        inside = TextDepth().fit(own[:80]).test(other[:80], alternative="two-sided")
        assert by_label["a"].test == inside
        expected = holm([group.test.pvalue for group in found.groups])
        assert_allclose([group.adjusted for group in found.groups], expected)

    def test_small_labels_are_named_not_tested(self):
        labels = ["a"] * 30 + ["rare"] * 2
        found = shift_by_label(cloud(32), cloud(31, seed=1), labels, ["a"] * 30 + ["new"])
        assert [group.label for group in found.groups] == ["a"]
        assert found.groups[0].test.method == "permutation"
        assert found.left_out == ("new", "rare")
        assert_allclose(found.groups[0].share_other, 30 / 31)

    def test_labels_must_match(self):
        with pytest.raises(InputError, match="other_labels has 1"):
            shift_by_label(cloud(4), cloud(4), ["a"] * 4, ["a"])
        with pytest.raises(InputError, match="at_least=1"):
            shift_by_label(cloud(4), cloud(4), ["a"] * 4, ["a"] * 4, at_least=1)


class TestDrift:
    def test_batches_give_what_the_whole_gives(self):
        own, arrived = cloud(300), cloud(200, seed=1, shift=0.7)
        monitor = DriftMonitor(own)
        first = monitor.add(arrived[:50])
        monitor.add(arrived[50:])
        depth = TextDepth().fit(own)
        assert_allclose(first, depth.depths(arrived[:50]))
        assert monitor.test() == compare_depths(depth.depths(), depth.depths(arrived), alternative="two-sided")
        assert (monitor.count, monitor.seen) == (300, 200)
        monitor.reset()
        assert monitor.seen == 0
        with pytest.raises(InputError, match="nothing has arrived"):
            monitor.test()

    def test_saved_and_loaded_it_says_the_same(self, tmp_path):
        own, arrived = cloud(80), cloud(60, seed=1)
        monitor = DriftMonitor(own, fingerprint="static:0123")
        monitor.save(tmp_path / "reference.npz")
        loaded = DriftMonitor.load(tmp_path / "reference.npz")
        assert loaded.fingerprint == "static:0123"
        for each in (monitor, loaded):
            each.add(arrived)
        assert loaded.test() == monitor.test()

    def test_a_large_reference_is_kept_small(self, tmp_path):
        own = cloud(30_000, dim=3)
        DriftMonitor(own).save(tmp_path / "reference.npz")
        assert (tmp_path / "reference.npz").stat().st_size < 100_000
        monitor = DriftMonitor.load(tmp_path / "reference.npz")
        monitor.add(cloud(2000, seed=1, dim=3))
        assert monitor.count == 30_000
        assert 0.45 < monitor.test().q < 0.55

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
    def test_other_files_are_refused(self, tmp_path, content):
        path = tmp_path / "reference.npz"
        path.write_bytes(content)
        with pytest.raises(InputError, match="no saved reference"):
            DriftMonitor.load(path)
        with pytest.raises(InputError, match="no saved reference"):
            DriftMonitor.load(tmp_path / "missing.npz")

    def test_pickled_arrays_are_refused(self, tmp_path):
        values = np.array([{"a": 1}], dtype=object)
        np.savez(tmp_path / "bad.npz", format=1, total=values, count=3, depths=values, fingerprint="")
        with pytest.raises(InputError, match="no saved reference"):
            DriftMonitor.load(tmp_path / "bad.npz")


class TestPrompts:
    TEXTS = ("near a", "far a", "mid a", "near b", "far b", "mid b")
    LABELS = ("a", "a", "a", "b", "b", "b")
    # the middle one of three directions is the deepest
    ROWS = np.array([[1, 0, 0.1], [1, 0, 1.5], [1, 0, 0.5], [0, 1, 0.1], [0, 1, 1.5], [0, 1, 0.5]])

    def test_labels_take_turns_and_the_best_come_last(self):
        prompt = few_shot_prompt(self.TEXTS, self.LABELS, self.ROWS, k=2)
        assert [label for _, label in prompt.examples] == ["a", "b", "a", "b"]
        assert [text for text, _ in prompt.examples][2:] == ["mid a", "mid b"]
        asked = prompt.for_text("  what\nis it ")
        assert asked.endswith("Text: what is it\nLabel:")
        assert asked.startswith("Give the label")

    def test_without_balance_the_deepest_of_all_are_shown(self):
        rows = np.vstack([self.ROWS[:3], self.ROWS[3:] * [1, 0.2, 1]])
        prompt = few_shot_prompt(self.TEXTS, self.LABELS, rows, k=2, balanced=False, instruction="Say.")
        order = TextDepth().fit(rows).order()
        assert list(prompt.rows) == order[:2][::-1].tolist()
        assert prompt.instruction == "Say."

    @pytest.mark.parametrize(
        ("answer", "label"),
        [
            ("card", "card"),
            ("Label: Card lost.", "card lost"),
            ("\n**card lost** since it is", "card lost"),
            ("It is rate", "rate"),
            ("card lost or rate", "card lost"),
            ("either rate or card", None),
            ("neither", None),
            ("", None),
        ],
    )
    def test_answers_are_read_with_care(self, answer, label):
        assert FewShotPrompt("?", (), ("card", "card lost", "rate"), ()).read(answer) == label

    def test_any_function_will_do_as_a_model(self):
        prompt = few_shot_prompt(self.TEXTS, self.LABELS, self.ROWS)
        seen = []

        def echo(asked: str) -> str:
            seen.append(asked)
            return asked.splitlines()[-2][-1]

        assert label_texts(prompt, ["an a", "a b", "a c"], echo) == ["a", "b", None]
        assert len(seen) == 3

    @pytest.mark.parametrize(
        ("labels", "rows", "says"),
        [(LABELS[:2], ROWS, "one label per text"), (("a", " ", "b") * 2, ROWS, "empty"), (LABELS, ROWS[:5], "labels")],
    )
    def test_bad_input_is_refused_by_name(self, labels, rows, says):
        with pytest.raises(InputError, match=says):
            few_shot_prompt(self.TEXTS, labels, rows)
