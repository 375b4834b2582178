"""The guided loss against slow loops from the paper's equation, against the host, and inside the host's machinery."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss, GISTEmbedLoss, MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.gist import (
    CachedGuidedContrastiveLoss,
    GuidedContrastiveLoss,
    GuideStore,
    TemperatureSchedule,
)

ANCHORS = ["a cat sat", "the stock fell", "rain in the north", "a dog ran home", "the bank rate rose", "old blue boat"]
POSITIVES = ["the cat slept", "shares fell again", "it rained a lot", "a dog ran", "rates rose", "a boat at sea"]
NEGATIVES = ["a cat ran", "the boat fell", "sea in the north", "a blue dog", "the bank slept", "old cat at home"]
TEXTS = ANCHORS + POSITIVES + NEGATIVES


@pytest.fixture(scope="module")
def student() -> SentenceTransformer:
    return tiny_encoder(TEXTS, seed=0).double()


@pytest.fixture(scope="module")
def guide() -> SentenceTransformer:
    return tiny_encoder(TEXTS, seed=1, dim=48, num_heads=3)  # another width than the student's


@pytest.fixture(scope="module")
def store(guide: SentenceTransformer) -> GuideStore:
    return GuideStore.build(guide.encode, TEXTS, fingerprint="tiny:1")


def value_and_gradient(loss: nn.Module, columns: Sequence[Sequence[str]]) -> tuple[float, Tensor]:
    loss.model.zero_grad()
    tokenise = getattr(loss, "preprocess", loss.model.preprocess)
    value = loss([tokenise(list(column)) for column in columns], None)
    value.backward()
    return value.item(), torch.cat([p.grad.flatten() for p in loss.model.parameters() if p.grad is not None])


def slow_loss(
    embed: Callable[[str], Tensor],
    see: Callable[[str], Tensor] | None,
    columns: Sequence[Sequence[str]],
    *,
    tau: float = 0.01,
    bar: Callable[[float], float] = lambda t: t,
) -> Tensor:
    """The equation, one candidate at a time; duplicates of the pair's own texts are dropped by comparing texts."""
    anchors, positives, *rest = columns
    total = torch.zeros((), dtype=torch.float64)
    for i, (q, p) in enumerate(zip(anchors, positives, strict=True)):
        candidates = [(q, x, j == i) for j, x in enumerate(positives)]  # QP
        candidates += [(q, x, False) for column in rest for x in column]  # QN
        candidates += [(q, x, False) for j, x in enumerate(anchors) if see or j != i]  # QQ
        candidates += [(p, x, False) for j, x in enumerate(positives) if see or j != i]  # PP
        logits, own = [], None
        for left, right, is_positive in candidates:
            bar_i = bar(cosine(see(q), see(p)).item()) if see else math.inf
            if see and not is_positive and (right in (q, p) or cosine(see(left), see(right)) > bar_i):
                continue
            logits.append(cosine(embed(left), embed(right)) / tau)
            own = logits[-1] if is_positive else own
        total = total + torch.logsumexp(torch.stack(logits), 0) - own
    return total / len(anchors)


def cosine(left: Tensor, right: Tensor) -> Tensor:
    return (left @ right) / (left @ left).sqrt() / (right @ right).sqrt()


def embedder(model: SentenceTransformer) -> Callable[[str], Tensor]:
    rows = model(model.preprocess(TEXTS))["sentence_embedding"].double()  # one graph for all texts
    place = {text: row for row, text in zip(rows, TEXTS, strict=True)}
    return lambda text: place[text]


@pytest.mark.parametrize("columns", [(ANCHORS, POSITIVES), (ANCHORS, POSITIVES, NEGATIVES)], ids=["pairs", "triples"])
class TestAgainstTheEquation:
    @pytest.mark.parametrize("kind", [GuidedContrastiveLoss, CachedGuidedContrastiveLoss])
    def test_guided(self, kind, columns, student, guide, store):
        expected = slow_loss(embedder(student), embedder(guide), columns)
        value, _ = value_and_gradient(kind(student, store), columns)
        assert value == pytest.approx(expected.item(), abs=1e-5)

    @pytest.mark.parametrize("kind", [GuidedContrastiveLoss, CachedGuidedContrastiveLoss])
    def test_without_a_guide(self, kind, columns, student):
        value, gradient = value_and_gradient(kind(student), columns)
        student.zero_grad()
        expected = slow_loss(embedder(student), None, columns)
        expected.backward()
        slow = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
        assert value == pytest.approx(expected.item(), abs=1e-6)
        torch.testing.assert_close(gradient, slow, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize(
        ("strategy", "margin", "bar"),
        [("absolute", 0.1, lambda t: t - 0.1), ("relative", 0.2, lambda t: t - 0.2 * abs(t))],
    )
    def test_margins(self, strategy, margin, bar, columns, student, guide, store):
        expected = slow_loss(embedder(student), embedder(guide), columns, bar=bar, tau=0.05)
        loss = GuidedContrastiveLoss(student, store, margin_strategy=strategy, margin=margin, temperature=0.05)
        assert value_and_gradient(loss, columns)[0] == pytest.approx(expected.item(), abs=1e-5)

    @pytest.mark.parametrize(
        ("ours", "hosts"),
        [(GuidedContrastiveLoss, GISTEmbedLoss), (CachedGuidedContrastiveLoss, CachedGISTEmbedLoss)],
    )
    @pytest.mark.parametrize("blocks", [(True, True), (True, False), (False, True)])
    def test_equals_the_host_running_its_guide(self, ours, hosts, blocks, columns, student, guide, store):
        options: dict[str, Any] = {"contrast_anchors": blocks[0], "contrast_positives": blocks[1]}
        expected, slope = value_and_gradient(hosts(student, guide, **options), columns)
        value, gradient = value_and_gradient(ours(student, store, **options), columns)
        live, live_gradient = value_and_gradient(ours(student, guide, **options), columns)
        assert value == pytest.approx(expected, abs=1e-6)
        assert live == pytest.approx(expected, abs=1e-6)
        torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(live_gradient, slope, atol=1e-6, rtol=1e-6)


KINDS = [GuidedContrastiveLoss, CachedGuidedContrastiveLoss]


def candidates_of(i: int, columns: Sequence[Sequence[str]]) -> list[tuple[str, bool]]:
    """Texts of QP, QN and QQ for one anchor, and which is its own positive; the anchor itself is none of them."""
    anchors, positives, *rest = columns
    found = [(text, j == i) for j, text in enumerate(positives)]
    found += [(text, False) for column in rest for text in column]
    return found + [(text, False) for j, text in enumerate(anchors) if j != i]


def slow_triplet(i: int, columns: Any, embed: Any, see: Any, mode: str, margin: float, lowered: float) -> Tensor:
    anchor, bar = columns[0][i], cosine(see(columns[0][i]), see(columns[1][i])).item() - lowered
    near, far = [], []
    for text, own in candidates_of(i, columns):
        distance = 1 - cosine(embed(anchor), embed(text))
        (near if own or cosine(see(anchor), see(text)).item() > bar - 1e-6 else far).append(distance)
    if not far:
        return torch.zeros(())
    if mode == "hard":
        return (max(near) - min(far) + margin).clamp(min=0)
    return (sum(near) / len(near) - sum(far) / len(far) + margin).clamp(min=0)


@pytest.mark.parametrize("columns", [(ANCHORS, POSITIVES), (ANCHORS, POSITIVES, NEGATIVES)], ids=["pairs", "triples"])
@pytest.mark.parametrize("kind", KINDS)
class TestOptions:
    """Each against a loop over rows and candidates, in value and gradient."""

    @staticmethod
    def gradient(student: SentenceTransformer, value: Tensor) -> Tensor:
        student.zero_grad()
        value.backward()
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    def test_hard_negatives_only(self, kind, columns, student, guide, store):
        value, gradient = value_and_gradient(kind(student, store, negative_mode="hard"), columns)
        embed, see, total, dropped = embedder(student), embedder(guide), 0.0, 0
        for i, (q, p) in enumerate(zip(columns[0], columns[1], strict=True)):
            t, own = cosine(see(q), see(p)).item(), cosine(embed(q), embed(p))
            rivals = [(q, text) for text, positive in candidates_of(i, columns) if not positive]
            rivals += [(p, text) for j, text in enumerate(columns[1]) if j != i]
            left = [cosine(embed(a), embed(b)) for a, b in rivals if cosine(see(a), see(b)).item() <= t]
            dropped += sum(c < own for c in left)
            logits = torch.stack([own, *(c for c in left if c >= own)]) / 0.01
            total = total + (torch.logsumexp(logits, 0) - logits[0]) / len(columns[0])
        assert dropped  # or the test would say nothing
        assert value == pytest.approx(total.item(), abs=1e-5)
        torch.testing.assert_close(gradient, self.gradient(student, total), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("mode", ["hard", "soft"])
    @pytest.mark.parametrize(("triplet_margin", "margin"), [(1.0, 0.0), (0.05, 0.1)])
    def test_guided_triplets(self, mode, triplet_margin, margin, kind, columns, student, guide, store):
        plain, _ = value_and_gradient(kind(student, store, margin=margin), columns)
        loss = kind(student, store, margin=margin, triplet=mode, triplet_margin=triplet_margin)
        value, gradient = value_and_gradient(loss, columns)
        embed, see = embedder(student), embedder(guide)
        rows = [slow_triplet(i, columns, embed, see, mode, triplet_margin, margin) for i in range(len(columns[0]))]
        expected = sum(rows) / len(rows)
        assert value - plain == pytest.approx(expected.item(), abs=1e-5)
        base = value_and_gradient(kind(student, store, margin=margin), columns)[1]
        torch.testing.assert_close(gradient - base, self.gradient(student, expected), atol=1e-5, rtol=1e-5)

    def test_a_live_guide_gives_the_same(self, kind, columns, student, guide, store):
        for options in ({"negative_mode": "hard"}, {"triplet": "hard"}):
            stored, live = (value_and_gradient(kind(student, each, **options), columns) for each in (store, guide))
            assert stored[0] == pytest.approx(live[0], abs=1e-5)
            torch.testing.assert_close(stored[1], live[1], atol=1e-5, rtol=1e-5)


class TestSeveralNegatives:
    def test_the_cached_loss_takes_any_number(self, student, guide, store):
        columns = (ANCHORS, POSITIVES, NEGATIVES, list(reversed(NEGATIVES)))
        expected = slow_loss(embedder(student), embedder(guide), columns)
        assert value_and_gradient(CachedGuidedContrastiveLoss(student, store), columns)[0] == pytest.approx(
            expected.item(), abs=1e-5
        )


class TestAnyGuide:
    def test_word_counts_guide_as_well_as_a_transformer(self, student):
        words = sorted({word for text in TEXTS for word in text.split()})

        def count(texts: list[str]) -> list[list[float]]:
            return [[float(text.split().count(word)) for word in words] for text in texts]

        guided = GuidedContrastiveLoss(student, GuideStore.build(count, TEXTS, fingerprint="word counts"))
        seen = cache(lambda text: torch.tensor(count([text])[0], dtype=torch.float64))
        expected = slow_loss(embedder(student), seen, (ANCHORS, POSITIVES), bar=lambda t: t - 1e-6)
        assert value_and_gradient(guided, (ANCHORS, POSITIVES))[0] == pytest.approx(expected.item(), abs=1e-5)


class TestTemperatureSchedule:
    def test_follows_the_equation(self, student, store):
        loss = GuidedContrastiveLoss(student, store, temperature=0.5)
        schedule = TemperatureSchedule(loss, lowest=0.3, decay=0.9)
        seen = []
        for step in range(0, 15, 2):
            schedule.on_step_begin(None, type("State", (), {"global_step": step}), None)
            seen.append(loss.temperature)
        assert seen == pytest.approx([min(max(0.3, 0.9**step), 0.5) for step in range(0, 15, 2)])
        assert (seen[0], seen[-1]) == (0.5, 0.3)

    def test_bad_values_are_named(self, student, store):
        loss = GuidedContrastiveLoss(student, store)
        for options, says in (
            ({"lowest": 0.0}, "lowest"),
            ({"lowest": 0.02}, "lowest"),
            ({"lowest": 0.005, "decay": 1.0}, "decay"),
        ):
            with pytest.raises(InputError, match=says):
                TemperatureSchedule(loss, **options)
        with pytest.raises(InputError, match="GISTEmbedLoss"):
            TemperatureSchedule(GISTEmbedLoss(student, student), lowest=0.005)


class TestDuplicates:
    """Where the host's strict > leaves a text to be its own negative, or leaves it to rounding."""

    @pytest.mark.parametrize(
        "columns",
        [
            (["a cat sat", *ANCHORS[1:]], ["a cat sat", *POSITIVES[1:]]),  # the positive repeats the anchor
            (["a cat sat", "a cat sat", *ANCHORS[2:]], POSITIVES),  # an anchor occurs twice
            (ANCHORS, ["the cat slept", "the cat slept", *POSITIVES[2:]]),  # a positive occurs twice
            (ANCHORS, ["the cat slept", "a cat sat", *POSITIVES[2:]]),  # an anchor is another's positive
            (ANCHORS, POSITIVES, [POSITIVES[0], ANCHORS[1], *NEGATIVES[2:]]),  # a negative repeats its own pair
        ],
    )
    def test_no_text_is_its_own_negative(self, columns, student, guide, store):
        # the expected value drops duplicates by comparing the texts themselves
        expected = slow_loss(embedder(student), embedder(guide), columns)
        assert value_and_gradient(GuidedContrastiveLoss(student, store), columns)[0] == pytest.approx(
            expected.item(), abs=1e-5
        )

    def test_repeated_pair_alone_costs_nothing(self, student, store):
        value, gradient = value_and_gradient(
            GuidedContrastiveLoss(student, store), (["a dog ran"] * 4, ["a dog ran"] * 4)
        )
        assert value == pytest.approx(0.0, abs=1e-9)
        assert gradient.abs().max() < 1e-9
        host, _ = value_and_gradient(GISTEmbedLoss(student, student), (["a dog ran"] * 4, ["a dog ran"] * 4))
        assert host > 1.0  # the pitfall is real: this is what the strict comparison gives


class TestStaticStudent:
    """A table of word vectors, whose tokenizer the host refuses to hear of."""

    @staticmethod
    def student() -> SentenceTransformer:
        body = tiny_encoder(TEXTS, seed=0)[0]
        words = body.model.embeddings.word_embeddings.weight.detach()
        return SentenceTransformer(modules=[StaticEmbedding(body.tokenizer, words.numpy())], device="cpu").double()

    @pytest.mark.parametrize("columns", [(ANCHORS, POSITIVES), (ANCHORS, POSITIVES, NEGATIVES)])
    def test_equals_the_equation(self, columns, guide, store):
        student = self.student()
        for see, given in ((embedder(guide), store), (None, None)):
            expected = slow_loss(embedder(student), see, columns).item()
            assert value_and_gradient(GuidedContrastiveLoss(student, given), columns)[0] == pytest.approx(
                expected, abs=1e-5
            )

    def test_the_cached_loss_sends_it_to_the_plain_one(self, store):
        with pytest.raises(ValueError, match="StaticEmbedding"):
            CachedGuidedContrastiveLoss(self.student(), store)


class TestHalfPrecision:
    def test_cosines_are_never_taken_in_half_precision(self, store):
        student = tiny_encoder(TEXTS, seed=0)
        loss = GuidedContrastiveLoss(student, store)
        left, right = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cosines = loss.sim_matrix(left, right)
        exact = torch.tensor([[cosine(a, b) for b in right.double()] for a in left.double()])
        torch.testing.assert_close(cosines.double(), exact, atol=1e-6, rtol=1e-6)


def trained(
    folder: Path, loss_of: Callable[[SentenceTransformer], tuple[nn.Module, GuidedContrastiveLoss]], **options: Any
) -> tuple[SentenceTransformer, list[float]]:
    model = tiny_encoder(TEXTS, seed=0)
    loss, guided = loss_of(model)
    args = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=3,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **options,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict({"anchor": ANCHORS, "positive": POSITIVES, "negative": NEGATIVES}),
        loss=loss,
        data_collator=guided.data_collator(args),
    )
    trainer.train()
    return model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class TestUnderTheTrainer:
    def test_plain_and_cached_take_the_same_steps(self, tmp_path, store):
        plain, losses = trained(tmp_path / "plain", lambda model: (GuidedContrastiveLoss(model, store),) * 2)
        cached, again = trained(
            tmp_path / "cached", lambda model: (CachedGuidedContrastiveLoss(model, store, mini_batch_size=2),) * 2
        )
        assert losses == pytest.approx(again, abs=1e-4)
        for (name, left), right in zip(plain.named_parameters(), cached.parameters(), strict=True):
            torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-3, msg=name)

    @pytest.mark.parametrize("kind", [GuidedContrastiveLoss, CachedGuidedContrastiveLoss])
    @pytest.mark.parametrize("options", [{}, {"negative_mode": "hard", "triplet": "hard"}], ids=["default", "options"])
    def test_matryoshka(self, kind, options, tmp_path, store):
        def wrapped(model: SentenceTransformer) -> tuple[nn.Module, GuidedContrastiveLoss]:
            inner = kind(model, store, **options)
            return MatryoshkaLoss(model, inner, [32, 8]), inner

        before = tiny_encoder(TEXTS, seed=0)
        model, losses = trained(tmp_path, wrapped)
        assert all(map(math.isfinite, losses))
        assert any(not a.equal(b) for a, b in zip(before.parameters(), model.parameters(), strict=True))

    def test_the_guide_sees_the_text_without_the_students_prompt(self, tmp_path, store):
        # the store holds no text with a prompt: a look-up of one would raise
        _, losses = trained(
            tmp_path, lambda model: (GuidedContrastiveLoss(model, store),) * 2, prompts={"anchor": "old blue sea "}
        )
        assert all(map(math.isfinite, losses))

    def test_the_guide_is_never_called(self, tmp_path, guide):
        calls = []

        def counting(texts: list[str]) -> Any:
            calls.append(len(texts))
            return guide.encode(texts)

        store = GuideStore.build(counting, TEXTS, tmp_path / "store", fingerprint="tiny:1")
        built = len(calls)
        trained(tmp_path / "run", lambda model: (GuidedContrastiveLoss(model, store),) * 2)
        assert built == 1
        assert len(calls) == built

    def test_worker_processes_map_the_store(self, tmp_path, guide):
        store = GuideStore.build(guide.encode, TEXTS, tmp_path / "store", fingerprint="tiny:1")
        _, here = trained(tmp_path / "a", lambda model: (GuidedContrastiveLoss(model, store),) * 2)
        _, there = trained(
            tmp_path / "b", lambda model: (GuidedContrastiveLoss(model, store),) * 2, dataloader_num_workers=1
        )
        assert here == there

    def test_forgotten_collator_is_named(self, student, store):
        with pytest.raises(InputError, match="data_collator"):
            GuidedContrastiveLoss(student, store)([student.preprocess(ANCHORS), student.preprocess(POSITIVES)])


class TestGuide:
    def test_a_live_guide_is_frozen_and_in_evaluation_mode(self, student, guide):
        guide = copy.deepcopy(guide).train()
        loss = GuidedContrastiveLoss(student, guide)
        assert not guide.training
        assert all(not p.requires_grad for p in loss.guide.parameters())

    def test_a_store_adds_nothing_to_the_state(self, student, store):
        loss = GuidedContrastiveLoss(student, store)
        assert {name.split(".")[0] for name in loss.state_dict()} == {"model"}

    def test_a_guide_that_knows_the_classes_leaves_only_true_negatives(self, student):
        topic = {text: i % 2 for column in (ANCHORS, POSITIVES) for i, text in enumerate(column)}
        oracle = GuideStore.build(lambda texts: [[topic[t], 1 - topic[t]] for t in texts], topic, fingerprint="classes")
        embed = embedder(student)
        total = 0.0
        for i, (q, p) in enumerate(zip(ANCHORS, POSITIVES, strict=True)):
            other = [j for j in range(len(ANCHORS)) if j % 2 != i % 2]
            logits = [cosine(embed(q), embed(p))]
            logits += [cosine(embed(q), embed(POSITIVES[j])) for j in other]
            logits += [cosine(embed(q), embed(ANCHORS[j])) for j in other]
            logits += [cosine(embed(p), embed(POSITIVES[j])) for j in other]
            total += (torch.logsumexp(torch.stack(logits) / 0.01, 0) - logits[0] / 0.01).item()
        value, _ = value_and_gradient(GuidedContrastiveLoss(student, oracle), (ANCHORS, POSITIVES))
        assert value == pytest.approx(total / len(ANCHORS), abs=1e-6)
