"""The comparison agrees with scipy, handles ties and few pairs, corrects by Holm, and says so in words and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from embedlab._core.errors import InputError
from embedlab.ops.significance import holm
from embedlab.text.pooling_attention import classes, clusters, compare_models, similarity
from embedlab.text.pooling_attention.harness import batches

DRAW = np.random.default_rng(0)
RESULTS = {
    m: {f"d{i}": float(x) + lift for i, x in enumerate(DRAW.random(10))} for m, lift in (("1", 0), ("4", 0.3), ("5", 1))
}


@pytest.mark.parametrize("zeros", ["wilcox", "pratt"])
def test_it_agrees_with_scipy(zeros: Any) -> None:
    tied = {m: {k: round(v, 1) for k, v in row.items()} for m, row in RESULTS.items()}
    for results in (RESULTS, tied):
        found = compare_models(results, "1", pairs=[("5", "4")], zeros=zeros)
        steps = [[results[m][k] - results[o][k] for k in results["1"]] for m, o in (("4", "1"), ("5", "1"), ("5", "4"))]
        raw = [wilcoxon(each, zero_method=zeros).pvalue for each in steps]
        assert [row.pvalue for row in found.rows] == raw
        assert [row.corrected for row in found.rows] == holm(raw).tolist()
        assert [
            row.corrected
            for row in compare_models(results, "1", pairs=[("5", "4")], correction="none", zeros=zeros).rows
        ] == raw


def test_holm_by_hand() -> None:
    found = compare_models(RESULTS, "1")
    low, high = sorted(row.pvalue for row in found.rows)
    assert sorted(row.corrected for row in found.rows) == [min(1, 2 * low), max(min(1, 2 * low), high)]


def test_types_are_tested_apart_and_few_pairs_say_so() -> None:
    types = {f"d{i}": "similarity" if i < 7 else "search" for i in range(10)}
    found = compare_models(RESULTS, "1", types=types)
    assert [(row.type, row.model, row.n) for row in found.rows] == [
        ("similarity", "4", 7),
        ("similarity", "5", 7),
        ("search", "4", 3),
        ("search", "5", 3),
    ]
    few = found.of("search", "5")
    assert few.verdict == "not enough pairs"
    assert math.isnan(few.pvalue)
    assert found.of("similarity", "5").verdict == "better"
    assert compare_models(RESULTS, "5", types=types).of("similarity", "1").verdict == "worse"
    assert "over 2 tests" in found.correction
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["rows"][3]["pvalue"] is None
    assert "not enough pairs" in found.to_markdown()
    assert found.to_table().row_count == 4


def test_pairs_that_are_equal_do_not_count() -> None:
    same = {"a": {str(i): 0.5 for i in range(9)}, "b": {str(i): 0.5 + (i > 3) * 0.01 * i for i in range(9)}}
    row = compare_models(same, "a").rows[0]
    assert (row.n, row.differing, row.verdict) == (9, 5, "not enough pairs")


def test_randomisation_is_the_other_test() -> None:
    row = compare_models(RESULTS, "1", test="randomisation").rows[1]
    assert row.pvalue == pytest.approx(2 / 2**10, rel=0.01)


def test_data_sets_that_one_model_lacks_are_left_out() -> None:
    results = {**RESULTS, "5": {k: v for k, v in RESULTS["5"].items() if k != "d0"}}
    assert [row.n for row in compare_models(results, "1").rows] == [10, 9]


@dataclass
class Score:
    type: str
    score: float


@dataclass
class Run:
    model: str
    tasks: dict[str, Score]


@dataclass
class Evaluation:
    runs: list[Run]


def test_what_evaluate_gave_is_taken_as_it_is() -> None:
    runs = [Run(m, {k: Score("STS", v) for k, v in row.items()}) for m, row in RESULTS.items()]
    assert compare_models(Evaluation(runs), "1").of("STS", "5").pvalue == compare_models(RESULTS, "1").rows[1].pvalue


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"baseline": "0"}, "baseline"),
        ({"test": "t"}, "test"),
        ({"correction": "bonferroni"}, "correction"),
        ({"zeros": "split"}, "zeros"),
        ({"pairs": [("5", "3")]}, "pairs"),
        ({"types": {"d0": "x"}}, "types"),
        ({"level": 1.0}, "level"),
        ({"results": {**RESULTS, "9": {"d0": math.nan}}}, "results"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compare_models(**{"results": RESULTS, "baseline": "1", **arguments})


def test_probes_by_hand() -> None:
    place = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.96, 0.28], "d": [0.28, 0.96]}

    def encode(texts: Any) -> Any:
        return np.array([place[text] for text in texts], dtype=np.float32)

    assert similarity("s", ["a", "a", "a"], ["b", "c", "d"], [0, 5, 2]).score(encode) == pytest.approx(1)
    assert classes("c", ["a", "c", "b"], ["x", "x", "x"], ["d"], ["x"]).score(encode) == 1
    assert clusters("k", ["a", "c", "b", "d"], [0, 0, 1, 1]).score(encode) == pytest.approx(1)


def test_every_row_comes_before_any_comes_again() -> None:
    rows = [[str(place)] for place in range(10)]
    found = [row[0] for batch in batches(rows, 4, 5, 0) for row in batch]
    assert sorted(found[:10]) == sorted(found[10:]) == sorted(str(place) for place in range(10))
    assert found[:10] != found[10:]
