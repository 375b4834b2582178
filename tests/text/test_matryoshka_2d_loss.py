"""2D Matryoshka and Espresso against the card's equations, and with the losses, adapters and processes they bear."""

from __future__ import annotations

import copy
import math
import socket
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    AnglELoss,
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn
from torch.nn.functional import normalize

from embedlab._core.errors import InputError
from embedlab.testing import contracts
from embedlab.testing.contract import random_state_kept
from embedlab.testing.tiny import tiny_encoder
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text.gist import CachedGuidedContrastiveLoss, GuidedContrastiveLoss
from embedlab.text.matryoshka_2d import EspressoLoss, TwoDMatryoshkaLoss, compression, example, principal

LEFT = ["a cat sat", "the stock fell", "rain in the north", "a dog ran home now", "rates rose"]
RIGHT = ["the cat slept", "shares fell again today", "it rained", "a dog ran", "the bank rate rose"]
SCORES = torch.tensor([0.9, 0.8, 0.6, 0.7, 0.2])
DEPTH, WIDTH = 4, 32


@cache
def tiny(seed: int = 0, num_layers: int = DEPTH) -> SentenceTransformer:
    return tiny_encoder(LEFT + RIGHT, seed=seed, num_layers=num_layers).double()


def encoder(*, unit: bool = False) -> SentenceTransformer:
    model = copy.deepcopy(tiny())
    return SentenceTransformer(modules=[*model, Normalize()], device="cpu").eval() if unit else model


def columns(model: SentenceTransformer) -> list[dict[str, Tensor]]:
    return [dict(model.preprocess(texts)) for texts in (LEFT, RIGHT)]


def by_hand(model: SentenceTransformer) -> list[list[Tensor]]:
    """Mean-pooled hidden states: [column][0..N], from the transformer's own output, one text at a time."""
    body, found = model[0].auto_model, []
    for texts in (LEFT, RIGHT):
        rows = []
        for text in texts:
            tokens = model.tokenizer(text, return_tensors="pt")
            states = body(**tokens, output_hidden_states=True).hidden_states
            rows.append([state[0].mean(dim=0) for state in states])
        found.append([torch.stack(layer) for layer in zip(*rows, strict=True)])
    return found


def cosent(a: Tensor, b: Tensor, scale: float = 20.0) -> Tensor:
    cosines = [torch.dot(x, y) / x.norm() / y.norm() for x, y in zip(a, b, strict=True)]
    total = torch.ones(())
    for i, low in enumerate(SCORES):
        for j, high in enumerate(SCORES):
            if high > low:
                total = total + torch.exp(scale * (cosines[i] - cosines[j]))
    return torch.log(total)


def divergence(teacher: Tensor, student: Tensor, t: float) -> float:
    total = 0.0
    for p, q in zip((teacher / t).softmax(-1), (student / t).softmax(-1), strict=True):
        total += sum(float(x) * math.log(float(x) / float(y)) for x, y in zip(p, q, strict=True))
    return total / len(teacher)


@pytest.mark.parametrize(
    ("version", "t", "unit"), [("inverse", 1.0, False), ("uniform", 0.5, False), ("inverse", 2.0, True)]
)
@torch.no_grad()
def test_two_dimensions_are_the_four_terms_of_the_card(version: str, t: float, unit: bool) -> None:
    model, n, d = encoder(unit=unit), 3, 8
    loss = TwoDMatryoshkaLoss(model, CoSENTLoss(model), layers=(n,), dims=(d,), layer_weight=version, kl_temperature=t)
    left, right = by_hand(model)
    w, u = (1 / n, math.log(2 + n)) if version == "inverse" else (1.0, t)
    last, shallow = (cosent(left[k], right[k]) + cosent(left[k][:, :d], right[k][:, :d]) for k in (DEPTH, n))
    align = t * u * divergence(torch.cat([left[DEPTH], right[DEPTH]]), torch.cat([left[n], right[n]]), t)
    assert loss(columns(model), SCORES).item() == pytest.approx(float(last + w * shallow) + align, abs=1e-6)


@torch.no_grad()
def test_parts_can_be_left_out() -> None:
    model = encoder()
    left, right = by_hand(model)
    base = float(cosent(left[DEPTH], right[DEPTH]))
    narrow = float(cosent(left[DEPTH][:, :8], right[DEPTH][:, :8]))
    shallow = float(cosent(left[2], right[2]))

    def value(**options: Any) -> float:
        return float(TwoDMatryoshkaLoss(model, CoSENTLoss(model), **options)(columns(model), SCORES))

    assert value(layers=(), dims=()) == pytest.approx(base, abs=1e-6)
    assert value(layers=(), dims=(8,)) == pytest.approx(base + narrow, abs=1e-6)  # plain Matryoshka
    assert value(layers=(2,), dims=(), kl_weight=0, layer_weight=lambda n: 10.0 * n) == pytest.approx(
        base + 20 * shallow
    )
    assert TwoDMatryoshkaLoss(model, CoSENTLoss(model)).dims == (8, 16)


@pytest.mark.parametrize("layers", [None, "official", (2,)])
@torch.no_grad()
def test_espresso_is_the_sum_of_the_card(layers: Any) -> None:
    model, k = encoder(), 8
    loss = EspressoLoss(model, CoSENTLoss(model), dim=k, layers=layers)
    left, right = by_hand(model)

    def small(n: int) -> float:
        return float(cosent(left[n][:, :k], right[n][:, :k]) + compression(torch.cat([left[n], right[n]]), k))

    numbers = {None: (1, 2, 3), "official": (0, 1, 2)}.get(layers, layers)
    assert loss.layers == numbers
    expected = float(cosent(left[DEPTH], right[DEPTH])) + small(DEPTH)
    expected += sum(small(n) / (1 + math.log(1 + n)) for n in numbers) / len(numbers)
    assert loss(columns(model), SCORES).item() == pytest.approx(expected, abs=1e-6)


def test_compression_is_its_formula_on_random_tensors() -> None:
    vectors = torch.randn(7, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    k, t = 3, 0.7
    products = (vectors.T @ vectors).detach().numpy() / math.sqrt(12)
    attention = np.exp(products) / np.exp(products).sum(axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(attention)
    signs = np.sign([column[np.argmax(np.abs(column))] for column in u.T])
    target = vectors.detach().numpy() @ (u * signs)[:, :k] * s[:k]
    np.testing.assert_allclose(principal(vectors.detach(), k).numpy(), target, atol=1e-9)
    front = vectors[:, :k]
    expected = float(np.mean((front.detach().numpy() - target) ** 2))
    expected += t * divergence(torch.from_numpy(target), front.detach(), t)
    value = compression(vectors, k, t)
    assert value.item() == pytest.approx(expected)
    value.backward()
    assert vectors.grad[:, :k].abs().min() > 0
    assert vectors.grad[:, k:].abs().max() == 0


def test_the_encoder_runs_once_per_column_and_no_state_is_kept() -> None:
    model = encoder()
    count = {"layers": 0}
    for block in model[0].auto_model.encoder.layer:
        block.register_forward_hook(lambda *_: count.update(layers=count["layers"] + 1))
    for loss in (
        TwoDMatryoshkaLoss(model, CoSENTLoss(model)),
        TwoDMatryoshkaLoss(model, CoSENTLoss(model), sample="all"),
        EspressoLoss(model, CoSENTLoss(model), dim=8),
    ):
        count["layers"] = 0
        loss(columns(model), SCORES).backward()
        assert count["layers"] == 2 * DEPTH
    hooks = [len(block._forward_hooks) + len(block._forward_pre_hooks) for block in model[0].auto_model.encoder.layer]
    assert hooks == [1] * DEPTH  # the counter's own
    assert "forward" not in model.__dict__


def test_what_is_kept_for_the_backward_pass_is_close_to_the_base_loss() -> None:
    model = encoder()

    def kept_bytes(loss: nn.Module) -> int:
        storages: dict[int, int] = {}
        kept = []  # alive, so that no address is used twice

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss(columns(model), SCORES)
        return sum(storages.values())

    base = kept_bytes(CoSENTLoss(model))
    assert kept_bytes(TwoDMatryoshkaLoss(model, CoSENTLoss(model))) < 1.1 * base
    assert kept_bytes(EspressoLoss(model, CoSENTLoss(model), dim=8)) < 1.3 * base


def losses(model: SentenceTransformer) -> dict[str, nn.Module]:
    return {
        "ranking": MultipleNegativesRankingLoss(model),
        "cosent": CoSENTLoss(model),
        "angle": AnglELoss(model),
        "gist": GuidedContrastiveLoss(model, tiny(seed=5, num_layers=1)),
        "cached": CachedMultipleNegativesRankingLoss(model, mini_batch_size=2),
        "cached gist": CachedGuidedContrastiveLoss(
            model,
            tiny(seed=5, num_layers=1),
            mini_batch_size=2,
        ),
    }


def gradient(model: SentenceTransformer) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", ["ranking", "cosent", "angle", "gist", "cached", "cached gist"])
@pytest.mark.parametrize("kind", ["2d", "espresso"])
def test_it_takes_the_losses_of_the_host_and_ours(name: str, kind: str) -> None:
    def measured(name: str) -> tuple[float, Tensor]:
        model = encoder()
        base = losses(model)[name]
        made = TwoDMatryoshkaLoss(model, base, seed=3) if kind == "2d" else EspressoLoss(model, base, dim=8)
        value = made(columns(model), SCORES)
        value.backward()
        return value.item(), gradient(model)

    value, slope = measured(name)
    assert math.isfinite(value)
    assert slope.abs().sum() > 0
    plain = {"cached": "ranking", "cached gist": "gist"}.get(name)
    if plain:
        other, other_slope = measured(plain)
        assert value == pytest.approx(other)
        torch.testing.assert_close(slope, other_slope, atol=1e-9, rtol=1e-6)


def test_a_cached_backward_pass_reads_the_layers_of_its_own_step() -> None:
    def slopes(steps: list[int], *, together: bool) -> Tensor:
        model = encoder()
        loss = TwoDMatryoshkaLoss(model, losses(model)["cached"])
        values = []
        for step in steps:
            loss.step = step
            values.append(loss(columns(model), None))
            if not together:
                values.pop().backward()
        for value in values:
            value.backward()
        return gradient(model)

    model, layers = encoder(), {}
    loss = TwoDMatryoshkaLoss(model, CoSENTLoss(model))
    for step in range(6):
        layers.setdefault(loss.draw().layers, step)
    steps = list(layers.values())[:2]
    assert len(steps) == 2
    torch.testing.assert_close(slopes(steps, together=True), slopes(steps, together=False), atol=1e-12, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's call of transformers
@pytest.mark.parametrize("wrapped", [True, False])
def test_adapters_alone_are_trained(wrapped: bool) -> None:
    peft = pytest.importorskip("peft")
    model = encoder()
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    if wrapped:
        model[0].model = peft.get_peft_model(model[0].model, config)
    else:
        model.add_adapter(config)
    model.double()
    for name in ("cosent", "cached"):
        model.zero_grad()
        TwoDMatryoshkaLoss(model, losses(model)[name], layers=(2,))(columns(model), SCORES).backward()
        trained = {name for name, p in model.named_parameters() if p.grad is not None}
        assert trained
        assert all("lora" in name for name in trained)
        assert len(trained) == 2 * 2 * DEPTH


def test_pre_norm_states_get_the_final_norm() -> None:
    for family in ("llama", "gpt2"):
        model = tiny_decoder(LEFT + RIGHT, family=family, num_layers=3, pooling="mean").double()  # type: ignore[arg-type]
        body = model[0].auto_model
        norm = body.norm if family == "llama" else body.ln_f
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
        features = columns(model)
        loss = TwoDMatryoshkaLoss(model, CoSENTLoss(model), layers=(2,), dims=(), kl_weight=0)
        with torch.no_grad():
            value = loss(columns(model), SCORES).item()
            rows = {}
            for n in (2, 3):
                rows[n] = []
                for column in features:
                    given = {name: column[name] for name in ("input_ids", "attention_mask")}
                    hidden = body(**given, output_hidden_states=True).hidden_states
                    state = norm(hidden[2]) if n == 2 else hidden[3]  # the last one has it already
                    mask = column["attention_mask"][..., None]
                    rows[n].append((state * mask).sum(1) / mask.sum(1))
            assert value == pytest.approx(float(cosent(*rows[3]) + cosent(*rows[2]) / 2), abs=1e-6)


def test_alignment_has_a_gradient_though_the_model_normalises() -> None:
    def slope(weight: float) -> Tensor:
        model = encoder(unit=True)
        loss = TwoDMatryoshkaLoss(model, CoSENTLoss(model), layers=(1,), dims=(8,), kl_weight=weight)
        loss(columns(model), SCORES).backward()
        return gradient(model)

    raw = (slope(1.0) - slope(0.0)).norm()
    model = encoder(unit=True)  # the same divergence between unit vectors, as the stock loss has it
    body = [model[1](dict(f)) for f in ({**model[0](c)} for c in columns(model))]
    last = torch.cat([normalize(f["sentence_embedding"]) for f in body]).detach()
    hidden = [
        model[0].auto_model(c["input_ids"], c["attention_mask"], output_hidden_states=True) for c in columns(model)
    ]
    first = torch.cat(
        [
            normalize(model[1]({**c, "token_embeddings": h.hidden_states[1]})["sentence_embedding"])
            for c, h in zip(columns(model), hidden, strict=True)
        ]
    )
    model.zero_grad()
    torch.nn.functional.kl_div(first.log_softmax(-1), last.softmax(-1), reduction="batchmean").mul(
        math.log(3)
    ).backward()
    assert raw > 3 * gradient(model).norm()


def test_the_teacher_stands_still_unless_told_otherwise() -> None:
    def reaches_last_layer(detach: bool) -> bool:
        model = encoder()
        base = CoSENTLoss(model)
        loss = TwoDMatryoshkaLoss(model, base, layers=(1,), dims=(), detach_teacher=detach)
        base.scale = 0.0  # only the alignment has a gradient
        loss(columns(model), SCORES).backward()
        return any(
            p.grad is not None and bool(p.grad.abs().sum() > 0)
            for p in model[0].auto_model.encoder.layer[-1].parameters()
        )

    assert not reaches_last_layer(True)
    assert reaches_last_layer(False)


def test_draws_follow_seed_and_step_and_no_global_state() -> None:
    model = encoder()
    first, second = (TwoDMatryoshkaLoss(model, CoSENTLoss(model), seed=1) for _ in range(2))
    with random_state_kept("drawing"):
        drawn = [first.draw() for _ in range(300)]
    assert drawn == [second.draw() for _ in range(300)]
    counts = [sum(draw.layers == (n,) for draw in drawn) for n in (1, 2, 3)]
    assert min(counts) > 70
    first.step = 100
    assert first.draw() == drawn[100]
    with torch.no_grad():
        assert first.draw().layers == (1, 2, 3)
    assert first.step == 101


@torch.no_grad()
def test_all_is_the_average_of_one() -> None:
    model = encoder()
    whole = TwoDMatryoshkaLoss(model, CoSENTLoss(model), sample="all")(columns(model), SCORES)
    each = [
        TwoDMatryoshkaLoss(model, CoSENTLoss(model), layers=(n,), dims=(d,))(columns(model), SCORES)
        for n in (1, 2, 3)
        for d in (8, 16)
    ]
    torch.testing.assert_close(whole, torch.stack(each).mean())


def one_rank(rank: int, port: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}
    for name in ("cosent", "cached"):
        model = encoder()
        base = losses(model)[name]
        loss = TwoDMatryoshkaLoss(model, base, seed=4)
        parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        loss.model = base.model = parallel
        if name == "cached":
            base.loss.model = parallel
        mine = slice(2 * rank, 2 * rank + 2)
        seen, draw = [], loss.draw
        loss.draw = lambda seen=seen, draw=draw: seen.append(draw()) or seen[-1]
        for _ in range(4):
            batch = [{k: v[mine] for k, v in c.items() if torch.is_tensor(v)} for c in columns(model)]
            loss(batch, SCORES[mine]).backward()
        found[name] = {"seen": [[*each.layers, *each.dims] for each in seen], "gradient": gradient(model)}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_draw_the_same_and_share_gradients(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_rank, (port, tmp_path), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in ("cosent", "cached"):
        first, second = (rank[name] for rank in ranks)
        assert first["seen"] == second["seen"]
        assert len({tuple(draw) for draw in first["seen"]}) > 1
        torch.testing.assert_close(first["gradient"], second["gradient"])


def test_it_works_with_gradient_checkpointing_and_copies() -> None:
    model = encoder()
    loss = TwoDMatryoshkaLoss(model, losses(model)["cached"], layers=(2,), dims=(8,))
    twin = copy.deepcopy(loss)
    value = loss(columns(model), None)
    value.backward()
    twin(columns(model), None).backward()
    torch.testing.assert_close(gradient(twin.model), gradient(model))
    other = encoder().train()
    other[0].auto_model.activation_checkpointing_enable({"use_reentrant": False})
    TwoDMatryoshkaLoss(other, losses(other)["ranking"], layers=(2,), dims=(8,))(columns(other), None).backward()
    torch.testing.assert_close(gradient(other), gradient(model), atol=1e-9, rtol=1e-6)


def test_espresso_keeps_the_contract_of_a_loss() -> None:
    from embedlab.testing.loss import LossExample

    kept = example(0)["loss"]

    def make(_seed: int) -> LossExample:
        assert isinstance(kept, LossExample)
        model = copy.deepcopy(kept.model)
        features = [dict(column) for column in kept.features]
        loss = EspressoLoss(model, MultipleNegativesRankingLoss(model), dim=8)
        return LossExample(loss=loss, model=model, features=features, refuses=())

    for check in contracts()["loss"].checks:
        if check.__name__ != "check_refuses":
            check(make)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dims": (7,)}, "even"),
        ({"layers": (DEPTH,)}, "trained anyway"),
        ({"layers": (0,)}, "layers"),
        ({"kl_weight": -1.0}, "kl_weight"),
    ],
)
def test_refusals(options: dict[str, Any], says: str) -> None:
    model = encoder()
    with pytest.raises(InputError, match=says):
        TwoDMatryoshkaLoss(model, AnglELoss(model), **options)
    with pytest.raises(InputError, match="official"):
        EspressoLoss(model, AnglELoss(model), dim=8, layers="oficial")  # type: ignore[arg-type]
