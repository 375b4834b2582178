"""Costs of three models of different kinds, and which of them are on the front."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.evaluate.efficiency import EfficiencyReport, measure_efficiency, pareto_front
from embedlab.models import load_model
from embedlab.models.sentence_transformer import SentenceTransformerModel
from embedlab.testing.tiny import tiny_encoder

TEXTS = ["a cat sat on the mat", "the dog ran away from the cat", "on the mat the dog sat"]


@pytest.fixture(scope="module")
def report() -> EfficiencyReport:
    models = {
        "default": load_model(),
        "small": SentenceTransformerModel.of(tiny_encoder(TEXTS), name="small"),
        "deep": SentenceTransformerModel.of(tiny_encoder(TEXTS, num_layers=12, max_length=64), name="deep"),
    }
    quality = {"default": 0.6, "small": 0.4, "deep": 0.39}
    return measure_efficiency(models, TEXTS, quality=quality, batch_sizes=(1, 4), lengths=(4, 12), repeats=5)


def test_every_number_is_there(report: EfficiencyReport, tmp_path: Path) -> None:
    for row in report.rows:
        assert [(one.batch_size, one.words) for one in row.latencies] == [(1, 4), (1, 12), (4, 4), (4, 12)]
        assert all(0 < one.p50_ms <= one.p95_ms for one in row.latencies)
        assert all(one.texts_per_s == pytest.approx(1000 * one.batch_size / one.p50_ms) for one in row.latencies)
        assert row.parameters
        assert row.peak_memory_mb is None or row.peak_memory_mb > 1
    assert [row.index_bytes for row in report.rows] == [4 * load_model().dim, 128, 128]
    assert json.loads(json.dumps(report.as_dict()))["rows"][1]["name"] == "small"
    report.write(tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text().count("\n") == 5


def test_operations_are_counted(report: EfficiencyReport) -> None:
    """A linear layer from m to n takes 2 m n per token; attention adds two products of T x dim per token and layer."""
    by_name = {row.name: row.flops_per_token for row in report.rows}
    assert by_name["default"] is None
    dim, tokens = 32, 14  # twelve words and two marks
    layer = 2 * (4 * dim * dim + 2 * dim * 2 * dim) + 4 * tokens * dim
    assert by_name["small"] == pytest.approx(2 * layer, rel=0.15)
    assert by_name["deep"] == pytest.approx(6 * (by_name["small"] or 0), rel=0.15)


def test_a_worse_and_slower_model_is_off_the_front(report: EfficiencyReport) -> None:
    assert "default" in report.front
    assert "deep" not in report.front  # worse than "small", with as many bytes and six times the layers


def test_the_front_matches_the_loop() -> None:
    costs = np.random.default_rng(0).integers(0, 6, size=(40, 3)).astype(float)
    expected = [not any((other <= one).all() and (other < one).any() for other in costs) for one in costs]
    assert pareto_front(costs).tolist() == expected
    for order in itertools.islice(itertools.permutations(range(5)), 4):
        assert pareto_front(costs[list(order)]).tolist() == [pareto_front(costs[:5])[place] for place in order]
    assert pareto_front([[1, 1], [1, 1], [2, 1]]).tolist() == [True, True, False]


def test_what_is_refused() -> None:
    model = {"default": load_model()}
    for options, says in (
        ({"repeats": 2}, "three repeats"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"lengths": ()}, "length"),
        ({"quality": {"other": 1.0}}, "quality lacks default"),
    ):
        with pytest.raises(InputError, match=says):
            measure_efficiency(model, TEXTS, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no word"):
        measure_efficiency(model, [" "])
    with pytest.raises(InputError, match="costs"):
        pareto_front([[1.0, np.nan]])
