"""Verdicts at their edges, and fingerprints that tell what they should and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedlab._core.claims import STATES, Claim, judge, worst
from embedlab._core.errors import InputError
from embedlab._core.hashes import bare_code, data_hash, source_hash


def claim(**changes: Any) -> Claim:
    fields = {"id": "a", "words": "b", "metric": "new", "baseline": "old", "direction": "higher", "margin": 0.5}
    return Claim(**(fields | changes))


def gains(*values: float) -> list[dict[str, float]]:
    return [{"new": 1.0 + value, "old": 1.0} for value in values]


@pytest.mark.parametrize(
    ("margin", "measured", "verdict"),
    [
        (0.5, [0.5, 0.5, 0.5], "holds"),
        (0.5, [2.0, 0.25, -0.25], "holds"),  # two of three seeds gain, and the mean is above the margin
        (0.5, [0.25, 0.25, 0.25], "holds weaker"),
        (0.5, [3.0, -0.25, -0.25], "does not hold"),  # a large mean from one lucky seed
        (0.5, [0.0, 0.0, 0.0], "does not hold"),
        (0.0, [0.0, 0.0, 0.0], "holds"),  # "at least as good"
        (0.0, [-0.25, -0.25, 0.25], "does not hold"),
    ],
)
def test_the_verdict_follows_the_gains(margin: float, measured: list[float], verdict: str) -> None:
    assert judge(claim(margin=margin), gains(*measured)).verdict == verdict


def test_lower_can_be_better_and_a_constant_can_be_the_baseline() -> None:
    result = judge(claim(direction="lower", baseline=3.0, margin=1.0), [{"new": 1.0}, {"new": 2.0}])
    assert result.verdict == "holds"
    assert result.gains == (2.0, 1.0)
    assert result.gain_mean == 1.5
    assert result.gain_spread == pytest.approx(0.5**0.5)
    assert result.baseline_mean == 3.0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"direction": "up"}, "direction"),
        ({"margin": -1.0}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"seeds": 0}, "seeds"),
        ({"wins": 0.0}, "wins"),
        ({"levels": ("cpu", "tpu")}, "levels"),
        ({"published": "61.2"}, "published_source"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        claim(**change)


def test_numbers_that_are_missing_or_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="no runs"):
        judge(claim(), [])
    with pytest.raises(InputError, match="'old'"):
        judge(claim(), [{"new": 1.0}])
    with pytest.raises(InputError, match="nan"):
        judge(claim(), [{"new": float("nan"), "old": 1.0}])


def test_a_chain_is_as_strong_as_its_weakest_link() -> None:
    assert worst(STATES) == "missing"
    assert worst(["holds", "holds weaker"]) == "holds weaker"


SOURCE = '''"""Module words."""
import math  # a comment


def area(r: float) -> float:
    """Words
    on two lines."""
    text = "# no comment"  # one
    return math.pi * r**2
'''


def test_words_do_not_change_the_hash_of_code_but_code_does(tmp_path: Path) -> None:
    def hashed(text: str) -> str:
        (tmp_path / "method.py").write_text(text, encoding="utf-8")
        return source_hash([tmp_path / "method.py"])

    first = hashed(SOURCE)
    assert hashed(SOURCE.replace("Module words.", "Ünlike words, on\n\nmore lines.")) == first
    assert hashed(SOURCE.replace("  # a comment", "")) == first
    assert hashed(SOURCE.replace("on two lines.", "on\nthree lines.")) == first
    assert hashed(SOURCE.replace("r**2", "r**3")) != first
    assert hashed(SOURCE.replace("# no comment", "# another")) != first
    assert '"# no comment"' in bare_code(SOURCE)


def test_data_hashes_tell_content_type_shape_and_grouping_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    parts: list[Any] = [
        ["a", "b"],
        ["ab"],
        [["a"], "b"],
        "1",
        1,
        1.5,
        None,
        b"abc",
        np.zeros(4),
        np.zeros((2, 2)),
        np.zeros(4, dtype=np.float32),
        {"a": 1},
        {"a": 2},
    ]
    assert len({data_hash(part) for part in parts}) == len(parts)
    assert data_hash(tmp_path / "file") == data_hash(b"abc")
    with pytest.raises(InputError, match="object"):
        data_hash(object())
