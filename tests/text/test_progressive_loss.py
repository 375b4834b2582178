"""The progressive loss by hand, against slow loops, against the host's losses, and how its state moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.progressive import (
    AdaptiveCurriculum,
    HardnessSchedule,
    Modulator,
    ProgressiveContrastiveLoss,
    ScheduledHardness,
    ScheduledWeights,
)

QUERIES = ["a cat sat", "the stock fell", "rain in the north", "a dog ran home", "the bank rate rose", "old blue boat"]
POSITIVES = ["the cat slept", "shares fell again", "it rained a lot", "a dog ran", "rates rose", "a boat at sea"]
NEGATIVES = ["a cat ran", "the boat fell", "sea in the north", "a blue dog", "the bank slept", "old cat at home"]
MORE = ["the dog sat", "a rate fell", "north of home", "a cat ran home", "rain at the bank", "a boat sat"]
COLUMNS = (QUERIES, POSITIVES, NEGATIVES, MORE)
TEXTS = [text for column in COLUMNS for text in column]


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return tiny_encoder(TEXTS, seed=0).double()


def adaptive(t: float) -> AdaptiveCurriculum:
    made = AdaptiveCurriculum().double()
    made.t.fill_(t)
    return made


def half_way(made: Modulator) -> Modulator:
    made.step.fill_(made.steps // 2)
    return made


MODULATORS = {
    "none": Modulator,
    "adaptive": lambda: adaptive(0.7),
    "sample_weight": lambda: half_way(ScheduledWeights(start=0.1, end=0.5, steps=10)),
    "hardness": lambda: half_way(ScheduledHardness(start=1.0, end=9.0, steps=10)),
}


def value_and_gradient(loss: nn.Module, columns: Sequence[Sequence[str]]) -> tuple[float, Tensor]:
    loss.model.zero_grad()
    value = loss([loss.model.preprocess(list(column)) for column in columns], None)
    value.backward()
    return value.item(), torch.cat([p.grad.flatten() for p in loss.model.parameters() if p.grad is not None])


def slow_rows(embed: Any, columns: Sequence[Sequence[str]], name: str, scale: float) -> list[Tensor]:
    """Minus the log probability of each positive, one candidate at a time."""
    queries, positives, *rest = columns
    rows = []
    for i, (query, positive) in enumerate(zip(queries, positives, strict=True)):
        own = cosine(embed(query), embed(positive))
        logits = [own * scale]
        candidates = [text for j, text in enumerate(positives) if j != i]
        for text in candidates + [text for column in rest for text in column]:
            c = cosine(embed(query), embed(text))
            z = c * scale
            if name == "adaptive" and c > own and c > 0:
                z = c * (0.7 + c) * scale
            if name == "hardness":
                z = z + 5.0 * c.detach()
            logits.append(z)
        rows.append(torch.logsumexp(torch.stack(logits), 0) - logits[0])
    return rows


def cosine(left: Tensor, right: Tensor) -> Tensor:
    return (left @ right) / (left @ left).sqrt() / (right @ right).sqrt()


class TestByHand:
    """Three queries, three documents at right angles, so that a query's coordinates are its cosines; scale 1."""

    COSINES = ((0.5, 0.6, 0.1), (0.2, 0.6, 0.5), (-0.3, 0.7, -0.5))

    # row 1: 0.6 beats 0.5. row 2: nothing beats 0.6. row 3: 0.7 beats -0.5; so does -0.3, but below 0 nothing changes
    @pytest.mark.parametrize(
        ("t", "logits"),
        [
            (0.0, ((0.5, 0.36, 0.1), (0.2, 0.6, 0.5), (-0.3, 0.49, -0.5))),
            (0.5, ((0.5, 0.66, 0.1), (0.2, 0.6, 0.5), (-0.3, 0.84, -0.5))),
            (1.0, ((0.5, 0.96, 0.1), (0.2, 0.6, 0.5), (-0.3, 1.19, -0.5))),
        ],
    )
    def test_three_by_three(self, model, t, logits):
        queries = torch.tensor(self.COSINES, dtype=torch.float64)
        queries = torch.cat([queries, (1 - queries.square().sum(1, keepdim=True)).sqrt()], 1)
        documents = torch.eye(3, 4, dtype=torch.float64)
        loss = ProgressiveContrastiveLoss(model, scale=1.0, modulator=adaptive(t))
        expected = [math.log(sum(map(math.exp, row))) - row[i] for i, row in enumerate(logits)]
        assert loss.calculate_loss([[queries], [documents]]).item() == pytest.approx(sum(expected) / 3, abs=1e-12)

    def test_emphasis_moves_from_easy_to_hard(self):
        cosines = torch.tensor([[0.5, 0.6, 0.1]])
        hard = torch.tensor([[False, True, False]])
        logits = [
            adaptive(t).float().logits(cosines, ~torch.eye(1, 3).bool(), hard, 50.0) for t in (0.0, 0.3, 0.4, 1.0)
        ]
        weights = [(each - 50 * cosines).exp() for each in logits]
        assert weights[0][0, 1] < weights[1][0, 1] < 1  # played down while t + c < 1
        assert weights[2][0, 1] == pytest.approx(1.0, abs=1e-4)  # t + c = 1
        assert weights[3][0, 1] > 1
        assert all(each[0, place] == 1 for each in weights for place in (0, 2))


class TestAgainstSlowLoops:
    @pytest.mark.parametrize("columns", [COLUMNS[:2], COLUMNS], ids=["pairs", "tuples"])
    @pytest.mark.parametrize("name", MODULATORS)
    @pytest.mark.parametrize("mini_batch_size", [None, 4])
    def test_equals_the_equation(self, name, columns, mini_batch_size, model):
        modulator = MODULATORS[name]()
        loss = ProgressiveContrastiveLoss(model, scale=20.0, modulator=modulator, mini_batch_size=mini_batch_size)
        value, gradient = value_and_gradient(loss, columns)
        model.zero_grad()
        vectors = dict(zip(TEXTS, model(model.preprocess(TEXTS))["sentence_embedding"], strict=True))
        rows = torch.stack(slow_rows(vectors.__getitem__, columns, name, 20.0))
        weights = [1.0] * len(rows)
        if name == "sample_weight":  # half way from 0.1 to 0.5; without gradient
            powers = [math.exp(0.3 * row.item()) for row in rows]
            weights = [min(5.0, len(rows) * power / sum(powers)) for power in powers]
        expected = sum(weight * row for weight, row in zip(weights, rows, strict=True)) / len(rows)
        expected.backward()
        slow = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        assert value == pytest.approx(expected.item(), abs=1e-6)
        torch.testing.assert_close(gradient, slow, atol=1e-6, rtol=1e-6)

    def test_the_margin_widens_what_is_hard(self, model):
        none_hard = ProgressiveContrastiveLoss(model, scale=1.0, modulator=adaptive(1.0))
        all_hard = ProgressiveContrastiveLoss(model, scale=1.0, modulator=adaptive(1.0), margin=2.0)
        queries, documents = torch.tensor([[1.0, 0.2], [0.2, 1.0]]), torch.eye(2)
        unit = 1 / math.hypot(1.0, 0.2)
        easy, raised = 0.2 * unit, 0.2 * unit * (1 + 0.2 * unit)
        for loss, z in ((none_hard, easy), (all_hard, raised)):
            expected = math.log(math.exp(unit) + math.exp(z)) - unit
            assert loss.calculate_loss([[queries], [documents]]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("columns", [COLUMNS[:2], COLUMNS], ids=["pairs", "tuples"])
class TestAgainstTheHost:
    @pytest.mark.parametrize("mini_batch_size", [None, 2, 4])
    @pytest.mark.parametrize(("modulator", "strength"), [(None, 0.0), ("hardness", 5.0)])
    def test_equals_its_losses(self, mini_batch_size, modulator, strength, columns, model):
        hardness: dict[str, Any] = {"hardness_mode": "all_negatives", "hardness_strength": strength}
        host: nn.Module = MultipleNegativesRankingLoss(model, scale=50.0, **hardness)
        if mini_batch_size:
            host = CachedMultipleNegativesRankingLoss(model, scale=50.0, mini_batch_size=mini_batch_size, **hardness)
        given = MODULATORS["hardness"]() if modulator else None
        loss = ProgressiveContrastiveLoss(model, modulator=given, mini_batch_size=mini_batch_size, mask_identical=False)
        expected, slope = value_and_gradient(host, columns)
        value, gradient = value_and_gradient(loss, columns)
        assert value == pytest.approx(expected, abs=1e-6)
        torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize(
        "neutral", [Modulator(), ScheduledWeights(start=0.0, end=0.0), ScheduledHardness(start=0.0, end=0.0)]
    )
    def test_neutral_settings_are_infonce(self, neutral, columns, model):
        value, gradient = value_and_gradient(ProgressiveContrastiveLoss(model, modulator=neutral), columns)
        expected, slope = value_and_gradient(MultipleNegativesRankingLoss(model, scale=50.0), columns)
        assert value == pytest.approx(expected, abs=1e-6)
        torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-6)


class TestIdenticalTexts:
    @pytest.mark.parametrize("mini_batch_size", [None, 2])
    @pytest.mark.parametrize(
        ("columns", "dropped"),
        [
            # (row, text) that must be no negatives: copies of the positive, of the query, positives of the same query
            (((QUERIES), ["a dog ran", *POSITIVES[1:]]), {(0, "a dog ran"), (3, "a dog ran")}),
            ((QUERIES, POSITIVES, [*NEGATIVES[:5], POSITIVES[0]]), {(0, POSITIVES[0])}),
            ((QUERIES, POSITIVES, [QUERIES[2], *NEGATIVES[1:]]), {(2, QUERIES[2])}),
            ((["a cat sat", "a cat sat", *QUERIES[2:]], POSITIVES), {(0, POSITIVES[1]), (1, POSITIVES[0])}),
        ],
    )
    def test_are_never_negatives(self, columns, dropped, mini_batch_size, model):
        texts = list(dict.fromkeys(text for column in columns for text in column))
        embed = dict(zip(texts, model(model.preprocess(texts))["sentence_embedding"].detach(), strict=True))
        total = 0.0
        for i, query in enumerate(columns[0]):
            others = [text for c in columns[1:] for j, text in enumerate(c) if c is not columns[1] or j != i]
            logits = [50 * cosine(embed[query], embed[columns[1][i]])]
            logits += [50 * cosine(embed[query], embed[text]) for text in others if (i, text) not in dropped]
            total += (torch.logsumexp(torch.stack(logits), 0) - logits[0]).item() / len(columns[0])
        loss = ProgressiveContrastiveLoss(model, modulator=None, mini_batch_size=mini_batch_size)
        assert value_and_gradient(loss, columns)[0] == pytest.approx(total, abs=1e-6)
        off = ProgressiveContrastiveLoss(model, modulator=None, mask_identical=False)
        assert value_and_gradient(off, columns)[0] > total

    def test_a_batch_of_one_text_costs_nothing(self, model):
        value, gradient = value_and_gradient(ProgressiveContrastiveLoss(model), (["a dog ran"] * 4, ["a dog sat"] * 4))
        assert value == pytest.approx(0.0, abs=1e-12)
        assert gradient.abs().max() < 1e-12

    def test_static_students_are_compared_too(self):
        body = tiny_encoder(TEXTS, seed=0)[0]
        words = body.model.embeddings.word_embeddings.weight.detach()
        student = SentenceTransformer(modules=[StaticEmbedding(body.tokenizer, words.numpy())], device="cpu")
        loss = ProgressiveContrastiveLoss(student)
        assert value_and_gradient(loss, (["a dog ran"] * 4, ["a dog sat"] * 4))[0] == pytest.approx(0.0, abs=1e-6)
        assert value_and_gradient(loss, COLUMNS)[0] > 0
        with pytest.raises(InputError, match="mini_batch_size"):
            ProgressiveContrastiveLoss(student, mini_batch_size=2)


class TestState:
    @staticmethod
    def trained(columns: Sequence[Sequence[str]] = COLUMNS, **options: Any) -> ProgressiveContrastiveLoss:
        student = tiny_encoder(TEXTS, seed=0).train()
        loss = ProgressiveContrastiveLoss(student, **options)
        value_and_gradient(loss, columns)
        return loss

    @pytest.mark.parametrize("mini_batch_size", [None, 2])
    def test_t_follows_the_positives_once_per_batch(self, mini_batch_size):
        loss = self.trained(mini_batch_size=mini_batch_size, modulator=AdaptiveCurriculum(rate=0.1))
        vectors = {text: loss.model(loss.model.preprocess([text]))["sentence_embedding"][0] for text in TEXTS}
        mean = sum(cosine(vectors[q], vectors[p]).item() for q, p in zip(QUERIES, POSITIVES, strict=True)) / 6
        assert loss.modulator.t.item() == pytest.approx(0.1 * max(mean, 0.0), abs=1e-6)
        assert not loss.modulator.t.requires_grad
        value_and_gradient(loss, COLUMNS)
        assert loss.modulator.t.item() == pytest.approx(0.19 * max(mean, 0.0), abs=1e-6)

    def test_t_stays_between_0_and_1(self):
        modulator = AdaptiveCurriculum(rate=1.0)
        for cosine_, expected in ((-0.5, 0.0), (1.5, 1.0)):
            modulator.advance(torch.tensor(cosine_))
            assert modulator.t.item() == expected

    @pytest.mark.parametrize("mini_batch_size", [None, 2])
    def test_steps_are_counted_once_per_batch(self, mini_batch_size):
        loss = self.trained(mini_batch_size=mini_batch_size, modulator="hardness")
        assert loss.modulator.state() == {"step": 1, "strength": pytest.approx(0.005)}

    def test_evaluation_leaves_the_state_alone(self):
        loss = self.trained(modulator="sample_weight")
        loss.model.eval()
        value_and_gradient(loss, COLUMNS)
        loss.model.train()
        with torch.no_grad():
            loss([loss.model.preprocess(column) for column in COLUMNS])
        assert loss.modulator.step == 1

    def test_state_dict_holds_it(self):
        assert "modulator.t" in self.trained().state_dict()
        assert "modulator.step" in self.trained(modulator="hardness").state_dict()

    def test_cached_matryoshka_counts_one_batch(self):
        student = tiny_encoder(TEXTS, seed=0).train()
        inner = ProgressiveContrastiveLoss(student, modulator="hardness", mini_batch_size=2)
        value_and_gradient(MatryoshkaLoss(student, inner, [32, 8]), COLUMNS)
        assert inner.modulator.step == 1

    @pytest.mark.parametrize("mini_batch_size", [None, 2])
    def test_measures(self, mini_batch_size):
        loss = self.trained(mini_batch_size=mini_batch_size)
        measured = loss.measures()
        assert set(measured) == {"t", "hard_share", "hard_gradient_share", "hard_weight", "easy_weight"}
        assert 0 < measured["hard_share"] < 1
        assert 0 < measured["hard_gradient_share"] < 1
        assert measured["hard_weight"] < 1  # t is near 0
        assert measured["easy_weight"] == pytest.approx(1.0, abs=1e-6)
        assert set(loss.measures()) == {"t"}  # begun anew

    def test_gradient_share_by_hand(self):
        # one row whose negatives are one hard and one easy: the softmax's parts, times the slope t + 2c of c * (t + c)
        loss = ProgressiveContrastiveLoss(tiny_encoder(TEXTS).train(), scale=1.0, modulator=adaptive(0.5))
        row = torch.tensor([[0.5, 0.6, 0.1, math.sqrt(1 - 0.62)]], dtype=torch.float64, requires_grad=True)
        documents = [torch.eye(3, 4, dtype=torch.float64)[i : i + 1] for i in range(3)]
        loss.calculate_loss([[row], *([each] for each in documents)]).backward()
        hard, easy = math.exp(0.66) * (0.5 + 1.2), math.exp(0.1)
        assert loss.measures()["hard_gradient_share"] == pytest.approx(hard / (hard + easy), abs=1e-6)

    def test_outliers_are_capped(self):
        weights = half_way(ScheduledWeights(start=1.0, end=1.0, cap=2.0)).weights(torch.tensor([0.0, 0.0, 0.0, 9.0]))
        assert weights[3] == 2.0
        assert weights[0] < 0.01


class TestHardnessSchedule:
    def test_drives_the_hosts_strength(self, model):
        for loss in (
            MultipleNegativesRankingLoss(model, hardness_mode="all_negatives"),
            CachedMultipleNegativesRankingLoss(model, hardness_mode="hard_negatives"),
        ):
            schedule = HardnessSchedule(loss, start=1.0, end=9.0, steps=4)
            seen = []
            for step in (0, 1, 4, 9):
                schedule.on_step_begin(None, type("S", (), {"global_step": step}), None)
                seen.append(loss.hardness_strength)
            assert seen == [1.0, 3.0, 9.0, 9.0]

    def test_bad_values_are_named(self, model):
        loss = MultipleNegativesRankingLoss(model, hardness_mode="all_negatives")
        with pytest.raises(InputError, match="hardness_mode"):
            HardnessSchedule(MultipleNegativesRankingLoss(model))
        with pytest.raises(InputError, match="start=-1"):
            HardnessSchedule(loss, start=-1.0)
        with pytest.raises(InputError, match="steps=0"):
            HardnessSchedule(loss, steps=0)
